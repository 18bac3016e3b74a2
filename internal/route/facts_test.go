package route_test

import (
	"math"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/route"
)

func TestCluster(t *testing.T) {
	node := func(name, zone string, cpu int64) model.Node {
		return model.Node{Name: name, Zone: zone, Ready: true, MilliCPU: cpu}
	}
	down, control := node("d", "c", 9000), node("m", "a", 9000)
	down.Ready, control.ControlPlane = false, true
	c := route.NewCluster([]model.Node{node("2", "b", 1000), node("1", "a", 3000), down, control, node("3", "", 4000)}, aws())
	if !slices.Equal(c.Zones(), abc) {
		t.Error(c.Zones())
	}
	want := model.Shares{{Zone: "", Share: 0.5}, {Zone: "a", Share: 0.375}, {Zone: "b", Share: 0.125}}
	if d := c.Demand(); d.Source != model.NodeCPU || !slices.Equal(d.Shares, want) {
		t.Error(d)
	}
	for name, nodes := range map[string][]model.Node{"none": nil, "no zone": {node("1", "", 1000)}, "none ready": {down}} {
		if d := route.NewCluster(nodes, aws()).Demand(); d.Shares != nil {
			t.Errorf("%s: %v", name, d)
		}
	}
	if d := route.NewCluster([]model.Node{node("1", "a", 0), node("2", "b", 0)}, aws()).Demand(); !slices.Equal(d.Shares, model.Shares{{Zone: "a", Share: 0.5}, {Zone: "b", Share: 0.5}}) {
		t.Errorf("no CPU known: %v", d)
	}
}

// An address in two slices counts once, at its liveliest, whichever comes first.
func TestEndpoints(t *testing.T) {
	ep := func(addr string, zone string, ready, terminating bool) model.Endpoint {
		return model.Endpoint{Addr: netip.MustParseAddr(addr), Zone: zone, Ready: ready, Serving: ready, Terminating: terminating}
	}
	one := model.Slice{Endpoints: []model.Endpoint{ep("10.0.0.2", "a", true, true), ep("10.0.0.1", "b", true, false)}}
	two := model.Slice{Endpoints: []model.Endpoint{ep("10.0.0.2", "c", true, false)}}
	six := model.Slice{V6: true, Endpoints: []model.Endpoint{ep("fd00::1", "a", true, false)}}
	want := []model.Endpoint{ep("10.0.0.1", "b", true, false), ep("10.0.0.2", "c", true, false)}
	for _, all := range [][]model.Slice{{one, two, six}, {six, two, one}} {
		if got := route.Endpoints(all, false); !reflect.DeepEqual(got, want) {
			t.Error(got)
		}
	}
	if got := route.Endpoints([]model.Slice{one, six}, true); len(got) != 1 || got[0].Zone != "a" {
		t.Error(got)
	}
}

func TestMeasures(t *testing.T) {
	m := model.Matrix{
		{Zone: "", To: model.Shares{{Zone: "", Share: 1}}},
		{Zone: "a", To: model.Shares{{Zone: "a", Share: 0.75}, {Zone: "b", Share: 0.25}}},
		{Zone: "b", To: model.Shares{{Zone: "b", Share: 1}}},
	}
	demand := model.Shares{{Zone: "", Share: 0.2}, {Zone: "a", Share: 0.4}, {Zone: "b", Share: 0.4}}
	if got := route.InZone(m, demand); !near(got, 0.7) {
		t.Error("in zone", got)
	}
	if got := route.PerTB(m, demand, aws()); !near(got, 0.3*20) { // of an unknown zone nobody knows that it is the same
		t.Error("USD per TB", got)
	}
	loads := route.Load(m, demand, model.Shares{{Zone: "a", Share: 0.5}, {Zone: "b", Share: 0.25}, {Zone: "c", Share: 0.25}})
	if !near(loads.Of("a"), 0.6) || !near(loads.Of("b"), 2) || loads.Of("c") != 0 || !math.IsInf(loads.Of(""), 1) || len(loads) != 4 {
		t.Error("loads", loads)
	}
	even := route.Even(podsOf(abc, []int{3, 1, 0}), []string{"c", "a", "c"})
	to := model.Shares{{Zone: "a", Share: 0.75}, {Zone: "b", Share: 0.25}}
	if !reflect.DeepEqual(even, model.Matrix{{Zone: "a", To: to}, {Zone: "c", To: to}}) {
		t.Error(even)
	}
	if route.Even(nil, abc) != nil {
		t.Error("weights to nothing")
	}
}

// What is measured counts where nothing else is asked for; what of it is no number does not.
func TestDemand(t *testing.T) {
	measured := &model.Demand{Shares: model.Shares{{Zone: "b", Share: 3}, {Zone: "a", Share: 1}, {Zone: "c", Share: math.NaN()}}, BytesPerSecond: 5, At: start}
	static := model.Shares{{Zone: "c", Share: 2}}
	for _, c := range []struct {
		name   string
		spec   model.RouteSpec
		in     *model.Demand
		source model.DemandSource
		shares model.Shares
		bytes  float64
	}{
		{"measured", model.RouteSpec{BytesPerSecond: 7}, measured, model.Measured, model.Shares{{Zone: "a", Share: 0.25}, {Zone: "b", Share: 0.75}}, 5},
		{"measured is asked for and not there", model.RouteSpec{Demand: model.Measured, BytesPerSecond: 7}, nil, model.NodeCPU, nil, 7},
		{"measured nothing", model.RouteSpec{}, &model.Demand{Shares: model.Shares{{Zone: "a", Share: 0}, {Zone: "b", Share: -1}}}, model.NodeCPU, nil, 0},
		{"CPU is asked for", model.RouteSpec{Demand: model.NodeCPU}, measured, model.NodeCPU, nil, 5},
		{"static", model.RouteSpec{Demand: model.Static, Static: static}, measured, model.Static, model.Shares{{Zone: "c", Share: 1}}, 5},
	} {
		in := input(1, 1, 1)
		in.Spec, in.Measured = c.spec, c.in
		p, _ := route.Plan(in)
		if c.shares == nil {
			c.shares = in.Cluster.Demand().Shares
		}
		if p.Demand.Source != c.source || !slices.Equal(p.Demand.Shares, c.shares) || p.Demand.BytesPerSecond != c.bytes || (c.in == measured) != (p.Demand.At == start) {
			t.Errorf("%s: %+v", c.name, p.Demand)
		}
	}
	if measured.Shares[0].Zone != "b" {
		t.Error("the measurement was changed")
	}
}

// A thousand zones are far from any cluster that there is: they are planned all the same.
func TestManyZones(t *testing.T) {
	for _, c := range []struct {
		zones   int
		unequal bool
	}{{1000, false}, {200, true}} {
		cluster, all := wide(c.zones, 5*c.zones, c.unequal)
		in := route.Input{Service: web, Cluster: cluster, Endpoints: route.Endpoints(all, false), Now: start}
		p, _ := route.Plan(in)
		if err := check(p, in); err != nil {
			t.Error(err)
		}
		if len(p.Zones) != c.zones || p.InZone.Ideal < 0.5 || p.PerTB.Ideal > p.PerTB.Before {
			t.Errorf("%d zones: in zone %+v, USD/TB %+v", len(p.Zones), p.InZone, p.PerTB)
		}
		if len(p.Reason) > 600 {
			t.Errorf("a reason that nobody reads: %s", p.Reason)
		}
	}
}
