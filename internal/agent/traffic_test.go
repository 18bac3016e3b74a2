package agent

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/service"
	"github.com/zonewise/zonewise/internal/state"
)

// BenchmarkTraffic adds up the counts of 10,000 Services of two endpoints each.
func BenchmarkTraffic(b *testing.B) {
	tables := state.New(state.Services, state.Slices)
	counted := map[service.Pair]service.Traffic{}
	tables.Update(time.Time{}, func(tx *state.Tx) {
		for i := range 10_000 {
			ip := netip.AddrFrom4([4]byte{10, 100, byte(i >> 8), byte(i)})
			name := model.Name{Namespace: "default", Name: fmt.Sprintf("s%d", i)}
			tx.PutService(model.Service{Name: name, ClusterIPs: []netip.Addr{ip}, Ports: []model.ServicePort{{Protocol: model.TCP, Port: 80}}})
			s := model.Slice{Name: name, Service: name.Name, Ports: []model.EndpointPort{{Protocol: model.TCP, Port: 8080}}}
			for _, zone := range []string{"a", "b"} {
				a := netip.AddrFrom4([4]byte{10, zone[0], byte(i >> 8), byte(i)})
				s.Endpoints = append(s.Endpoints, model.Endpoint{Addr: a, Zone: zone, Ready: true})
				counted[service.Pair{
					Frontend: service.Key{Addr: netip.AddrPortFrom(ip, 80), Protocol: model.TCP}, Backend: netip.AddrPortFrom(a, 8080),
				}] = service.Traffic{}
			}
			tx.PutSlice(s)
		}
	})
	snap := tables.Snapshot()
	var t tally
	round := uint64(0)
	for b.Loop() {
		round++
		for p := range counted {
			counted[p] = service.Traffic{Connections: round}
		}
		t.add(snap, map[string]map[service.Pair]service.Traffic{pathNFT: counted})
		if n := len(t.view(model.Node{}).Services); round > 1 && n != 10_000 {
			b.Fatalf("%d Services", n)
		}
	}
}
