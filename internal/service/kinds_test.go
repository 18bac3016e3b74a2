package service_test

import (
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/zonewise/zonewise/internal/golden"
	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/service"
)

// balanced is a Service with an address of every kind.
func balanced(change ...func(*model.Service)) model.Service {
	s := nodePort()
	s.Type = model.LoadBalancer
	s.ExternalIPs = addrs("203.0.113.7")
	s.LoadBalancerIPs = addrs("198.51.100.1")
	for _, c := range change {
		c(&s)
	}
	return s
}

func addrs(texts ...string) []netip.Addr {
	var out []netip.Addr
	for _, s := range texts {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

func ranges(texts ...string) func(*model.Service) {
	return func(s *model.Service) {
		for _, r := range texts {
			s.SourceRanges = append(s.SourceRanges, netip.MustParsePrefix(r))
		}
	}
}

func dual(s *model.Service) {
	s.ClusterIPs = append(s.ClusterIPs, netip.MustParseAddr("fd00:1::7"))
	s.ExternalIPs = append(s.ExternalIPs, netip.MustParseAddr("2001:db8::7"))
	s.LoadBalancerIPs = append(s.LoadBalancerIPs, netip.MustParseAddr("2001:db8:1::1"))
}

func TestKindsGolden(t *testing.T) {
	two, listed := nodeA, nodeA
	two.Addresses = append(slices.Clone(nodeA.Addresses), netip.MustParseAddr("fd00::10"))
	listed.Addresses = two.Addresses
	listed.NodePorts = addrs("192.168.1.11", "192.168.1.10", "192.168.1.11")
	four := slice("four", ep("10.0.0.1", "a", here), ep("10.0.0.2", "b"))
	six := v6("six", ep("fd00:2::2", "b"))
	away := slice("away", ep("10.0.0.2", "b"))
	sctp := func(s model.Slice) model.Slice {
		s.Ports = []model.EndpointPort{{Name: "http", Protocol: model.TCP, Port: 8080},
			{Name: "dns", Protocol: model.UDP, Port: 5353}, {Name: "sig", Protocol: model.SCTP, Port: 9000}}
		return s
	}
	cases := []struct {
		name   string
		node   model.Node
		svc    model.Service
		slices []model.Slice
	}{
		{"every kind", nodeA, balanced(), []model.Slice{four}},
		{"every kind, both families", two, balanced(dual), []model.Slice{four, six}},
		{"a family that the Service does not have", two, balanced(func(s *model.Service) {
			s.ExternalIPs, s.LoadBalancerIPs = addrs("2001:db8::7"), addrs("2001:db8:1::1")
		}), []model.Slice{four, six}},
		{"no endpoints", nodeA, balanced(externalLocal), nil},
		{"external Local", nodeA, balanced(externalLocal), []model.Slice{four}},
		{"external Local, none here", nodeA, balanced(externalLocal), []model.Slice{away}},
		{"internal Local", nodeA, balanced(internalLocal), []model.Slice{away}},
		{"no node ports", nodeA, balanced(func(s *model.Service) { s.Ports[0].NodePort = 0 }), []model.Slice{away}},
		{"node ports where the node says", listed, balanced(dual, func(s *model.Service) { s.ExternalIPs, s.LoadBalancerIPs = nil, nil }), []model.Slice{away, six}},
		{"source ranges", nodeA, balanced(ranges("10.0.0.0/8", "192.0.2.0/24", "10.1.0.0/16", "10.0.0.0/8", "fd00::/8")), []model.Slice{away}},
		{"source ranges with the node in one", nodeA, balanced(ranges("192.168.0.0/16"), func(s *model.Service) {
			s.LoadBalancerIPs = addrs("198.51.100.2", "198.51.100.1")
		}), []model.Slice{away}},
		{"source ranges of the other family", nodeA, balanced(ranges("fd00::/8")), []model.Slice{away}},
		{"source ranges, one of them all", nodeA, balanced(ranges("10.0.0.0/8", "0.0.0.0/0")), []model.Slice{away}},
		{"one address of several kinds", nodeA, balanced(ranges("10.0.0.0/8"), func(s *model.Service) {
			s.ExternalIPs = addrs("10.100.3.7", "198.51.100.1", "203.0.113.7", "203.0.113.7", "192.168.1.10")
			s.LoadBalancerIPs = addrs("10.100.3.7", "198.51.100.1")
			s.Ports = append(s.Ports, model.ServicePort{Name: "high", Protocol: model.TCP, Port: 30080})
		}), []model.Slice{away}},
		{"affinity", nodeA, balanced(externalLocal, func(s *model.Service) { s.Affinity = time.Minute }), []model.Slice{four}},
		{"one number, three protocols", nodeA, nodePort(func(s *model.Service) {
			s.Ports = []model.ServicePort{
				{Name: "sig", Protocol: model.SCTP, Port: 80, NodePort: 30080},
				{Name: "dns", Protocol: model.UDP, Port: 80, NodePort: 30080},
				{Name: "http", Protocol: model.TCP, Port: 80, NodePort: 30080},
			}
		}), []model.Slice{sctp(away)}},
	}
	var b strings.Builder
	for _, c := range cases {
		b.WriteString("== " + c.name + "\n" + service.Text(service.Plan(c.node, c.svc, c.slices, nil)))
	}
	golden.Check(t, "kinds.txt", b.String())
}

// The ports of a Service, and where slices are: split by port or by number, moved, renumbered. Endpoints
// of a port are those that the slices name it for.
func TestPlanPorts(t *testing.T) {
	svc := clusterIP()
	svc.Ports = append(svc.Ports, model.ServicePort{Name: "alt", Protocol: model.TCP, Port: 81})
	port := func(s model.Slice, name string, number uint16) model.Slice {
		s.Ports = []model.EndpointPort{{Name: name, Protocol: model.TCP, Port: number}}
		return s
	}
	one, other := ep("10.0.0.1", "a"), ep("10.0.0.2", "b")
	both := slice("s", one, other)
	both.Ports = append(both.Ports, model.EndpointPort{Name: "alt", Protocol: model.TCP, Port: 8081})
	for _, c := range []struct {
		name   string
		slices []model.Slice
		want   string
	}{
		{"one slice", []model.Slice{both}, "http: 10.0.0.1:8080 10.0.0.2:8080; alt: 10.0.0.1:8081 10.0.0.2:8081"},
		{"split by endpoint", []model.Slice{slice("s1", one), slice("s2", other)}, "http: 10.0.0.1:8080 10.0.0.2:8080; alt:"},
		{"split by port", []model.Slice{port(both, "http", 8080), port(both, "alt", 8081)}, "http: 10.0.0.1:8080 10.0.0.2:8080; alt: 10.0.0.1:8081 10.0.0.2:8081"},
		{"a named target port is another number in each pod", []model.Slice{port(slice("s1", one), "http", 8080), port(slice("s2", other), "http", 9090)}, "http: 10.0.0.1:8080 10.0.0.2:9090; alt:"},
		{"while an endpoint moves", []model.Slice{slice("s1", one, other), slice("s2", other)}, "http: 10.0.0.1:8080 10.0.0.2:8080; alt:"},
		{"renamed in the slice alone", []model.Slice{port(both, "web", 8080)}, "http:; alt:"},
		{"another Service's", []model.Slice{{Name: both.Name, Service: "another", Ports: both.Ports, Endpoints: both.Endpoints}}, "http:; alt:"},
	} {
		at := map[string][]string{}
		for _, f := range service.Plan(nodeA, svc, c.slices, nil) {
			for _, b := range f.Backends {
				at[f.Port] = append(at[f.Port], " "+b.Addr.String())
			}
		}
		if got := "http:" + strings.Join(at["http"], "") + "; alt:" + strings.Join(at["alt"], ""); got != c.want {
			t.Errorf("%s:\n%s, want\n%s", c.name, got, c.want)
		}
	}
}

// A node that moves to another zone chooses anew.
func TestPlanNodeChangesItsZone(t *testing.T) {
	s := []model.Slice{slice("s", ep("10.0.0.1", "a", zones("a")), ep("10.0.0.2", "b", zones("b")))}
	for zone, want := range map[string]string{"a": "10.0.0.1:8080", "b": "10.0.0.2:8080"} {
		node := nodeA
		node.Zone = zone
		if got := service.Plan(node, clusterIP(), s, nil)[0].Backends; len(got) != 1 || got[0].Addr.String() != want {
			t.Errorf("zone %s: %v", zone, got)
		}
	}
}

// A Service whose addresses are others is planned anew, with nothing of before.
func TestPlanAddressesChange(t *testing.T) {
	svc := balanced()
	svc.ClusterIPs, svc.ExternalIPs, svc.LoadBalancerIPs = addrs("10.100.9.9"), nil, addrs("198.51.100.9")
	var got []string
	for _, f := range service.Plan(nodeA, svc, nil, nil) {
		got = append(got, f.Addr.String()+" "+f.Group.Addr.String())
	}
	want := []string{"10.100.9.9:80 10.100.9.9:80", "198.51.100.9:80 10.100.9.9:80", "192.168.1.10:30080 10.100.9.9:80"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// Whatever the objects are: each key once and in order; shares that sum to 1; the policies' own sets.
func TestPlanKeepsItsPromises(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	for range 3000 {
		node, svc, all := drawWorld(r)
		plan := service.Plan(node, svc, all, nil)
		if !slices.IsSortedFunc(plan, func(a, b service.Frontend) int { return strings.Compare(string(a.Kind), string(b.Kind)) }) {
			t.Fatalf("not in order:\n%s", service.Text(plan))
		}
		keys := map[service.Key]bool{}
		for _, f := range plan {
			if keys[f.Key()] {
				t.Fatalf("twice:\n%s", service.Text(plan))
			}
			keys[f.Key()] = true
			checkFrontend(t, svc, f)
		}
		shuffled := slices.Clone(all)
		r.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		again := svc
		again.ExternalIPs, again.LoadBalancerIPs = slices.Clone(svc.ExternalIPs), slices.Clone(svc.LoadBalancerIPs)
		again.Ports, again.SourceRanges = slices.Clone(svc.Ports), slices.Clone(svc.SourceRanges)
		slices.Reverse(again.ExternalIPs)
		slices.Reverse(again.LoadBalancerIPs)
		slices.Reverse(again.Ports)
		slices.Reverse(again.SourceRanges)
		if d := cmp.Diff(service.Text(plan), service.Text(service.Plan(node, again, shuffled, nil))); d != "" {
			t.Fatal(d)
		}
	}
}

func checkFrontend(t *testing.T, svc model.Service, f service.Frontend) {
	t.Helper()
	outside := f.Kind != service.ClusterIP
	promises := map[string]bool{
		"policy Cluster masquerades, from outside":                              f.Masquerade == (outside && !svc.ExternalLocal),
		"insiders have a choice of their own where outsiders have policy Local": (f.Inside != nil) == (outside && svc.ExternalLocal && f.Verdict != service.Reject),
		"insiders are always served":                                            f.Inside == nil || f.Inside.Verdict == service.Balance,
		"ranges are a load balancer's":                                          f.Sources == nil || f.Kind == service.LoadBalancer,
		"one memory":                                                            f.Group.Protocol == f.Protocol && f.Group.Addr.IsValid() && f.Affinity == svc.Affinity,
		"families apart":                                                        f.Group.Addr.Addr().Is6() == f.Addr.Addr().Is6(),
		"only UDP flows are kept":                                               f.Keep == nil || f.Protocol == model.UDP,
		"silence is for policy Local alone":                                     f.Verdict != service.Drop || outside && svc.ExternalLocal || !outside && svc.InternalLocal,
	}
	for what, held := range promises {
		if !held {
			t.Fatalf("%s, but\n%s", what, f)
		}
	}
	choices := []service.Choice{f.Choice}
	if f.Inside != nil {
		choices = append(choices, *f.Inside)
	}
	for _, c := range choices {
		sum := 0.0
		for _, b := range c.Backends {
			sum += b.Share
			if b.Addr.Addr().Is6() != f.Addr.Addr().Is6() {
				t.Fatalf("families mixed:\n%s", f)
			}
		}
		if (c.Verdict == service.Balance) != (len(c.Backends) > 0) || len(c.Backends) > 0 && math.Abs(sum-1) > 1e-9 {
			t.Fatalf("shares sum to %g:\n%s", sum, f)
		}
	}
	for i := range f.Sources {
		if i > 0 && (f.Sources[i-1].Overlaps(f.Sources[i]) || f.Sources[i-1].Compare(f.Sources[i]) >= 0) {
			t.Fatalf("ranges:\n%s", f)
		}
	}
}

// drawWorld draws addresses from so few that kinds, ports and endpoints often meet.
func drawWorld(r *rand.Rand) (model.Node, model.Service, []model.Slice) {
	node := model.Node{Name: "n1", Zone: "a", Addresses: addrs("192.168.1.10", "fd00::10")}
	some := func(texts ...string) (out []netip.Addr) {
		for _, s := range texts {
			if r.IntN(3) == 0 {
				out = append(out, netip.MustParseAddr(s))
			}
		}
		return out
	}
	node.NodePorts = some("192.168.1.11", "192.168.1.10", "fd00::11")
	svc := model.Service{
		Name: web, Type: model.LoadBalancer, ClusterIPs: some("10.100.3.7", "fd00:1::7"),
		ExternalIPs:     some("203.0.113.7", "10.100.3.7", "192.168.1.10", "198.51.100.1", "2001:db8::7", "fd00:1::7"),
		LoadBalancerIPs: some("198.51.100.1", "198.51.100.2", "203.0.113.7", "2001:db8::7"),
		ExternalLocal:   r.IntN(2) == 0, InternalLocal: r.IntN(2) == 0, Affinity: time.Duration(r.IntN(2)) * time.Hour,
	}
	for _, s := range []string{"10.0.0.0/8", "10.1.0.0/16", "192.168.0.0/16", "192.168.1.0/24", "fd00::/8", "fd00:1::/32"} {
		if r.IntN(4) == 0 {
			svc.SourceRanges = append(svc.SourceRanges, netip.MustParsePrefix(s))
		}
	}
	for _, name := range []string{"a", "b", "c"} {
		svc.Ports = append(svc.Ports, model.ServicePort{
			Name: name, Protocol: []model.Protocol{model.TCP, model.UDP, model.SCTP}[r.IntN(3)],
			Port: []uint16{80, 81, 30080}[r.IntN(3)], NodePort: []uint16{0, 80, 30080, 30081}[r.IntN(4)],
		})
	}
	var all []model.Slice
	for i, prefix := range []string{"10.0.0.", "10.0.0.", "fd00:2::"} {
		s := slice(string(rune('x' + i)))
		s.V6 = i == 2
		for _, p := range svc.Ports {
			s.Ports = append(s.Ports, model.EndpointPort{Name: p.Name, Protocol: p.Protocol, Port: 8000 + p.Port%100})
		}
		for j := range r.IntN(4) {
			e := ep(prefix+string(rune('1'+j)), "a", []func(*model.Endpoint){here, here, dying, dead, unready}[r.IntN(5)])
			if r.IntN(2) == 0 {
				e.ZoneHints = []string{[]string{"a", "b"}[r.IntN(2)]}
			}
			s.Endpoints = append(s.Endpoints, e)
		}
		all = append(all, s)
	}
	return node, svc, all
}
