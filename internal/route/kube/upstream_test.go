package kube_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/route/kube"
)

var (
	web  = model.Name{Namespace: "shop", Name: "web"}
	same = cmp.Options{cmpopts.EquateComparable(netip.Addr{}), cmpopts.EquateEmpty()}
)

// node is a ready worker with 4 CPUs.
func node(name, zone string, change ...func(*model.Node)) model.Node {
	n := model.Node{Name: name, Zone: zone, Ready: true, MilliCPU: 4000}
	for _, c := range change {
		c(&n)
	}
	return n
}

func notReady(n *model.Node)     { n.Ready = false }
func controlPlane(n *model.Node) { n.ControlPlane = true }
func cpu(milli int64) func(*model.Node) {
	return func(n *model.Node) { n.MilliCPU = milli }
}

// three is a node in each of zones a, b and c.
func three() []model.Node { return []model.Node{node("a1", "a"), node("b1", "b"), node("c1", "c")} }

// pods is one slice with so many ready endpoints in zones a, b, c, …, each on the zone's first node.
func pods(counts ...int) []model.Slice {
	s := model.Slice{Name: model.Name{Namespace: web.Namespace, Name: "web-1"}, Service: web.Name}
	for z, n := range counts {
		for range n {
			zone := string(rune('a' + z))
			i := byte(len(s.Endpoints) + 1)
			s.Endpoints = append(s.Endpoints, model.Endpoint{
				Addr: netip.AddrFrom4([4]byte{10, 0, 0, i}), Node: zone + "1", Zone: zone, Pod: fmt.Sprintf("web-%d", i),
				Ready: true, Serving: true,
			})
		}
	}
	return []model.Slice{s}
}

// where changes the n-th endpoint of the first slice.
func where(s []model.Slice, n int, change func(*model.Endpoint)) []model.Slice {
	change(&s[0].Endpoints[n])
	return s
}

func service(mode, distribution string) model.Service {
	return model.Service{Name: web, TopologyMode: mode, TrafficDistribution: distribution}
}

// moves counts the endpoints by zone and hint, "b→a".
func moves(all []model.Slice) map[string]int {
	out := map[string]int{}
	for _, s := range all {
		for _, e := range s.Endpoints {
			for _, z := range e.ZoneHints {
				out[e.Zone+"→"+z]++
			}
			for _, n := range e.NodeHints {
				out[e.Node+"→"+n]++
			}
		}
	}
	return out
}

func TestHintsAreThoseThatTheServiceAsksFor(t *testing.T) {
	u := kube.New(three())
	zones := map[string]int{"a→a": 1, "b→b": 2, "c→c": 3}
	for name, c := range map[string]struct {
		svc   model.Service
		asked string
		want  map[string]int
	}{
		"nothing":              {service("", ""), "", nil},
		"Auto":                 {service("Auto", ""), "topology-mode Auto", map[string]int{"a→a": 1, "b→b": 2, "c→c": 2, "c→a": 1}},
		"auto":                 {service("auto", ""), "topology-mode auto", map[string]int{"a→a": 1, "b→b": 2, "c→c": 2, "c→a": 1}},
		"Auto before field":    {service("Auto", "PreferSameZone"), "topology-mode Auto", map[string]int{"a→a": 1, "b→b": 2, "c→c": 2, "c→a": 1}},
		"same zone":            {service("", "PreferSameZone"), "trafficDistribution PreferSameZone", zones},
		"close":                {service("", "PreferClose"), "trafficDistribution PreferClose", zones},
		"same node":            {service("", "PreferSameNode"), "trafficDistribution PreferSameNode", map[string]int{"a→a": 1, "b→b": 2, "c→c": 3, "a1→a1": 1, "b1→b1": 2, "c1→c1": 3}},
		"unknown field":        {service("", "example.com/near"), "", nil},
		"Disabled":             {service("Disabled", ""), "", nil},
		"unknown mode":         {service("example.com/rtt", ""), "topology-mode example.com/rtt (ignored: upstream knows Auto alone)", nil},
		"unknown mode, field":  {service("AUTO", "PreferClose"), "trafficDistribution PreferClose, topology-mode AUTO (ignored: upstream knows Auto alone)", zones},
		"Disabled, with field": {service("Disabled", "PreferClose"), "trafficDistribution PreferClose", zones},
	} {
		t.Run(name, func(t *testing.T) {
			verdict, hinted := u.Of(c.svc, false, pods(1, 2, 3))
			if want := (model.Verdict{Asked: c.asked, Hints: true}); verdict != want {
				t.Errorf("verdict %+v, want %+v", verdict, want)
			}
			if diff := cmp.Diff(c.want, moves(hinted), same); diff != "" {
				t.Errorf("hints (-want +got):\n%s", diff)
			}
		})
	}
}

func TestOnlyOwnSlicesOfTheFamilyAndNothingIsChanged(t *testing.T) {
	given := pods(1, 1, 1)
	given = where(given, 0, func(e *model.Endpoint) { e.ZoneHints, e.NodeHints = []string{"z"}, []string{"n"} })
	other, six := pods(2, 2)[0], pods(0, 1)[0]
	other.Service = "api"
	six.V6 = true
	six.Endpoints[0].Addr = netip.MustParseAddr("fd00::1")
	given = append(given, other, six)
	before := deep(given)
	verdict, hinted := kube.New(three()).Of(service("", ""), false, given)
	if !verdict.Hints || len(hinted) != 1 || len(moves(hinted)) != 0 {
		t.Errorf("verdict %+v, hinted %+v", verdict, hinted)
	}
	_, hinted = kube.New(three()).Of(service("", "PreferClose"), true, given)
	if diff := cmp.Diff(map[string]int{"b→b": 1}, moves(hinted)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(before, given, same); diff != "" {
		t.Errorf("input was changed:\n%s", diff)
	}
}

func deep(all []model.Slice) []model.Slice {
	out := slices.Clone(all)
	for i := range out {
		out[i].Endpoints = slices.Clone(out[i].Endpoints)
		for j, e := range out[i].Endpoints {
			out[i].Endpoints[j].ZoneHints, out[i].Endpoints[j].NodeHints = slices.Clone(e.ZoneHints), slices.Clone(e.NodeHints)
		}
	}
	return out
}

func TestUnreadyEndpointsGetNoHintsAndDoNotCount(t *testing.T) {
	unready := func(e *model.Endpoint) { e.Ready = false }
	verdict, hinted := kube.New(three()).Of(service("Auto", ""), false, where(pods(1, 1, 2), 3, unready))
	if !verdict.Hints {
		t.Fatalf("%+v", verdict)
	}
	if diff := cmp.Diff(map[string]int{"a→a": 1, "b→b": 1, "c→c": 1}, moves(hinted)); diff != "" {
		t.Error(diff)
	}
}

// Upstream's library breaks ties by the order of Go maps: ours must not.
func TestInputOrderDoesNotMatter(t *testing.T) {
	nodes := append(three(), node("d1", "d"), node("d2", "d"), node("e1", "e"))
	all := pods(9, 9, 2, 3, 1)
	half := all[0]
	half.Name.Name = "web-2"
	all[0].Endpoints, half.Endpoints = all[0].Endpoints[:11], half.Endpoints[11:]
	all = append(all, half)
	svc := service("Auto", "")
	verdict, hinted := kube.New(nodes).Of(svc, false, all)
	if !verdict.Hints {
		t.Fatalf("%+v", verdict)
	}
	want := byAddress(hinted)
	for range 200 {
		mixed := deep(all)
		rand.Shuffle(len(nodes), func(i, j int) { nodes[i], nodes[j] = nodes[j], nodes[i] })
		rand.Shuffle(len(mixed), func(i, j int) { mixed[i], mixed[j] = mixed[j], mixed[i] })
		for _, s := range mixed {
			rand.Shuffle(len(s.Endpoints), func(i, j int) { s.Endpoints[i], s.Endpoints[j] = s.Endpoints[j], s.Endpoints[i] })
		}
		_, got := kube.New(nodes).Of(svc, false, mixed)
		if diff := cmp.Diff(want, byAddress(got), same); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
	}
}

func TestRefusedAutoGoesBeforeTheField(t *testing.T) {
	verdict, hinted := kube.New(three()).Of(service("Auto", "PreferSameZone"), false, pods(4, 4, 3))
	if verdict.Hints || verdict.Asked != "topology-mode Auto" || len(moves(hinted)) > 0 {
		t.Errorf("%+v: %v", verdict, moves(hinted))
	}
	verdict, hinted = kube.New(three()).Of(service("", "PreferSameZone"), false, pods(4, 4, 3))
	if diff := cmp.Diff(map[string]int{"a→a": 4, "b→b": 4, "c→c": 3}, moves(hinted)); verdict.Hints || diff != "" {
		t.Errorf("%+v: %s", verdict, diff)
	}
}

func TestManyMayAskAtOnce(t *testing.T) {
	u := kube.New(append(three(), node("n7", "")))
	want, _ := u.Of(service("Auto", ""), false, pods(4, 4, 3))
	fresh := kube.New(append(three(), node("n7", "")))
	got := make(chan model.Verdict)
	for range 20 {
		go func() {
			v, _ := fresh.Of(service("Auto", ""), false, pods(4, 4, 3))
			got <- v
		}()
	}
	for range 20 {
		if v := <-got; v != want {
			t.Errorf("%+v, alone %+v", v, want)
		}
	}
}

func byAddress(all []model.Slice) map[netip.Addr][]string {
	out := map[netip.Addr][]string{}
	for _, s := range all {
		for _, e := range s.Endpoints {
			out[e.Addr] = e.ZoneHints
		}
	}
	return out
}
