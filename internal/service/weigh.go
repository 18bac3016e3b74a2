package service

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/route"
)

// inForce returns what a ZoneRoute has planned for a family, or nil where hints hold: no route,
// another mode than Optimal, or no plan yet. An intent that says something else counts at once,
// though the status is behind.
func inForce(r *model.ZoneRoute, v6 bool) *model.RoutePlan {
	if r == nil || r.Status.Mode != model.Optimal || r.Spec.Mode != "" && r.Spec.Mode != model.Optimal {
		return nil
	}
	for i := range r.Status.Plans {
		if p := &r.Status.Plans[i]; p.V6 == v6 {
			return p
		}
	}
	return nil
}

// weighed is the choice by the plan's weights: those of this node's zone, and within a zone by
// capacity. It is none where the plan does not know the zone, or no endpoint is ready. A plan for
// other endpoints than these (the controller is behind, or away) is made anew for them.
func (p planner) weighed(set endpoints) (Choice, bool) {
	ready := set.filter(func(e endpoint) bool { return e.Ready })
	if p.plan == nil || len(ready) == 0 || !knows(*p.plan, p.node.Zone) {
		return Choice{}, false
	}
	plan, source := *p.plan, "ZoneRoute "+p.svc.Name.String()
	if !plannedFor(plan, ready) {
		plan, source = p.replan(ready), source+", for the endpoints of now"
	}
	weights := weightsOf(plan, p.node.Zone)
	capacity := capacities(p.plan.Capacities)
	zones := map[string]float64{} // capacity of those of one zone
	for _, e := range ready {
		zones[e.Zone] += capacity(e.Addr)
	}
	var chosen endpoints
	var shares []float64
	sum := 0.0
	for _, e := range ready {
		if w := weights.Of(e.Zone); w > 0 {
			share := w * capacity(e.Addr) / zones[e.Zone]
			chosen, shares, sum = append(chosen, e), append(shares, share), sum+share
		}
	}
	if len(chosen) == 0 {
		return Choice{}, false
	}
	c := Choice{Verdict: Balance, Backends: chosen.backends()}
	for i := range c.Backends {
		c.Backends[i].Share = shares[i] / sum
	}
	c.Why = fmt.Sprintf("%s: %s own zone, bound %s", source, percent(weights.Of(p.node.Zone)), number(1+plan.MaxOverload))
	return c, true
}

func weightsOf(plan model.RoutePlan, zone string) model.Shares {
	for _, z := range plan.Zones {
		if z.Name == zone {
			return z.Weights
		}
	}
	return nil
}

func knows(plan model.RoutePlan, zone string) bool {
	return slices.ContainsFunc(plan.Zones, func(z model.ZonePlan) bool { return z.Name == zone })
}

// plannedFor tells that the plan counts on as many endpoints in each zone as are ready there.
func plannedFor(plan model.RoutePlan, ready endpoints) bool {
	count := map[string]int{}
	for _, e := range ready {
		count[e.Zone]++
	}
	planned := 0
	for _, z := range plan.Zones {
		if count[z.Name] != z.Endpoints {
			return false
		}
		planned += z.Endpoints
	}
	return planned == len(ready)
}

// replan is the optimum for these endpoints under the plan's own demand and bound, at once. It is
// the same on every node. Prices are not known here: all crossings count alike.
func (p planner) replan(ready endpoints) model.RoutePlan {
	in := route.Input{
		Service: p.svc.Name, V6: p.v6, Previous: p.plan,
		Spec: model.RouteSpec{MaxOverload: p.plan.MaxOverload, Demand: model.Static},
	}
	pods := map[model.Name]int64{}
	capacity := capacities(p.plan.Capacities)
	for _, e := range ready {
		in.Endpoints = append(in.Endpoints, *e.Endpoint)
		pods[model.Name{Namespace: p.svc.Namespace, Name: e.Pod}] = int64(math.Round(capacity(e.Addr)))
	}
	if len(p.plan.Capacities) > 0 {
		in.Spec.Capacity = model.CPURequests
		in.CPU = func(pod model.Name) int64 { return pods[pod] }
	}
	var nodes []model.Node // one for each zone, so that every zone is planned for
	for _, z := range p.plan.Zones {
		nodes = append(nodes, model.Node{Name: z.Name, Zone: z.Name, Ready: true, MilliCPU: 1})
		if z.Demand > 0 {
			in.Spec.Static = append(in.Spec.Static, model.Share{Zone: z.Name, Share: z.Demand})
		}
		if z.Drained {
			in.Spec.Drained = append(in.Spec.Drained, z.Name)
		}
	}
	in.Cluster = route.NewCluster(nodes, model.Prices{PerGB: 1})
	plan, _ := route.Plan(in)
	return plan
}

// capacities returns what an endpoint can carry; the mean for one that is not listed, and the same
// for all where none is.
func capacities(list []model.Capacity) func(netip.Addr) float64 {
	known := make(map[netip.Addr]float64, len(list))
	sum, n := 0.0, 0
	for _, c := range list {
		if c.Capacity > 0 {
			known[c.Addr] = c.Capacity
			sum, n = sum+c.Capacity, n+1
		}
	}
	mean := 1.0
	if n > 0 {
		mean = sum / float64(n)
	}
	return func(a netip.Addr) float64 {
		if c, ok := known[a]; ok {
			return c
		}
		return mean
	}
}

// percent keeps one decimal where it says something.
func percent(f float64) string {
	return strings.TrimSuffix(strconv.FormatFloat(f*100, 'f', 1, 64), ".0") + "%"
}

// number has no more than four decimals.
func number(f float64) string {
	return strconv.FormatFloat(math.Round(f*1e4)/1e4, 'f', -1, 64)
}
