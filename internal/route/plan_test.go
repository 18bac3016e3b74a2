package route_test

import (
	"fmt"
	"math"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/zonewise/zonewise/internal/golden"
	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/route"
)

var (
	web   = model.Name{Namespace: "shop", Name: "web"}
	start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
)

// nodesOf makes a ready node in each zone, with the CPU given; a zone is a letter.
func nodesOf(cpu map[string]int64) []model.Node {
	var out []model.Node
	for z, c := range cpu {
		out = append(out, model.Node{Name: "n-" + z, Zone: z, Ready: true, MilliCPU: c})
	}
	return out
}

// podsOf makes ready endpoints: as many as told in each zone.
func podsOf(zones []string, count []int) []model.Endpoint {
	var out []model.Endpoint
	for z, n := range count {
		for i := range n {
			out = append(out, model.Endpoint{
				Addr: netip.AddrFrom4([4]byte{10, byte(z >> 8), byte(z), byte(i + 1)}), Zone: zones[z], Node: "n-" + zones[z],
				Pod: fmt.Sprintf("web-%s-%d", zones[z], i), Ready: true, Serving: true,
			})
		}
	}
	return out
}

func aws() model.Prices {
	p, _ := route.Book("aws")
	return p
}

var (
	abc   = []string{"a", "b", "c"}
	equal = map[string]int64{"a": 4000, "b": 4000, "c": 4000}
)

func input(count ...int) route.Input {
	return route.Input{
		Service: web, Endpoints: podsOf(abc, count), Cluster: route.NewCluster(nodesOf(equal), aws()), Now: start,
	}
}

// with changes an input.
func with(in route.Input, change func(*route.Input)) route.Input {
	change(&in)
	return in
}

// near tells whether figures are the same but for rounding.
func near(a, b float64) bool { return math.Abs(a-b) < 1e-9 }

// For each of these upstream refuses or overloads; ours is the best under a bound of 1.2, and its
// fix is what gives more. Three zones of equal demand.
func TestPlacements(t *testing.T) {
	for _, c := range []struct {
		pods    []int
		inZone  float64 // Σ min(1/3, 1.2 × pods/all)
		maxLoad float64
		fix     string
	}{
		{[]int{1, 0, 0}, 1. / 3, 1, "a pod in zone b"},
		{[]int{1, 1, 0}, 2. / 3, 1, "a pod in zone c"},
		{[]int{1, 1, 1}, 1, 1, ""},
		{[]int{2, 1, 1}, 1./3 + 2*0.3, 1.2, "2 more pods (1 in zone b, 1 in zone c), or a bound of 0.34"},
		{[]int{2, 2, 1}, 2./3 + 0.24, 1.2, "one more pod in zone c"},
		{[]int{3, 3, 2}, 2./3 + 0.3, 1.2, "one more pod in zone c, or a bound of 0.34"},
		{[]int{4, 4, 3}, 2./3 + 3.6/11, 1.2, "one more pod in zone c, or a bound of 0.23"},
		{[]int{5, 5, 4}, 1, 14. / 12, ""},
		{[]int{1, 2, 3}, 0.2 + 2./3, 1.2, "one more pod in zone a"},
		{[]int{40, 1, 1}, 1./3 + 2*1.2/42, 1.2, "one more pod in zone b"},
	} {
		t.Run(fmt.Sprint(c.pods), func(t *testing.T) {
			p, next := route.Plan(input(c.pods...))
			if !near(p.InZone.Ideal, c.inZone) || p.InZone.Planned != p.InZone.Ideal || !near(p.InZone.Before, 1./3) {
				t.Errorf("in zone %+v, want %v", p.InZone, c.inZone)
			}
			if !near(p.MaxLoad, c.maxLoad) {
				t.Errorf("load %v, want %v", p.MaxLoad, c.maxLoad)
			}
			if p.Fix != c.fix {
				t.Errorf("fix %q, want %q", p.Fix, c.fix)
			}
			if !next.IsZero() || p.At != start {
				t.Errorf("at %v, next %v", p.At, next)
			}
		})
	}
}

// stories are plans whose text is golden.
func stories() []story {
	uneven := model.Prices{PerGB: 0.02, Pairs: map[model.ZonePair]float64{{From: "c", To: "b"}: 0.01}}
	demand := func(a, b, c float64) func(*route.Input) {
		return func(in *route.Input) {
			in.Spec.Demand = model.Static
			in.Spec.Static = model.Shares{{Zone: "a", Share: a}, {Zone: "b", Share: b}, {Zone: "c", Share: c}}
		}
	}
	return []story{
		{"every zone has enough", input(4, 4, 4)},
		{"4, 4 and 3 pods, which upstream refuses", input(4, 4, 3)},
		{"a zone without pods", input(2, 3, 0)},
		{"no pods", input()},
		{"no pod is ready", with(input(1, 1, 1), func(in *route.Input) {
			for i := range in.Endpoints {
				in.Endpoints[i].Ready = false
			}
		})},
		{"a zone is drained", with(input(3, 3, 3), func(in *route.Input) { in.Spec.Drained = []string{"b"} })},
		{"a zone without clients is drained", with(with(input(3, 3, 3), demand(1, 1, 0)), func(in *route.Input) { in.Spec.Drained = []string{"c"} })},
		{"all zones are drained", with(input(3, 3, 3), func(in *route.Input) { in.Spec.Drained = abc })},
		{"a zone that does not exist is drained", with(input(4, 4, 3), func(in *route.Input) { in.Spec.Drained = []string{"x", "c", "atlantis"} })},
		{"demand is where the pods are not", with(input(1, 2, 9), demand(6, 3, 1))},
		{"the cheapest zone takes what does not fit", with(input(4, 4, 2), func(in *route.Input) {
			in.Cluster = route.NewCluster(nodesOf(equal), uneven)
		})},
		{"measured, with bytes", with(input(2, 2, 2), func(in *route.Input) {
			in.Measured = &model.Demand{Shares: model.Shares{{Zone: "a", Share: 3}, {Zone: "z", Share: 1}}, BytesPerSecond: 1e6, At: start}
		})},
		{"pods of different size", with(input(2, 1, 1), func(in *route.Input) {
			in.Spec.Capacity = model.CPURequests
			in.CPU = func(p model.Name) int64 {
				return map[string]int64{"web-b-0": 2000, "web-a-0": 500, "web-c-0": 500}[p.Name]
			}
		})},
		{"a node and an endpoint without a zone", with(input(2, 2, 1), func(in *route.Input) {
			in.Cluster = route.NewCluster(append(nodesOf(equal), model.Node{Name: "lost", Ready: true, MilliCPU: 1000}), aws())
			in.Endpoints[0].Zone = ""
		})},
		{"no node has a zone", with(input(2, 2, 1), func(in *route.Input) {
			in.Cluster = route.NewCluster([]model.Node{{Name: "n", Ready: true, MilliCPU: 1000}}, aws())
		})},
		{"upstream's hints as they are", with(input(2, 1, 1), func(in *route.Input) {
			in.Without = model.Matrix{{Zone: "a", To: model.Shares{{Zone: "a", Share: 1}}}, {Zone: "b", To: model.Shares{{Zone: "b", Share: 1}}}}
		})},
		{"another bound, IPv6", with(input(2, 1, 1), func(in *route.Input) { in.Spec.MaxOverload, in.V6 = 0.34, true })},
	}
}

type story struct {
	name string
	in   route.Input
}

func TestPlansAsText(t *testing.T) {
	var b strings.Builder
	for _, s := range stories() {
		p, _ := route.Plan(s.in)
		fmt.Fprintf(&b, "# %s\n%s\n", s.name, route.Text(p))
		if err := check(p, s.in); err != nil {
			t.Errorf("%s: %v", s.name, err)
		}
	}
	golden.Check(t, "plans.golden", b.String())
}
