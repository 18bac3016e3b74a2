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
}

// group is the clients of one zone.
type group struct {
	name    string
	named   bool // a hint can name the zone
	demand  float64
	keep    float64  // of it, what the plan keeps in the zone
	nodes   []Client // that a hint can name, in the order in which they stay with the zone's set
	rest    float64  // demand of those that it cannot
	local   []int    // endpoints that may be used
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
	clients = slices.Clone(clients)
	slices.SortFunc(clients, byPlace)
	clients = slices.DeleteFunc(clients, func(c Client) bool { return !(c.Share > 0 && c.Share <= math.MaxFloat64) })
	var total float64
	for _, c := range clients {
		total += c.Share
	}
	for _, c := range clients {
		if n := len(b.groups); n == 0 || b.groups[n-1].name != c.Zone {
			b.groups = append(b.groups, group{name: c.Zone, named: validZone(c.Zone)})
		}
		g := &b.groups[len(b.groups)-1]
		c.Share /= total
		g.demand += c.Share
		if validNode(c.Node) {
			g.nodes = append(g.nodes, c)
		} else {
			g.rest += c.Share
		}
	}
	weights := p.Matrix()
	named := map[string]bool{}
	for _, e := range previous {
		for _, n := range e.NodeHints {
			named[n] = true
		}
	}
	for i := range b.groups {
		slices.SortStableFunc(b.groups[i].nodes, func(a, b Client) int { return falseFirst(named[a.Node], named[b.Node]) })
		b.settle(&b.groups[i], weights)
	}
	return b
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
	for _, g := range b.groups {
		var room float64
		for _, i := range g.local {
			room += bound * b.fair[i]
		}
		sum += min(g.keep, room)
	}
	return sum
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

func falseFirst(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// clone is for trying something.
func (r room) clone() room { return room{slices.Clone(r.left), slices.Clone(r.names)} }

// room is what endpoints can still take.
type room struct {
	left  []float64 // connections
	names []int     // hints of the kind that is being given
}

func (b *board) room(bound float64) room {
	r := room{make([]float64, len(b.ready)), make([]int, len(b.ready))}
	for i, f := range b.fair {
		r.left[i] = bound * f
	}
	return r
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
