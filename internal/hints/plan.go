package hints

import (
	"fmt"
	"math"
	"net/netip"
	"slices"

	"github.com/zonewise/zonewise/internal/model"
)

// olderSlack is how much more overload consumers get that know zone hints alone, as a multiple of
// the plan's. With 3 to 30 pods in 3 zones and a bound of 1.2 (2: of 1.4 for them) they keep
//
//	slack  1     1.5   2     3     any
//	       58 %  80 %  92 %  98 %  100 % in the zone, with the most loaded endpoint at
//	       1.20  1.30  1.40  1.60  2.30
//
// and where a zone has more nodes than hints can name, those that know node hints, most of which
// follow their zone hints then, keep 95.9, 98.5, 99.4, 99.8 and 99.9 % of the optimum with 50 nodes
// a zone, and 92.9, 97.9, 98.8, 99.0 and 98.9 % with 167.
const olderSlack = 2

// Plan says a plan in hints. With consumers that know node hints, no endpoint gets more than the
// plan's bound. With those that know zone hints alone it is a bound with twice the overload: zone
// hints cannot be optimal, and within the plan's own bound they would keep little. Where no hints
// keep the bound, as with endpoints of very different capacity, those are taken that exceed it
// least, if that is less than without any.
//
// Endpoints come as they are now, each address once. Previous are the same with the hints that they
// had: these stay while they keep the bounds and a new set would not keep a point more.
func Plan(p model.RoutePlan, clients []Client, endpoints []model.Endpoint, previous []model.Endpoint) Set {
	byAddr := func(a, b model.Endpoint) int { return a.Addr.Compare(b.Addr) }
	if !slices.IsSortedFunc(endpoints, byAddr) {
		endpoints = slices.Clone(endpoints)
		slices.SortFunc(endpoints, byAddr)
	}
	ready, unready := endpoints, func(e model.Endpoint) bool { return !e.Ready }
	if slices.ContainsFunc(endpoints, unready) {
		ready = slices.DeleteFunc(slices.Clone(endpoints), unready)
	}
	b := newBoard(p, clients, ready, previous)
	switch {
	case len(ready) == 0:
		return b.refuse("no endpoint is ready")
	case len(p.Zones) == 0:
		return b.refuse(p.Reason)
	case len(b.groups) == 0:
		return b.refuse("it is not known where connections come from")
	}
	bound := 1 + p.MaxOverload
	kept, ok := b.carried(endpoints, previous)
	ok = ok && b.sound(kept, bound, max(1+olderSlack*p.MaxOverload, b.forced()))
	if ok && kept.Forecast.InZone >= b.ideal(bound)-worth && b.astray(kept.Forecast) <= worth {
		return kept // nothing can be worth a change
	}
	s := b.fresh(endpoints, p.MaxOverload, p.Demand.Source == model.Measured)
	if ok && kept.Forecast.InZone >= s.Forecast.InZone-worth && b.astray(kept.Forecast) <= b.astray(s.Forecast)+worth {
		return kept
	}
	return s
}

// older are bounds for consumers that know zone hints alone, the loosest first.
func (b *board) older(overload float64) []float64 {
	return []float64{
		max(1+olderSlack*overload, b.forced()),
		max(1+overload*(1+olderSlack)/2, b.forced()),
		max(1+overload, b.forced()),
	}
}

// margin is the part of the allowed overload that a new set leaves unused where demand is measured,
// so that the next measurement does not make another set necessary at once.
const margin = 0.05

// fresh is the best set, whatever there was before.
func (b *board) fresh(endpoints []model.Endpoint, overload float64, measured bool) Set {
	bound, none := 1+overload, b.none
	older := b.older(overload)
	var l *layout
	if measured {
		l = b.search(1+overload*(1-margin), b.older(overload*(1-margin)))
	}
	if l == nil {
		l = b.find(bound, older)
	}
	if l != nil {
		if len(b.use) == len(b.ready) && none.InZone >= l.inZone-tiny {
			return b.refuse("hints would keep no more connections in their zones than none do")
		}
		s := b.foretell(Set{Of: b.hints(l, endpoints)})
		if zone, ok := b.strays(s); ok {
			s.Reason = fmt.Sprintf("drained zones still serve zone %s: an endpoint can name %d zones, and all names are given away", zone, maxZones)
		}
		return s
	}
	most := none.MaxLoad
	if len(b.use) < len(b.ready) { // without hints drained zones would serve, which is worse still
		most = max(most, 2*bound)
	}
	for i := 1; i < looser && most > bound; i++ {
		loose := bound * math.Pow(most/bound, float64(i)/looser)
		if l := b.find(loose, []float64{max(loose, older[0]), loose}); l != nil {
			s := b.foretell(Set{Of: b.hints(l, endpoints)})
			if !b.sound(s, bound, older[0]) { // it may be so by rounding alone
				s.Reason = fmt.Sprintf("no hints keep every endpoint within %.2f times its fair share: with the best one gets %.2f", bound, s.Forecast.MaxLoad)
			}
			return s
		}
	}
	return b.refuse(fmt.Sprintf("no hints keep every endpoint within %.2f times its fair share, nor nearer to it than none do", bound))
}

// looser is into how many steps the way from the bound to what happens without hints is cut.
const looser = 8

func (b *board) refuse(reason string) Set {
	return Set{Forecast: b.none, Older: b.none, Reason: reason}
}

// settled is all clients, group by group.
func (b *board) settled() []Client {
	n := 0
	for _, g := range b.groups {
		n += len(g.nodes) + 1
	}
	out := make([]Client, 0, n)
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
	hint := b.hintsIn(s)
	s.Forecast = b.forecast(KubeProxy.directory(len(b.ready), hint))
	s.Older = b.forecast(KubeProxyOld.directory(len(b.ready), hint))
	return s
}

// hintsIn is what a set says of the ready endpoints.
func (b *board) hintsIn(s Set) func(i int) Hint {
	out := make([]Hint, len(b.ready))
	for i := range out {
		out[i] = s.Of[b.ready[i].Addr]
	}
	return func(i int) Hint { return out[i] }
}

// hints writes a layout down. Endpoints are in order, the board's ready ones among them.
func (b *board) hints(l *layout, endpoints []model.Endpoint) map[netip.Addr]Hint {
	said := make([]Hint, len(b.ready))
	decided := map[string]bool{}
	for i, set := range l.zones {
		decided[b.groups[i].name] = true
		for _, e := range set {
			said[e].Zones = append(said[e].Zones, b.groups[i].name)
		}
	}
	for _, o := range l.overrides {
		for _, e := range o.set {
			said[e].Nodes = append(said[e].Nodes, o.node)
		}
	}
	of := make(map[netip.Addr]Hint, len(endpoints))
	noZone, nobody := []string{NoZone}, []string{NoNode}
	next := 0 // of the ready ones
	for _, e := range endpoints {
		var h Hint
		if e.Ready {
			h, next = said[next], next+1
		}
		switch {
		case len(h.Zones) > 0:
			slices.Sort(h.Zones)
		case e.Ready && decided[e.Zone]:
			h.Zones = noZone
		default:
			h.Zones = Unplanned(e).Zones
		}
		switch {
		case len(h.Nodes) > 0:
			slices.Sort(h.Nodes)
		case len(l.overrides) > 0:
			h.Nodes = nobody
		}
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
