package hints

import (
	"cmp"
	"slices"
)

// picker finds sets of endpoints. A client that chooses evenly among k endpoints, l of them in its
// zone, keeps l/k of its connections there and asks each endpoint for 1/k of them: so a set that
// mixes near and far endpoints gives finer fractions than whole nodes do.
type picker struct {
	room
	limit  int  // names an endpoint may carry
	spread bool // of equally good sets take the largest, else the smallest

	// Endpoints of the group at hand that can carry another name, those with most room first.
	near, far []int
	spare     []int // for merging
}

// begin turns to a group.
func (p *picker) begin(g *group) {
	p.near = p.candidates(p.near[:0], g.local)
	p.far = p.candidates(p.far[:0], g.away)
}

func (p *picker) candidates(into, from []int) []int {
	for _, i := range from {
		if p.names[i] < p.limit {
			into = append(into, i)
		}
	}
	slices.SortFunc(into, p.roomier)
	return into
}

func (p *picker) roomier(a, b int) int {
	if c := cmp.Compare(p.left[b], p.left[a]); c != 0 {
		return c
	}
	return cmp.Or(cmp.Compare(p.names[a], p.names[b]), cmp.Compare(a, b))
}

// pick returns the set of endpoints that keeps most of the share in the zone, but not more than
// keep, and how much that is; nil if no set has room.
func (p *picker) pick(g *group, share, keep float64) (set []int, local float64) {
	best, bestK, bestL, bestFar := -1.0, 0, 0, 0
	near, far := 0, 0 // candidates with room for share/k
	for k := 1; k <= len(p.near)+len(p.far); k++ {
		part := share/float64(k) - tiny
		for near < len(p.near) && p.left[p.near[near]] >= part {
			near++
		}
		for far < len(p.far) && p.left[p.far[far]] >= part {
			far++
		}
		l := min(near, k, int((keep+tiny)/share*float64(k)))
		if k-l > far {
			continue
		}
		f := float64(l) / float64(k)
		if f > best+tiny || f > best-tiny && p.spread {
			best, bestK, bestL, bestFar = f, k, l, far
		}
	}
	if best < 0 {
		return nil, 0
	}
	set = append(make([]int, 0, bestK), p.near[:bestL]...)
	return p.reach(set, g, p.far[:bestFar], bestK), share * best
}

// reach fills a set up to k with far endpoints: first where the plan sends connections, which is
// where they cost least.
func (p *picker) reach(set []int, g *group, far []int, k int) []int {
	for _, planned := range []bool{true, false} {
		for _, i := range far {
			if len(set) < k && g.planned[i] == planned {
				set = append(set, i)
			}
		}
	}
	return set
}

// take gives a set its share, and keeps the candidates in order.
func (p *picker) take(share float64, set []int) {
	p.send(share, set)
	for _, i := range set {
		p.names[i]++
	}
	near := 0
	for near < len(set) && near < len(p.near) && set[near] == p.near[near] {
		near++
	}
	p.near = p.resort(p.near, set[:near])
	p.far = p.resort(p.far, set[near:])
}

// resort puts candidates in order again of which some, named in order, have less room than before.
// Having lost the same, these are in order among themselves.
func (p *picker) resort(all, less []int) []int {
	if len(less) == 0 {
		return all
	}
	touched := func(i int) bool { return slices.Contains(less, i) }
	if len(less) > 8 {
		mark := make([]bool, len(p.left))
		for _, i := range less {
			mark[i] = true
		}
		touched = func(i int) bool { return mark[i] }
	}
	rest, moved := p.spare[:0], make([]int, 0, len(less))
	for _, i := range all {
		switch {
		case !touched(i):
			rest = append(rest, i)
		case p.names[i] < p.limit:
			moved = append(moved, i)
		}
	}
	p.spare = rest
	if !slices.IsSortedFunc(moved, p.roomier) { // rounding
		slices.SortFunc(moved, p.roomier)
	}
	out, n := all[:0], 0
	for _, i := range rest {
		for n < len(moved) && p.roomier(moved[n], i) < 0 {
			out = append(out, moved[n])
			n++
		}
		out = append(out, i)
	}
	return append(out, moved[n:]...)
}
