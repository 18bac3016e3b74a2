package service

import (
	"net/netip"
	"slices"

	"github.com/zonewise/zonewise/internal/model"
)

// allowed returns who may use the Service's load balancer addresses, in order and without a range
// that is part of another. As with kube-proxy each family is by itself: where a Service has no range
// of it, or one of length 0, everybody may.
//
// A load balancer's address is often also one of the node's own, so that what the node sends to it
// comes back from that address: it may where the node itself may.
func (p planner) allowed() []netip.Prefix {
	own := slices.DeleteFunc(slices.Clone(p.svc.SourceRanges), func(r netip.Prefix) bool { return r.Addr().Is6() != p.v6 })
	if len(own) == 0 || slices.ContainsFunc(own, func(r netip.Prefix) bool { return r.Bits() == 0 }) {
		return nil
	}
	if slices.ContainsFunc(own, func(r netip.Prefix) bool { return holdsNode(r, p.node) }) {
		for _, at := range p.places {
			if at.kind == LoadBalancer {
				own = append(own, netip.PrefixFrom(at.addr, at.addr.BitLen()))
			}
		}
	}
	for i := range own {
		own[i] = own[i].Masked()
	}
	slices.SortFunc(own, netip.Prefix.Compare)
	// Of two ranges one is in the other, or they are apart: a wider one comes before all in it.
	var out []netip.Prefix
	for _, r := range own {
		if len(out) == 0 || !out[len(out)-1].Contains(r.Addr()) {
			out = append(out, r)
		}
	}
	return out
}

func holdsNode(r netip.Prefix, node model.Node) bool {
	return slices.ContainsFunc(node.Addresses, r.Contains)
}
