package route

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// sane is the greatest bound that a fix proposes: above it, the cure is worse than the cost.
const sane = 0.5

// worthwhile is by how much a fix must raise the in-zone share to be told.
const worthwhile = 0.001

// fix names the nearest things to do for more in zone, each tried by planning again.
func (f *facts) fix(ideal float64) string {
	if ideal > 1-worthwhile {
		return ""
	}
	if len(f.known.Shares) == 0 {
		return "label the nodes with topology.kubernetes.io/zone"
	}
	var ways []string
	for z, drained := range f.drained {
		if !drained || f.demand[z] == 0 {
			continue
		}
		if s := f.with(func(g *facts) { g.give(z) }); s > ideal+worthwhile {
			ways = append(ways, fmt.Sprintf("give zone %s back", f.zones[z]))
		}
	}
	if z, s := f.bestPod(); s > ideal+worthwhile {
		what := "one more pod"
		if f.endpoints[z] == 0 {
			what = "a pod"
		}
		ways = append(ways, fmt.Sprintf("%s in zone %s", what, f.zones[z]))
	}
	if theta := f.bestBound(); theta > 0 {
		if s := f.with(func(g *facts) { g.bound = 1 + theta }); s > ideal+worthwhile {
			ways = append(ways, "a bound of "+number(theta))
		}
	}
	if z := f.index(""); z >= 0 && (f.demand[z] > worthwhile || f.endpoints[z] > 0) && len(ways) < 3 {
		ways = append(ways, "a zone label on every node")
	}
	return strings.Join(ways, ", or ")
}

// with returns the in-zone share of the optimum after a change.
func (f *facts) with(change func(*facts)) float64 {
	g := *f
	g.capacity, g.endpoints = slices.Clone(f.capacity), slices.Clone(f.endpoints)
	change(&g)
	if g.uniform = g.samePrices(); g.uniform {
		return g.fits()
	}
	return g.inZone(g.optimum(nil))
}

// fits is the in-zone share of the optimum where all crossings cost the same.
func (f *facts) fits() float64 {
	sum := 0.0
	for z, d := range f.demand {
		if f.local(z) {
			sum += min(d, f.bound*f.capacity[z])
		}
	}
	return sum
}

// give takes a zone's draining back.
func (f *facts) give(zone int) {
	copy(f.capacity, f.full)
	for z, d := range f.drained {
		if d && z != zone {
			f.capacity[z] = 0
		}
	}
	scale(f.capacity)
}

// grow adds pods to a zone, each with the mean capacity of those there are.
func (f *facts) grow(zone int, pods float64) {
	f.capacity[zone] += pods / float64(f.taking())
	scale(f.capacity)
}

// bestPod finds the zone in which a pod more keeps the most in zone, and how much that is. It tries
// the zones with the greatest leaks.
func (f *facts) bestPod() (zone int, inZone float64) {
	short := make([]int, 0, len(f.zones))
	for z := range f.zones {
		if f.local(z) && !f.drained[z] && f.lack(z) > little {
			short = append(short, z)
		}
	}
	slices.SortStableFunc(short, func(a, b int) int {
		if math.Abs(f.lack(a)-f.lack(b)) < 1e-9 {
			return 0
		}
		if f.lack(a) > f.lack(b) {
			return -1
		}
		return 1
	})
	for _, z := range short[:min(told, len(short))] {
		if s := f.with(func(g *facts) { g.grow(z, 1) }); s > inZone+1e-9 {
			zone, inZone = z, s
		}
	}
	return zone, inZone
}

// lack is the demand of a zone for which its endpoints have no room.
func (f *facts) lack(z int) float64 { return f.demand[z] - f.bound*f.capacity[z] }

// bestBound is the least bound, in hundredths, at which every zone that has endpoints keeps its own;
// 0 if that is not more than now, or more than sane.
func (f *facts) bestBound() float64 {
	need := 0.0
	for z, k := range f.capacity {
		if f.local(z) && k > 0 {
			need = max(need, f.demand[z]/k-1)
		}
	}
	need = math.Ceil(need*100-1e-9) / 100
	if need <= f.bound-1+1e-9 || need > sane {
		return 0
	}
	return need
}
