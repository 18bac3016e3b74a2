package service_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/service"
)

func moved(node string) func(*model.Endpoint) { return func(e *model.Endpoint) { e.Node = node } }
func pod(name string) func(*model.Endpoint)   { return func(e *model.Endpoint) { e.Pod = name } }

func v6(name string, eps ...model.Endpoint) model.Slice {
	s := slice(name, eps...)
	s.V6 = true
	return s
}

func TestFaults(t *testing.T) {
	said := clusterIP()
	said.Faults = []string{"this", "and that"}
	ranges := balanced(func(s *model.Service) {
		s.ClusterIPs = append(s.ClusterIPs, netip.MustParseAddr("fd00:1::7"))
		s.LoadBalancerIPs = append(s.LoadBalancerIPs, netip.MustParseAddr("2001:db8::1"))
		s.SourceRanges = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	})
	wrong := slice("s2")
	wrong.Faults = []string{"what it says wrongly"}
	other := wrong
	other.Service = "another"
	two := clusterIP()
	two.Ports = append(two.Ports, model.ServicePort{Name: "http", Protocol: model.UDP, Port: 80})
	both := func(s model.Slice) model.Slice {
		s.Ports = append(s.Ports, model.EndpointPort{Name: "http", Protocol: model.UDP, Port: 8080})
		return s
	}
	elsewhere := slice("s2", ep("10.0.0.1", "a", unready))
	elsewhere.Ports[0].Port = 9090
	cases := []struct {
		name   string
		svc    model.Service
		slices []model.Slice
		want   []string
	}{
		{"none", clusterIP(), []model.Slice{slice("s1", ep("10.0.0.1", "a"))}, nil},
		{"what objects say", said, []model.Slice{wrong, other}, []string{
			"EndpointSlice shop/s2: what it says wrongly", "Service shop/web: and that", "Service shop/web: this"}},
		{"a pod in two slices while it moves", clusterIP(), []model.Slice{slice("s1", ep("10.0.0.1", "a")), slice("s2", ep("10.0.0.1", "a"))}, nil},
		{"the address of a dying pod", clusterIP(), []model.Slice{slice("s1", ep("10.0.0.1", "b", dying, pod("old"))), slice("s2", ep("10.0.0.1", "a"))}, nil},
		{"one port each", clusterIP(), []model.Slice{slice("s1", ep("10.0.0.1", "a")), elsewhere}, nil},
		{"two nodes", clusterIP(), []model.Slice{slice("s1", ep("10.0.0.1", "a", moved("n2"))), slice("s2", ep("10.0.0.1", "a", moved("n1")))}, []string{
			"EndpointSlice shop/s1: endpoint 10.0.0.1 is on node n2 here and on node n1 in s2: that holds"}},
		{"two zones", clusterIP(), []model.Slice{slice("s1", ep("10.0.0.1", "", moved("n"))), slice("s2", ep("10.0.0.1", "b", moved("n")))}, []string{
			"EndpointSlice shop/s2: endpoint 10.0.0.1 is in zone b here and in no zone in s1: that holds"}},
		{"ready or not", two, []model.Slice{both(slice("s1", ep("10.0.0.1", "a", unready), ep("10.0.0.2", "a", unready), ep("10.0.0.3", "a", dying))),
			both(slice("s2", ep("10.0.0.1", "a"), ep("10.0.0.2", "a"), ep("10.0.0.3", "a")))}, []string{
			"EndpointSlice shop/s1: endpoint 10.0.0.1 is not ready here and ready in s2: that holds, and so for 2 more"}},
		{"endpoints of a family that the Service does not have", clusterIP(), []model.Slice{v6("s6", ep("fd00::1", "a")), v6("empty")}, []string{
			"EndpointSlice shop/s6: service web has no IPv6 address: endpoints are not used, 1 of them"}},
		{"ranges of one family", ranges, nil, []string{"Service shop/web: no source range is IPv6: everybody may use the load balancer's IPv6 addresses"}},
	}
	for _, c := range cases {
		var got []string
		for _, f := range service.Faults(c.svc, c.slices) {
			got = append(got, fmt.Sprintf("%s %s: %s", f.Kind, f.Object, f.Problem))
		}
		if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("%s:\n%s", c.name, d)
		}
	}
}

// The endpoint that is said to hold is the one that is used, and the order of slices does not matter.
func TestContradictionsAreSettledAlike(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		var all []model.Slice
		for i := range 3 {
			e := ep("10.0.0.1", []string{"a", "b"}[r.IntN(2)], []func(*model.Endpoint){func(*model.Endpoint) {}, dying, unready}[r.IntN(3)])
			all = append(all, slice(fmt.Sprint("s", i), e))
		}
		plan, faults := service.Text(service.Plan(nodeA, clusterIP(), all, nil)), service.Faults(clusterIP(), all)
		r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		if d := cmp.Diff(plan, service.Text(service.Plan(nodeA, clusterIP(), all, nil))); d != "" {
			t.Fatal(d)
		}
		if d := cmp.Diff(faults, service.Faults(clusterIP(), all)); d != "" {
			t.Fatal(d)
		}
		// Without a slice that lost, the plan is the same.
		for _, f := range faults {
			rest := slices.DeleteFunc(slices.Clone(all), func(s model.Slice) bool { return s.Name == f.Object })
			if d := cmp.Diff(plan, service.Text(service.Plan(nodeA, clusterIP(), rest, nil))); d != "" {
				t.Fatalf("%v\n%s", f, d)
			}
		}
	}
}

// Health counts what is ready here, each address once, and no family twice.
func TestHealth(t *testing.T) {
	two := balanced()
	two.ClusterIPs = append(two.ClusterIPs, netip.MustParseAddr("fd00:1::7"))
	two.Ports = append(two.Ports, model.ServicePort{Name: "alt", Protocol: model.TCP, Port: 81})
	both := slice("s", ep("10.0.0.1", "a", here), ep("10.0.0.2", "a", here), ep("10.0.0.3", "b"))
	both.Ports = append(both.Ports, model.EndpointPort{Name: "alt", Protocol: model.TCP, Port: 8081})
	other := slice("o", ep("10.0.0.9", "a", here))
	other.Service = "another"
	for _, c := range []struct {
		name   string
		slices []model.Slice
		want   int
	}{
		{"none", nil, 0},
		{"two ports of two endpoints, and one elsewhere", []model.Slice{both, other}, 2},
		{"both families of them", []model.Slice{both, v6("six", ep("fd00::1", "a", here), ep("fd00::2", "a", here))}, 2},
		{"more of the second family", []model.Slice{both, v6("six", ep("fd00::1", "a", here), ep("fd00::2", "a", here), ep("fd00::3", "a", here))}, 3},
		{"only one that leaves", []model.Slice{slice("s", ep("10.0.0.1", "a", here, dying))}, 0},
		{"one that is not ready", []model.Slice{slice("s", ep("10.0.0.1", "a", here), ep("10.0.0.2", "a", here, unready))}, 1},
		{"an address in two slices", []model.Slice{slice("s1", ep("10.0.0.1", "a", here, dying, pod("old"))), slice("s2", ep("10.0.0.1", "a", here))}, 1},
	} {
		if got := service.Health(nodeA, two, c.slices); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
	if got := service.Health(nodeA, balanced(), []model.Slice{v6("six", ep("fd00::1", "a", here))}); got != 0 {
		t.Errorf("of a family that the Service does not have: %d", got)
	}
}
