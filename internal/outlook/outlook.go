// Package outlook puts together all that can be said of a Service: what upstream makes of it, what
// the best plan is, and what standard hints make of that plan. The controller acts on it, the
// command line shows it.
package outlook

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/zonewise/zonewise/internal/hints"
	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/route"
	upstream "github.com/zonewise/zonewise/internal/route/kube"
)

// Settings are what holds for the whole cluster.
type Settings struct {
	Default    model.Mode            // of a Service of which nobody says more; empty is Observe
	Namespaces map[string]model.Mode // the same for a namespace, by its label
	Prices     model.Prices
	Stability  route.Stability
}

// Facts are what one look is taken at.
type Facts struct {
	Nodes    []model.Node
	CPU      func(pod model.Name) int64                  // milli-CPU that a pod requests, 0 when unknown; may be nil
	Measured func(svc model.Name, v6 bool) *model.Demand // may be nil, as may what it returns
	Now      time.Time
}

// Outlook is one look at a cluster. It is safe for concurrent use.
type Outlook struct {
	settings Settings
	facts    Facts
	cluster  *route.Cluster
	upstream *upstream.Upstream
	sites    hints.Sites
	demand   model.Shares // of the many Services of which nobody says more
	clients  []hints.Client
}

// New prepares what all Services share.
func New(s Settings, f Facts) *Outlook {
	o := &Outlook{settings: s, facts: f, cluster: route.NewCluster(f.Nodes, s.Prices), upstream: upstream.New(f.Nodes),
		sites: hints.NewSites(f.Nodes)}
	o.demand = o.cluster.Demand().Shares
	o.clients = o.sites.Clients(o.demand)
	return o
}

// Service is all that can be said of one Service.
type Service struct {
	Name     model.Name
	Mode     model.Mode
	ModeFrom string   // who says so: "ZoneRoute", "namespace", "cluster", or what the Service itself asks for
	Families []Family // as the Service has them, IPv4 first
	Problem  string   // why nothing can be planned, naming object and field; empty if all is well
}

// Family is one address family of it.
type Family struct {
	model.RoutePlan
	Before  model.Matrix // where connections go without us
	HintSet hints.Set
	Next    time.Time // when to look again although nothing changes; zero: no need
}

// Service looks at one Service with all its slices. A nil ZoneRoute is none.
func (o *Outlook) Service(svc model.Service, slices []model.Slice, zr *model.ZoneRoute) Service {
	out := Service{Name: svc.Name}
	var spec model.RouteSpec
	if zr != nil {
		spec = zr.Spec
	}
	out.Mode, out.ModeFrom = o.mode(svc, spec)
	if zr != nil && zr.Invalid != "" {
		out.Problem = fmt.Sprintf("ZoneRoute %s: %s", svc.Name, zr.Invalid)
		return out
	}
	if err := route.Validate(spec); err != nil {
		out.Problem = fmt.Sprintf("ZoneRoute %s: %v", svc.Name, err)
		return out
	}
	if svc.InternalLocal {
		out.Problem = fmt.Sprintf("Service %s: spec.internalTrafficPolicy: Local keeps every connection on its node, there is nothing to plan", svc.Name)
		return out
	}
	for _, v6 := range families(svc) {
		out.Families = append(out.Families, o.family(svc, v6, slices, zr, out.Mode))
	}
	return out
}

// mode returns the mode in force, and who set it. What a Service asks of upstream keeps its
// upstream meaning unless its own ZoneRoute says otherwise: a default does not overrule it.
func (o *Outlook) mode(svc model.Service, spec model.RouteSpec) (model.Mode, string) {
	if spec.Mode != "" {
		return spec.Mode, "ZoneRoute"
	}
	mode, from := o.settings.Default, "cluster"
	if m := o.settings.Namespaces[svc.Namespace]; m != "" {
		mode, from = m, "namespace"
	}
	if mode == "" {
		mode = model.Observe
	}
	if asked := Asked(svc); mode == model.Optimal && asked != "" {
		return model.Observe, asked
	}
	return mode, from
}

// Asked returns how a Service asks upstream for zone routing, as its manifest spells it; empty if
// it does not. As for upstream, the annotation goes before the field.
func Asked(svc model.Service) string {
	switch {
	case svc.TopologyMode == "Auto" || svc.TopologyMode == "auto":
		return "topology-mode " + svc.TopologyMode
	case svc.TrafficDistribution != "":
		return "trafficDistribution " + svc.TrafficDistribution
	}
	return ""
}

func (o *Outlook) family(svc model.Service, v6 bool, slices []model.Slice, zr *model.ZoneRoute, mode model.Mode) Family {
	endpoints := route.Endpoints(slices, v6)
	in := route.Input{
		Service: svc.Name, V6: v6, Endpoints: endpoints, Cluster: o.cluster, CPU: o.facts.CPU,
		Previous: previous(zr, v6), Now: o.facts.Now,
	}
	if zr != nil {
		in.Spec = zr.Spec
		if mode == model.Optimal && zr.Status.Mode == model.Optimal {
			in.Stability = o.settings.Stability // it is for plans that traffic follows
		}
	}
	if o.facts.Measured != nil {
		in.Measured = o.facts.Measured(svc.Name, v6)
	}
	plan, next := route.Plan(in)
	clients := o.clientsOf(plan.Demand.Shares)

	verdict, theirs := o.upstream.Of(svc, v6, slices)
	without := route.Endpoints(theirs, v6)
	before := hints.Predict(hints.KubeProxy, clients, without, capacities(plan, without))
	plan.Upstream = verdict
	plan.BeforeLoad = before.MaxLoad
	plan.InZone.Before = before.InZone
	plan.PerTB.Before = route.PerTB(before.Matrix, plan.Demand.Shares, o.settings.Prices)

	set := hints.Plan(plan, clients, endpoints, endpoints)
	plan.Hints = set.Outcome()
	return Family{RoutePlan: plan, Before: before.Matrix, HintSet: set, Next: next}
}

// clientsOf returns the nodes that a demand comes from.
func (o *Outlook) clientsOf(demand model.Shares) []hints.Client {
	if slices.Equal(demand, o.demand) {
		return o.clients
	}
	return o.sites.Clients(demand)
}

// previous returns the plan in force; nil if there is none.
func previous(zr *model.ZoneRoute, v6 bool) *model.RoutePlan {
	if zr == nil {
		return nil
	}
	for i := range zr.Status.Plans {
		if p := &zr.Status.Plans[i]; p.V6 == v6 && len(p.Zones) > 0 {
			return p
		}
	}
	return nil
}

// capacities returns what the endpoints can carry; nil if all the same.
func capacities(p model.RoutePlan, endpoints []model.Endpoint) func(int) float64 {
	if len(p.Capacities) == 0 {
		return nil
	}
	of := make(map[netip.Addr]float64, len(p.Capacities))
	for _, c := range p.Capacities {
		of[c.Addr] = c.Capacity
	}
	return func(i int) float64 {
		if c, ok := of[endpoints[i].Addr]; ok {
			return c
		}
		return 1
	}
}

// families returns the address families of a Service, IPv4 first.
func families(svc model.Service) []bool {
	var v4, v6 bool
	for _, a := range svc.ClusterIPs {
		v4, v6 = v4 || a.Is4(), v6 || a.Is6()
	}
	var out []bool
	if v4 {
		out = append(out, false)
	}
	if v6 {
		out = append(out, true)
	}
	return out
}
