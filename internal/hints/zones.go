package hints

import (
	"cmp"
	"slices"
)

// zoneSets finds the endpoints that each group's zone hints name, so that no endpoint gets more than
// the bound from consumers that know zone hints alone. Groups whose own endpoints can carry them have
// those; then the others, the most crowded first, take some from elsewhere besides. A group for
// which nothing is left has all endpoints, and the rest is tried again around it. Nil is a group
// that no endpoint names, which has all endpoints too. The result is nil if no sets keep the bound.
func (b *board) zoneSets(bound float64) [][]int {
	everywhere := make([]bool, len(b.groups))
	for {
		sets, stuck := b.tryZoneSets(bound, everywhere)
		if stuck < 0 {
			b.shrink(bound, sets)
			return sets
		}
		if everywhere[stuck] {
			return nil
		}
		everywhere[stuck] = true
	}
}

// tryZoneSets returns the sets, or the group for which there is no room.
func (b *board) tryZoneSets(bound float64, everywhere []bool) (sets [][]int, stuck int) {
	p := b.picker(maxZones)
	p.spread = true
	b.open(&p.room, bound)
	for i := range b.groups {
		for _, e := range b.groups[i].local {
			p.names[e]++ // kept for its own zone
		}
	}
	sets = make([][]int, len(b.groups))
	hard := make([]bool, len(b.groups))
	for i := range b.groups {
		g := &b.groups[i]
		switch {
		case everywhere[i] || !g.named:
			sets[i] = b.everywhere(g, p.names)
			p.send(g.demand, sets[i])
		case len(g.local) > 0 && b.fitsAlone(bound, g.local) >= g.demand-tiny:
			sets[i] = g.local
			p.send(g.demand, g.local)
		default:
			hard[i] = true
		}
	}
	for i := range b.groups {
		if sets[i] != nil && p.fits(b, sets[i]) < -tiny*float64(len(sets[i])) {
			return nil, b.worst(everywhere, i)
		}
	}
	for _, i := range b.use {
		if p.left[i] < -tiny {
			return nil, b.worst(everywhere, 0)
		}
	}
	for _, i := range b.dense {
		if !hard[i] {
			continue
		}
		g := &b.groups[i]
		for _, e := range g.local {
			p.names[e]-- // this is it
		}
		p.begin(g)
		set, _, _ := p.pick(g, g.demand, g.demand)
		if set == nil {
			return nil, i
		}
		p.take(g.demand, set)
		sets[i] = set
	}
	return sets, -1
}

// worst is the group to let go everywhere when group i's endpoints are overrun: itself if it has
// not gone, else any that has not.
func (b *board) worst(everywhere []bool, i int) int {
	if everywhere[i] || !b.groups[i].named {
		if j := slices.Index(everywhere, false); j >= 0 {
			return j
		}
	}
	return i
}

// everywhere is all endpoints that may be used, by name where every one of them can carry the name.
func (b *board) everywhere(g *group, names []int) []int {
	if !g.named {
		return nil
	}
	for _, i := range g.away {
		if names[i] >= maxZones {
			return nil
		}
	}
	for _, i := range g.away {
		names[i]++
	}
	return b.use
}

// crowded orders groups by demand per capacity of their own, the highest first.
func (b *board) crowded() []int {
	spare := make([]float64, len(b.groups)) // capacity per demand
	out := make([]int, len(b.groups))
	for i := range b.groups {
		out[i] = i
		for _, e := range b.groups[i].local {
			spare[i] += b.fair[e]
		}
		spare[i] /= b.groups[i].demand
	}
	slices.SortStableFunc(out, func(x, y int) int { return cmp.Compare(spare[x], spare[y]) })
	return out
}

// shrink takes endpoints of other zones out of sets again while the bound allows it: from each set
// in turn the one that has most to do, so that no zone is served at the cost of another.
func (b *board) shrink(bound float64, sets [][]int) {
	var left room
	b.open(&left, bound)
	for i, set := range sets {
		left.send(b.groups[i].demand, set)
	}
	done := make([]bool, len(sets))
	for slices.Contains(done, false) {
		for i := range sets {
			done[i] = done[i] || !b.shrinkOne(&b.groups[i], &sets[i], left)
		}
	}
}

func (b *board) shrinkOne(g *group, set *[]int, left room) bool {
	old := *set
	if len(old) < 2 || len(g.local) == 0 {
		return false
	}
	more := g.demand/float64(len(old)-1) - g.demand/float64(len(old)) // for each that stays
	drop, short := -1, 0
	for _, i := range old {
		if left.left[i] < more-tiny {
			short++ // this one must be the one to go
		}
		if b.ready[i].Zone != g.name && (drop < 0 || left.left[i] < left.left[drop]) {
			drop = i
		}
	}
	if drop < 0 || short > 1 || short == 1 && left.left[drop] >= more-tiny {
		return false
	}
	left.send(-g.demand, old)
	*set = slices.DeleteFunc(slices.Clone(old), func(i int) bool { return i == drop })
	left.send(g.demand, *set)
	return true
}
