package service_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/zonewise/zonewise/internal/golden"
	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/route"
	"github.com/zonewise/zonewise/internal/service"
)

// planned is a ZoneRoute in force, with what the planner makes of the endpoints and the demand.
func planned(eps []model.Endpoint, demand model.Shares, change ...func(*route.Input)) *model.ZoneRoute {
	in := route.Input{
		Service: web, Endpoints: eps, Cluster: route.NewCluster(nil, model.Prices{PerGB: .02}),
		Spec: model.RouteSpec{MaxOverload: .2, Demand: model.Static, Static: demand},
	}
	for _, c := range change {
		c(&in)
	}
	p, _ := route.Plan(in)
	return &model.ZoneRoute{Name: web, Status: model.RouteStatus{Mode: model.Optimal, Plans: []model.RoutePlan{p}}}
}

var thirds = model.Shares{{Zone: "a", Share: 1. / 3}, {Zone: "b", Share: 1. / 3}, {Zone: "c", Share: 1. / 3}}

// in is that many ready endpoints of a zone, from a number on.
func in(zone string, from, n int) []model.Endpoint {
	var out []model.Endpoint
	for i := range n {
		out = append(out, ep(fmt.Sprintf("10.0.%d.%d", zone[0]-'a', from+i), zone))
	}
	return out
}

func TestWeightsGolden(t *testing.T) {
	elevenths := slices.Concat(in("a", 1, 4), in("b", 1, 4), in("c", 1, 3))
	elsewhere, homeless := nodeA, nodeA
	elsewhere.Zone, homeless.Zone = "z", ""
	nodeC := nodeA
	nodeC.Zone = "c"
	mode := func(zr *model.ZoneRoute, status, spec model.Mode) *model.ZoneRoute {
		zr.Status.Mode, zr.Spec.Mode = status, spec
		return zr
	}
	requests := func(in *route.Input) {
		in.Spec.Capacity = model.CPURequests
		in.CPU = func(pod model.Name) int64 {
			if strings.HasSuffix(pod.Name, "1") {
				return 2000
			}
			return 500
		}
	}
	hinted := func(eps ...model.Endpoint) []model.Endpoint {
		for i := range eps {
			eps[i].ZoneHints = []string{eps[i].Zone}
		}
		return eps
	}
	cases := []struct {
		name string
		node model.Node
		svc  model.Service
		eps  []model.Endpoint
		zr   *model.ZoneRoute
	}{
		{"own zone has enough", nodeA, clusterIP(), elevenths, planned(elevenths, thirds)},
		{"own zone spills", nodeC, clusterIP(), elevenths, planned(elevenths, thirds)},
		{"observed only", nodeC, clusterIP(), elevenths[8:], mode(planned(elevenths, thirds), model.Observe, "")},
		{"turned off, status is behind", nodeC, clusterIP(), elevenths[8:], mode(planned(elevenths, thirds), model.Optimal, model.Off)},
		{"a plan of the other family", nodeC, clusterIP(), elevenths[8:], planned(elevenths, thirds, func(in *route.Input) { in.V6 = true })},
		{"one endpoint for another", nodeC, clusterIP(), slices.Concat(elevenths[:10], in("c", 9, 1)), planned(elevenths, thirds)},
		{"fewer endpoints than planned for", nodeC, clusterIP(), slices.Concat(in("a", 1, 2), in("c", 1, 1)), planned(elevenths, thirds)},
		{"a zone without endpoints", nodeC, clusterIP(), elevenths[:8], planned(elevenths, thirds)},
		{"a drained zone", nodeC, clusterIP(), elevenths, planned(elevenths, thirds, func(in *route.Input) { in.Spec.Drained = []string{"c"} })},
		{"drained, and fewer endpoints", nodeC, clusterIP(), elevenths[3:], planned(elevenths, thirds, func(in *route.Input) { in.Spec.Drained = []string{"c"} })},
		{"by CPU requests", nodeA, clusterIP(), slices.Concat(in("a", 1, 2), in("b", 1, 1)), planned(slices.Concat(in("a", 1, 2), in("b", 1, 1)), thirds[:2], requests)},
		{"by CPU requests, one more", nodeA, clusterIP(), slices.Concat(in("a", 1, 3), in("b", 1, 1)), planned(slices.Concat(in("a", 1, 2), in("b", 1, 1)), thirds[:2], requests)},
		{"a zone that the plan does not know", elsewhere, clusterIP(), hinted(in("z", 1, 1)[0], in("a", 1, 1)[0]), planned(in("a", 1, 2), thirds[:1])},
		{"a node without a zone", homeless, clusterIP(), elevenths[7:9], planned(elevenths[7:9], thirds)},
		{"none is ready", nodeA, clusterIP(), []model.Endpoint{ep("10.0.0.1", "a", dying)}, planned(elevenths, thirds)},
		{"no endpoints", nodeA, clusterIP(), nil, planned(elevenths, thirds)},
		{"external Local", nodeC, nodePort(externalLocal), slices.Concat([]model.Endpoint{ep("10.0.0.1", "a", here)}, elevenths[1:]), planned(elevenths, thirds)},
		{"internal Local", nodeC, nodePort(internalLocal), slices.Concat([]model.Endpoint{ep("10.0.0.1", "a", here)}, elevenths[1:]), planned(elevenths, thirds)},
	}
	var b strings.Builder
	for _, c := range cases {
		b.WriteString("== " + c.name + "\n" + service.Text(service.Plan(c.node, c.svc, []model.Slice{slice("s", c.eps...)}, c.zr)))
	}
	two := clusterIP()
	two.Ports = append(two.Ports, model.ServicePort{Name: "alt", Protocol: model.TCP, Port: 81})
	alt := slice("s2", elevenths[4:]...)
	alt.Ports = []model.EndpointPort{{Name: "alt", Protocol: model.TCP, Port: 8081}, {Name: "http", Protocol: model.TCP, Port: 8080}}
	b.WriteString("== a port that zone a does not have\n" + service.Text(service.Plan(nodeA, two,
		[]model.Slice{slice("s1", elevenths[:4]...), alt}, planned(elevenths, thirds))))
	golden.Check(t, "weights.txt", b.String())
}

// Whatever was planned, and whatever the endpoints have become since: with a node in every zone,
// the shares of the nodes together keep the bound, and nothing goes to one that is not ready.
func TestWeightsKeepTheBoundWhateverHappened(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 5))
	for range 5_000 {
		draw := func() []model.Endpoint {
			var out []model.Endpoint
			for z := range 3 {
				out = append(out, in(string(rune('a'+z)), 1+r.IntN(20), r.IntN(6))...)
			}
			for i := range out {
				if r.IntN(8) == 0 {
					out[i].Ready = false
				}
			}
			return out
		}
		demand := model.Shares{{Zone: "a", Share: r.Float64()}, {Zone: "b", Share: r.Float64()}, {Zone: "c", Share: r.Float64()}}
		zr := planned(draw(), demand)
		now := draw()
		if r.IntN(2) == 0 {
			zr = planned(now, demand)
		}
		sum := demand[0].Share + demand[1].Share + demand[2].Share
		ready := map[netip.Addr]bool{}
		for _, e := range now {
			if e.Ready {
				ready[e.Addr] = true
			}
		}
		load := map[netip.Addr]float64{}
		for _, d := range demand {
			node := nodeA
			node.Zone = d.Zone
			f := service.Plan(node, clusterIP(), []model.Slice{slice("s", now...)}, zr)[0]
			total := 0.0
			for _, b := range f.Backends {
				total += b.Share
				load[b.Addr.Addr()] += b.Share * d.Share / sum * float64(len(ready))
				if len(ready) > 0 && (!ready[b.Addr.Addr()] || b.Share <= 0) {
					t.Fatalf("%s has the share %g\n%s", b.Addr, b.Share, f)
				}
			}
			if len(ready) > 0 && math.Abs(total-1) > 1e-9 {
				t.Fatalf("shares sum to %g\n%s", total, f)
			}
		}
		for a, l := range load {
			if len(ready) > 0 && l > 1.2+1e-9 {
				t.Fatalf("%s gets %g of its fair share\n%s", a, l, service.Text(service.Plan(nodeA, clusterIP(), []model.Slice{slice("s", now...)}, zr)))
			}
		}
	}
}

func BenchmarkPlan(b *testing.B) {
	eps := slices.Concat(in("a", 1, 17), in("b", 1, 17), in("c", 1, 16))
	svc, list := clusterIP(), []model.Slice{slice("s", eps...)}
	zr := planned(eps, thirds)
	for name, c := range map[string]struct {
		zr   *model.ZoneRoute
		list []model.Slice
	}{
		"two endpoints": {nil, []model.Slice{slice("s", eps[:2]...)}}, "5,000 endpoints": {nil, many(50)},
		"hints": {nil, list}, "weights": {zr, list}, "replanned": {zr, []model.Slice{slice("s", eps[1:]...)}},
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				service.Plan(nodeA, svc, c.list, c.zr)
			}
		})
	}
}
