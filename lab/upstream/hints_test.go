package upstream_test

import (
	"net/netip"
	"slices"
	"testing"

	"k8s.io/kubernetes/pkg/apis/discovery"
	conversion "k8s.io/kubernetes/pkg/apis/discovery/v1"
	"k8s.io/kubernetes/pkg/apis/discovery/validation"
	"pgregory.net/rapid"

	"github.com/zonewise/zonewise/internal/hints"
	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/route"
)

// What we think that a consumer makes of hints is what kube-proxy makes of them. One from before node
// hints is the same code with these left out.
func TestHintsAreObeyedAsPredicted(t *testing.T) {
	seen := map[string]int{}
	for range cases / 50 { // rapid runs 100 cases a check, of which some have nothing ready
		rapid.Check(t, func(t *rapid.T) {
			node, all := drawNode(t), drawSlices(t)
			ready := readyOf(all)
			if len(ready) == 0 {
				seen["nothing ready"]++
				return
			}
			sameChoice(t, hints.KubeProxy, node, all, ready, seen)
			for i := range all {
				for j := range all[i].Endpoints {
					all[i].Endpoints[j].NodeHints = nil
				}
			}
			sameChoice(t, hints.KubeProxyOld, node, all, ready, seen)
		})
	}
	t.Logf("choices compared: %v", seen)
	for _, v := range []string{
		"kube-proxy: some", "kube-proxy: all", "kube-proxy before 1.34: some", "kube-proxy before 1.34: all",
	} {
		if seen[v] == 0 {
			t.Errorf("no choice was %q: the generator is too narrow", v)
		}
	}
}

func readyOf(all []model.Slice) []model.Endpoint {
	return slices.DeleteFunc(route.Endpoints(all, false), func(e model.Endpoint) bool { return !e.Ready })
}

func sameChoice(t *rapid.T, c hints.Consumer, node model.Node, all []model.Slice, ready []model.Endpoint, seen map[string]int) {
	svc := model.Service{
		Name: model.Name{Namespace: "shop", Name: "web"}, Type: model.ClusterIP,
		ClusterIPs: []netip.Addr{netip.MustParseAddr("10.100.3.7")},
		Ports:      []model.ServicePort{{Name: "p", Protocol: model.TCP, Port: 80}},
	}
	var got []string
	for _, i := range c.Choose(node.Name, node.Zone, ready) {
		got = append(got, netip.AddrPortFrom(ready[i].Addr, 8080).String())
	}
	slices.Sort(got)
	if want := choose(t, node, svc, all).cluster; !slices.Equal(got, want) {
		t.Fatalf("%s on node %s in zone %q: %v, upstream %v, of\n%v", c, node.Name, node.Zone, got, want, ready)
	}
	if len(got) == len(ready) {
		seen[string(c)+": all"]++
	} else {
		seen[string(c)+": some"]++
	}
}

// What we plan is taken by the API server, and kube-proxy on each node does with it what is forecast.
func TestPlannedHintsAreValidAndObeyed(t *testing.T) {
	planned := 0
	for range 10 {
		rapid.Check(t, func(t *rapid.T) {
			p, clients, endpoints := drawPlan(t)
			set := hints.Plan(p, clients, endpoints, nil)
			slice := model.Slice{
				Name: model.Name{Namespace: "shop", Name: "web-0"}, Service: "web",
				Ports:     []model.EndpointPort{{Name: "p", Protocol: model.TCP, Port: 8080}},
				Endpoints: endpoints,
			}
			for i := range endpoints {
				h := set.Of[endpoints[i].Addr]
				endpoints[i].ZoneHints, endpoints[i].NodeHints = h.Zones, h.Nodes
			}
			valid(t, slice)
			for _, c := range clients {
				if c.Node != "" {
					node := model.Node{Name: c.Node, Zone: c.Zone}
					sameChoice(t, hints.KubeProxy, node, []model.Slice{slice}, readyOf([]model.Slice{slice}), map[string]int{})
				}
			}
			if len(set.Of) > 0 {
				planned++
			}
		})
	}
	t.Logf("%d of 1000 had hints", planned)
	if planned < 500 {
		t.Errorf("only %d of 1000 cases had hints: the generator is too narrow", planned)
	}
}

// drawPlan draws up to four zones with nodes and endpoints, and weights that ask to stay at home.
func drawPlan(t *rapid.T) (p model.RoutePlan, clients []hints.Client, endpoints []model.Endpoint) {
	zones := []string{"ap-northeast-2a", "ap-northeast-2b", "ap-northeast-2c", "z_D.1"}[:rapid.IntRange(1, 4).Draw(t, "zones")]
	var nodes []model.Node
	var demand model.Shares
	for _, z := range zones {
		for range rapid.IntRange(0, 6).Draw(t, "nodes") {
			nodes = append(nodes, model.Node{Name: "ip-10-0-0-" + string(rune('a'+len(nodes))) + ".internal", Zone: z, Ready: true})
		}
		demand = append(demand, model.Share{Zone: z, Share: rapid.Float64Range(0.05, 1).Draw(t, "demand")})
		for range rapid.IntRange(0, 6).Draw(t, "pods") {
			endpoints = append(endpoints, model.Endpoint{
				Addr: netip.AddrFrom4([4]byte{10, 0, 0, byte(len(endpoints) + 1)}),
				Zone: z, Ready: rapid.IntRange(0, 9).Draw(t, "ready") > 0, Serving: true,
			})
		}
		p.Zones = append(p.Zones, model.ZonePlan{Name: z, Weights: model.Shares{{Zone: z, Share: 1}}})
	}
	p.MaxOverload = 0.2
	return p, hints.Clients(nodes, demand), endpoints
}

// valid asks the API's own validation.
func valid(t *rapid.T, s model.Slice) {
	var internal discovery.EndpointSlice
	if err := conversion.Convert_v1_EndpointSlice_To_discovery_EndpointSlice(apiSlice(s), &internal, nil); err != nil {
		t.Fatal(err)
	}
	if errs := validation.ValidateEndpointSlice(&internal, nil); len(errs) > 0 {
		t.Fatalf("%v\n%v", errs, s)
	}
}
