package route

import (
	"fmt"
	"math"
)

// Advice is what would bring a Service's plan to a wished in-zone share, and what it is in for if a
// zone is lost. New and moved pods count as the mean of those there are.
type Advice struct {
	Wish   float64
	InZone float64 // of the optimum as it is
	Adds   []Add   // the fewest pods to add; none if the wish is fulfilled, or cannot be
	Added  float64 // the in-zone share with them
	Moves  []Move  // the fewest pods to move instead
	Moved  float64 // the in-zone share then
	Why    string  // why one of the two cannot be; empty if both can, or nothing is needed
	Loss   []Loss  // by zone
}

// Add is pods to add to a zone.
type Add struct {
	Zone string
	Pods int
}

// Move is pods to move from one zone to another.
type Move struct {
	From, To string
	Pods     int
}

// Loss is what happens if a zone is lost. Loads are of the most loaded endpoint by the plan that
// then holds, relative to the fair share of today.
type Loss struct {
	Zone    string
	Down    bool    // nothing would be left to serve
	MaxLoad float64 // the zone's clients are lost too
	AllLoad float64 // its clients come back by the other zones
	In      string  // the zone where that is
}

// mostAdded limits the search for pods to add.
const mostAdded = 2000

// Advise plans for a wished in-zone share, 0 to 1.
func Advise(in Input, wish float64) Advice {
	f := gather(in)
	a := Advice{Wish: wish}
	if f.ready == 0 {
		a.Why = "no endpoint is ready"
		return a
	}
	a.InZone = f.inZone(f.optimum(nil))
	a.Added, a.Moved = a.InZone, a.InZone
	a.Loss = f.losses()
	if !(a.InZone < wish-1e-9) {
		return a
	}
	adds, added := f.additions(wish, min(4*f.ready+16, mostAdded))
	for z, n := range adds {
		if n > 0 {
			a.Adds, a.Added = append(a.Adds, Add{f.zones[z], n}), added
		}
	}
	a.Moves, a.Moved = f.moves(wish)
	switch {
	case adds == nil && a.Moves == nil:
		a.Why = fmt.Sprintf("neither pods added nor moved bring %s", percent(wish))
	case adds == nil:
		a.Why = fmt.Sprintf("pods added do not bring %s", percent(wish))
	case a.Moves == nil:
		a.Why = fmt.Sprintf("pods moved do not bring %s", percent(wish))
	}
	return a
}

// layout is pods by zone, and what stays in zone with them: Σ min(d, bound × pods / all). Each
// zone's part is concave in its pods, so that taking the best single step again and again is exact.
type layout struct {
	*facts
	pods []float64
	all  float64
}

func (f *facts) layout(more int) layout {
	l := layout{f, make([]float64, len(f.zones)), float64(f.taking())}
	for z, k := range f.capacity {
		l.pods[z] = k * l.all
	}
	l.all += float64(more)
	return l
}

// stays is what stays of a zone's demand with so many pods.
func (l layout) stays(z int, pods float64) float64 {
	if !l.local(z) {
		return 0
	}
	return min(l.demand[z], l.bound*pods/l.all)
}

func (l layout) inZone() float64 {
	sum := 0.0
	for z := range l.zones {
		sum += l.stays(z, l.pods[z])
	}
	return sum
}

// take finds the zone that gains the most by a pod more. Where none gains, the one with the most
// demand for each pod.
func (l layout) take() (zone int, gain float64) {
	zone = -1
	need := 0.0
	for z := range l.zones {
		if !l.hosts[z] || l.drained[z] {
			continue
		}
		g := l.stays(z, l.pods[z]+1) - l.stays(z, l.pods[z])
		n := l.demand[z] / (l.pods[z] + 1)
		if zone < 0 || g > gain+1e-12 || g > gain-1e-12 && n > need+1e-12 {
			zone, gain, need = z, g, n
		}
	}
	return zone, gain
}

// give finds the zone that loses the least by a pod less.
func (l layout) spare(not int) (zone int, loss float64) {
	zone = -1
	for z := range l.zones {
		if z == not || l.pods[z] < 1-1e-9 {
			continue
		}
		if x := l.stays(z, l.pods[z]) - l.stays(z, l.pods[z]-1); zone < 0 || x < loss-1e-12 {
			zone, loss = z, x
		}
	}
	return zone, loss
}

// share is the exact in-zone share of a layout: planned again where prices differ.
func (l layout) share() float64 {
	return l.with(func(g *facts) {
		copy(g.capacity, l.pods)
		scale(g.capacity)
	})
}

// additions finds the fewest pods that bring the in-zone share to wish, by zone; nil if limit is
// not enough. More pods may be worse than fewer, for they raise everybody's fair share: each number
// is tried.
func (f *facts) additions(wish float64, limit int) (adds []int, inZone float64) {
	for n := 1; n <= limit; n++ {
		l := f.layout(n)
		adds = make([]int, len(f.zones))
		for range n {
			z, _ := l.take()
			if z < 0 {
				return nil, 0
			}
			l.pods[z]++
			adds[z]++
		}
		if l.inZone() < wish-1e-9 {
			continue
		}
		if s := l.share(); s >= wish-1e-9 {
			return adds, s
		}
	}
	return nil, 0
}

// moves finds the fewest pods to move that bring the in-zone share to wish; nil if none do.
func (f *facts) moves(wish float64) ([]Move, float64) {
	l := f.layout(0)
	change := make([]int, len(f.zones))
	for {
		to, gain := l.take()
		from, loss := l.spare(to)
		if to < 0 || from < 0 || gain-loss < 1e-12 {
			return nil, f.inZone(f.optimum(nil))
		}
		l.pods[to]++
		l.pods[from]--
		change[to]++
		change[from]--
		if l.inZone() < wish-1e-9 {
			continue
		}
		if s := l.share(); s >= wish-1e-9 {
			return f.paired(change), s
		}
	}
}

// paired turns pods gained and lost into moves, in the order of names.
func (f *facts) paired(change []int) []Move {
	var out []Move
	from := 0
	for to := range change {
		for change[to] > 0 {
			for change[from] >= 0 {
				from++
			}
			n := min(change[to], -change[from])
			out = append(out, Move{f.zones[from], f.zones[to], n})
			change[to] -= n
			change[from] += n
		}
	}
	return out
}

// losses tells for each zone with endpoints what its loss does to the others.
func (f *facts) losses() []Loss {
	var out []Loss
	for z, k := range f.capacity {
		if k == 0 || !f.local(z) {
			continue
		}
		out = append(out, f.loss(z))
	}
	return out
}

func (f *facts) loss(z int) Loss {
	g := *f
	g.demand, g.capacity = append([]float64(nil), f.demand...), append([]float64(nil), f.capacity...)
	g.demand[z], g.capacity[z] = 0, 0
	left, capacity := total(g.demand), total(g.capacity)
	l := Loss{Zone: f.zones[z], Down: capacity < 1e-12}
	if l.Down {
		return l
	}
	scale(g.capacity)
	if left < 1e-12 { // all clients were there: they come back evenly
		copy(g.demand, g.capacity)
		left = 0
	} else {
		scale(g.demand)
	}
	g.uniform = g.samePrices()
	most := math.Inf(-1)
	for y, load := range g.loads(g.optimum(nil)) {
		if load > most+1e-9 {
			most, l.In = load, f.zones[y]
		}
	}
	l.MaxLoad, l.AllLoad = most*left/capacity, most/capacity
	return l
}
