package kube

import (
	"math"

	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/zonewise/zonewise/internal/model"
)

// overload is by how much upstream lets an endpoint exceed its part; the library does not export it.
// Typed and used as there, so that every rounding is the same.
const overload float64 = 0.2

// minimum is the least that upstream allots to a zone with this share of the CPU, of n endpoints.
func minimum(share float64, n int) int {
	return int(math.Ceil(share * float64(n) * (1 / (1 + overload))))
}

// hint gives the endpoints the zones that the library hinted them for. Which of several equal zones
// gave and took an endpoint, and which endpoint it was, is settled by name and address.
func (u *Upstream) hint(refs []*model.Endpoint, kube []discoveryv1.Endpoint) {
	n := ready(refs)
	have, give, take := make([]int, len(u.zones)), make([]int, len(u.zones)), make([]int, len(u.zones))
	for i, e := range refs {
		if !e.Ready {
			continue
		}
		own, counts := u.index[e.Zone]
		if counts {
			have[own]++
		}
		if to := kube[i].Hints.ForZones[0].Name; to != e.Zone {
			give[own]++
			take[u.index[to]]++
		}
	}
	surplus, lack := make([]float64, len(u.zones)), make([]float64, len(u.zones))
	for z, zone := range u.zones {
		target := math.Max(zone.share*float64(n), float64(minimum(zone.share, n)))
		surplus[z], lack[z] = float64(have[z])-target, target-float64(have[z])
	}
	firstOfEqual(give, surplus)
	firstOfEqual(take, lack)

	names := make([]string, len(refs)) // one array for all hints
	next := 0
	for i, e := range refs {
		if !e.Ready {
			continue
		}
		names[i] = e.Zone
		if own, counts := u.index[e.Zone]; counts && give[own] > 0 {
			for take[next] == 0 {
				next++
			}
			give[own]--
			take[next]--
			names[i] = u.zones[next].name
		}
		e.ZoneHints = names[i : i+1 : i+1]
	}
}

// firstOfEqual hands units to the first of zones that are equally good. The library takes one unit
// after the other from the zone with the most left. Where a zone was passed over for another that had
// as much left, it now has exactly one more; the two may change places. (Taking whole units from a
// float64 is exact, so that equal here is equal there.)
func firstOfEqual(units []int, of []float64) {
	left := func(z int) float64 { return of[z] - float64(units[z]) }
	for a := range units {
		for b := a + 1; b < len(units); b++ {
			if units[b] > 0 && left(a)-1 == left(b) {
				units[a]++
				units[b]--
			}
		}
	}
}
