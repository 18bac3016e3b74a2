package upstream_test

import (
	"net"
	"net/netip"
	"time"

	v1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/kubernetes/pkg/proxy"

	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/service"
)

// upstreamPlan is what kube-proxy makes of a Service in one family.
type upstreamPlan struct {
	served    bool
	frontends map[service.Key]frontend
	checkPort uint16 // where load balancers ask
	local     int    // and what they are told
}

func (p upstreamPlan) into(all map[service.Key]frontend) {
	for k, f := range p.frontends {
		all[k] = f
	}
}

// kubeProxy is one family of kube-proxy, up to where it writes rules.
type kubeProxy struct {
	family    v1.IPFamily
	node      model.Node
	services  *proxy.ServiceChangeTracker
	slices    *proxy.EndpointsChangeTracker
	ports     proxy.ServicePortMap
	endpoints proxy.EndpointsMap
}

func newKubeProxy(family v1.IPFamily, node model.Node) *kubeProxy {
	return &kubeProxy{
		family: family, node: node,
		services: proxy.NewServiceChangeTracker(family, nil, nil), ports: proxy.ServicePortMap{},
		slices: proxy.NewEndpointsChangeTracker(family, node.Name, nil, nil), endpoints: proxy.EndpointsMap{},
	}
}

// sync takes over what the trackers were told.
func (k *kubeProxy) sync() {
	k.ports.Update(k.services)
	k.endpoints.Update(k.slices)
}

// plan does with a Service what the proxiers do when they write rules.
func (k *kubeProxy) plan(name types.NamespacedName) upstreamPlan {
	out := upstreamPlan{
		frontends: map[service.Key]frontend{},
		checkPort: k.ports.HealthCheckNodePorts()[name], local: k.endpoints.LocalReadyEndpoints()[name],
	}
	for port, info := range k.ports {
		if port.NamespacedName == name {
			out.served = true
			out.port(k.node, k.node.Primary(k.family == v1.IPv6Protocol), port.Port, info, k.endpoints[port])
		}
	}
	return out
}

// planUpstream sends the objects through kube-proxy's own trackers.
func planUpstream(family v1.IPFamily, node model.Node, svc *v1.Service, slices []*discovery.EndpointSlice) upstreamPlan {
	k := newKubeProxy(family, node)
	k.services.Update(nil, svc)
	for _, s := range slices {
		k.slices.EndpointSliceUpdate(s, false)
	}
	k.sync()
	return k.plan(types.NamespacedName{Namespace: svc.Namespace, Name: svc.Name})
}

func (p upstreamPlan) port(node model.Node, nodeIP netip.Addr, name string, port proxy.ServicePort, all []proxy.Endpoint) {
	labels := map[string]string{}
	if node.Zone != "" {
		labels[v1.LabelTopologyZone] = node.Zone
	}
	cluster, local, _, hasAny := proxy.CategorizeEndpoints(all, port, node.Name, labels)
	choose := func(onlyLocal bool) frontend {
		f := frontend{Port: name, Sources: probe(everybody, nodeIP.Is6())}
		if port.SessionAffinityType() == v1.ServiceAffinityClientIP {
			f.Affinity = time.Duration(port.StickyMaxAgeSeconds()) * time.Second
		}
		f.Verdict, f.Backends = service.Balance, addresses(cluster)
		if onlyLocal {
			f.Backends = addresses(local)
		}
		switch {
		case !hasAny:
			f.Verdict = service.Reject
		case len(f.Backends) == 0:
			f.Verdict = service.Drop
		}
		return f
	}
	inside, outside := choose(port.InternalPolicyLocal()), choose(port.ExternalPolicyLocal())
	outside.Masquerade = !port.ExternalPolicyLocal()
	if port.ExternalPolicyLocal() && hasAny {
		outside.Inside = addresses(cluster)
	}
	at := func(kind service.Kind, ip net.IP, number int, f frontend) {
		a, _ := netip.AddrFromSlice(ip)
		f.Kind = kind
		p.frontends[service.Key{Addr: netip.AddrPortFrom(a.Unmap(), uint16(number)), Protocol: protocol(port.Protocol())}] = f
	}
	at(service.ClusterIP, port.ClusterIP(), port.Port(), inside)
	for _, ip := range port.ExternalIPs() {
		at(service.ExternalIP, ip, port.Port(), outside)
	}
	for _, ip := range port.LoadBalancerVIPs() {
		f := outside
		f.Sources = probe(allowed(port, nodeIP), nodeIP.Is6())
		at(service.LoadBalancer, ip, port.Port(), f)
	}
	if port.NodePort() != 0 {
		at(service.NodePort, nodeIP.AsSlice(), port.NodePort(), outside)
	}
}

func everybody(netip.Addr) bool { return true }

// allowed is the rule of upstream's proxiers about source ranges: what is in none is dropped, and a
// load balancer's own addresses may where the node may.
func allowed(port proxy.ServicePort, nodeIP netip.Addr) func(netip.Addr) bool {
	ranges := port.LoadBalancerSourceRanges()
	if len(ranges) == 0 {
		return everybody
	}
	in := func(a netip.Addr) bool {
		for _, r := range ranges {
			if r.Contains(a.AsSlice()) {
				return true
			}
		}
		return false
	}
	return func(a netip.Addr) bool {
		if in(nodeIP) {
			for _, vip := range port.LoadBalancerVIPs() {
				if vip.Equal(a.AsSlice()) {
					return true
				}
			}
		}
		return in(a)
	}
}

func protocol(p v1.Protocol) model.Protocol {
	switch p {
	case v1.ProtocolUDP:
		return model.UDP
	case v1.ProtocolSCTP:
		return model.SCTP
	}
	return model.TCP
}
