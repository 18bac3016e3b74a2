package hints

import (
	"fmt"
	"math"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/zonewise/zonewise/internal/golden"
	"github.com/zonewise/zonewise/internal/model"
)

func TestText(t *testing.T) {
	var b strings.Builder
	show := func(title string, w world) {
		fmt.Fprintf(&b, "# %s\n%s\n", title, Plan(w.plan, w.clients, w.endpoints, nil).Text(w.endpoints))
	}
	third := []float64{1. / 3, 1. / 3, 1. / 3}
	show("3 zones with 6 nodes each; pods 4, 4, 3", newWorld([]int{4, 4, 3}, 6, third, 0.2))
	show("pods 2, 1, 1; 2 nodes each", newWorld([]int{2, 1, 1}, 2, third, 0.2))
	show("pods 5, 1, 6", newWorld([]int{5, 1, 6}, 6, third, 0.2))
	show("pods 3, 3, 3: nothing to do but stay at home", newWorld([]int{3, 3, 3}, 6, third, 0.2))
	show("pods 2, 0, 2; 3 nodes each", newWorld([]int{2, 0, 2}, 3, third, 0.2))
	show("one pod", newWorld([]int{1, 0, 0}, 3, third, 0.2))
	show("no pod", newWorld([]int{0, 0, 0}, 3, third, 0.2))
	show("no demand", newWorld([]int{1, 1, 1}, 3, []float64{0, 0, 0}, 0.2))
	drained := newWorld([]int{2, 2, 2}, 3, third, 0.2)
	drained.plan.Zones[0].Drained = true
	drained.plan.Zones[0].Weights = model.Shares{{Zone: "b", Share: 0.5}, {Zone: "c", Share: 0.5}}
	show("zone a drained", drained)
	uneven := newWorld([]int{2, 2, 2}, 3, third, 0.2)
	for i, e := range uneven.endpoints {
		uneven.plan.Capacities = append(uneven.plan.Capacities, model.Capacity{Addr: e.Addr, Capacity: 1 + 9*float64(i%2)})
	}
	show("capacities 1 and 10 in each zone", uneven)
	golden.Check(t, "hints.txt", b.String())
}

func TestClients(t *testing.T) {
	node := func(name, zone string, ready, plane bool) model.Node {
		return model.Node{Name: name, Zone: zone, Ready: ready, ControlPlane: plane}
	}
	nodes := []model.Node{
		node("a2", "a", true, false), node("a1", "a", true, false), node("a3", "a", false, false), node("a4", "a", true, true),
		node("b1", "b", true, true), node("x1", "", true, false), node("c1", "c", true, false),
	}
	demand := model.Shares{{Zone: "", Share: 0.1}, {Zone: "a", Share: 0.5}, {Zone: "b", Share: 0.3}, {Zone: "c", Share: 0}, {Zone: "d", Share: 0.1}}
	want := []Client{{"x1", "", 0.1}, {"a1", "a", 0.25}, {"a2", "a", 0.25}, {"", "b", 0.3}, {"", "d", 0.1}}
	if d := cmp.Diff(want, Clients(nodes, demand)); d != "" {
		t.Error(d)
	}
	if got := Clients(nodes, nil); got != nil {
		t.Errorf("without demand: %v", got)
	}
}

// What no sane input has is survived, and does no harm to the rest.
func TestStrangeInput(t *testing.T) {
	w := newWorld([]int{2, 2, 1}, 6, []float64{0.3, 0.3, 0.4}, 0.2)
	want := Plan(w.plan, w.clients, w.endpoints, nil)
	strange := append([]Client{{"n1", "a", math.NaN()}, {"n2", "b", math.Inf(1)}, {"n3", "c", -1}, {"n4", "zz", 0}}, w.clients...)
	if got := Plan(w.plan, strange, w.endpoints, nil); !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%swant\n%s", got.Text(w.endpoints), want.Text(w.endpoints))
	}
	bad := newWorld([]int{2, 2, 1}, 6, []float64{0.3, 0.3, 0.4}, 0.2)
	for i := range bad.clients {
		bad.clients[i].Node = "no such name!"
	}
	for _, e := range Plan(bad.plan, bad.clients, bad.endpoints, nil).Of {
		if len(e.Nodes) > 0 {
			t.Errorf("a name that the API refuses: %v", e)
		}
	}
	for _, z := range []string{"", "a b", "-a", "a-", "a/b", "ä", strings.Repeat("a", 64)} {
		if validZone(z) {
			t.Errorf("zone %q is taken for valid", z)
		}
	}
	for _, n := range []string{"", "A", "a_b", ".a", "a..b", "-a", strings.Repeat("a", 254)} {
		if validNode(n) {
			t.Errorf("node %q is taken for valid", n)
		}
	}
	if !validZone("ap-northeast-2a") || !validZone("z_1.B") || !validNode("ip-10-0-0-1.ec2.internal") || !validZone(NoZone) || !validNode(NoNode) {
		t.Error("a good name is refused")
	}
}

// A thousand zones, more than any endpoint can name: what cannot be named uses every endpoint, and
// the bound holds.
func TestThousandZones(t *testing.T) {
	p := model.RoutePlan{MaxOverload: 0.2}
	var clients []Client
	var endpoints []model.Endpoint
	for z := range 1000 {
		name := fmt.Sprintf("z%03d", z)
		clients = append(clients, Client{"n" + name, name, 0.001})
		p.Zones = append(p.Zones, model.ZonePlan{Name: name, Weights: model.Shares{{Zone: name, Share: 1}}})
		if z%10 == 0 {
			endpoints = append(endpoints, model.Endpoint{Addr: netip.AddrFrom4([4]byte{10, 0, byte(z >> 8), byte(z)}), Zone: name, Ready: true})
		}
	}
	s := Plan(p, clients, endpoints, nil)
	if s.Forecast.MaxLoad > 1.2+1e-9 || s.Older.MaxLoad > 1.4+1e-9 || s.Forecast.InZone < 0.09 {
		t.Errorf("%.3f in zone of 0.1, loads %.3f and %.3f, %s", s.Forecast.InZone, s.Forecast.MaxLoad, s.Older.MaxLoad, s.Reason)
	}
	for _, h := range s.Of {
		if len(h.Zones) > 8 || len(h.Nodes) > 8 {
			t.Fatalf("too many names: %v", h)
		}
	}
}

// Hints that somebody else wrote stay if they are as good as ours.
func TestForeignHintsThatAreGoodStay(t *testing.T) {
	w := newWorld([]int{3, 3, 3}, 6, []float64{1. / 3, 1. / 3, 1. / 3}, 0.2)
	for i := range w.endpoints {
		w.endpoints[i].ZoneHints = []string{w.endpoints[i].Zone}
	}
	s := Plan(w.plan, w.clients, w.endpoints, w.endpoints)
	for _, e := range w.endpoints {
		if h := s.Of[e.Addr]; !h.Equal(Hint{e.ZoneHints, nil}) {
			t.Errorf("%s: %v", e.Addr, h)
		}
	}
	// And those that overload do not.
	w = newWorld([]int{3, 3, 1}, 6, []float64{1. / 3, 1. / 3, 1. / 3}, 0.2)
	for i := range w.endpoints {
		w.endpoints[i].ZoneHints = []string{w.endpoints[i].Zone}
	}
	if s := Plan(w.plan, w.clients, w.endpoints, w.endpoints); s.Forecast.MaxLoad > 1.2+1e-9 {
		t.Errorf("load %v", s.Forecast.MaxLoad)
	}
}

// A pod that has just come has the hint of its zone, or none would be obeyed.
func TestUnplanned(t *testing.T) {
	want := Hint{Zones: []string{"a"}, Nodes: []string{NoNode}}
	if got := Unplanned(model.Endpoint{Zone: "a"}); !got.Equal(want) {
		t.Errorf("got %v", got)
	}
	if got := Unplanned(model.Endpoint{}); !got.Equal(Hint{[]string{NoZone}, []string{NoNode}}) {
		t.Errorf("without a zone: %v", got)
	}
}

// A plan on its way to the optimum keeps less in its zones than hints could: they follow.
func TestHintsFollowAPlanOnItsWay(t *testing.T) {
	for _, nodes := range []int{3, 6, 50} {
		for _, keep := range []float64{0.4, 0.6, 0.8} {
			w := newWorld([]int{4, 4, 4}, nodes, []float64{0.3, 0.3, 0.4}, 0.2)
			for z := range w.plan.Zones {
				var to model.Shares
				for y := range w.plan.Zones {
					to = append(to, model.Share{Zone: zoneName(y), Share: (1 - keep) / 2})
				}
				to[z].Share = keep
				w.plan.Zones[z].Weights = to
			}
			s := Plan(w.plan, w.clients, w.endpoints, nil)
			t.Logf("%d nodes, keep %.1f: %.3f, load %.3f", nodes, keep, s.Forecast.InZone, s.Forecast.MaxLoad)
			if s.Forecast.MaxLoad > 1.2+1e-9 || s.Older.MaxLoad > 1.4+1e-9 {
				t.Errorf("%d nodes, keep %.1f: loads %.3f and %.3f", nodes, keep, s.Forecast.MaxLoad, s.Older.MaxLoad)
			}
			if nodes <= 6 && (s.Forecast.InZone > keep+1e-9 || s.Forecast.InZone < keep-0.1) {
				t.Errorf("%d nodes, keep %.1f: %.3f in zone\n%s", nodes, keep, s.Forecast.InZone, s.Text(w.endpoints))
			}
		}
	}
}
