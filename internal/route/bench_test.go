package route_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/route"
)

// cut makes slices of endpoints, as many in each as upstream puts there.
func cut(endpoints []model.Endpoint) []model.Slice {
	var out []model.Slice
	for i := 0; i < len(endpoints); i += 100 {
		out = append(out, model.Slice{
			Name:    model.Name{Namespace: web.Namespace, Name: fmt.Sprintf("web-%d", i/100)},
			Service: web.Name, Endpoints: endpoints[i:min(i+100, len(endpoints))],
		})
	}
	return out
}

// wide makes a cluster of many zones and a Service over it, every zone with another demand.
func wide(zones, pods int, unequal bool) (*route.Cluster, []model.Slice) {
	r := rand.New(rand.NewPCG(3, 4))
	prices := aws()
	if unequal {
		prices.Pairs = map[model.ZonePair]float64{}
	}
	var nodes []model.Node
	for z := range zones {
		name := fmt.Sprintf("zone-%04d", z)
		nodes = append(nodes, model.Node{Name: "n" + name, Zone: name, Ready: true, MilliCPU: 1000 + r.Int64N(4000)})
		for o := range zones {
			if unequal && o != z {
				prices.Pairs[model.ZonePair{From: name, To: fmt.Sprintf("zone-%04d", o)}] = 0.01 * float64(1+r.IntN(9))
			}
		}
	}
	var eps []model.Endpoint
	for i := range pods {
		n := nodes[r.IntN(zones)]
		eps = append(eps, model.Endpoint{
			Addr: netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), Zone: n.Zone, Node: n.Name, Ready: true, Serving: true,
		})
	}
	return route.NewCluster(nodes, prices), cut(eps)
}

// planAll is what a snapshot costs: gather the endpoints of each Service, and plan.
func planAll(b *testing.B, services, zones, pods int, unequal bool) {
	cluster, slices := wide(zones, pods, unequal)
	b.ReportAllocs()
	for b.Loop() {
		for range services {
			p, _ := route.Plan(route.Input{Service: web, Cluster: cluster, Endpoints: route.Endpoints(slices, false), Now: start})
			if p.InZone.Ideal == 0 {
				b.Fatal("no plan")
			}
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*services), "ns/service")
}

func BenchmarkServices10000(b *testing.B)   { planAll(b, 10_000, 3, 50, false) }
func BenchmarkService(b *testing.B)         { planAll(b, 1, 3, 50, false) }
func BenchmarkServiceUnequal3(b *testing.B) { planAll(b, 1, 3, 50, true) }
func BenchmarkZones8Unequal(b *testing.B)   { planAll(b, 1, 8, 60, true) }
func BenchmarkZones64(b *testing.B)         { planAll(b, 1, 64, 640, false) }
func BenchmarkZones64Unequal(b *testing.B)  { planAll(b, 1, 64, 640, true) }
func BenchmarkZones1000(b *testing.B)       { planAll(b, 1, 1000, 5000, false) }
func BenchmarkZones1000Unequal(b *testing.B) {
	planAll(b, 1, 1000, 5000, true)
}

// Again is a Service whose endpoint changed: planned with its previous plan.
func BenchmarkServiceAgain(b *testing.B) {
	cluster, slices := wide(3, 50, false)
	in := route.Input{Service: web, Cluster: cluster, Endpoints: route.Endpoints(slices, false), Now: start, Stability: route.DefaultStability()}
	old, _ := route.Plan(in)
	in.Previous = &old
	b.ReportAllocs()
	for b.Loop() {
		in.Endpoints = route.Endpoints(slices, false)
		if p, _ := route.Plan(in); p.At != old.At {
			b.Fatal("changed")
		}
	}
}

// Whether demand moved: it is asked for each measured Service every ten seconds.
func BenchmarkMoved(b *testing.B) {
	in := input(3, 3, 3)
	in.Measured = counted(.4, .3, .3, 1e6)
	p, _ := route.Plan(in)
	is := counted(.399, .301, .3, 1e6)
	for b.Loop() {
		if route.Moved(p, *is, true) {
			b.Fatal("it did not move")
		}
	}
}
