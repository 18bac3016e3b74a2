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
//
// An address and port that a Service claims more than once is one frontend, of the kind that says
// most: ClusterIP, else LoadBalancer, else ExternalIP, else NodePort.
func Plan(node model.Node, svc model.Service, slices_ []model.Slice, zr *model.ZoneRoute) []Frontend {
	var out []Frontend
	for _, v6 := range []bool{false, true} {
		p := planner{node: node, svc: svc, v6: v6, plan: inForce(zr, v6)}
		if p.places = p.answers(); len(p.places) == 0 {
			continue
		}
		p.slices, p.sources = mine(svc.Name, v6, slices_), p.allowed()
		for _, port := range svc.Ports {
			out = append(out, p.port(port)...)
		}
	}
	return each(out)
}

// kinds are the kinds of frontend, the one that says most of an address first.
var kinds = []Kind{ClusterIP, LoadBalancer, ExternalIP, NodePort}

// each keeps one frontend of each key, and orders them.
func each(all []Frontend) []Frontend {
	rank := func(f Frontend) int { return slices.Index(kinds, f.Kind) }
	slices.SortFunc(all, func(a, b Frontend) int {
		return cmp.Or(a.Addr.Compare(b.Addr), cmp.Compare(a.Protocol, b.Protocol),
			cmp.Compare(rank(a), rank(b)), cmp.Compare(a.Port, b.Port))
	})
	all = slices.CompactFunc(all, func(a, b Frontend) bool { return a.Key() == b.Key() })
	slices.SortStableFunc(all, func(a, b Frontend) int { return cmp.Compare(a.Kind, b.Kind) })
	return all
}

// planner plans one address family of one Service.
type planner struct {
	node    model.Node
	svc     model.Service
	slices  []model.Slice
	v6      bool
	plan    *model.RoutePlan // nil: hints hold
	places  []place
	sources []netip.Prefix // who may use load balancer addresses; nil: everybody
}

// place is an address at which the Service answers on this node.
type place struct {
	kind Kind
	addr netip.Addr
}

// answers returns the places of the family, those of kind ClusterIP first; none if the Service does
// not have the family.
func (p planner) answers() []place {
	var out []place
	add := func(kind Kind, all ...netip.Addr) {
		for _, a := range all {
			if a.IsValid() && a.Is6() == p.v6 {
				out = append(out, place{kind, a})
			}
		}
	}
	add(ClusterIP, p.svc.ClusterIPs...)
	if len(out) == 0 {
		return nil
	}
	add(LoadBalancer, p.svc.LoadBalancerIPs...)
	add(ExternalIP, p.svc.ExternalIPs...)
	if !slices.ContainsFunc(p.svc.Ports, func(o model.ServicePort) bool { return o.NodePort != 0 }) {
		return out
	}
	virtual := len(out)
	add(NodePort, p.node.NodePorts...)
	if len(out) == virtual {
		add(NodePort, p.node.Primary(p.v6))
	}
	return out
}

// port returns the frontends of one Service port.
func (p planner) port(port model.ServicePort) []Frontend {
	set := merge(p.node.Name, port, p.slices)
	base := Frontend{
		Service: p.svc.Name, Port: port.Name, Protocol: port.Protocol, Affinity: p.svc.Affinity,
		Group: Key{netip.AddrPortFrom(p.places[0].addr, port.Port), port.Protocol},
	}
	if port.Protocol == model.UDP {
		base.Keep = set.serving()
	}
	cluster := p.cluster(set)
	inside, outside := base, base
	inside.Choice = p.choose(set, cluster, p.svc.InternalLocal, "internalTrafficPolicy Local")
	outside.Choice = p.choose(set, cluster, p.svc.ExternalLocal, "externalTrafficPolicy Local")
	outside.Masquerade = !p.svc.ExternalLocal
	if p.svc.ExternalLocal && outside.Verdict != Reject {
		outside.Inside = &cluster
	}
	out := make([]Frontend, 0, len(p.places))
	for _, at := range p.places {
		f, number := outside, port.Port
		switch at.kind {
		case ClusterIP:
			f = inside
		case LoadBalancer:
			f.Sources = p.sources
		case NodePort:
			if number = port.NodePort; number == 0 {
				continue
			}
		}
		f.Kind, f.Addr = at.kind, netip.AddrPortFrom(at.addr, number)
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
