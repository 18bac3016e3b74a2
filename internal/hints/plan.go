package hints

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/zonewise/zonewise/internal/model"
)

// olderSlack is how much more overload consumers get that know zone hints alone, as a multiple of
// the plan's: see docs of Plan.
const olderSlack = 2

// Plan says a plan in hints. With consumers that know node hints, no endpoint gets more than the
// plan's bound. With those that know zone hints alone it is a bound with twice the overload: zone
// hints cannot be optimal, and within the plan's own bound they would keep little.
func Plan(p model.RoutePlan, clients []Client, endpoints []model.Endpoint, previous []model.Endpoint) Set {
	endpoints = slices.SortedFunc(slices.Values(endpoints), func(a, b model.Endpoint) int { return a.Addr.Compare(b.Addr) })
	var ready []model.Endpoint
	for _, e := range endpoints {
		if e.Ready {
			ready = append(ready, e)
		}
	}
	b := newBoard(p, clients, ready)
	bound := 1 + p.MaxOverload
	none := b.none()
	switch {
	case len(ready) == 0:
		return b.refuse("no endpoint is ready")
	case len(b.groups) == 0:
		return b.refuse("it is not known where connections come from")
	}
	l := b.search(bound, []float64{1 + olderSlack*p.MaxOverload, 1 + p.MaxOverload*(1+olderSlack)/2, bound})
	if l == nil {
		return b.refuse(fmt.Sprintf("no hints keep every endpoint below %.2f times its fair share", bound))
	}
	if len(b.use) == len(ready) && none.InZone >= l.inZone-tiny {
		return b.refuse("hints would keep no more in the zone than none do")
	}
	s := Set{Of: b.hints(l, endpoints)}
	return b.foretell(s)
}

func (b *board) refuse(reason string) Set {
	return Set{Forecast: b.none(), Older: b.none(), Reason: reason}
}

// none is what happens without hints.
func (b *board) none() Forecast {
	return forecast(b.clients(), b.ready, b.fair, directory{all: b.all()}.choose)
}

func (b *board) all() []int {
	out := make([]int, len(b.ready))
	for i := range out {
		out[i] = i
	}
	return out
}

func (b *board) clients() []Client {
	var out []Client
	for _, g := range b.groups {
		out = append(out, g.nodes...)
		if g.rest > 0 {
			out = append(out, Client{"", g.name, g.rest})
		}
	}
	return out
}

// foretell fills in the forecasts, by what the endpoints would carry and nothing else.
func (b *board) foretell(s Set) Set {
	hinted := slices.Clone(b.ready)
	for i := range hinted {
		h := s.Of[hinted[i].Addr]
		hinted[i].ZoneHints, hinted[i].NodeHints = h.Zones, h.Nodes
	}
	clients := b.clients()
	s.Forecast = forecast(clients, hinted, b.fair, KubeProxy.directory(hinted).choose)
	s.Older = forecast(clients, hinted, b.fair, KubeProxyOld.directory(hinted).choose)
	return s
}

// hints writes a layout down.
func (b *board) hints(l *layout, endpoints []model.Endpoint) map[netip.Addr]Hint {
	of := make(map[netip.Addr]Hint, len(endpoints))
	decided := map[string]bool{}
	for i, set := range l.zones {
		decided[b.groups[i].name] = true
		for _, e := range set {
			h := of[b.ready[e].Addr]
			h.Zones = append(h.Zones, b.groups[i].name)
			of[b.ready[e].Addr] = h
		}
	}
	for _, o := range l.overrides {
		for _, e := range o.set {
			h := of[b.ready[e].Addr]
			h.Nodes = append(h.Nodes, o.node)
			of[b.ready[e].Addr] = h
		}
	}
	for _, e := range endpoints {
		h := of[e.Addr]
		spare := Unplanned(e)
		if len(h.Zones) == 0 {
			h.Zones = spare.Zones
			if e.Ready && decided[e.Zone] {
				h.Zones = []string{NoZone}
			}
		}
		if len(h.Nodes) == 0 && len(l.overrides) > 0 {
			h.Nodes = spare.Nodes
		}
		slices.Sort(h.Zones)
		slices.Sort(h.Nodes)
		of[e.Addr] = h
	}
	return of
}

// capacities asks a plan what an endpoint can carry.
func capacities(p model.RoutePlan) func(netip.Addr) float64 {
	if len(p.Capacities) == 0 {
		return func(netip.Addr) float64 { return 1 }
	}
	of := make(map[netip.Addr]float64, len(p.Capacities))
	var sum float64
	for _, c := range p.Capacities {
		of[c.Addr] = c.Capacity
		sum += c.Capacity
	}
	mean := sum / float64(len(p.Capacities))
	return func(a netip.Addr) float64 {
		if k, ok := of[a]; ok {
			return k
		}
		return mean // as for an endpoint without a request
	}
}
