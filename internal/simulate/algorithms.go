package simulate

import (
	"net/netip"

	"github.com/zonewise/zonewise/internal/hints"
	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/route"
)

// Algorithm is a way of choosing among zones.
type Algorithm struct {
	Name   string
	ByNode bool          // the number of nodes a zone makes a difference
	New    func() Router // one without memory
}

// Router answers case after case of one walk, and may remember what it answered.
type Router interface {
	Route(Case) Answer
}

// Stateless is a Router without memory.
type Stateless func(Case) Answer

// Route is the function itself.
func (f Stateless) Route(c Case) Answer { return f(c) }

// Answer is where connections go: by exact weights, or by hints as kube-proxy reads them.
type Answer struct {
	Weights   model.Matrix
	Endpoints []model.Endpoint // with hints, in the order of the case's; used if there are no weights
	Refused   bool
	// Steps is how many writes of slices bring the hints, where they do not come with the write that
	// publishes the endpoints.
	Steps int
}

func stateless(f Stateless) func() Router { return func() Router { return f } }

// Plain are the algorithms that need nothing but this room: what others do, without Kubernetes' own
// library.
func Plain() []Algorithm {
	return []Algorithm{
		{Name: "no hints", New: stateless(func(c Case) Answer { return Answer{Endpoints: c.Endpoints} })},
		{Name: "PreferSameZone", New: stateless(preferSameZone)},
		{Name: "Envoy's formula", New: stateless(envoy)},
	}
}

// Ours are Zonewise's two ways.
func Ours() []Algorithm {
	return []Algorithm{
		{Name: "Zonewise, weights", New: func() Router { return &ours{} }},
		{Name: "Zonewise, hints", ByNode: true, New: func() Router { return &ours{byHints: true} }},
	}
}

// preferSameZone is spec.trafficDistribution: each endpoint is hinted for its own zone, whatever
// comes of it.
func preferSameZone(c Case) Answer {
	out := make([]model.Endpoint, len(c.Endpoints))
	for i, e := range c.Endpoints {
		e.ZoneHints = []string{e.Zone}
		out[i] = e
	}
	return Answer{Endpoints: out}
}

// envoy is Envoy's zone-aware routing: a zone that has as large a part of the endpoints as of the
// clients keeps all its connections, another keeps as many as its endpoints' part allows and
// spreads the rest over what the others have to spare. Clients are counted by true demand, and the
// rule against fewer than six endpoints is left out.
func envoy(c Case) Answer {
	part := map[string]float64{}
	for _, e := range c.Endpoints {
		part[e.Zone] += 1 / float64(len(c.Endpoints))
	}
	spare, total := make([]float64, len(c.Demand)), 0.0
	for i, d := range c.Demand {
		spare[i] = max(part[d.Zone]-d.Share, 0)
		total += spare[i]
	}
	var out model.Matrix
	for _, d := range c.Demand {
		local := 1.0
		if d.Share > part[d.Zone] {
			local = part[d.Zone] / d.Share
		}
		row := model.Row{Zone: d.Zone}
		for j, to := range c.Demand {
			w := 0.0
			switch {
			case to.Zone == d.Zone:
				w = local
			case total > 0:
				w = (1 - local) * spare[j] / total
			}
			if w > 0 {
				row.To = append(row.To, model.Share{Zone: to.Zone, Share: w})
			}
		}
		out = append(out, row)
	}
	return Answer{Weights: out}
}

// ours plans as the product does: the plan in force and the hints on the endpoints are remembered.
type ours struct {
	byHints  bool
	previous *model.RoutePlan
	hinted   []model.Endpoint
}

func (o *ours) Route(c Case) Answer {
	demand := &model.Demand{Source: model.Measured, Shares: c.Demand, At: c.Now}
	p, _ := route.Plan(route.Input{
		Service: model.Name{Namespace: "default", Name: "web"}, Endpoints: c.Endpoints,
		Spec: model.RouteSpec{MaxOverload: c.MaxOverload}, Cluster: route.NewCluster(c.Nodes, c.Prices),
		Measured: demand, Previous: o.previous, Now: c.Now, Stability: route.DefaultStability(),
	})
	o.previous = &p
	if !o.byHints {
		return Answer{Weights: p.Matrix()}
	}
	published := o.published(c.Endpoints)
	set := hints.Plan(p, c.Clients, published, published)
	slice := c.Slice()
	slice.Endpoints = published
	steps := hints.Steps([]model.Slice{slice}, set, c.Clients, p)
	o.hinted = hinted(c.Endpoints, set)
	return Answer{Endpoints: o.hinted, Refused: len(set.Of) == 0, Steps: len(steps)}
}

// published is the endpoints as they are once the stock controller has written them: with the hints
// that they had, and new ones with what admission gives to endpoints that no plan knows yet.
func (o *ours) published(endpoints []model.Endpoint) []model.Endpoint {
	had := make(map[netip.Addr]hints.Hint, len(o.hinted))
	byNode := false
	for _, e := range o.hinted {
		if len(e.ZoneHints) > 0 {
			had[e.Addr] = hints.Hint{Zones: e.ZoneHints, Nodes: e.NodeHints}
		}
		byNode = byNode || len(e.NodeHints) > 0
	}
	out := make([]model.Endpoint, len(endpoints))
	for i, e := range endpoints {
		h, known := had[e.Addr]
		if !known && len(had) > 0 {
			if h = hints.Unplanned(e); !byNode {
				h.Nodes = nil
			}
		}
		e.ZoneHints, e.NodeHints = h.Zones, h.Nodes
		out[i] = e
	}
	return out
}

// hinted puts a set of hints on endpoints.
func hinted(endpoints []model.Endpoint, set hints.Set) []model.Endpoint {
	out := make([]model.Endpoint, len(endpoints))
	for i, e := range endpoints {
		h := set.Of[e.Addr]
		e.ZoneHints, e.NodeHints = h.Zones, h.Nodes
		out[i] = e
	}
	return out
}
