package hints

import (
	"cmp"
	"slices"
)

const (
	maxTries = 500       // of changes, for a Service
	maxWork  = 5_000_000 // steps that these may take: the more endpoints, the fewer tries
	maxFar   = 3         // endpoints of other zones that a kick gives a zone
)

// crowd tells that some zone has more nodes than its endpoints can name.
func (b *board) crowd() bool {
	return slices.ContainsFunc(b.groups, func(g group) bool { return len(g.nodes) > maxNodes*len(g.local) })
}

// redraw looks for zone sets that a few names are enough for, and returns the best layout that it
// finds, or the one that there was. It starts from sets that were tried and from each zone's own
// endpoints, improves them step by step, and then again from what differs more from the best.
func (b *board) redraw(best *layout, p *picker, bound, older float64, starts [][][]int) *layout {
	c := climber{board: b, bound: bound, older: older, tries: min(maxTries, maxWork/(len(b.groups)*len(b.ready)*len(b.ready)))}
	for _, zones := range starts {
		c.climb(zones)
		c.climb(b.own(zones))
	}
	for far := 1; far <= maxFar; far++ {
		d := c.top
		for _, i := range b.dense {
			if g := &b.groups[i]; g.demand > b.most(g, bound)+tiny && d.canKick(i, far) {
				d = b.newDraft(bound, older, d.kick(i, far, true))
			}
		}
		c.climb(d.sets())
	}
	for from := (*draft)(nil); from != c.top && c.tries > 0; {
		from = c.top
		for _, i := range b.dense {
			c.kicks(i)
		}
	}
	l := c.top.layout()
	if l == nil {
		return best // above bounds
	}
	if best == nil || l.score() > best.score()+tiny {
		best = l
	}
	return b.refill(best, p, bound, c.top.sets())
}

// refill is what names do about sets where nodes may mix endpoints, if that is better than the best.
func (b *board) refill(best *layout, p *picker, bound float64, zones [][]int) *layout {
	kept, orders := b.kept(zones), b.orders(zones, bound)
	for _, spread := range []bool{true, false} {
		p.spread = spread
		for _, order := range orders {
			l := b.fillAll(p, bound, zones, order, -1)
			if l == nil {
				continue
			}
			if l.older = kept; best == nil || l.score() > best.score()+tiny {
				best = l
			}
		}
	}
	return best
}

// own is sets with nothing but their own endpoints for zones that have any.
func (b *board) own(zones [][]int) [][]int {
	out := slices.Clone(zones)
	for i := range out {
		if g := &b.groups[i]; out[i] != nil && len(g.local) > 0 {
			out[i] = g.local
		}
	}
	return out
}

// climber puts one endpoint after another into a zone's set or takes it out, whatever makes the
// trimmed draft better.
type climber struct {
	*board
	bound, older float64
	tries        int    // left
	top          *draft // the best yet
}

// climb improves sets until no change does, or there are no tries left.
func (c *climber) climb(zones [][]int) {
	d := c.newDraft(c.bound, c.older, zones)
	if slices.ContainsFunc(c.use, func(e int) bool { return d.zonesOn(e) > maxZones }) {
		return // cannot be said
	}
	d.trim()
	for better := true; better; {
		better = false
		for _, i := range c.dense {
			for _, e := range c.use {
				better = c.try(d, i, e) || better
			}
		}
	}
	if c.top == nil || d.value.better(c.top.value) {
		c.top = d
	}
}

// kicks climbs from sets in which a group has others than in the best.
func (c *climber) kicks(i int) {
	for far := 0; far <= maxFar; far++ {
		for _, free := range []bool{false, true} {
			if c.top.canKick(i, far) && (far > 0 || !free) {
				c.climb(c.top.kick(i, far, free))
			}
		}
	}
}

// try changes whether a group uses an endpoint: that alone, with the opposite for the endpoint's own
// zone, or with the opposite for another endpoint.
func (c *climber) try(d *draft, i, e int) bool {
	f, g := &d.by[i], &d.groups[i]
	if f.fixed || c.tries == 0 || d.twin(e) || !f.in[e] && !d.near(i, e) && !g.planned[e] && slices.Contains(g.planned, true) {
		return false
	}
	if c.change(d, [2]int{i, e}) {
		return true
	}
	for o := range d.by {
		if o != i && !d.by[o].fixed && d.near(o, e) {
			if c.change(d, [2]int{i, e}, [2]int{o, e}) {
				return true
			}
		}
	}
	if f.in[e] {
		return false
	}
	for _, other := range d.use {
		if f.in[other] && !d.twin(other) && c.change(d, [2]int{i, e}, [2]int{i, other}) {
			return true
		}
	}
	return false
}

// twin tells that an endpoint differs in nothing from one before it, which has been tried.
func (d *draft) twin(e int) bool {
	for _, t := range d.use {
		if t == e {
			return false
		}
		if d.ready[t].Zone == d.ready[e].Zone && d.fair[t] == d.fair[e] &&
			!slices.ContainsFunc(d.by, func(f following) bool { return f.in[t] != f.in[e] }) {
			return true
		}
	}
	return false
}

// change flips groups' endpoints, and back if that is no better.
func (c *climber) change(d *draft, flips ...[2]int) bool {
	if c.tries == 0 {
		return false
	}
	c.tries--
	before, sound := d.value, true
	for _, x := range flips {
		d.flip(x[0], x[1])
	}
	for _, x := range flips {
		sound = sound && d.by[x[0]].size > 0 && d.zonesOn(x[1]) <= maxZones
	}
	if sound {
		if d.trim(); d.value.better(before) {
			return true
		}
	}
	for _, x := range flips {
		d.flip(x[0], x[1])
	}
	d.value = before
	return false
}

func (d *draft) canKick(i, far int) bool {
	g := &d.groups[i]
	return !d.by[i].fixed && far <= len(g.away) && far+len(g.local) > 0
}

// kick returns sets in which a group has its own endpoints and so many others, those that can take
// most. If these are to be free, they leave the other sets that can do without them.
func (d *draft) kick(i, far int, free bool) [][]int {
	g := &d.groups[i]
	spare := d.spare(i, free)
	others := slices.Clone(g.away)
	slices.SortStableFunc(others, func(x, y int) int {
		if g.planned[x] != g.planned[y] {
			return cmp.Compare(rank(g.planned[y]), rank(g.planned[x]))
		}
		return cmp.Compare(spare[y], spare[x])
	})
	others = others[:far]
	zones := d.sets()
	zones[i] = slices.Sorted(slices.Values(slices.Concat(g.local, others)))
	for j, set := range zones {
		if j == i || !free {
			continue
		}
		rest := slices.DeleteFunc(slices.Clone(set), func(e int) bool { return slices.Contains(others, e) })
		if len(rest) > 0 {
			zones[j] = rest
		}
	}
	return zones
}

func rank(planned bool) int {
	if planned {
		return 1
	}
	return 0
}

// spare is what endpoints could take for a group if every zone served itself; if shared, besides what
// other groups have of them now.
func (d *draft) spare(group int, shared bool) []float64 {
	out := slices.Clone(d.fair)
	for i := range d.groups {
		f, g := &d.by[i], &d.groups[i]
		for _, e := range g.local {
			out[e] -= g.demand / float64(len(g.local))
		}
		for _, e := range g.away {
			if shared && i != group && f.in[e] {
				out[e] -= g.demand / float64(f.size)
			}
		}
	}
	return out
}
