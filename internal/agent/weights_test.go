package agent

import (
	"encoding/json"
	"errors"
	"maps"
	"math"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	k8stesting "k8s.io/client-go/testing"

	"github.com/zonewise/zonewise/api/v1alpha1"
	"github.com/zonewise/zonewise/internal/agent/view"
	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/service"
)

// zoneRoute sends zone a's connections to s1's two endpoints by these weights.
func zoneRoute(mode string, a, b float64) *v1alpha1.ZoneRoute {
	return &v1alpha1.ZoneRoute{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "s1"},
		Status: v1alpha1.ZoneRouteStatus{Mode: mode, Plans: []v1alpha1.Plan{{
			Family: "IPv4", MaxOverload: .2,
			Zones: []v1alpha1.Zone{
				{Name: "a", Demand: .7, Endpoints: 1, Weights: map[string]float64{"a": a, "b": b}},
				{Name: "b", Demand: .3, Endpoints: 1, Weights: map[string]float64{"b": 1}},
			},
		}}},
	}
}

// shares returns what the kernel was told of s1, by address, and why.
func (w *world) shares() (map[string]float64, string) {
	w.kernel.mu.Lock()
	defer w.kernel.mu.Unlock()
	f := w.kernel.kernel[model.Name{Namespace: "default", Name: "s1"}][0]
	out := map[string]float64{}
	for _, b := range f.Backends {
		out[b.Addr.Addr().String()] = math.Round(b.Share*1e6) / 1e6
	}
	return out, f.Why
}

func (w *world) wantShares(step, why string, want map[string]float64) {
	w.Helper()
	got, reason := w.shares()
	if diff := cmp.Diff(want, got); diff != "" || !strings.HasPrefix(reason, why) {
		w.Errorf("%s: %s\n%s", step, reason, diff)
	}
}

func TestAgentHonoursZoneRoutes(t *testing.T) {
	one, two := "192.168.1.11", "192.168.2.11"
	w := startWith(t, func(w *world, c *Config) {
		c.Routes = w.api.ZoneRoutes
		w.api.Expect("zoneroutes")
	}, node("a"), svc(1), slice(1, "a", "b"), zoneRoute("Optimal", .85, .15))
	w.want("start", call{whole: true, services: []string{"s1"}})
	w.wantShares("at first", "ZoneRoute default/s1: 85% own zone, bound 1.2", map[string]float64{one: .85, two: .15})
	w.api.Watched(t)
	w.until("/v1/services/default/s1", `"share":0.85,`)

	routes := w.api.ZoneRoutes.In("default")
	change := func(step string, a, b float64, mode string) {
		t.Helper()
		now, err := routes.Get(w.ctx, "s1", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		now.Status = zoneRoute(mode, a, b).Status
		if _, err := routes.UpdateStatus(w.ctx, now, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		w.want(step, call{services: []string{"s1"}})
	}
	change("another plan", .6, .4, "Optimal")
	w.wantShares("another plan", "ZoneRoute", map[string]float64{one: .6, two: .4})
	change("observed only", .6, .4, "Observe")
	w.wantShares("observed only", "zone hints: a", map[string]float64{one: 1})
	change("in force again", .6, .4, "Optimal")
	w.wantShares("in force again", "ZoneRoute", map[string]float64{one: .6, two: .4})

	if _, err := w.api.DiscoveryV1().EndpointSlices("default").Update(w.ctx, slice(1, "a", "b", "b"), metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	w.want("an endpoint more", call{services: []string{"s1"}})
	// The bound lets zone a carry 1.2/3 of all; the rest of its 0.7 goes to zone b.
	w.wantShares("an endpoint more", "ZoneRoute default/s1, for the endpoints of now: 57.1% own zone",
		map[string]float64{one: .571429, two: .214286, "192.168.3.11": .214286})

	if err := routes.Delete(w.ctx, "s1", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	w.want("the ZoneRoute is gone", call{services: []string{"s1"}})
	w.wantShares("the ZoneRoute is gone", "zone hints: a", map[string]float64{one: 1})
}

func TestAgentThatHonoursHintsAlone(t *testing.T) {
	w := start(t, node("a"), svc(1), slice(1, "a", "b"), zoneRoute("Optimal", .85, .15))
	w.want("start", call{whole: true, services: []string{"s1"}})
	w.wantShares("by hints", "zone hints: a", map[string]float64{"192.168.1.11": 1})
}

// Without our definitions in the API server an agent serves as kube-proxy does.
func TestAgentWithoutTheDefinition(t *testing.T) {
	w := startWith(t, func(w *world, c *Config) {
		c.Routes = w.api.ZoneRoutes
		w.api.ZoneRoutes.Define(false)
	}, node("a"), svc(1), slice(1, "a", "b"))
	w.want("start", call{whole: true, services: []string{"s1"}})
	w.wantShares("by hints", "zone hints: a", map[string]float64{"192.168.1.11": 1})
}

// An API server that does not give us ZoneRoutes keeps no node from serving.
func TestAgentThatGetsNoZoneRoutes(t *testing.T) {
	var allowed atomic.Bool
	w := startWith(t, func(w *world, c *Config) {
		c.Routes, c.Patience = w.api.ZoneRoutes, time.Millisecond
		w.api.ZoneRoutes.PrependReactor("list", "zoneroutes", func(k8stesting.Action) (bool, runtime.Object, error) {
			return !allowed.Load(), nil, errors.New("zoneroutes is forbidden")
		})
	}, node("a"), svc(1), slice(1, "a", "b"), zoneRoute("Optimal", .85, .15))
	w.want("start", call{whole: true, services: []string{"s1"}})
	w.wantShares("by hints", "zone hints: a", map[string]float64{"192.168.1.11": 1})
	allowed.Store(true)
	w.want("allowed at last", call{services: []string{"s1"}})
	w.wantShares("by weights", "ZoneRoute default/s1", map[string]float64{"192.168.1.11": .85, "192.168.2.11": .15})
}

func TestTrafficOnlyGrows(t *testing.T) {
	w := start(t, node("a"), svc(1), svc(2), slice(1, "a", "b", "b"), slice(2, "c"))
	w.next()
	w.until("/healthz", "ok")
	pair := func(front, back string) service.Pair {
		return service.Pair{
			Frontend: service.Key{Addr: netip.MustParseAddrPort(front), Protocol: model.TCP},
			Backend:  netip.MustParseAddrPort(back),
		}
	}
	count := func(c map[service.Pair]uint64) view.Traffic {
		t.Helper()
		counted := map[service.Pair]service.Traffic{}
		for p, n := range c {
			counted[p] = service.Traffic{Connections: n}
		}
		w.kernel.set(func(f *fakeApplier) { f.counted = counted })
		code, body := w.get("/v1/traffic")
		var out view.Traffic
		if err := json.Unmarshal([]byte(body), &out); err != nil || code != http.StatusOK {
			t.Fatal(code, body, err)
		}
		return out
	}
	a, b := pair("10.100.0.1:80", "192.168.1.11:8080"), pair("10.100.0.1:80", "192.168.2.11:8080")
	b2, c := pair("10.100.0.1:80", "192.168.3.11:8080"), pair("10.100.0.2:80", "192.168.1.11:8080")
	nodePort, unknown := pair("192.168.1.10:30080", "192.168.1.11:8080"), pair("10.100.9.9:80", "192.168.1.11:8080")
	now := map[service.Pair]uint64{a: 1000, b: 2000, nodePort: 7, unknown: 7}
	if got := count(now); got.Schema != view.TrafficSchema || got.Node != "n1" || got.Zone != "a" || len(got.Services) != 0 {
		t.Errorf("at first: %+v", got)
	}
	want := func(step string, services ...view.ServiceTraffic) {
		t.Helper()
		if diff := cmp.Diff(services, count(now).Services); diff != "" {
			t.Errorf("%s:\n%s", step, diff)
		}
	}
	s1 := func(zones ...view.ZoneTraffic) view.ServiceTraffic {
		return view.ServiceTraffic{Namespace: "default", Name: "s1", Family: "IPv4", EndpointZones: zones}
	}
	maps.Copy(now, map[service.Pair]uint64{a: 1010, b: 2003, b2: 5, c: 9, nodePort: 70, unknown: 70})
	s2 := view.ServiceTraffic{Namespace: "default", Name: "s2", Family: "IPv4", EndpointZones: []view.ZoneTraffic{{Zone: "c", Connections: 9}}}
	want("connections", s1(view.ZoneTraffic{Zone: "a", Connections: 10}, view.ZoneTraffic{Zone: "b", Connections: 8}), s2)
	delete(now, b)
	want("an endpoint is gone", s1(view.ZoneTraffic{Zone: "a", Connections: 10}, view.ZoneTraffic{Zone: "b", Connections: 8}), s2)
	now[b] = 4
	want("and here again", s1(view.ZoneTraffic{Zone: "a", Connections: 10}, view.ZoneTraffic{Zone: "b", Connections: 12}), s2)
	w.api.Watched(t)
	if err := w.api.CoreV1().Services("default").Delete(w.ctx, "s2", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	w.next()
	w.until("/metrics", "zonewise_services 1")
	want("a Service is gone", s1(view.ZoneTraffic{Zone: "a", Connections: 10}, view.ZoneTraffic{Zone: "b", Connections: 12}))
}
