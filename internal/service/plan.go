package service

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/zonewise/zonewise/internal/model"
)

// Plan returns what the node has to do for the Service, given the Service's slices (those of
// other Services are passed over) and its ZoneRoute. Where that is in force its weights hold for
// policy Cluster; without one (nil) endpoints are chosen as kube-proxy does, by hints. Frontends come ordered by kind, address and protocol, and do
// not depend on the order of anything given.
func Plan(node model.Node, svc model.Service, slices_ []model.Slice, zr *model.ZoneRoute) []Frontend {
	var out []Frontend
	for _, v6 := range []bool{false, true} {
		p := planner{node: node, svc: svc, slices: mine(svc.Name, v6, slices_), v6: v6, plan: inForce(zr, v6)}
		for _, port := range svc.Ports {
			out = append(out, p.port(port)...)
		}
	}
	slices.SortFunc(out, func(a, b Frontend) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), a.Addr.Compare(b.Addr),
			cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Port, b.Port))
	})
	return out
}

// planner plans one address family of one Service.
type planner struct {
	node   model.Node
	svc    model.Service
	slices []model.Slice
	v6     bool
	plan   *model.RoutePlan // nil: hints hold
}

// port returns the frontends of one Service port: its ClusterIPs, and the node port if it has one.
func (p planner) port(port model.ServicePort) []Frontend {
	var addrs []netip.Addr
	for _, a := range p.svc.ClusterIPs {
		if a.Is6() == p.v6 {
			addrs = append(addrs, a)
		}
	}
	primary := p.node.Primary(p.v6)
	outside := port.NodePort != 0 && primary.IsValid()
	if len(addrs) == 0 {
		return nil // the Service does not have this family
	}

	set := merge(p.node.Name, port, p.slices)
	base := Frontend{Service: p.svc.Name, Port: port.Name, Protocol: port.Protocol}
	if port.Protocol == model.UDP {
		base.Keep = set.serving()
	}
	cluster := p.cluster(set)
	var out []Frontend
	for _, a := range addrs {
		f := base
		f.Kind, f.Addr = ClusterIP, netip.AddrPortFrom(a, port.Port)
		f.Choice = p.choose(set, cluster, p.svc.InternalLocal, "internalTrafficPolicy Local")
		out = append(out, f)
	}
	if outside {
		f := base
		f.Kind, f.Addr = NodePort, netip.AddrPortFrom(primary, port.NodePort)
		f.Choice = p.choose(set, cluster, p.svc.ExternalLocal, "externalTrafficPolicy Local")
		f.Masquerade = !p.svc.ExternalLocal
		if p.svc.ExternalLocal && f.Verdict != Reject {
			f.Inside = &cluster
		}
		out = append(out, f)
	}
	return out
}

// cluster is the choice by policy Cluster.
func (p planner) cluster(set endpoints) Choice {
	if c, ok := p.weighed(set); ok {
		return c
	}
	chosen, why := set.cluster(p.node)
	if len(chosen) == 0 {
		return Choice{Verdict: Reject, Why: "no endpoints"}
	}
	return Choice{Verdict: Balance, Backends: chosen.backends(), Why: why}
}

// choose applies a traffic policy. Without an endpoint anywhere both policies reject; a Local
// policy drops when there are endpoints, but none here, so that a load balancer that still
// sends to this node sees a loss and not a refusal.
func (p planner) choose(set endpoints, cluster Choice, local bool, policy string) Choice {
	if cluster.Verdict == Reject || !local {
		return cluster
	}
	here, terminating := set.local()
	if terminating {
		policy += ", terminating: no endpoint of this node is ready"
	}
	if len(here) == 0 {
		return Choice{Verdict: Drop, Why: policy + ": no endpoint on this node"}
	}
	return Choice{Verdict: Balance, Backends: here.backends(), Why: policy}
}
