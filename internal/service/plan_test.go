package service_test

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/zonewise/zonewise/internal/golden"
	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/service"
)

var (
	nodeA = model.Node{
		Name: "n1", Zone: "a", Addresses: []netip.Addr{netip.MustParseAddr("192.168.1.10")},
	}
	web = model.Name{Namespace: "shop", Name: "web"}
)

// ep is a ready endpoint of a zone whose node has the zone's name and a digit.
func ep(addr, zone string, change ...func(*model.Endpoint)) model.Endpoint {
	e := model.Endpoint{
		Addr: netip.MustParseAddr(addr), Node: "n-" + zone, Zone: zone, Pod: "web-" + addr[len(addr)-1:],
		Ready: true, Serving: true,
	}
	for _, c := range change {
		c(&e)
	}
	return e
}

func here(e *model.Endpoint)    { e.Node = nodeA.Name }
func dying(e *model.Endpoint)   { e.Ready, e.Terminating = false, true }
func dead(e *model.Endpoint)    { e.Ready, e.Serving, e.Terminating = false, false, true }
func unready(e *model.Endpoint) { e.Ready, e.Serving = false, false }
func zones(z ...string) func(*model.Endpoint) {
	return func(e *model.Endpoint) { e.ZoneHints = z }
}
func nodes(n ...string) func(*model.Endpoint) {
	return func(e *model.Endpoint) { e.NodeHints = n }
}

func slice(name string, eps ...model.Endpoint) model.Slice {
	return model.Slice{
		Name: model.Name{Namespace: web.Namespace, Name: name}, Service: web.Name,
		Ports:     []model.EndpointPort{{Name: "http", Protocol: model.TCP, Port: 8080}},
		Endpoints: eps,
	}
}

func clusterIP() model.Service {
	return model.Service{
		Name: web, Type: model.ClusterIP, ClusterIPs: []netip.Addr{netip.MustParseAddr("10.100.3.7")},
		Ports: []model.ServicePort{{Name: "http", Protocol: model.TCP, Port: 80}},
	}
}

func nodePort(change ...func(*model.Service)) model.Service {
	s := clusterIP()
	s.Type = model.NodePort
	s.Ports[0].NodePort = 30080
	for _, c := range change {
		c(&s)
	}
	return s
}

func internalLocal(s *model.Service) { s.InternalLocal = true }
func externalLocal(s *model.Service) { s.ExternalLocal = true }

func TestPlanGolden(t *testing.T) {
	homeless := nodeA
	homeless.Zone = ""
	cases := []struct {
		name   string
		node   model.Node
		svc    model.Service
		slices []model.Slice
	}{
		{"no endpoints", nodeA, nodePort(), nil},
		{"only dead endpoints", nodeA, nodePort(externalLocal), []model.Slice{slice("s", ep("10.0.0.1", "a", dead), ep("10.0.0.2", "a", unready))}},
		{"no hints", nodeA, nodePort(), []model.Slice{slice("s", ep("10.0.0.2", "b"), ep("10.0.0.1", "a", here))}},
		{"zone hints", nodeA, clusterIP(), []model.Slice{slice("s", ep("10.0.0.1", "a", zones("a")), ep("10.0.0.2", "b", zones("b")))}},
		{"one without a zone hint", nodeA, clusterIP(), []model.Slice{slice("s", ep("10.0.0.1", "a", zones("a")), ep("10.0.0.2", "b"))}},
		{"zone forgotten", nodeA, clusterIP(), []model.Slice{slice("s", ep("10.0.0.2", "b", zones("b")))}},
		{"node without a zone", homeless, clusterIP(), []model.Slice{slice("s", ep("10.0.0.2", "b", zones("b")))}},
		{"node hints", nodeA, clusterIP(), []model.Slice{slice("s", ep("10.0.0.1", "a", zones("a"), nodes("x")), ep("10.0.0.2", "b", zones("b"), nodes("n1")))}},
		{"node hints for others, zone hints", nodeA, clusterIP(), []model.Slice{slice("s", ep("10.0.0.1", "a", zones("a"), nodes("x")), ep("10.0.0.2", "b", zones("b"), nodes("y")))}},
		{"node hints alone, for others", nodeA, clusterIP(), []model.Slice{slice("s", ep("10.0.0.1", "a", nodes("x")))}},
		{"one without a node hint", nodeA, clusterIP(), []model.Slice{slice("s", ep("10.0.0.1", "a", nodes("n1")), ep("10.0.0.2", "b"))}},
		{"hints of unready endpoints do not matter", nodeA, clusterIP(), []model.Slice{slice("s", ep("10.0.0.1", "a", zones("a")), ep("10.0.0.2", "b", unready))}},
		{"terminating", nodeA, clusterIP(), []model.Slice{slice("s", ep("10.0.0.1", "a", dying, zones("a")), ep("10.0.0.2", "b", dying), ep("10.0.0.3", "b", dead))}},
		{"internal Local", nodeA, nodePort(internalLocal), []model.Slice{slice("s", ep("10.0.0.1", "a", here), ep("10.0.0.2", "b"))}},
		{"internal Local, none here", nodeA, nodePort(internalLocal), []model.Slice{slice("s", ep("10.0.0.2", "b"))}},
		{"external Local", nodeA, nodePort(externalLocal), []model.Slice{slice("s", ep("10.0.0.1", "a", here), ep("10.0.0.2", "b"))}},
		{"external Local, none here", nodeA, nodePort(externalLocal), []model.Slice{slice("s", ep("10.0.0.2", "b", zones("a")))}},
		{"external Local, the one here is leaving", nodeA, nodePort(externalLocal), []model.Slice{slice("s", ep("10.0.0.1", "a", here, dying), ep("10.0.0.2", "b"))}},
		{"many slices, one address twice", nodeA, clusterIP(), []model.Slice{slice("s2", ep("10.0.0.1", "a", dying)), slice("s1", ep("10.0.0.1", "a"), ep("10.0.0.3", "b"))}},
		{"nothing of the port", nodeA, clusterIP(), []model.Slice{{Name: web, Service: web.Name, Ports: []model.EndpointPort{{Name: "http", Protocol: model.UDP, Port: 1}, {Name: "x", Protocol: model.TCP, Port: 1}}, Endpoints: []model.Endpoint{ep("10.0.0.1", "a")}}}},
	}
	var b strings.Builder
	for _, c := range cases {
		b.WriteString("== " + c.name + "\n" + service.Text(service.Plan(c.node, c.svc, c.slices, nil)))
	}
	golden.Check(t, "plan.txt", b.String())
}

func TestPlanKeepsServingUDP(t *testing.T) {
	svc := clusterIP()
	svc.Ports = []model.ServicePort{{Name: "dns", Protocol: model.UDP, Port: 53}}
	s := slice("s", ep("10.0.0.1", "a", zones("a")), ep("10.0.0.2", "b", zones("b")), ep("10.0.0.3", "b", dying), ep("10.0.0.4", "b", dead))
	s.Ports = []model.EndpointPort{{Name: "dns", Protocol: model.UDP, Port: 53}}
	plan := service.Plan(nodeA, svc, []model.Slice{s}, nil)
	var got []string
	for _, a := range plan[0].Keep {
		got = append(got, a.String())
	}
	if d := cmp.Diff([]string{"10.0.0.1:53", "10.0.0.2:53", "10.0.0.3:53"}, got); d != "" {
		t.Error(d)
	}
	if len(plan[0].Backends) != 1 {
		t.Errorf("backends: %v", plan[0].Backends)
	}
}

func TestPlanFamilies(t *testing.T) {
	node := nodeA
	node.Addresses = append(node.Addresses, netip.MustParseAddr("fd00::10"))
	svc := nodePort()
	svc.ClusterIPs = append(svc.ClusterIPs, netip.MustParseAddr("fd00:1::7"))
	six := slice("six", ep("fd00:2::1", "a"))
	six.V6 = true
	plan := service.Plan(node, svc, []model.Slice{six, slice("four", ep("10.0.0.1", "a"))}, nil)
	if len(plan) != 4 {
		t.Fatalf("want a ClusterIP and a node port of each family, got:\n%s", service.Text(plan))
	}
	for _, f := range plan {
		if len(f.Backends) != 1 || f.Backends[0].Addr.Addr().Is6() != f.Addr.Addr().Is6() {
			t.Errorf("families mixed:\n%s", f)
		}
	}
}

// What is given in another order is the same plan.
func TestPlanOrderDoesNotMatter(t *testing.T) {
	var eps []model.Endpoint
	for i := range 40 {
		a := netip.AddrFrom4([4]byte{10, 0, 0, byte(i % 30)}).String()
		eps = append(eps, ep(a, string(rune('a'+i%3)), func(e *model.Endpoint) {
			e.Pod = a
			e.Terminating, e.Ready = i%7 == 0, i%7 != 0
		}))
	}
	svc := nodePort(externalLocal)
	svc.Ports = append(svc.Ports, model.ServicePort{Name: "alt", Protocol: model.UDP, Port: 80, NodePort: 30080})
	build := func(r *rand.Rand) string {
		shuffled := slices.Clone(eps)
		r.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		all := []model.Slice{slice("s1", shuffled[:11]...), slice("s2", shuffled[11:]...)}
		slices.Reverse(all[:r.IntN(2)+1])
		s := svc
		s.Ports = slices.Clone(svc.Ports)
		r.Shuffle(2, func(i, j int) { s.Ports[i], s.Ports[j] = s.Ports[j], s.Ports[i] })
		return service.Text(service.Plan(nodeA, s, all, nil))
	}
	want := build(rand.New(rand.NewPCG(0, 0)))
	for seed := range uint64(50) {
		if d := cmp.Diff(want, build(rand.New(rand.NewPCG(seed, 1)))); d != "" {
			t.Fatalf("seed %d:\n%s", seed, d)
		}
	}
}
