//go:build kernel

package conformance

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/kubernetes/pkg/proxy"

	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/service"
)

// fate is what becomes of a client's connections to a target.
type fate struct {
	how     string   // refused or silence; empty: answered
	servers []string // by whom, in order
	masked  bool     // and servers see the node
	sticky  bool     // always by the same of them
}

// attempt is a client and where it connects.
type attempt struct {
	from string
	to   target
	kind service.Kind
	v6   bool
}

// byPlan is the fate that service.Plan's frontends say.
func (s *stage) byPlan(plan []service.Frontend, a attempt) (fate, bool) {
	client := s.host(a.from)
	key := service.Key{Addr: a.to.addr(a.v6), Protocol: model.Protocol(a.to.protocol)}
	i := slices.IndexFunc(plan, func(f service.Frontend) bool { return f.Key() == key })
	if i < 0 {
		return fate{}, false
	}
	f := plan[i]
	choice := f.Choice
	if f.Inside != nil && client.inside {
		choice = *f.Inside
	}
	allowed := f.Sources == nil || slices.ContainsFunc(f.Sources, func(p netip.Prefix) bool { return p.Contains(client.addr(a.v6)) })
	switch {
	case !allowed: // comes before all else
		return fate{how: silence}, true
	case choice.Verdict == service.Reject:
		return fate{how: refused}, true
	case choice.Verdict == service.Drop:
		return fate{how: silence}, true
	}
	out := fate{sticky: f.Affinity > 0, masked: masks(client, f.Kind == service.ClusterIP, f.Masquerade)}
	for _, b := range choice.Backends {
		out.servers = append(out.servers, s.named(b.Addr, netip.AddrPort{}))
	}
	slices.Sort(out.servers)
	return out, true
}

// masks: the node always speaks as itself; of the others, those outside are masqueraded at a
// ClusterIP, and all are where the policy wants it.
func masks(client host, clusterIP, policy bool) bool {
	return client.name == "node" || clusterIP && !client.inside || policy
}

// byUpstream is the fate by what kube-proxy's own code decides: it categorizes endpoints, and its
// proxiers then choose among the categories by kind of address, source and policy.
func (s *stage) byUpstream(object *corev1.Service, all []*discoveryv1.EndpointSlice, a attempt) fate {
	family := corev1.IPv4Protocol
	if a.v6 {
		family = corev1.IPv6Protocol
	}
	services, ports := proxy.NewServiceChangeTracker(family, nil, nil), proxy.ServicePortMap{}
	services.Update(nil, object)
	ports.Update(services)
	tracker, endpoints := proxy.NewEndpointsChangeTracker(family, s.node.Name, nil, nil), proxy.EndpointsMap{}
	for _, slice := range all {
		tracker.EndpointSliceUpdate(slice, false)
	}
	endpoints.Update(tracker)
	for name, port := range ports {
		if (port.Protocol() == corev1.ProtocolUDP) == (a.to.protocol == udp) {
			return s.upstreamPort(port, endpoints[name], a)
		}
	}
	return fate{how: "no such port"}
}

func (s *stage) upstreamPort(port proxy.ServicePort, endpoints []proxy.Endpoint, a attempt) fate {
	client := s.host(a.from)
	cluster, local, _, hasAny := proxy.CategorizeEndpoints(endpoints, port, s.node.Name, s.node.Labels)
	ranges := port.LoadBalancerSourceRanges()
	closed := a.kind == service.LoadBalancer && len(ranges) > 0
	for _, r := range ranges {
		closed = closed && !r.Contains(client.addr(a.v6).AsSlice())
	}
	if closed {
		return fate{how: silence}
	}
	if !hasAny {
		return fate{how: refused}
	}
	chosen, masquerade := cluster, !port.ExternalPolicyLocal()
	if a.kind == service.ClusterIP && port.InternalPolicyLocal() || a.kind != service.ClusterIP && port.ExternalPolicyLocal() && !client.inside {
		chosen = local
	}
	if a.kind == service.ClusterIP {
		masquerade = false
	}
	if len(chosen) == 0 {
		return fate{how: silence}
	}
	out := fate{sticky: port.SessionAffinityType() == corev1.ServiceAffinityClientIP, masked: masks(client, a.kind == service.ClusterIP, masquerade)}
	for _, e := range chosen {
		out.servers = append(out.servers, s.named(netip.MustParseAddrPort(e.String()), netip.AddrPort{}))
	}
	slices.Sort(out.servers)
	return out
}
