package hints

import (
	"math"
	"slices"

	"github.com/zonewise/zonewise/internal/model"
)

// tiny is what sums of shares may be off by.
const tiny = 1e-9

// board is one Service as the search sees it. All flows are shares of all connections.
type board struct {
	ready  []model.Endpoint // by address
	fair   []float64        // of each: its part of all connections if load were even; 0: not to be used
	use    []int            // those that may be used
	groups []group          // zones that connections come from, by name
	dense  []int            // groups by demand per capacity of their own, the highest first
	traffic
	none Forecast // what happens without hints
}

// group is the clients of one zone.
type group struct {
	name    string
	named   bool // a hint can name the zone
	demand  float64
	keep    float64   // of it, what the plan keeps in the zone
	nodes   []Client  // that a hint can name, in the order in which they stay with the zone's set
	rest    float64   // demand of those that it cannot
	follow  []float64 // demand of the first n nodes, and of the rest
	largest float64   // demand of a node
	alike   bool      // all nodes have the same
	local   []int     // endpoints that may be used
	away    []int
	weights model.Shares // the plan's; nil: it has none
	planned []bool       // endpoints in zones to which the plan sends connections of this one
}

// newBoard sets out the ready endpoints. Nodes that previous hints name come last in their groups:
// whoever went elsewhere before does so again.
func newBoard(p model.RoutePlan, clients []Client, ready, previous []model.Endpoint) *board {
	b := &board{ready: ready, fair: fairShares(p, ready)}
	for i, f := range b.fair {
		if f > 0 {
			b.use = append(b.use, i)
		}
	}
	nobody := func(c Client) bool { return !(c.Share > 0 && c.Share <= math.MaxFloat64) }
	if slices.ContainsFunc(clients, nobody) || !slices.IsSortedFunc(clients, byPlace) {
		clients = slices.DeleteFunc(slices.Clone(clients), nobody)
		slices.SortFunc(clients, byPlace)
	}
	var total float64
	for _, c := range clients {
		total += c.Share
	}
	named := map[string]bool{}
	for _, e := range previous {
		for _, n := range e.NodeHints {
			named[n] = true
		}
	}
	weights := p.Matrix()
	for i := 0; i < len(clients); {
		zone := clients[i:]
		if n := slices.IndexFunc(zone, func(c Client) bool { return c.Zone != zone[0].Zone }); n >= 0 {
			zone = zone[:n]
		}
		i += len(zone)
		g := newGroup(zone, total, named)
		b.settle(&g, weights)
		b.groups = append(b.groups, g)
	}
	b.dense = b.crowded()
	b.traffic = newTraffic(b.settled(), ready, b.fair)
	b.none = b.forecast(unhinted(len(ready)))
	return b
}

// newGroup takes the clients of a zone; total is the shares of all clients.
func newGroup(clients []Client, total float64, named map[string]bool) group {
	g := group{name: clients[0].Zone, named: validZone(clients[0].Zone), nodes: make([]Client, 0, len(clients))}
	var before []Client
	for _, c := range clients {
		c.Share /= total
		g.demand += c.Share
		switch {
		case !validNode(c.Node):
			g.rest += c.Share
		case named[c.Node]:
			before = append(before, c)
		default:
			g.nodes = append(g.nodes, c)
		}
	}
	g.nodes = append(g.nodes, before...)
	g.follow = make([]float64, len(g.nodes)+1)
	g.follow[0] = g.rest
	for n, c := range g.nodes {
		g.follow[n+1] = g.follow[n] + c.Share
		g.largest = max(g.largest, c.Share)
	}
	g.alike = g.largest*float64(len(g.nodes)) <= g.demand-g.rest+tiny
	return g
}

// settle fills in what the endpoints and the plan mean for a group.
func (b *board) settle(g *group, weights model.Matrix) {
	row := weights.Of(g.name)
	g.weights = row
	g.keep = g.demand
	if row != nil {
		g.keep *= row.Of(g.name)
	}
	g.planned = make([]bool, len(b.ready))
	g.local, g.away = make([]int, 0, len(b.use)), make([]int, 0, len(b.use))
	for _, i := range b.use {
		zone := b.ready[i].Zone
		g.planned[i] = row.Of(zone) > 0
		if zone == g.name && g.named {
			g.local = append(g.local, i)
		} else {
			g.away = append(g.away, i)
		}
	}
}

// ideal is the most that any weights keep in their zones under the bound, and as the plan wants.
func (b *board) ideal(bound float64) (sum float64) {
	for i := range b.groups {
		sum += b.most(&b.groups[i], bound)
	}
	return sum
}

// most is a group's part in the ideal.
func (b *board) most(g *group, bound float64) float64 {
	var room float64
	for _, i := range g.local {
		room += bound * b.fair[i]
	}
	return min(g.keep, room)
}

// fairShares follows the plan's capacities; endpoints in drained zones have none.
func fairShares(p model.RoutePlan, ready []model.Endpoint) []float64 {
	drained := drained(p)
	capacity := capacities(p)
	fair := make([]float64, len(ready))
	var sum float64
	for _, drain := range []bool{true, false} { // if nothing but drained zones is left, they serve
		for i, e := range ready {
			fair[i] = 0
			if !drain || !drained[e.Zone] {
				fair[i] = capacity(e.Addr)
			}
			sum += fair[i]
		}
		if sum > 0 {
			break
		}
	}
	for i := range fair {
		fair[i] /= sum
	}
	return fair
}

func drained(p model.RoutePlan) map[string]bool {
	out := map[string]bool{}
	for _, z := range p.Zones {
		if z.Drained {
			out[z.Name] = true
		}
	}
	return out
}

// set makes it the same as another; memory is used again.
func (r *room) set(o room) {
	r.left = append(r.left[:0], o.left...)
	r.names = append(r.names[:0], o.names...)
}

// room is what endpoints can still take.
type room struct {
	left  []float64 // connections
	names []int     // hints of the kind that is being given
}

// open makes it all that there is under a bound.
func (b *board) open(r *room, bound float64) {
	r.left = r.left[:0]
	for _, f := range b.fair {
		r.left = append(r.left, bound*f)
	}
	r.names = append(r.names[:0], make([]int, len(b.fair))...)
}

// send lets endpoints carry a flow evenly; nil is every ready endpoint.
func (r room) send(flow float64, set []int) {
	if set == nil {
		for i := range r.left {
			r.left[i] -= flow / float64(len(r.left))
		}
	}
	for _, i := range set {
		r.left[i] -= flow / float64(len(set))
	}
}

// fits tells how much the endpoints can carry evenly; nil is every ready endpoint. Those that may not
// be used count for nothing.
func (r room) fits(b *board, set []int) float64 {
	n := len(set)
	if set == nil {
		set, n = b.use, len(b.ready)
	}
	least := math.Inf(1)
	for _, i := range set {
		least = min(least, r.left[i])
	}
	return least * float64(n)
}

// fitsAlone is the same for endpoints that nobody else uses.
func (b *board) fitsAlone(bound float64, set []int) float64 {
	n := len(set)
	if set == nil {
		set, n = b.use, len(b.ready)
	}
	least := math.Inf(1)
	for _, i := range set {
		least = min(least, bound*b.fair[i])
	}
	return least * float64(n)
}

// forced is the load that no zone hint can avert: clients whom none can name use every endpoint.
func (b *board) forced() (most float64) {
	var flow float64
	for _, g := range b.groups {
		if !g.named {
			flow += g.demand / float64(len(b.ready))
		}
	}
	for _, i := range b.use {
		most = max(most, flow/b.fair[i])
	}
	return most
}

// sum is all that the endpoints can still take.
func (r room) sum(set []int) (sum float64) {
	for _, i := range set {
		sum += max(0, r.left[i])
	}
	return sum
}
