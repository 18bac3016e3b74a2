package controller

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/zonewise/zonewise/internal/model"
)

var web = model.Name{Namespace: "default", Name: "web"}

func asking(mode, distribution string) model.Service {
	return model.Service{Name: web, Type: model.ClusterIP, TopologyMode: mode, TrafficDistribution: distribution,
		ClusterIPs: []netip.Addr{netip.MustParseAddr("10.100.0.7")},
		Ports:      []model.ServicePort{{Protocol: model.TCP, Port: 80}}}
}

// endpoints makes one endpoint for each zone; hinted endpoints name their own zone.
func endpoints(hinted bool, zones ...string) []model.Slice {
	s := model.Slice{Name: model.Name{Namespace: "default", Name: "web-1"}, Service: "web",
		Ports: []model.EndpointPort{{Protocol: model.TCP, Port: 8080}}}
	for i, z := range zones {
		e := model.Endpoint{Addr: netip.MustParseAddr(fmt.Sprintf("192.168.1.%d", i+1)), Zone: z, Ready: true, Serving: true}
		if hinted {
			e.ZoneHints = []string{z}
		}
		s.Endpoints = append(s.Endpoints, e)
	}
	return []model.Slice{s}
}

func nodes(zones ...string) (out []model.Node) {
	for i, z := range zones {
		out = append(out, model.Node{Name: fmt.Sprintf("n%d", i), Zone: z})
	}
	return out
}

func TestJudge(t *testing.T) {
	local := asking("Auto", "")
	local.InternalLocal = true
	for _, c := range []struct {
		what   string
		svc    model.Service
		nodes  []model.Node
		slices []model.Slice
		want   string
	}{
		{"asks for nothing", asking("", ""), nodes("a"), endpoints(true, "a"), ""},
		{"says no", asking("Disabled", ""), nodes("a"), endpoints(true, "a"), ""},
		{"hints everywhere", asking("Auto", ""), nodes("a", "a", "b", "b"), endpoints(true, "a", "b"),
			"asked topology-mode Auto, in zone on 4 of 4 nodes"},
		{"by field", asking("", "PreferSameZone"), nodes("a", "b"), endpoints(true, "a", "b"),
			"asked trafficDistribution PreferSameZone, in zone on 2 of 2 nodes"},
		{"refused", asking("Auto", ""), nodes("a", "b"), endpoints(false, "a", "b"),
			"asked topology-mode Auto, in zone on 0 of 2 nodes: all endpoints: no hints"},
		{"one zone has none", asking("auto", ""), nodes("a", "b", "c", "c"), endpoints(true, "a", "b"),
			"asked topology-mode auto, in zone on 2 of 4 nodes: all endpoints: no hint names zone c"},
		{"no endpoints", asking("Auto", ""), nodes("a"), nil,
			"asked topology-mode Auto, in zone on 0 of 1 nodes: no endpoints"},
		{"a node without a zone does not count", asking("Auto", ""), nodes("a", ""), endpoints(true, "a"),
			"asked topology-mode Auto, in zone on 1 of 1 nodes"},
		{"nodes of one zone may differ", local, nodes("a", "a"), endpoints(true, "a"),
			"asked topology-mode Auto, in zone on 0 of 2 nodes: internalTrafficPolicy Local: no endpoint on this node"},
	} {
		v, ok := judge(c.nodes, c.svc, c.slices)
		got := ""
		if ok {
			got = v.String()
		}
		if got != c.want {
			t.Errorf("%s:\n got %q\nwant %q", c.what, got, c.want)
		}
	}
}
