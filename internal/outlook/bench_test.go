package outlook

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/zonewise/zonewise/internal/model"
)

// nodesOf is so many nodes of three zones.
func nodesOf(n int) []model.Node {
	var out []model.Node
	for i := range n {
		zone := string(rune('a' + i%3))
		out = append(out, model.Node{Name: fmt.Sprintf("%s%d", zone, i/3+1), Zone: zone, Ready: true, MilliCPU: 2000})
	}
	return out
}

// scattered is a Service whose pods are on random nodes.
func scattered(r *rand.Rand, name string, pods int, nodes []model.Node) (model.Service, []model.Slice) {
	svc := model.Service{Name: model.Name{Namespace: "default", Name: name}, Type: model.ClusterIP,
		ClusterIPs: []netip.Addr{netip.MustParseAddr("10.100.0.7")}, Ports: []model.ServicePort{{Protocol: model.TCP, Port: 80}}}
	slice := model.Slice{Name: model.Name{Namespace: "default", Name: name + "-1"}, Service: name,
		Ports: []model.EndpointPort{{Protocol: model.TCP, Port: 8080}}}
	for i := range pods {
		n := nodes[r.IntN(len(nodes))]
		slice.Endpoints = append(slice.Endpoints, model.Endpoint{Addr: netip.AddrFrom4([4]byte{192, 168, byte(i >> 8), byte(i)}),
			Zone: n.Zone, Node: n.Name, Ready: true, Serving: true})
	}
	return svc, []model.Slice{slice}
}

// One Service in a small and in a large cluster.
func BenchmarkService(b *testing.B) {
	for _, c := range []struct{ nodes, pods int }{{6, 12}, {500, 12}, {18, 50}, {500, 50}, {500, 1000}} {
		b.Run(fmt.Sprintf("nodes=%d/pods=%d", c.nodes, c.pods), func(b *testing.B) {
			r := rand.New(rand.NewPCG(1, 2))
			nodes := nodesOf(c.nodes)
			o := New(Settings{Prices: model.Prices{PerGB: 0.02}}, Facts{Nodes: nodes, Now: time.Unix(1_800_000_000, 0)})
			type one struct {
				svc    model.Service
				slices []model.Slice
			}
			var all []one
			for range 50 {
				svc, slices := scattered(r, "web", c.pods, nodes)
				all = append(all, one{svc, slices})
			}
			for i := 0; b.Loop(); i++ {
				o.Service(all[i%len(all)].svc, all[i%len(all)].slices, nil)
			}
		})
	}
}

// Ten thousand Services of 50 endpoints on 18 nodes.
func BenchmarkService10000(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 2))
	nodes := nodesOf(18)
	var services []model.Service
	var slices [][]model.Slice
	for i := range 10_000 {
		svc, s := scattered(r, fmt.Sprintf("s%d", i), 50, nodes)
		services, slices = append(services, svc), append(slices, s)
	}
	for b.Loop() {
		o := New(Settings{Prices: model.Prices{PerGB: 0.02}}, Facts{Nodes: nodes, Now: time.Unix(1_800_000_000, 0)})
		for i, svc := range services {
			o.Service(svc, slices[i], nil)
		}
	}
}
