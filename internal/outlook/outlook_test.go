package outlook

import (
	"fmt"
	"math"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/route"
)

var web = model.Name{Namespace: "default", Name: "web"}

// cluster is three zones with six nodes each, and a Service with so many ready pods in each.
func cluster(pods ...int) (Facts, model.Service, []model.Slice) {
	f := Facts{Now: time.Unix(1_800_000_000, 0)}
	svc := model.Service{Name: web, Type: model.ClusterIP, ClusterIPs: []netip.Addr{netip.MustParseAddr("10.100.0.7")},
		Ports: []model.ServicePort{{Protocol: model.TCP, Port: 80}}}
	slice := model.Slice{Name: model.Name{Namespace: "default", Name: "web-1"}, Service: "web",
		Ports: []model.EndpointPort{{Protocol: model.TCP, Port: 8080}}}
	for i, z := range []string{"a", "b", "c"} {
		for n := range 6 {
			f.Nodes = append(f.Nodes, model.Node{Name: fmt.Sprintf("%s%d", z, n+1), Zone: z, Ready: true, MilliCPU: 2000})
		}
		for p := range pods[i] {
			slice.Endpoints = append(slice.Endpoints, model.Endpoint{Addr: netip.MustParseAddr(fmt.Sprintf("192.168.%d.%d", i+1, p+1)),
				Zone: z, Node: fmt.Sprintf("%s%d", z, p%6+1), Ready: true, Serving: true})
		}
	}
	return f, svc, []model.Slice{slice}
}

func near(t *testing.T, what string, got, want float64) {
	t.Helper()
	if math.Abs(got-want) > 1e-6 {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

// The case that upstream is asked about most: eleven pods.
func TestElevenPods(t *testing.T) {
	facts, svc, slices := cluster(4, 4, 3)
	o := New(Settings{Prices: model.Prices{PerGB: 0.02}}, facts)
	s := o.Service(svc, slices, nil)
	if s.Problem != "" || s.Mode != model.Observe || len(s.Families) != 1 {
		t.Fatalf("%+v", s)
	}
	p := s.Families[0].RoutePlan
	near(t, "before", p.InZone.Before, 1./3)
	near(t, "planned", p.InZone.Planned, 2./3+1.2*3/11)
	near(t, "USD per TB before", p.PerTB.Before, 20*2./3)
	near(t, "USD per TB planned", p.PerTB.Planned, 20*(1./3-1.2*3/11))
	near(t, "load before", p.BeforeLoad, 1)
	if p.MaxLoad > 1.2+1e-9 || p.Hints.MaxLoad > 1.2+1e-9 || p.Hints.InZone < 0.97*p.InZone.Ideal {
		t.Errorf("load %v, by hints %+v", p.MaxLoad, p.Hints)
	}
	if p.Upstream.Hints || !strings.Contains(p.Upstream.Inequality, "ceil(11 × 0.333 / 1.2) = 4") {
		t.Errorf("upstream: %+v", p.Upstream)
	}
}

// Without us is what upstream makes of what the Service asks it for.
func TestWithoutUs(t *testing.T) {
	facts, svc, slices := cluster(1, 4, 4)
	svc.TrafficDistribution = "PreferSameZone"
	p := New(Settings{}, facts).Service(svc, slices, nil).Families[0].RoutePlan
	near(t, "before", p.InZone.Before, 1)
	near(t, "load before", p.BeforeLoad, 3)
	if p.InZone.Planned >= 1 || p.MaxLoad > 1.2+1e-9 {
		t.Errorf("planned %v in zone at load %v", p.InZone.Planned, p.MaxLoad)
	}
}

func TestMode(t *testing.T) {
	facts, plain, slices := cluster(1, 1, 1)
	asking := plain
	asking.TopologyMode = "Auto"
	route := func(m model.Mode) *model.ZoneRoute {
		return &model.ZoneRoute{Name: web, Spec: model.RouteSpec{Mode: m}}
	}
	for _, c := range []struct {
		what     string
		settings Settings
		svc      model.Service
		route    *model.ZoneRoute
		want     string
	}{
		{"nobody says anything", Settings{}, plain, nil, "Observe cluster"},
		{"the cluster", Settings{Default: model.Off}, plain, nil, "Off cluster"},
		{"the namespace before the cluster", Settings{Default: model.Off, Namespaces: map[string]model.Mode{"default": model.Optimal}}, plain, nil, "Optimal namespace"},
		{"another namespace", Settings{Namespaces: map[string]model.Mode{"other": model.Off}}, plain, nil, "Observe cluster"},
		{"the ZoneRoute before both", Settings{Default: model.Off, Namespaces: map[string]model.Mode{"default": model.Off}}, plain, route(model.Optimal), "Optimal ZoneRoute"},
		{"a ZoneRoute that says nothing", Settings{Default: model.Optimal}, plain, route(""), "Optimal cluster"},
		{"no default overrules what is asked of upstream", Settings{Default: model.Optimal}, asking, route(""), "Observe topology-mode Auto"},
		{"but its ZoneRoute does", Settings{}, asking, route(model.Optimal), "Optimal ZoneRoute"},
	} {
		s := New(c.settings, facts).Service(c.svc, slices, c.route)
		if got := fmt.Sprintf("%s %s", s.Mode, s.ModeFrom); got != c.want {
			t.Errorf("%s: %s, want %s", c.what, got, c.want)
		}
	}
}

func TestNothingToPlan(t *testing.T) {
	facts, svc, slices := cluster(1, 1, 1)
	o := New(Settings{}, facts)
	if s := o.Service(svc, slices, &model.ZoneRoute{Name: web, Spec: model.RouteSpec{MaxOverload: 10}}); !strings.HasPrefix(s.Problem, "ZoneRoute default/web: spec.maxOverload: ") || len(s.Families) > 0 {
		t.Errorf("%+v", s)
	}
	svc.InternalLocal = true
	if s := o.Service(svc, slices, nil); !strings.Contains(s.Problem, "spec.internalTrafficPolicy") {
		t.Errorf("%+v", s)
	}
}

// Each family is planned from its own endpoints.
func TestFamilies(t *testing.T) {
	facts, svc, slices := cluster(3, 3, 3)
	svc.ClusterIPs = append(svc.ClusterIPs, netip.MustParseAddr("fd00::7"))
	six := slices[0]
	six.Name.Name, six.V6 = "web-2", true
	six.Endpoints = []model.Endpoint{{Addr: netip.MustParseAddr("fd00:1::1"), Zone: "a", Ready: true, Serving: true}}
	s := New(Settings{}, facts).Service(svc, append(slices, six), nil)
	if len(s.Families) != 2 || s.Families[0].V6 || !s.Families[1].V6 {
		t.Fatalf("%+v", s.Families)
	}
	near(t, "IPv4", s.Families[0].InZone.Planned, 1)
	near(t, "IPv6", s.Families[1].InZone.Planned, 1./3)
}

// A plan that traffic follows is kept as long as stability says so; one that only reports is not.
func TestPreviousPlan(t *testing.T) {
	settings := Settings{Stability: route.DefaultStability()}
	facts, svc, slices := cluster(4, 4, 4)
	static := func(a, b, c float64, mode model.Mode) *model.ZoneRoute {
		return &model.ZoneRoute{Name: web, Status: model.RouteStatus{Mode: mode}, Spec: model.RouteSpec{Mode: mode, Demand: model.Static,
			Static: model.Shares{{Zone: "a", Share: a}, {Zone: "b", Share: b}, {Zone: "c", Share: c}}}}
	}
	for mode, kept := range map[model.Mode]bool{model.Optimal: true, model.Observe: false} {
		first := New(settings, facts).Service(svc, slices, static(70, 15, 15, mode)).Families[0].RoutePlan
		zr := static(40, 30, 30, mode)
		zr.Status.Plans = []model.RoutePlan{first}
		again := New(settings, facts).Service(svc, slices, zr).Families[0]
		if held := fmt.Sprint(again.Matrix()) == fmt.Sprint(first.Matrix()) && !again.Next.IsZero(); held != kept {
			t.Errorf("%s: held %v, in zone %+v", mode, held, again.InZone)
		}
	}
}

func TestInvalidRoute(t *testing.T) {
	facts, svc, slices := cluster(1, 1, 1)
	zr := &model.ZoneRoute{Name: web, Invalid: "spec.maxOverload: 0 is less than 0.01"}
	if s := New(Settings{}, facts).Service(svc, slices, zr); s.Problem != "ZoneRoute default/web: spec.maxOverload: 0 is less than 0.01" || len(s.Families) > 0 {
		t.Errorf("%+v", s)
	}
}
