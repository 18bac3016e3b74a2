package hints

import "slices"

// draft is a layout for zones with more nodes than endpoints can name. Most nodes follow their
// zone's set there, and the few names only trim what that does.
type draft struct {
	*board
	bound, older float64 // of load: with node hints, and with zone hints alone
	by           []following
	room         // what endpoints have left, and how many nodes name them
	moves        []move
	value        value
}

// following is how a group uses its zone's set.
type following struct {
	in     []bool  // the set
	size   int     // of it
	near   int     // of it, in the zone
	fixed  bool    // no hint can change it
	nodes  int     // that follow it
	inZone float64 // connections of the group that stay in the zone
}

// part is how much of the set is in the zone.
func (f *following) part() float64 { return float64(f.near) / float64(f.size) }

// move is what nodes of a group do that do not follow their zone's set: they use one endpoint.
type move struct{ group, nodes, to int }

// value is how good a draft is.
type value struct{ over, score float64 } // connections above bounds; as of a layout

func (v value) better(w value) bool {
	const least = 1e-5 // to be worth another step
	if v.over > tiny || w.over > tiny {
		return v.over < w.over-tiny
	}
	return v.score > w.score+least
}

// newDraft starts with sets for zones.
func (b *board) newDraft(bound, older float64, zones [][]int) *draft {
	d := &draft{board: b, bound: bound, older: older, by: make([]following, len(b.groups))}
	d.left, d.names = make([]float64, len(b.ready)), make([]int, len(b.ready))
	for i := range d.by {
		f := &d.by[i]
		f.in, f.fixed = make([]bool, len(b.ready)), zones[i] == nil
		for e := range b.ready {
			if f.fixed || slices.Contains(zones[i], e) {
				d.flip(i, e)
			}
		}
	}
	return d
}

// flip puts an endpoint into a group's set, or takes it out.
func (d *draft) flip(i, e int) {
	f, n := &d.by[i], 1
	if f.in[e] {
		n = -1
	}
	f.in[e] = !f.in[e]
	f.size += n
	if d.near(i, e) {
		f.near += n
	}
}

func (d *draft) near(i, e int) bool {
	g := &d.groups[i]
	return g.named && d.ready[e].Zone == g.name
}

// trim gives names to nodes: first so that endpoints get no more than the bound, then so that more
// stays in zones. Where that takes more names than there are, it saves names.
func (d *draft) trim() {
	if d.trimBy(false); d.value.over > tiny {
		d.trimBy(true)
	}
}

func (d *draft) trimBy(names bool) {
	d.value, d.moves = value{}, d.moves[:0]
	d.open(&d.room, d.older)
	for i := range d.by {
		f, g := &d.by[i], &d.groups[i]
		f.nodes, f.inZone = len(g.nodes), g.demand*f.part()
		d.value.score += olderWeight * f.inZone
		d.follow(i, g.demand)
	}
	for _, e := range d.use {
		d.value.over += max(0, -d.left[e])
		d.left[e] -= (d.older - d.bound) * d.fair[e]
	}
	for d.relieve(names) {
	}
	for _, e := range d.use {
		d.value.over += max(0, -d.left[e])
	}
	for i := range d.by {
		d.hold(i)
		d.gather(i)
		d.value.score += d.by[i].inZone
	}
}

// follow lets a group's set carry a flow evenly.
func (d *draft) follow(i int, flow float64) {
	f := &d.by[i]
	for e, in := range f.in {
		if in {
			d.left[e] -= flow / float64(f.size)
		}
	}
}

// relieve moves nodes off the most loaded endpoint: those which lose least in their zone by it, or
// those of which the fewest need names. False if it is not above the bound, or nobody can move.
func (d *draft) relieve(names bool) bool {
	worst := d.use[0]
	for _, e := range d.use {
		if d.left[e] < d.left[worst] {
			worst = e
		}
	}
	if d.left[worst] >= -tiny {
		return false
	}
	from, to, least := -1, -1, 0.0
	for i := range d.by {
		f := &d.by[i]
		if !f.in[worst] {
			continue
		}
		for _, near := range []bool{true, false} {
			t := d.target(i, near)
			if t < 0 {
				continue
			}
			loss := float64(f.near) // for each connection that the endpoint is relieved of
			if near {
				loss -= float64(f.size)
			}
			if names {
				loss = -d.groups[i].nodes[f.nodes-1].Share / float64(f.size)
			}
			if from < 0 || loss < least-tiny {
				from, to, least = i, t, loss
			}
			break
		}
	}
	if from < 0 {
		return false
	}
	f := &d.by[from]
	d.move(from, to, -d.left[worst]*float64(f.size))
	return true
}

// hold moves nodes out of a zone that would keep more than the plan wants.
func (d *draft) hold(i int) {
	f, g := &d.by[i], &d.groups[i]
	for f.inZone > g.keep+tiny {
		t := d.target(i, false)
		if t < 0 || f.near == 0 {
			d.value.over += f.inZone - g.keep
			return
		}
		d.move(i, t, (f.inZone-g.keep)/f.part())
	}
}

// gather moves nodes from a set that is partly elsewhere to endpoints in the zone.
func (d *draft) gather(i int) {
	if d.by[i].near == d.by[i].size {
		return
	}
	for t := d.target(i, true); t >= 0; t = d.target(i, true) {
		d.move(i, t, d.groups[i].demand)
	}
}

// target is where the next node of a group goes best: of the endpoints that can take it, in the zone
// or not, the one with most room, if there is one where the plan sends connections. -1: there is none.
func (d *draft) target(i int, near bool) int {
	f, g := &d.by[i], &d.groups[i]
	if f.nodes == 0 {
		return -1
	}
	share := g.nodes[f.nodes-1].Share
	among := g.away
	if near {
		among = g.local
		if f.inZone+share*(1-f.part()) > g.keep+tiny {
			return -1
		}
	}
	best := -1
	for _, e := range among {
		switch {
		case d.names[e] == maxNodes || d.left[e] < d.takes(i, e, share)-tiny:
		case best < 0 || d.nicer(g, e, best):
			best = e
		}
	}
	return best
}

// nicer tells that of two endpoints of other zones, or two of the group's, the first is better for
// its nodes: where the plan sends connections, whose names its own zone does not want, with more room.
func (d *draft) nicer(g *group, e, than int) bool {
	if g.planned[e] != g.planned[than] {
		return g.planned[e]
	}
	if x, y := d.wanted(e), d.wanted(than); x != y {
		return y
	}
	return d.left[e] > d.left[than]+tiny
}

// wanted tells that the nodes of an endpoint's own zone follow a set that is partly elsewhere.
func (d *draft) wanted(e int) bool {
	for i := range d.by {
		if d.near(i, e) {
			return d.by[i].near < d.by[i].size
		}
	}
	return false
}

// takes is how much more an endpoint gets when nodes of a group use it alone.
func (d *draft) takes(i, e int, share float64) float64 {
	if f := &d.by[i]; f.in[e] {
		return share - share/float64(f.size)
	}
	return share
}

// move gives an endpoint nodes of a group which send as much as is wanted, at least one, as far as it
// has room and names.
func (d *draft) move(i, to int, want float64) {
	f, g := &d.by[i], &d.groups[i]
	share, n := g.nodes[f.nodes-1].Share, 1
	gain := -f.part() // for each connection
	if d.near(i, to) {
		gain++
	}
	if g.alike {
		n = min(f.nodes, maxNodes-d.names[to], 1+int((want-tiny)/share))
		if takes := d.takes(i, to, share); takes > 0 {
			n = min(n, int((d.left[to]+tiny)/takes))
		}
		if gain > 0 {
			n = min(n, int((g.keep-f.inZone+tiny)/(gain*share)))
		}
		n = max(n, 1)
	}
	flow := share * float64(n)
	f.nodes -= n
	f.inZone += flow * gain
	d.follow(i, -flow)
	d.left[to] -= flow
	d.names[to] += n
	d.moves = append(d.moves, move{i, n, to})
}

// zonesOn is how many zones name an endpoint.
func (d *draft) zonesOn(e int) (n int) {
	for i := range d.by {
		if !d.by[i].fixed && d.by[i].in[e] {
			n++
		}
	}
	return n
}

// sets are the zones' as a layout has them.
func (d *draft) sets() [][]int {
	out := make([][]int, len(d.by))
	for i := range d.by {
		for _, e := range d.use {
			if f := &d.by[i]; f.in[e] && !f.fixed {
				out[i] = append(out[i], e)
			}
		}
	}
	return out
}

// layout writes the draft down; nil if it is above bounds.
func (d *draft) layout() *layout {
	d.trim()
	if d.value.over > tiny {
		return nil
	}
	l := &layout{zones: d.sets()}
	last := make([]int, len(d.by))
	for i := range d.by {
		last[i] = len(d.groups[i].nodes)
		l.inZone += d.by[i].inZone
	}
	for _, m := range d.moves {
		for range m.nodes {
			last[m.group]--
			l.overrides = append(l.overrides, override{d.groups[m.group].nodes[last[m.group]].Node, []int{m.to}})
		}
	}
	l.older = d.kept(l.zones)
	return l
}
