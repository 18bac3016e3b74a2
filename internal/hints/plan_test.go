package hints

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/route"
)

// drawInput is any Service: zones without nodes, nodes without zones, endpoints without zones or not
// ready, drained zones, unequal capacities, demand that is all in one place.
func drawInput(t *rapid.T) (p model.RoutePlan, clients []Client, endpoints []model.Endpoint) {
	zones := []string{"", "a", "b", "c", "d", "e", "f", "g", "h", "i", "j"}
	zone := rapid.SampledFrom(zones[:rapid.IntRange(2, len(zones)).Draw(t, "zones")])
	var nodes []model.Node
	for i := range rapid.SampledFrom([]int{0, 1, 5, 20, 40, 300}).Draw(t, "nodes") {
		nodes = append(nodes, model.Node{
			Name: fmt.Sprintf("n%d", i), Zone: zone.Draw(t, "zone"), MilliCPU: 1000,
			Ready: rapid.IntRange(0, 9).Draw(t, "ready") > 0, ControlPlane: rapid.IntRange(0, 9).Draw(t, "plane") == 0,
		})
	}
	cpu := map[string]int64{}
	for i := range rapid.IntRange(0, 30).Draw(t, "endpoints") {
		e := model.Endpoint{
			Addr: netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), Zone: zone.Draw(t, "zone"), Pod: fmt.Sprintf("p%d", i),
			Ready: rapid.IntRange(0, 9).Draw(t, "ready") > 0, Serving: true,
		}
		cpu[e.Pod] = int64(rapid.IntRange(1, 3).Draw(t, "cpu"))
		endpoints = append(endpoints, e)
	}
	spec := model.RouteSpec{MaxOverload: rapid.SampledFrom([]float64{0.05, 0.2, 1}).Draw(t, "overload")}
	if rapid.Bool().Draw(t, "static") {
		spec.Demand = model.Static
		for _, z := range zones[1:] {
			spec.Static = append(spec.Static, model.Share{Zone: z, Share: rapid.Float64Range(0, 5).Draw(t, "share")})
		}
	}
	if rapid.IntRange(0, 3).Draw(t, "drain") == 0 {
		spec.Drained = []string{"a"}
	}
	if rapid.IntRange(0, 3).Draw(t, "requests") == 0 {
		spec.Capacity = model.CPURequests
	}
	p, _ = route.Plan(route.Input{
		Service: model.Name{Namespace: "shop", Name: "web"}, Endpoints: endpoints, Spec: spec,
		Cluster: route.NewCluster(nodes, model.Prices{PerGB: 0.02}),
		CPU:     func(pod model.Name) int64 { return cpu[pod.Name] },
	})
	return p, Clients(nodes, p.Demand.Shares), endpoints
}

var numbers = regexp.MustCompile(`zone [a-z]|[0-9.]+`)

// Whatever the Service, what comes out is a set that the API takes, that says everything or nothing,
// that keeps the bound or says why not, and that depends on nothing but what went in.
func TestPlanHolds(t *testing.T) {
	reasons := map[string]int{}
	for range 30 {
		rapid.Check(t, func(t *rapid.T) {
			p, clients, endpoints := drawInput(t)
			s := Plan(p, clients, endpoints, nil)
			reasons[strings.TrimRight(strings.TrimSpace(numbers.ReplaceAllString(s.Reason, "N")), ".")]++
			wellFormed(t, s, endpoints)
			truthful(t, p, clients, endpoints, s)
			bounded(t, p, clients, endpoints, s)

			r := rand.New(rand.NewPCG(1, 2))
			mixed, others := slices.Clone(endpoints), slices.Clone(clients)
			r.Shuffle(len(mixed), func(i, j int) { mixed[i], mixed[j] = mixed[j], mixed[i] })
			r.Shuffle(len(others), func(i, j int) { others[i], others[j] = others[j], others[i] })
			if again := Plan(p, others, mixed, nil); !reflect.DeepEqual(s, again) {
				t.Fatalf("in another order:\n%s\n%s", s.Text(endpoints), again.Text(endpoints))
			}
			if again := Plan(p, clients, endpoints, wear(endpoints, s)); !reflect.DeepEqual(s, again) {
				t.Fatalf("nothing changed, yet\n%s\n%s", s.Text(endpoints), again.Text(endpoints))
			}
		})
	}
	for reason, n := range reasons {
		t.Logf("%5d %q", n, reason)
	}
	if reasons[""] < 1000 {
		t.Errorf("only %d cases were planned without more ado: the generator is too narrow", reasons[""])
	}
}

// wear puts a set's hints on endpoints.
func wear(endpoints []model.Endpoint, s Set) []model.Endpoint {
	out := slices.Clone(endpoints)
	for i := range out {
		h := s.Of[out[i].Addr]
		out[i].ZoneHints, out[i].NodeHints = h.Zones, h.Nodes
	}
	return out
}

func wellFormed(t *rapid.T, s Set, endpoints []model.Endpoint) {
	if len(s.Of) == 0 {
		if s.Reason == "" {
			t.Fatal("no hints, and no reason")
		}
		return
	}
	byNode := len(s.Of[endpoints[0].Addr].Nodes) > 0
	for _, e := range endpoints {
		h := s.Of[e.Addr]
		if len(h.Zones) == 0 || len(h.Zones) > 8 || len(h.Nodes) > 8 || byNode != (len(h.Nodes) > 0) {
			t.Fatalf("%s: %v\n%s", e.Addr, h, s.Text(endpoints))
		}
		if !slices.Equal(h.Zones, sorted(h.Zones)) || !slices.Equal(h.Nodes, sorted(h.Nodes)) {
			t.Fatalf("%s: out of order, or twice: %v", e.Addr, h)
		}
		if slices.Contains(h.Zones, "") || slices.Contains(h.Nodes, "") {
			t.Fatalf("%s: empty name: %v", e.Addr, h)
		}
	}
}

// truthful compares the set's forecasts with what consumers would do, node by node.
func truthful(t *rapid.T, p model.RoutePlan, clients []Client, endpoints []model.Endpoint, s Set) {
	worn := wear(endpoints, s)
	capacity := capacityOf(p, endpoints)
	for c, f := range map[Consumer]Forecast{KubeProxy: s.Forecast, KubeProxyOld: s.Older, Cilium: s.Older} {
		slow := slowly(c, clients, worn, capacity)
		quick := Predict(c, clients, worn, capacity)
		for _, g := range []Forecast{slow, quick} {
			if d := f.InZone - g.InZone; d > 1e-9 || d < -1e-9 {
				t.Fatalf("%s: in zone %v, forecast %v", c, g.InZone, f.InZone)
			}
			if d := f.MaxLoad - g.MaxLoad; d > 1e-9 || d < -1e-9 {
				t.Fatalf("%s: load %v, forecast %v", c, g.MaxLoad, f.MaxLoad)
			}
		}
	}
}

func capacityOf(p model.RoutePlan, endpoints []model.Endpoint) func(i int) float64 {
	drained, capacity := drained(p), capacities(p)
	return func(i int) float64 {
		if drained[endpoints[i].Zone] {
			return 0
		}
		return capacity(endpoints[i].Addr)
	}
}

// slowly is Predict by the definition: a client after another.
func slowly(c Consumer, clients []Client, endpoints []model.Endpoint, capacity func(i int) float64) (f Forecast) {
	var ready []model.Endpoint
	var k []float64
	var sum, total float64
	for i, e := range endpoints {
		if e.Ready {
			ready, k, sum = append(ready, e), append(k, capacity(i)), sum+capacity(i)
		}
	}
	for _, c := range clients {
		total += c.Share
	}
	if len(ready) == 0 || total == 0 {
		return f
	}
	load := make([]float64, len(ready))
	for _, client := range clients {
		use := c.Choose(client.Node, client.Zone, ready)
		for _, i := range use {
			x := client.Share / total / float64(len(use))
			load[i] += x
			if ready[i].Zone == client.Zone && client.Zone != "" {
				f.InZone += x
			}
		}
	}
	for i, x := range load {
		if k[i] > 0 {
			f.MaxLoad = max(f.MaxLoad, x/(k[i]/sum))
		}
	}
	return f
}

func bounded(t *rapid.T, p model.RoutePlan, clients []Client, endpoints []model.Endpoint, s Set) {
	drains := slices.ContainsFunc(p.Zones, func(z model.ZonePlan) bool { return z.Drained })
	if strings.HasPrefix(s.Reason, "no hints keep") && len(p.Capacities) == 0 && !drains {
		t.Fatalf("equal endpoints, yet %s", s.Reason)
	}
	if without := Predict(KubeProxy, clients, endpoints, capacityOf(p, endpoints)); s.Reason != "" && !drains && s.Forecast.MaxLoad > without.MaxLoad+1e-9 {
		t.Fatalf("%s: load %v, without hints %v", s.Reason, s.Forecast.MaxLoad, without.MaxLoad)
	}
	if len(s.Of) == 0 || s.Reason != "" {
		return
	}
	nowhere := p.Demand.Shares.Of("") // clients without a zone: hints cannot keep older consumers there from any endpoint
	if most := 1 + p.MaxOverload + 1e-6; s.Forecast.MaxLoad > most {
		t.Fatalf("load %v, bound %v\n%s", s.Forecast.MaxLoad, most, s.Text(endpoints))
	}
	if most := 1 + olderSlack*p.MaxOverload + 1e-6; nowhere == 0 && s.Older.MaxLoad > most {
		t.Fatalf("older: load %v, bound %v\n%s", s.Older.MaxLoad, most, s.Text(endpoints))
	}
	if s.Forecast.InZone > p.InZone.Planned+0.01 {
		t.Fatalf("in zone %v, more than the plan's %v\n%s", s.Forecast.InZone, p.InZone.Planned, s.Text(endpoints))
	}
	for _, z := range p.Zones {
		if !z.Drained {
			continue
		}
		for _, row := range s.Forecast.Matrix {
			if x := row.To.Of(z.Name); x > 0 && row.Zone != "" {
				t.Fatalf("%v of zone %q goes to drained %s\n%s", x, row.Zone, z.Name, s.Text(endpoints))
			}
		}
	}
}
