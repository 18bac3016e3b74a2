package route_test

import (
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/route"
)

func service() model.Service {
	return model.Service{
		Name: web, Type: model.ClusterIP, ClusterIPs: []netip.Addr{netip.MustParseAddr("10.100.0.9")},
		Ports: []model.ServicePort{{Name: "http", Protocol: model.TCP, Port: 80}},
	}
}

// imagine plans with the change.
func imagine(w route.WhatIf, all []model.Slice, spec model.RouteSpec) model.RoutePlan {
	p, _ := route.Plan(route.Input{
		Service: web, Endpoints: route.Endpoints(w.Slices(service(), all), false), Spec: w.Spec(spec),
		Cluster: route.NewCluster(w.Nodes(nodesOf(equal)), w.Book(aws())), Now: start,
	})
	return p
}

func counts(p model.RoutePlan) map[string]int {
	out := map[string]int{}
	for _, z := range p.Zones {
		out[z.Name] = z.Endpoints
	}
	return out
}

func TestWhatIf(t *testing.T) {
	tight, half := 0.34, model.Prices{PerGB: 0.005}
	for _, c := range []struct {
		name   string
		pods   []int
		what   route.WhatIf
		counts map[string]int
		inZone float64
		perTB  float64
	}{
		{"nothing", []int{2, 1, 1}, route.WhatIf{}, map[string]int{"a": 2, "b": 1, "c": 1}, 1./3 + 0.6, (2./3 - 0.6) * 20},
		{"more pods", []int{2, 1, 1}, route.WhatIf{Scale: map[string]int{"b": 2, "c": 2}}, map[string]int{"a": 2, "b": 2, "c": 2}, 1, 0},
		{"fewer pods", []int{5, 5, 5}, route.WhatIf{Scale: map[string]int{"a": 1}}, map[string]int{"a": 1, "b": 5, "c": 5}, 1.2/11 + 2./3, (1./3 - 1.2/11) * 20},
		{"pods where none are", []int{1, 0, 0}, route.WhatIf{Scale: map[string]int{"b": 1, "c": 1}}, map[string]int{"a": 1, "b": 1, "c": 1}, 1, 0},
		{"the first pods of all", nil, route.WhatIf{Scale: map[string]int{"a": 1}}, map[string]int{"a": 1, "b": 0, "c": 0}, 1. / 3, 2. / 3 * 20},
		{"no pods", []int{1, 0, 0}, route.WhatIf{Scale: map[string]int{"a": 0}}, map[string]int{"a": 0, "b": 0, "c": 0}, 0, 0},
		{"a lost zone", []int{2, 2, 2}, route.WhatIf{Lose: []string{"c"}}, map[string]int{"a": 2, "b": 2}, 1, 0},
		{"another bound", []int{2, 1, 1}, route.WhatIf{MaxOverload: &tight}, map[string]int{"a": 2, "b": 1, "c": 1}, 1, 0},
		{"other prices", []int{2, 1, 1}, route.WhatIf{Prices: &half}, map[string]int{"a": 2, "b": 1, "c": 1}, 1./3 + 0.6, (2./3 - 0.6) * 5},
		{"all at once", []int{2, 1, 1}, route.WhatIf{Scale: map[string]int{"a": 6}, Lose: []string{"c"}, MaxOverload: &tight, Prices: &half},
			map[string]int{"a": 6, "b": 1}, 0.5 + 1.34/7, (0.5 - 1.34/7) * 5},
	} {
		t.Run(c.name, func(t *testing.T) {
			all := cut(podsOf(abc, c.pods))
			before := len(all) > 0 && len(all[0].Endpoints) > 0
			if err := c.what.Check(nodesOf(equal)); err != nil {
				t.Fatal(err)
			}
			p := imagine(c.what, all, model.RouteSpec{})
			if !reflect.DeepEqual(counts(p), c.counts) {
				t.Errorf("endpoints %v, want %v", counts(p), c.counts)
			}
			if !near(p.InZone.Ideal, c.inZone) || !near(p.PerTB.Ideal, c.perTB) {
				t.Errorf("in zone %v USD/TB %v, want %v and %v", p.InZone.Ideal, p.PerTB.Ideal, c.inZone, c.perTB)
			}
			if before && !reflect.DeepEqual(all, cut(podsOf(abc, c.pods))) {
				t.Error("the facts were changed")
			}
		})
	}
}

// Added endpoints have addresses and names of their own, on nodes of their zone; other Services and
// the other family are left alone.
func TestAddedEndpoints(t *testing.T) {
	svc := service()
	svc.ClusterIPs = append(svc.ClusterIPs, netip.MustParseAddr("fd00::9"))
	all := cut(podsOf(abc, []int{1, 1, 0}))
	all[0].Endpoints = append(all[0].Endpoints, model.Endpoint{Addr: netip.MustParseAddr("198.18.0.1"), Zone: "a", Pod: "web-what-if-1", Node: "n2-a", Ready: true})
	other := model.Slice{Name: model.Name{Namespace: web.Namespace, Name: "other"}, Service: "other", Endpoints: podsOf(abc, []int{1})}
	out := route.WhatIf{Scale: map[string]int{"a": 5}}.Slices(svc, append(all, other))
	if len(out) != 3 || !reflect.DeepEqual(out[1], other) || !out[2].V6 {
		t.Fatalf("%+v", out)
	}
	v4, v6 := route.Endpoints(out[:1], false), route.Endpoints(out[2:], true)
	if len(v4) != 6 || len(v6) != 5 {
		t.Fatalf("%d and %d endpoints", len(v4), len(v6))
	}
	pods, nodes := map[string]bool{}, map[string]bool{}
	for _, e := range v4 {
		pods[e.Pod] = true
		if e.Zone == "a" {
			nodes[e.Node] = true
		}
	}
	if len(pods) != 6 || !reflect.DeepEqual(nodes, map[string]bool{"n-a": true, "n2-a": true}) {
		t.Errorf("pods %v nodes %v", pods, nodes)
	}
	if !slices.Equal(out[2].Ports, []model.EndpointPort{{Name: "http", Protocol: model.TCP, Port: 80}}) {
		t.Errorf("ports %v", out[2].Ports)
	}
}

// A lost zone's clients are lost too, wherever their demand is known from.
func TestLostDemand(t *testing.T) {
	w := route.WhatIf{Lose: []string{"a"}}
	spec := model.RouteSpec{Demand: model.Static, Static: model.Shares{{Zone: "a", Share: 2}, {Zone: "b", Share: 1}}}
	if got := w.Spec(spec).Static; !slices.Equal(got, model.Shares{{Zone: "b", Share: 1}}) {
		t.Error(got)
	}
	spec.Static = spec.Static[:1]
	if got := w.Spec(spec); got.Demand != "" || route.Validate(got) != nil {
		t.Error(got)
	}
	d := w.Demand(&model.Demand{Shares: model.Shares{{Zone: "a", Share: 0.75}, {Zone: "b", Share: 0.25}}, BytesPerSecond: 100})
	if !slices.Equal(d.Shares, model.Shares{{Zone: "b", Share: 1}}) || d.BytesPerSecond != 25 {
		t.Error(d)
	}
	if d := w.Demand(&model.Demand{Shares: model.Shares{{Zone: "a", Share: 1}}}); d != nil {
		t.Error(d)
	}
}

func TestWhatIfCheck(t *testing.T) {
	much := 10.0
	for want, w := range map[string]route.WhatIf{
		`scale: there is no zone "d", only a, b, c`:    {Scale: map[string]int{"d": 1}},
		`scale: zone a: -1 is not between 0 and 10000`: {Scale: map[string]int{"a": -1}},
		`scale: zone a is lost`:                        {Scale: map[string]int{"a": 1}, Lose: []string{"a"}},
		`lose: there is no zone "", only a, b, c`:      {Lose: []string{""}},
		`max overload: 10 is more than 4`:              {MaxOverload: &much},
		`prices: pair a to b: perGB: -1 is negative`:   {Prices: &model.Prices{Pairs: map[model.ZonePair]float64{{From: "a", To: "b"}: -1}}},
		`prices: perGB: 5000 USD is more than 1000`:    {Prices: &model.Prices{PerGB: 5000}},
	} {
		if err := w.Check(nodesOf(equal)); err == nil || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
	if err := (route.WhatIf{Lose: []string{"a"}}).Check([]model.Node{{Name: "n"}}); err == nil || err.Error() != `lose: there is no zone "a": no node has a zone` {
		t.Error(err)
	}
}
