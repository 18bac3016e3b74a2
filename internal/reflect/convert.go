package reflect

import (
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	netutils "k8s.io/utils/net"

	"github.com/zonewise/zonewise/internal/model"
)

const (
	// labelProxyName hands a Service to another proxy.
	labelProxyName = "service.kubernetes.io/service-proxy-name"
	// annotationHints is what Zonewise leaves on a slice that it put hints on.
	annotationHints = "zonewise.io/hints"
	// Nodes with either label are where upstream's topology hints expect no clients.
	labelControlPlane = "node-role.kubernetes.io/control-plane"
	labelMaster       = "node-role.kubernetes.io/master"
)

// Node returns a Node in our terms.
func Node(n *corev1.Node) (model.Node, bool) {
	out := model.Node{
		Name:         n.Name,
		Zone:         n.Labels[corev1.LabelTopologyZone],
		Region:       n.Labels[corev1.LabelTopologyRegion],
		InstanceType: n.Labels[corev1.LabelInstanceTypeStable],
		MilliCPU:     max(0, n.Status.Allocatable.Cpu().MilliValue()),
	}
	_, out.ControlPlane = n.Labels[labelControlPlane]
	if _, master := n.Labels[labelMaster]; master {
		out.ControlPlane = true
	}
	for _, a := range n.Status.Addresses {
		if ip, ok := addr(a.Address); ok && a.Type == corev1.NodeInternalIP {
			out.Addresses = append(out.Addresses, ip)
		}
	}
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			out.Ready = c.Status == corev1.ConditionTrue
		}
	}
	return out, true
}

// Service returns false for a Service that a dataplane has nothing to do for, or that belongs
// to another proxy.
func Service(s *corev1.Service) (model.Service, bool) {
	_, foreign := s.Labels[labelProxyName]
	ips := clusterIPs(s)
	if foreign || s.Spec.Type == corev1.ServiceTypeExternalName || len(ips) == 0 {
		return model.Service{}, false
	}
	out := model.Service{
		Name:                model.Name{Namespace: s.Namespace, Name: s.Name},
		Type:                model.ServiceType(s.Spec.Type),
		ClusterIPs:          ips,
		ExternalLocal:       s.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal,
		InternalLocal:       value(s.Spec.InternalTrafficPolicy, "") == corev1.ServiceInternalTrafficPolicyLocal,
		TopologyMode:        topologyMode(s.Annotations),
		TrafficDistribution: value(s.Spec.TrafficDistribution, ""),
	}
	if out.Type == "" {
		out.Type = model.ClusterIP
	}
	for _, p := range s.Spec.Ports {
		proto, ok := protocol(p.Protocol)
		number, okPort := port(p.Port)
		if !ok || !okPort {
			continue
		}
		nodePort, _ := port(p.NodePort)
		out.Ports = append(out.Ports, model.ServicePort{Name: p.Name, Protocol: proto, Port: number, NodePort: nodePort})
	}
	return out, true
}

// Unserved tells why a Service that Service turns away has nothing to route. Empty: it belongs to
// another proxy, or has no address yet.
func Unserved(s *corev1.Service) string {
	_, foreign := s.Labels[labelProxyName]
	switch {
	case foreign:
		return ""
	case s.Spec.Type == corev1.ServiceTypeExternalName:
		return "an ExternalName Service has no endpoints"
	case s.Spec.ClusterIP == corev1.ClusterIPNone:
		return "a headless Service has no address: its clients choose among endpoints themselves"
	}
	return ""
}

// clusterIPs returns the Service's virtual addresses; none for a headless one.
func clusterIPs(s *corev1.Service) []netip.Addr {
	texts := s.Spec.ClusterIPs
	if len(texts) == 0 {
		texts = []string{s.Spec.ClusterIP} // written before the API had ClusterIPs
	}
	var out []netip.Addr
	for _, t := range texts {
		if ip, ok := addr(t); ok { // "None" and "" are not addresses
			out = append(out, ip)
		}
	}
	return out
}

// topologyMode prefers the older annotation where both are set, as the EndpointSlice controller does.
func topologyMode(annotations map[string]string) string {
	if v, ok := annotations[corev1.DeprecatedAnnotationTopologyAwareHints]; ok {
		return v
	}
	return annotations[corev1.AnnotationTopologyMode]
}

// Slice returns false for a slice that belongs to no Service of ours or holds no addresses.
func Slice(s *discoveryv1.EndpointSlice) (model.Slice, bool) {
	_, foreign := s.Labels[labelProxyName]
	_, headless := s.Labels[corev1.IsHeadlessService]
	owner := s.Labels[discoveryv1.LabelServiceName]
	if foreign || headless || owner == "" || s.AddressType == discoveryv1.AddressTypeFQDN {
		return model.Slice{}, false
	}
	out := model.Slice{
		Name:     model.Name{Namespace: s.Namespace, Name: s.Name},
		Service:  owner,
		V6:       s.AddressType == discoveryv1.AddressTypeIPv6,
		HintMark: s.Annotations[annotationHints],
	}
	for _, p := range s.Ports {
		proto, ok := protocol(value(p.Protocol, corev1.ProtocolTCP))
		number, okPort := port(value(p.Port, 0)) // nil means "every port", which no Service port can map to
		if !ok || !okPort {
			continue
		}
		out.Ports = append(out.Ports, model.EndpointPort{Name: value(p.Name, ""), Protocol: proto, Port: number})
	}
	for i := range s.Endpoints {
		if e, ok := endpoint(&s.Endpoints[i], out.V6); ok {
			out.Endpoints = append(out.Endpoints, e)
		}
	}
	return out, true
}

// endpoint takes the first address alone: the API says that all of them reach the same endpoint.
func endpoint(e *discoveryv1.Endpoint, v6 bool) (model.Endpoint, bool) {
	if len(e.Addresses) == 0 {
		return model.Endpoint{}, false
	}
	ip, ok := addr(e.Addresses[0])
	if !ok || ip.Is6() != v6 {
		return model.Endpoint{}, false
	}
	ready := value(e.Conditions.Ready, true)
	out := model.Endpoint{
		Addr:        ip,
		Node:        value(e.NodeName, ""),
		Zone:        value(e.Zone, ""),
		Ready:       ready,
		Serving:     value(e.Conditions.Serving, ready),
		Terminating: value(e.Conditions.Terminating, false),
	}
	if e.TargetRef != nil && e.TargetRef.Kind == "Pod" {
		out.Pod = e.TargetRef.Name
	}
	if e.Hints != nil {
		for _, z := range e.Hints.ForZones {
			out.ZoneHints = append(out.ZoneHints, z.Name)
		}
		for _, n := range e.Hints.ForNodes {
			out.NodeHints = append(out.NodeHints, n.Name)
		}
	}
	return out, true
}

// addr reads an address as Kubernetes does: leading zeros are decimal, and an IPv4 address in
// IPv6 clothes is an IPv4 address.
func addr(s string) (netip.Addr, bool) {
	a, ok := netip.AddrFromSlice(netutils.ParseIPSloppy(s))
	return a.Unmap(), ok
}

func protocol(p corev1.Protocol) (model.Protocol, bool) {
	switch p {
	case corev1.ProtocolTCP, "":
		return model.TCP, true
	case corev1.ProtocolUDP:
		return model.UDP, true
	case corev1.ProtocolSCTP:
		return model.SCTP, true
	}
	return 0, false
}

// port returns false for what is not a port number between 1 and 65535.
func port(n int32) (uint16, bool) {
	if n < 1 || n > 65535 {
		return 0, false
	}
	return uint16(n), true
}

func value[T any](p *T, otherwise T) T {
	if p == nil {
		return otherwise
	}
	return *p
}
