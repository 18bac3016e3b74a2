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

	// What each picked, and how much of it is in the zone.
	picked []override
	kept   float64

	before, after   room  // of the group at hand: before it, and with the best that was found
	nearAll, farAll []int // near and far before it
	free            int   // names that these can carry besides
	spare, moved    []int // for merging
	mark            []bool
	chunk           []int // memory for sets
}

func (b *board) picker(limit int) *picker {
	return &picker{limit: limit, mark: make([]bool, len(b.ready)), spare: make([]int, 0, len(b.ready)), moved: make([]int, 0, len(b.ready))}
}

// begin turns to a group.
func (p *picker) begin(g *group) {
	p.nearAll = p.candidates(p.nearAll[:0], g.local)
	p.farAll = p.candidates(p.farAll[:0], g.away)
	p.near, p.far = append(p.near[:0], p.nearAll...), append(p.far[:0], p.farAll...)
	p.before.set(p.room)
	p.free = 0
	for _, all := range [][]int{p.nearAll, p.farAll} {
		for _, i := range all {
			p.free += p.limit - p.names[i]
		}
	}
}

// again takes back all that the group was given, and sends a flow to a set; nil is every endpoint.
func (p *picker) again(flow float64, set []int) {
	p.room.set(p.before)
	p.send(flow, set)
	p.near, p.far = append(p.near[:0], p.nearAll...), append(p.far[:0], p.farAll...)
	if set == nil {
		slices.SortFunc(p.near, p.roomier) // rounding may have made some equal
		slices.SortFunc(p.far, p.roomier)
		return
	}
	p.near, p.far = p.resort(p.near, set), p.resort(p.far, set)
}

// capacity is the most that a group's nodes can send to candidates in the zone, and to all: a name
// brings an endpoint no more than one node's connections.
func (p *picker) capacity(g *group) (near, all float64) {
	of := func(candidates []int) (sum float64) {
		for _, i := range candidates {
			sum += max(0, min(p.left[i], g.largest*float64(p.limit-p.names[i])))
		}
		return sum
	}
	near = of(p.near)
	return near, near + of(p.far)
}

// each picks a set for every node; false if there is no room, or there are not enough names. A set
// that has no room for one node has none for a later one like it, so that the least number of names
// that a node needs never falls.
func (p *picker) each(g *group, nodes []Client, keep float64) bool {
	p.picked, p.kept = p.picked[:0], 0
	free := p.free
	for i, n := range nodes {
		set, kept, least := p.pick(g, n.Share, keep-p.kept)
		if !g.alike {
			least = 1
		}
		if set == nil || free < least*(len(nodes)-i) {
			return false
		}
		p.take(n.Share, set)
		free -= len(set)
		p.picked = append(p.picked, override{n.Node, set})
		p.kept += kept
	}
	return true
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
	switch x, y := p.left[a], p.left[b]; {
	case x > y:
		return -1
	case x < y:
		return 1
	}
	return cmp.Or(p.names[a]-p.names[b], a-b)
}

// pick returns the set of endpoints that keeps most of the share in the zone, but not more than
// keep, how much that is, and how large the smallest set is that has room; nil if none has.
func (p *picker) pick(g *group, share, keep float64) (set []int, local float64, least int) {
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
		if least == 0 {
			least = k
		}
		f := float64(l) / float64(k)
		if f > best+tiny || f > best-tiny && p.spread {
			best, bestK, bestL, bestFar = f, k, l, far
		}
	}
	if best < 0 {
		return nil, 0, 0
	}
	set = append(p.memory(bestK), p.near[:bestL]...)
	return p.reach(set, g, p.far[:bestFar], bestK), share * best, least
}

// memory returns an empty slice for a set of n.
func (p *picker) memory(n int) []int {
	if len(p.chunk) < n {
		p.chunk = make([]int, max(n, 256))
	}
	set := p.chunk[:0:n]
	p.chunk = p.chunk[n:]
	return set
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

// resort puts candidates in order again of which some have less room than before, all by the same.
func (p *picker) resort(all, less []int) []int {
	if len(less) == 0 || len(all) == 0 {
		return all
	}
	for _, i := range less {
		p.mark[i] = true
	}
	rest, moved := p.spare[:0], p.moved[:0]
	for _, i := range all {
		switch {
		case !p.mark[i]:
			rest = append(rest, i)
		case p.names[i] < p.limit:
			moved = append(moved, i)
		}
	}
	for _, i := range less {
		p.mark[i] = false
	}
	p.spare, p.moved = rest, moved
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
