package route

import (
	"math"
	"slices"
)

// optimum returns the weights of the cheapest plan that keeps the bound:
//
//	minimise Σ c_zy x_zy   subject to   Σ_y x_zy = d_z,   Σ_z x_zy ≤ bound × K_y/K,   x ≥ 0
//
// with x the connections, d the demand, K the capacity and c the price. Among equally cheap ones
// it takes one with the most connections in their zone; among those, one that changes the least of
// previous (weights, may be nil); and spreads what then is free over where there is room.
func (f *facts) optimum(previous []float64) []float64 {
	t := transport{n: len(f.zones), demand: f.demand, room: make([]float64, len(f.zones)), local: f.local}
	for y, k := range f.capacity {
		t.room[y] = f.bound * k
	}
	if previous != nil {
		t.keep = make([]float64, len(previous))
		for i, w := range previous {
			t.keep[i] = w * f.demand[i/t.n]
		}
	}
	var flow []float64
	ok := false
	if f.uniform {
		flow, ok = t.level()
	}
	if !ok {
		t.price = f.priceTable()
		flow = t.cheapest()
	}
	return f.weights(flow, t.room)
}

// local tells whether what stays in a zone is known to cross nothing.
func (f *facts) local(zone int) bool { return f.zones[zone] != "" }

// priceTable has the prices in 10^-12 USD per GB, so that sums of them are exact. A price that is
// none counts as nothing; see ReadPrices for who refuses them.
func (f *facts) priceTable() []int64 {
	n := len(f.zones)
	table := make([]int64, n*n)
	for i, from := range f.zones {
		for j, to := range f.zones {
			p := price(f.prices, from, to)
			switch {
			case !(p > 0):
				p = 0
			case p > MaxPerGB:
				p = MaxPerGB
			}
			table[i*n+j] = int64(math.Round(p * 1e12))
		}
	}
	return table
}

// transport is a transportation problem: demand to be carried into rooms.
type transport struct {
	n      int
	demand []float64
	room   []float64 // their sum is more than that of demand
	keep   []float64 // flows that are there already; nil: none
	price  []int64   // nil: all crossings cost the same
	local  func(zone int) bool
}

// level solves for equal prices: every zone keeps what fits, and the rest goes to where there is
// room, in proportion to it. It does not if that would move more of keep than must be.
func (t transport) level() (flow []float64, ok bool) {
	n := t.n
	flow = make([]float64, n*n)
	spare := make([]float64, n)
	spill, free := 0.0, 0.0
	for z := range n {
		if t.local(z) {
			flow[z*n+z] = min(t.demand[z], t.room[z])
		}
		spill += t.demand[z] - flow[z*n+z]
		spare[z] = t.room[z] - flow[z*n+z]
	}
	if spill == 0 {
		return flow, true
	}
	if t.keep != nil && !t.stay(flow, spare) {
		return nil, false
	}
	for _, s := range spare {
		free += s
	}
	for z := range n {
		rest := t.demand[z]
		for y := range n {
			rest -= flow[z*n+y]
		}
		if rest <= 0 {
			continue
		}
		for y := range n {
			if y != z || !t.local(z) {
				flow[z*n+y] += rest * spare[y] / free
			}
		}
	}
	return flow, true
}

// stay adds to flow what may stay of keep's crossings, and takes it from spare. It reports false
// if rooms are too small for that: then a zone's loss may be another's gain, which needs the full
// solution.
func (t transport) stay(flow, spare []float64) bool {
	n := t.n
	for z := range n {
		spill, kept := t.demand[z]-flow[z*n+z], 0.0
		for y := range n {
			if y != z || !t.local(z) {
				kept += t.keep[z*n+y]
			}
		}
		if spill <= 0 || kept <= 0 {
			continue
		}
		part := min(1, spill/kept)
		for y := range n {
			if y == z && t.local(z) {
				continue
			}
			k := t.keep[z*n+y] * part
			if k > spare[y] {
				return false
			}
			flow[z*n+y] += k
			spare[y] -= k
		}
	}
	return true
}

// whole is the demand in the units in which cheapest counts. Whole numbers make it exact and let it
// end; rounding to them moves a share by 10^-15.
const whole = 1e15

// cost of one unit: money first, then crossings and changes.
type cost struct{ money, tie int64 }

const (
	crossing = 1 << 20
	change   = 1
)

func (c cost) plus(o cost) cost  { return cost{c.money + o.money, c.tie + o.tie} }
func (c cost) minus(o cost) cost { return cost{c.money - o.money, c.tie - o.tie} }
func (c cost) less(o cost) bool {
	return c.money < o.money || c.money == o.money && c.tie < o.tie
}

// flows is the state of the general solution: successive shortest paths with potentials, one
// client zone after the other (Ahuja, Magnanti, Orlin: Network Flows, section 9.7).
type flows struct {
	transport
	supply, space []int64 // what is left
	kept, x       []int64 // by pair
	out, in       []cost  // potentials of client and endpoint zones
	dist          []cost  // by node: client zones, then endpoint zones
	from          []int   // the node before
	done, seen    []bool
	users         [][]int // by endpoint zone: the client zones that send there, or did
	end           int     // of the cheapest path so far; -1: none
	far           cost    // its length
}

// cheapest solves for any prices.
func (t transport) cheapest() []float64 {
	n := t.n
	f := &flows{
		transport: t,
		supply:    make([]int64, n), space: make([]int64, n),
		kept: make([]int64, n*n), x: make([]int64, n*n),
		out: make([]cost, n), in: make([]cost, n),
		dist: make([]cost, 2*n), from: make([]int, 2*n), done: make([]bool, 2*n), seen: make([]bool, 2*n),
		users: make([][]int, n),
	}
	for z := range n {
		f.supply[z] = int64(math.Round(t.demand[z] * whole))
		f.space[z] = int64(t.room[z] * whole)
	}
	for i := range t.keep {
		f.kept[i] = int64(t.keep[i] * whole)
	}
	// What stays at home is free: these flows are optimal as far as they go.
	for z := range n {
		if t.local(z) {
			amount := min(f.supply[z], f.space[z])
			f.move(z, z, amount)
			f.supply[z] -= amount
			f.space[z] -= amount
		}
	}
	for z := range n {
		for f.supply[z] > 0 {
			if !f.search(z) {
				break // the rooms are full: rounding at most
			}
			f.augment(z)
		}
	}
	return f.spread()
}

// move changes a flow.
func (f *flows) move(z, y int, amount int64) {
	i := z*f.n + y
	if f.x[i] == 0 && amount > 0 && !slices.Contains(f.users[y], z) {
		f.users[y] = append(f.users[y], z)
	}
	f.x[i] += amount
}

func (f *flows) unit(z, y int, changed bool) cost {
	if z == y && f.local(z) {
		return cost{}
	}
	c := cost{tie: crossing}
	if f.price != nil {
		c.money = f.price[z*f.n+y]
	}
	if changed {
		c.tie += change
	}
	return c
}

// search finds the cheapest path from a client zone to an endpoint zone with room.
func (f *flows) search(z int) bool {
	n := f.n
	clear(f.done)
	clear(f.seen)
	f.dist[z], f.from[z], f.seen[z] = cost{}, -1, true
	f.end = -1
	for {
		u := -1
		for v, seen := range f.seen {
			if seen && !f.done[v] && (u < 0 || f.dist[v].less(f.dist[u])) {
				u = v
			}
		}
		if u < 0 || f.end >= 0 && !f.dist[u].less(f.far) {
			break
		}
		f.done[u] = true
		if u < n {
			f.forward(u)
		} else {
			f.backward(u - n)
		}
	}
	if f.end < 0 {
		return false
	}
	for v := range n {
		if f.done[v] {
			f.out[v] = f.out[v].plus(f.dist[v]).minus(f.far)
		}
		if f.done[n+v] {
			f.in[v] = f.in[v].plus(f.dist[n+v]).minus(f.far)
		}
	}
	return true
}

// forward goes on from a client zone: a connection more to each endpoint zone.
func (f *flows) forward(z int) {
	for y := range f.n {
		if f.room[y] == 0 || f.done[f.n+y] {
			continue
		}
		i := z*f.n + y
		f.reach(z, f.n+y, f.unit(z, y, f.x[i] >= f.kept[i]).plus(f.out[z]).minus(f.in[y]))
		if f.space[y] == 0 {
			continue
		}
		// The end of all is one step behind the rooms, at potential 0.
		if d := f.dist[f.n+y].plus(f.in[y]); f.end < 0 || d.less(f.far) {
			f.end, f.far = y, d
		}
	}
}

// backward goes on from an endpoint zone: a connection less to it from a client zone.
func (f *flows) backward(y int) {
	for _, z := range f.users[y] {
		i := z*f.n + y
		if f.x[i] == 0 || f.done[z] {
			continue
		}
		f.reach(f.n+y, z, f.in[y].minus(f.unit(z, y, f.x[i] > f.kept[i])).minus(f.out[z]))
	}
}

func (f *flows) reach(u, v int, step cost) {
	if d := f.dist[u].plus(step); !f.seen[v] || d.less(f.dist[v]) {
		f.dist[v], f.from[v], f.seen[v] = d, u, true
	}
}

// augment sends along the path that was found as much as every step of it takes.
func (f *flows) augment(z int) {
	n, end := f.n, f.end
	amount := min(f.supply[z], f.space[end])
	for v := n + end; f.from[v] >= 0; v = f.from[v] {
		if u := f.from[v]; u < n {
			if i := u*n + v - n; f.x[i] < f.kept[i] {
				amount = min(amount, f.kept[i]-f.x[i])
			}
		} else if i := v*n + u - n; f.x[i] > f.kept[i] {
			amount = min(amount, f.x[i]-f.kept[i])
		} else {
			amount = min(amount, f.x[i])
		}
	}
	for v := n + end; f.from[v] >= 0; v = f.from[v] {
		if u := f.from[v]; u < n {
			f.move(u, v-n, amount)
		} else {
			f.move(v, u-n, -amount)
		}
	}
	f.supply[z] -= amount
	f.space[end] -= amount
}

// spread returns the flows. What a zone sends anew to zones of one price is shared out among all of
// that price by their room: the shortest path alone would fill the first.
func (f *flows) spread() []float64 {
	n := f.n
	for z := range n {
		for y := range n {
			if f.fresh(z, y) > 0 {
				f.share(z, y)
			}
		}
	}
	flow := make([]float64, n*n)
	for i, x := range f.x {
		flow[i] = float64(x) / whole
	}
	return flow
}

// fresh is what of a crossing was not there before.
func (f *flows) fresh(z, y int) int64 {
	if z == y && f.local(z) {
		return 0
	}
	return max(0, f.x[z*f.n+y]-f.kept[z*f.n+y])
}

// share shares out what z sends anew at the price of y, if y is the first at that price.
func (f *flows) share(z, y int) {
	alike := func(o int) bool {
		return f.room[o] > 0 && (o != z || !f.local(z)) && (f.price == nil || f.price[z*f.n+o] == f.price[z*f.n+y])
	}
	var amount, room int64
	for o := range f.n {
		if !alike(o) {
			continue
		}
		fresh := f.fresh(z, o)
		if o < y && fresh > 0 {
			return
		}
		amount += fresh
		room += fresh + f.space[o]
	}
	part := float64(amount) / float64(room)
	rest := amount
	for o := range f.n {
		if !alike(o) {
			continue
		}
		fresh := f.fresh(z, o)
		// Rounded down, so what is left over fits somewhere: it goes to the first with room.
		now := min(int64(float64(fresh+f.space[o])*part), rest)
		f.x[z*f.n+o] += now - fresh
		f.space[o] += fresh - now
		rest -= now
	}
	for o := 0; o < f.n && rest > 0; o++ {
		if alike(o) {
			more := min(rest, f.space[o])
			f.x[z*f.n+o] += more
			f.space[o] -= more
			rest -= more
		}
	}
}

// weights makes rows of sum 1 of flows. A zone without demand gets the weights that its first
// connection should have.
func (f *facts) weights(flow, room []float64) []float64 {
	n := len(f.zones)
	for z := range n {
		row := flow[z*n : (z+1)*n]
		for y, x := range row {
			if x < 1e-16 { // the remains of rounding
				row[y] = 0
			}
		}
		if f.demand[z] == 0 || total(row) == 0 {
			clear(row)
			f.idle(z, row, flow, room)
		}
	}
	for z := range n {
		scale(flow[z*n : (z+1)*n])
	}
	return flow
}

// idle fills the row of a zone without demand: its own endpoints, else the cheapest that have room
// left, by that room.
func (f *facts) idle(z int, row, flow, room []float64) {
	n := len(f.zones)
	if f.capacity[z] > 0 && f.local(z) {
		row[z] = 1
		return
	}
	left := slices.Clone(room)
	for c := range n {
		if f.demand[c] > 0 {
			for y := range n {
				left[y] -= flow[c*n+y]
			}
		}
	}
	best := math.Inf(1)
	for y := range n {
		if left[y] > 1e-12 {
			best = min(best, price(f.prices, f.zones[z], f.zones[y]))
		}
	}
	for y := range n {
		if left[y] > 1e-12 && price(f.prices, f.zones[z], f.zones[y]) <= best {
			row[y] = left[y]
		}
	}
}
