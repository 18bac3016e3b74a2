package hints

import (
	"math"
	"slices"
)

// layout is who uses which endpoints.
type layout struct {
	zones     [][]int // by group; nil: all endpoints
	overrides []override
	inZone    float64
	older     float64 // the same with consumers that know zone hints alone
}

// override is a node that does not follow its zone.
type override struct {
	node string
	set  []int
}

// search finds the layout that keeps most connections in their zones while no endpoint gets more
// than the bound, nor more than one of the older bounds from consumers that know no node hints. The
// first of those is the loosest: the tighter ones are for Services with more nodes than hints can
// name, where most of a zone must follow its zone hints. If these lose a point that is worth a change,
// it goes on with sets that a few names are enough for. Nil if there is none.
func (b *board) search(bound float64, older []float64) *layout {
	var best *layout
	var tried [][][]int
	goal := b.ideal(bound) - enough
	p := b.picker(maxNodes)
	for _, o := range older {
		zones := b.zoneSets(o)
		if zones == nil || slices.ContainsFunc(tried, func(t [][]int) bool { return sameSets(t, zones) }) {
			continue
		}
		tried = append(tried, zones)
		kept, orders := b.kept(zones), b.orders(zones, bound)
		for _, spread := range []bool{true, false} {
			for _, order := range orders {
				least := math.Inf(-1) // to be better than the best
				if best != nil {
					least = best.score() - olderWeight*kept
				}
				p.spread = spread
				l := b.fillAll(p, bound, zones, order, least)
				if l == nil {
					continue
				}
				l.older = kept
				if best == nil || l.score() > best.score()+tiny {
					best = l
				}
				if l.inZone >= goal {
					return best
				}
			}
		}
	}
	if len(tried) > 0 && (best == nil || best.inZone < goal-worth && b.crowd()) {
		return b.redraw(best, p, bound, older[0], tried)
	}
	return best
}

// find is search, and what is left where that finds nothing.
func (b *board) find(bound float64, older []float64) *layout {
	if l := b.search(bound, older); l != nil {
		return l
	}
	// A plan on its way keeps less in zones than it will. Where there are not enough names to follow
	// it so far, go all the way.
	held := false
	for i := range b.groups {
		g := &b.groups[i]
		held = held || g.keep < g.demand-tiny
		g.keep = g.demand
	}
	if held {
		if l := b.search(bound, older); l != nil {
			return l
		}
	}
	if zones := b.zoneSets(bound); zones != nil { // what followers need may have gone to overrides
		return &layout{zones: zones, inZone: b.kept(zones), older: b.kept(zones)}
	}
	return nil
}

// Of two layouts the better one keeps more with consumers that know node hints; twenty points with
// those that do not are worth one.
const olderWeight = 0.05

func (l *layout) score() float64 { return l.inZone + olderWeight*l.older }

// enough is how near to the optimum a search stops.
const enough = 0.002

// orders are those in which groups that cannot just follow their zone hints get their endpoints: the
// most crowded first or last, or the most crowded of all groups, so that those with room make way.
func (b *board) orders(zones [][]int, bound float64) [][]int {
	var hard, all []int
	for _, i := range b.dense {
		if g := &b.groups[i]; len(g.nodes) > 0 {
			all = append(all, i)
			if !b.easy(g, zones[i], bound) {
				hard = append(hard, i)
			}
		}
	}
	last := slices.Clone(hard)
	slices.Reverse(last)
	out := [][]int{hard}
	for _, o := range [][]int{last, all} {
		if !slices.ContainsFunc(out, func(x []int) bool { return slices.Equal(x, o) }) {
			out = append(out, o)
		}
	}
	return out
}

// kept is the in-zone share of consumers that know zone hints alone.
func (b *board) kept(zones [][]int) float64 {
	var sum float64
	for i := range b.groups {
		sum += b.groups[i].demand * b.localPart(&b.groups[i], zones[i])
	}
	return sum
}

func sameSets(a, b [][]int) bool {
	return slices.EqualFunc(a, b, func(x, y []int) bool { return slices.Equal(x, y) })
}

// fillAll gives every group its endpoints: those in order one after the other, the others follow their
// zone hints. Nil if some group finds no room, or if not more than the least would stay in zones.
func (b *board) fillAll(p *picker, bound float64, zones [][]int, order []int, least float64) *layout {
	b.open(&p.room, bound)
	l := &layout{zones: zones}
	hope := 0.0 // for the groups in order
	for i := range b.groups {
		g := &b.groups[i]
		if slices.Contains(order, i) {
			hope += b.most(g, bound)
			continue
		}
		p.send(g.demand, zones[i])
		l.inZone += g.demand * b.localPart(g, zones[i])
	}
	for _, i := range b.use {
		if p.left[i] < -tiny {
			return nil
		}
	}
	for _, i := range order {
		if l.inZone+hope <= least {
			return nil
		}
		g := &b.groups[i]
		overrides, local, ok := b.fill(g, zones[i], p)
		if !ok {
			return nil
		}
		hope -= b.most(g, bound)
		l.overrides = append(l.overrides, overrides...)
		l.inZone += local
	}
	return l
}

// easy tells that a group can stay in its zone altogether, as the plan wants, or that it has no zone.
func (b *board) easy(g *group, zone []int, bound float64) bool {
	if zone == nil {
		return b.fitsAlone(bound, zone) >= g.demand-tiny
	}
	return slices.Equal(zone, g.local) && g.keep >= g.demand-tiny && b.fitsAlone(bound, zone) >= g.demand-tiny
}

// localPart is how much of a set is in the group's zone.
func (b *board) localPart(g *group, set []int) float64 {
	if set == nil {
		return float64(len(g.local)) / float64(len(b.ready))
	}
	n := 0
	for _, i := range set {
		if b.ready[i].Zone == g.name {
			n++
		}
	}
	return float64(n) / float64(len(set))
}

// fill lets some nodes of a group follow the zone's set and picks a set for each other, so that most
// stays in the zone.
func (b *board) fill(g *group, zone []int, p *picker) (overrides []override, local float64, ok bool) {
	part := b.localPart(g, zone)
	goal := min(g.keep, p.sum(g.local)) - enough/2*g.demand
	local = -1
	p.begin(g)
	for _, n := range tries(g.followers(p.fits(b, zone), part)) {
		rest, own := g.nodes[n:], g.follow[n]*part
		if len(rest) > p.free {
			continue
		}
		p.again(g.follow[n], zone)
		if near, all := p.capacity(g); all < g.demand-g.follow[n]-tiny || own+min(near, g.keep-own) <= local+tiny {
			continue // no room, or nothing to win
		}
		memory := p.chunk
		if p.each(g, rest, g.keep-own) && p.kept+own > local+tiny {
			local, ok = p.kept+own, true
			overrides = append(overrides[:0], p.picked...)
			p.after.set(p.room)
		} else if len(memory) > len(p.chunk) {
			p.chunk = memory // for the next
		}
		if local >= goal {
			break
		}
	}
	p.room.set(p.after)
	return overrides, local, ok
}

// followers returns how many nodes at most can follow a set that has room for so much, a part of which
// is in the zone; -1 if not even those without a name can.
func (g *group) followers(most, part float64) int {
	if part > 0 {
		most = min(most, g.keep/part)
	}
	top := -1
	for n := range g.follow {
		if g.follow[n] <= most+tiny {
			top = n
		}
	}
	return top
}

// tries are the numbers of nodes worth trying to leave with their zone, of at most top: all if few,
// else those near both ends and some between.
func tries(top int) []int {
	var out []int
	for n := top; n >= 0; n-- {
		if top-n <= 4 || top <= 16 || n == 0 || n%(1+top/8) == 0 {
			out = append(out, n)
		}
	}
	return out
}
