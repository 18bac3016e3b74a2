package route

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/zonewise/zonewise/internal/model"
)

// told is the most zones that a reason speaks of.
const told = 3

// little is a share of connections that is not worth words.
const little = 5e-5

// percent prints a share: 33.3%.
func percent(share float64) string {
	if share > 0 && share < 0.0005 {
		return "under 0.1%"
	}
	if share < 1 && share >= 0.9995 {
		return "over 99.9%"
	}
	return strings.TrimSuffix(strconv.FormatFloat(100*share, 'f', 1, 64), ".0") + "%"
}

func number(v float64) string { return strconv.FormatFloat(v, 'g', 4, 64) }

// zoneName is what people call a zone.
func zoneName(zone string) string {
	if zone == "" {
		return "an unknown zone"
	}
	return "zone " + zone
}

// reason says which bound bites, or why there is none.
func (f *facts) reason(ideal []float64, inZone model.Outcome, s settled) string {
	var parts []string
	if len(f.known.Shares) == 0 {
		parts = append(parts, "no ready node has a zone: connections go to every endpoint alike")
	} else {
		parts = f.leaks(ideal)
	}
	if len(parts) == 0 {
		parts = append(parts, "everything stays in its zone")
	} else if out := 1 - inZone.Ideal; out > little && len(f.known.Shares) > 0 {
		parts = append(parts, percent(out)+" of all leaves its zone")
	}
	if text := f.drainage(); text != "" {
		parts = append(parts, text)
	}
	for _, d := range f.nowhere[:min(told, len(f.nowhere))] {
		parts = append(parts, "spec.drainedZones: there is no zone "+d)
	}
	if z := f.index(""); z >= 0 && f.endpoints[z] > 0 && len(f.known.Shares) > 0 {
		parts = append(parts, fmt.Sprintf("%d of %d endpoints have no zone", f.endpoints[z], f.ready))
	}
	if s.why != "" && inZone.Ideal-inZone.Planned > little {
		parts = append(parts, fmt.Sprintf("the plan is at %s and %s", percent(inZone.Planned), s.why))
	}
	return strings.Join(parts, "; ")
}

// leaks explains the zones whose connections do not all stay, the greatest first.
func (f *facts) leaks(ideal []float64) []string {
	zones := f.hot(ideal)
	var parts []string
	for _, z := range zones {
		if len(parts) == told && len(zones) > told+1 {
			parts = append(parts, fmt.Sprintf("and %d zones more", len(zones)-told))
			break
		}
		parts = append(parts, f.leak(z, ideal))
	}
	return parts
}

// hot lists the zones whose connections do not all stay, the greatest leak first.
func (f *facts) hot(weights []float64) []int {
	var zones []int
	for z := range f.zones {
		if f.leaving(z, weights) > little {
			zones = append(zones, z)
		}
	}
	slices.SortStableFunc(zones, func(a, b int) int {
		// What differs by rounding alone is equal, so that order is by name.
		x, y := f.leaving(a, weights), f.leaving(b, weights)
		if math.Abs(x-y) < 1e-9 {
			return 0
		}
		return cmp.Compare(y, x)
	})
	return zones
}

// leaving is the share of all connections that comes from a zone and leaves it.
func (f *facts) leaving(z int, weights []float64) float64 {
	if !f.local(z) {
		return f.demand[z]
	}
	return f.demand[z] * (1 - weights[z*len(f.zones)+z])
}

func (f *facts) leak(z int, ideal []float64) string {
	name, demand := zoneName(f.zones[z]), percent(f.demand[z])
	others := f.refuge(z, ideal)
	switch {
	case !f.local(z):
		return fmt.Sprintf("%s of the demand comes from nodes without a zone", demand)
	case f.drained[z]:
		return fmt.Sprintf("%s is drained: its %s goes to %s", name, demand, others)
	case f.endpoints[z] == 0:
		return fmt.Sprintf("%s has no endpoints: its %s goes to %s", name, demand, others)
	case f.demand[z] < f.bound*f.capacity[z]-same:
		return fmt.Sprintf("%s makes room for zones that nothing else is as cheap for", name)
	}
	has := fmt.Sprintf("%d of %d endpoints", f.endpoints[z], f.taking())
	if f.weakest != nil {
		has = percent(f.capacity[z]) + " of the capacity"
	}
	text := fmt.Sprintf("%s is at its bound %s: %s for %s of the demand", name, number(f.bound), has, demand)
	if !f.uniform {
		text += ", the rest goes to " + others
	}
	return text
}

// refuge says where the connections go that leave a zone, and for how much if that differs.
func (f *facts) refuge(z int, ideal []float64) string {
	if f.uniform {
		return "other zones"
	}
	n := len(f.zones)
	first, places := -1, 0
	for y, w := range ideal[z*n : (z+1)*n] {
		if y == z || w <= little {
			continue
		}
		places++
		if first < 0 || w > ideal[z*n+first]+1e-9 {
			first = y
		}
	}
	if first < 0 {
		return "other zones"
	}
	text := fmt.Sprintf("%s for %s USD/GB", zoneName(f.zones[first]), number(price(f.prices, f.zones[z], f.zones[first])))
	if places > 1 {
		text += " and others"
	}
	return text
}

// taking counts the endpoints that are not in drained zones.
func (f *facts) taking() int {
	n := 0
	for z, e := range f.endpoints {
		if !f.drained[z] {
			n += e
		}
	}
	return n
}

// drainage names the drained zones that no leak names.
func (f *facts) drainage() string {
	if f.ignored {
		return "no zone is drained, for no other has an endpoint"
	}
	var names []string
	for z, d := range f.drained {
		if d && f.demand[z] <= little {
			names = append(names, f.zones[z])
		}
	}
	switch len(names) {
	case 0:
		return ""
	case 1:
		return "zone " + names[0] + " is drained"
	}
	return "zones " + strings.Join(names, ", ") + " are drained"
}
