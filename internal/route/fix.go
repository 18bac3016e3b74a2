package route

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// sane is the greatest bound that a fix proposes: above it, the cure is worse than the cost.
const sane = 0.5

// many is the number of zones above which nobody tries fixes where prices differ: each takes a plan.
const many = 64

// few is the most pods that a fix proposes to add.
const few = 12

// worthwhile is by how much a fix must raise the in-zone share to be told.
const worthwhile = 0.001

// fix names the nearest things to do for more in zone, each tried by planning again.
func (f *facts) fix(ideal float64) string {
	if ideal > 1-worthwhile || !f.uniform && len(f.zones) > many {
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
	if adds, _ := f.additions(ideal+worthwhile, few); adds != nil {
		ways = append(ways, f.morePods(adds))
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

// morePods says where pods are to be added.
func (f *facts) morePods(adds []int) string {
	var where []string
	pods, only := 0, 0
	for z, n := range adds {
		if n > 0 {
			where = append(where, fmt.Sprintf("%d in zone %s", n, f.zones[z]))
			pods += n
			only = z
		}
	}
	switch {
	case len(where) > 1:
		return fmt.Sprintf("%d more pods (%s)", pods, strings.Join(where, ", "))
	case pods > 1:
		return fmt.Sprintf("%d more pods in zone %s", pods, f.zones[only])
	case f.endpoints[only] == 0:
		return "a pod in zone " + f.zones[only]
	}
	return "one more pod in zone " + f.zones[only]
}

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
