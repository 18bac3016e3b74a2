package controller

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/service"
)

// verdict tells how far a Service that asks for zone routing gets it.
type verdict struct {
	Asked  string // "topology-mode Auto" or "trafficDistribution PreferSameZone"
	Nodes  int    // nodes with a zone
	InZone int    // those of them that send every connection to their own zone
	Why    string // why the others do not; of several reasons the most frequent
}

// Obeyed tells whether every node stays in its zone.
func (v verdict) Obeyed() bool { return v.InZone == v.Nodes }

// Refused tells whether no node does.
func (v verdict) Refused() bool { return v.InZone == 0 && v.Nodes > 0 }

// String is the line that people read.
func (v verdict) String() string {
	s := fmt.Sprintf("asked %s, in zone on %d of %d nodes", v.Asked, v.InZone, v.Nodes)
	if v.Why != "" {
		s += ": " + v.Why
	}
	return s
}

// asks returns how a Service asks for zone routing, or false if it does not. As for upstream,
// the annotation goes before the field.
func asks(s model.Service) (string, bool) {
	switch s.TopologyMode {
	case "Auto", "auto":
		return "topology-mode " + s.TopologyMode, true
	}
	switch s.TrafficDistribution {
	case "PreferClose", "PreferSameZone", "PreferSameNode":
		return "trafficDistribution " + s.TrafficDistribution, true
	}
	return "", false
}

// judge works out what every node does with the Service, by the very decision that its agent
// makes, and returns false if the Service asks for nothing.
func judge(nodes []model.Node, svc model.Service, endpoints []model.Slice) (verdict, bool) {
	asked, ok := asks(svc)
	if !ok {
		return verdict{}, false
	}
	out := verdict{Asked: asked}
	reasons := map[string]int{}
	known := map[string]outcome{} // by zone
	alike := !nodeMatters(svc, endpoints)
	for _, n := range nodes {
		if n.Zone == "" {
			continue // reported for all Services together
		}
		o, seen := known[n.Zone]
		if !seen || !alike {
			o = look(n, svc, endpoints)
			known[n.Zone] = o
		}
		out.Nodes++
		if o.inZone {
			out.InZone++
		} else {
			reasons[o.why]++
		}
	}
	out.Why = mostFrequent(reasons)
	return out, true
}

// nodeMatters tells whether two nodes of one zone may decide differently.
func nodeMatters(svc model.Service, endpoints []model.Slice) bool {
	if svc.InternalLocal {
		return true
	}
	return slices.ContainsFunc(endpoints, func(s model.Slice) bool {
		return slices.ContainsFunc(s.Endpoints, func(e model.Endpoint) bool { return len(e.NodeHints) > 0 })
	})
}

type outcome struct {
	inZone bool
	why    string
}

// look returns what one node does with connections to the Service's cluster addresses.
func look(n model.Node, svc model.Service, endpoints []model.Slice) outcome {
	out := outcome{inZone: true}
	for _, f := range service.Plan(n, svc, endpoints, nil) {
		away := func(b service.Backend) bool { return b.Zone != n.Zone }
		if f.Kind == service.ClusterIP && (f.Verdict != service.Balance || slices.ContainsFunc(f.Backends, away)) {
			out = outcome{why: f.Why}
		}
	}
	return out
}

func mostFrequent(reasons map[string]int) string {
	best := ""
	for why, n := range reasons {
		if best == "" || cmp.Or(cmp.Compare(reasons[best], n), cmp.Compare(why, best)) < 0 {
			best = why
		}
	}
	return best
}
