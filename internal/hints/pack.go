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
	limit       int  // names an endpoint may carry
	spread      bool // of equally good sets take the largest, else the smallest
	near, far   []int
	nearN, farN int
}

// pick returns the set of endpoints that keeps most of the share in the zone, but not more than
// keep, and how much that is; nil if no set has room.
func (p *picker) pick(g *group, share, keep float64) (set []int, local float64) {
	p.near = p.candidates(p.near[:0], g.local)
	p.far = p.candidates(p.far[:0], g.away)
	best, bestK, bestL := -1.0, 0, 0
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
			best, bestK, bestL, p.nearN, p.farN = f, k, l, near, far
		}
	}
	if best < 0 {
		return nil, 0
	}
	set = append(set, p.near[:bestL]...)
	set = append(set, p.farthest(g, bestK-bestL)...)
	return set, share * best
}

// candidates are the endpoints that can take another name, those with most room first.
func (p *picker) candidates(into, from []int) []int {
	for _, i := range from {
		if p.names[i] < p.limit {
			into = append(into, i)
		}
	}
	slices.SortFunc(into, func(a, b int) int {
		return cmp.Or(cmp.Compare(p.left[b], p.left[a]), cmp.Compare(p.names[a], p.names[b]), cmp.Compare(a, b))
	})
	return into
}

// farthest takes n of the far endpoints with room: first where the plan sends connections, which
// is where they cost least.
func (p *picker) farthest(g *group, n int) []int {
	var out []int
	for _, planned := range []bool{true, false} {
		for _, i := range p.far[:p.farN] {
			if len(out) < n && g.planned[i] == planned {
				out = append(out, i)
			}
		}
	}
	return out
}

// take gives a set its share.
func (p *picker) take(share float64, set []int) {
	p.send(share, set)
	for _, i := range set {
		p.names[i]++
	}
}
