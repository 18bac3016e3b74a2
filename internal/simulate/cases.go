package simulate

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/zonewise/zonewise/internal/hints"
	"github.com/zonewise/zonewise/internal/model"
)

// Case is one Service in one cluster: what an algorithm gets to see, and what it is judged by.
type Case struct {
	Nodes       []model.Node
	Demand      model.Shares // where connections really come from
	Clients     []hints.Client
	Endpoints   []model.Endpoint // all ready, ordered by address, without hints
	MaxOverload float64
	Prices      model.Prices
	Now         time.Time // moves on in a walk
}

// Slice is the case's endpoints as the one EndpointSlice that they fit in.
func (c Case) Slice() model.Slice {
	return model.Slice{Name: model.Name{Namespace: "default", Name: "web-1"}, Service: "web",
		Ports: []model.EndpointPort{{Protocol: model.TCP, Port: 8080}}, Endpoints: c.Endpoints}
}

// drawn is what chance decides about a case; nodes are added as the algorithm wants them.
type drawn struct {
	config Config
	demand model.Shares
	places []int // the zone of each pod
}

// draw makes case n of a scenario. Each case has its own source of chance, so that neither the
// number of cases nor other scenarios change it.
func (c Config) draw(pods Range, placement Placement, n int) drawn {
	r := c.random("case", pods, placement, n)
	count := pods.From + r.IntN(pods.To-pods.From+1)
	d := drawn{config: c, places: make([]int, count)}
	first := r.IntN(c.Zones)
	for i := range d.places {
		d.places[i] = (first + i) % c.Zones
		if placement == Random {
			d.places[i] = r.IntN(c.Zones)
		}
	}
	d.demand = demand(r, c.Zones)
	return d
}

// random is a source of chance for one purpose, which no other purpose disturbs.
func (c Config) random(purpose ...any) *rand.Rand {
	h := fnv.New64a()
	fmt.Fprintln(h, purpose...)
	return rand.New(rand.NewPCG(c.Seed, h.Sum64()))
}

// shape of the gamma distribution that each zone's demand is drawn from, before it is normalised:
// the zones of three then differ by a third of the mean, give or take.
const shape = 8

func demand(r *rand.Rand, zones int) model.Shares {
	out, sum := make(model.Shares, zones), 0.0
	for i := range out {
		// The sum of n exponential variables is gamma distributed with the shape n.
		g := 0.0
		for range shape {
			g += r.ExpFloat64()
		}
		out[i] = model.Share{Zone: zoneName(i), Share: g}
		sum += g
	}
	for i := range out {
		out[i].Share /= sum
	}
	slices.SortFunc(out, func(a, b model.Share) int { return strings.Compare(a.Zone, b.Zone) })
	return out
}

// with makes the case for a number of nodes a zone; pods go round the nodes of their zone.
func (d drawn) with(nodesPerZone int) Case {
	all := nodes(d.config.Zones, nodesPerZone)
	used := make([]int, d.config.Zones)
	endpoints := make([]model.Endpoint, len(d.places))
	for i, z := range d.places {
		node := all[z*nodesPerZone+used[z]%nodesPerZone]
		used[z]++
		endpoints[i] = endpoint(i, node)
	}
	return Case{Nodes: all, Demand: d.demand, Clients: hints.Clients(all, d.demand), Endpoints: endpoints,
		MaxOverload: d.config.MaxOverload, Prices: d.config.Prices}
}

func nodes(zones, perZone int) []model.Node {
	out := make([]model.Node, 0, zones*perZone)
	for z := range zones {
		for i := range perZone {
			out = append(out, model.Node{Name: fmt.Sprintf("%s%d", zoneName(z), i+1), Zone: zoneName(z), Ready: true, MilliCPU: 4000})
		}
	}
	return out
}

// endpoint makes pod number i on a node.
func endpoint(i int, n model.Node) model.Endpoint {
	return model.Endpoint{Addr: netip.AddrFrom4([4]byte{10, 1, byte(i / 250), byte(1 + i%250)}), Node: n.Name, Zone: n.Zone,
		Pod: fmt.Sprintf("web-%d", i), Ready: true, Serving: true}
}

// mean of values; 0 if there are none.
func mean(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sum := 0.0
	for _, v := range values {
		sum += v
	}
	return sum / float64(len(values))
}
