package service

import (
	"net/netip"

	"github.com/zonewise/zonewise/internal/model"
)

// Health returns how many ready endpoints the node has of the Service: what a load balancer learns
// from the health check node port. An endpoint that only still serves while it terminates does not
// count. A pod of two families has an address in each and counts once, so that it is the family
// with more that counts.
func Health(node model.Node, svc model.Service, slices []model.Slice) (local int) {
	for _, v6 := range []bool{false, true} {
		if p := (planner{svc: svc, v6: v6}); len(p.answers()) == 0 {
			continue
		}
		list := mine(svc.Name, v6, slices)
		ready := map[netip.Addr]bool{} // one address may stand behind several ports
		for _, port := range svc.Ports {
			for _, e := range merge(node.Name, port, list) {
				if e.local && e.Ready {
					ready[e.Addr] = true
				}
			}
		}
		local = max(local, len(ready))
	}
	return local
}
