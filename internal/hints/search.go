package hints

import (
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
// name, where most of a zone must follow its zone hints. Nil if there is none.
func (b *board) search(bound float64, older []float64) *layout {
	var best *layout
	var tried [][][]int
	goal := b.ideal(bound) - enough
	for _, o := range older {
		zones := b.zoneSets(o)
		if zones == nil || slices.ContainsFunc(tried, func(t [][]int) bool { return sameSets(t, zones) }) {
			continue
		}
		tried = append(tried, zones)
		kept := b.kept(zones)
		for _, spread := range []bool{true, false} {
			for _, order := range []order{roomyFirst, crowdedLast, crowdedFirst} {
				l := b.fillAll(bound, zones, spread, order)
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

// order is in which groups get their endpoints.
type order int

const (
	roomyFirst   order = iota // those that can follow their zone hints, then the others, the most crowded first
	crowdedLast               // the same, the most crowded last
	crowdedFirst              // the most crowded first of all, so that those with room make way
)

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

// fillAll gives every group its endpoints; nil if some group finds no room.
func (b *board) fillAll(bound float64, zones [][]int, spread bool, order order) *layout {
	p := &picker{room: b.room(bound), limit: maxNodes, spread: spread}
	l := &layout{zones: zones}
	var rest []int
	for i := range b.groups {
		g := &b.groups[i]
		if len(g.nodes) == 0 || order != crowdedFirst && b.easy(g, zones[i], bound) {
			p.send(g.demand, zones[i])
			l.inZone += g.demand * b.localPart(g, zones[i])
			continue
		}
		rest = append(rest, i)
	}
	for _, i := range b.use {
		if p.left[i] < -tiny {
			return nil
		}
	}
	b.crowded(rest)
	if order == crowdedLast {
		slices.Reverse(rest)
	}
	for _, i := range rest {
		overrides, local, ok := b.fill(&b.groups[i], zones[i], p)
		if !ok {
			return nil
		}
		l.overrides = append(l.overrides, overrides...)
		l.inZone += local
	}
	return l
}

// easy tells that a group can stay in its zone altogether, as the plan wants, or that it has no zone.
func (b *board) easy(g *group, zone []int, bound float64) bool {
	if zone == nil {
		return b.room(bound).fits(b, zone) >= g.demand-tiny
	}
	return slices.Equal(zone, g.local) && g.keep >= g.demand-tiny && b.room(bound).fits(b, zone) >= g.demand-tiny
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
	follow, top := b.followers(g, p.fits(b, zone), part)
	goal := min(g.keep, p.sum(g.local)) - enough/2*g.demand
	local = -1
	before := p.room
	after := before
	for _, n := range tries(top) {
		p.room = before.clone()
		p.send(follow[n], zone)
		o, kept, all := p.each(g, g.nodes[n:], g.keep-follow[n]*part)
		if kept += follow[n] * part; all && kept > local+tiny {
			overrides, local, ok, after = o, kept, true, p.room
		}
		if local >= goal {
			break
		}
	}
	p.room = after
	return overrides, local, ok
}

// followers returns the demand of the first n nodes, and of those without a name, and how many nodes
// at most can follow a set that has room for so much, a part of which is in the zone; -1 if not even
// those without a name can.
func (b *board) followers(g *group, most, part float64) (follow []float64, top int) {
	if part > 0 {
		most = min(most, g.keep/part)
	}
	follow, top = make([]float64, len(g.nodes)+1), -1
	for n := range follow {
		if follow[n] = g.rest; n > 0 {
			follow[n] = follow[n-1] + g.nodes[n-1].Share
		}
		if follow[n] <= most+tiny {
			top = n
		}
	}
	return follow, top
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

// each picks a set for every node.
func (p *picker) each(g *group, nodes []Client, keep float64) (overrides []override, local float64, ok bool) {
	p.begin(g)
	for _, n := range nodes {
		set, kept := p.pick(g, n.Share, keep-local)
		if set == nil {
			return nil, 0, false
		}
		p.take(n.Share, set)
		overrides = append(overrides, override{n.Node, set})
		local += kept
	}
	return overrides, local, true
}
