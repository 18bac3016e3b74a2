package reflect

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	netutils "k8s.io/utils/net"

	"github.com/zonewise/zonewise/internal/model"
)

// Bounds of spec.sessionAffinityConfig.clientIP.timeoutSeconds.
const (
	defaultAffinity = corev1.DefaultClientIPServiceAffinitySeconds // 3 h
	maxAffinity     = 86400                                        // the API's own limit
)

// Service returns false for a Service that a dataplane has nothing to do for, or that belongs
// to another proxy.
func Service(s *corev1.Service) (model.Service, bool) {
	_, foreign := s.Labels[labelProxyName]
	if foreign || s.Spec.Type == corev1.ServiceTypeExternalName {
		return model.Service{}, false
	}
	var wrong faults
	ips := clusterIPs(s, &wrong)
	if len(ips) == 0 {
		return model.Service{}, false
	}
	out := model.Service{
		Name:                model.Name{Namespace: s.Namespace, Name: s.Name},
		Type:                model.ServiceType(s.Spec.Type),
		ClusterIPs:          ips,
		ExternalIPs:         usable("external IP", s.Spec.ExternalIPs, &wrong),
		LoadBalancerIPs:     usable("load balancer IP", ingressIPs(s), &wrong),
		SourceRanges:        sourceRanges(s, &wrong),
		Ports:               servicePorts(s.Spec.Ports, &wrong),
		ExternalLocal:       s.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal,
		InternalLocal:       value(s.Spec.InternalTrafficPolicy, "") == corev1.ServiceInternalTrafficPolicyLocal,
		Affinity:            affinity(s, &wrong),
		TopologyMode:        topologyMode(s.Annotations),
		TrafficDistribution: value(s.Spec.TrafficDistribution, ""),
	}
	if out.Type == "" {
		out.Type = model.ClusterIP
	}
	if out.Type == model.LoadBalancer && out.ExternalLocal {
		var ok bool
		if out.HealthCheckNodePort, ok = port(s.Spec.HealthCheckNodePort); !ok {
			wrong.add("no healthCheckNodePort, though externalTrafficPolicy is Local: load balancers cannot ask where endpoints are")
		}
	}
	out.Faults = wrong
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
func clusterIPs(s *corev1.Service, wrong *faults) []netip.Addr {
	texts := s.Spec.ClusterIPs
	if len(texts) == 0 {
		texts = []string{s.Spec.ClusterIP} // written before the API had ClusterIPs
	}
	if slices.Contains(texts, corev1.ClusterIPNone) {
		return nil
	}
	return usable("cluster IP", texts, wrong)
}

// ingressIPs are the addresses at which a load balancer hands over packets as they came. One of
// mode Proxy sends from an address of its own to a node port: nothing may keep its clients from it.
// Those that have a host name only are of this sort, too.
func ingressIPs(s *corev1.Service) []string {
	var out []string
	for _, in := range s.Status.LoadBalancer.Ingress {
		if value(in.IPMode, corev1.LoadBalancerIPModeVIP) == corev1.LoadBalancerIPModeVIP {
			out = append(out, in.IP)
		}
	}
	return out
}

// usable returns the addresses that a node can answer for, each once.
func usable(what string, texts []string, wrong *faults) []netip.Addr {
	var out []netip.Addr
	for _, t := range texts {
		ip, ok := addr(t)
		switch {
		case strings.TrimSpace(t) == "" || slices.Contains(out, ip):
		case !ok:
			wrong.add("%s %q is not an address: left out", what, t)
		case special(ip) != "":
			wrong.add("%s %s is %s: left out", what, ip, special(ip))
		default:
			out = append(out, ip)
		}
	}
	return out
}

// sourceRanges takes the field or, where that is empty, the annotation from before there was one, as
// the controllers of cloud providers do. Spaces around a range are a mistake that the API lets pass.
func sourceRanges(s *corev1.Service, wrong *faults) []netip.Prefix {
	texts := s.Spec.LoadBalancerSourceRanges
	if older := s.Annotations[corev1.AnnotationLoadBalancerSourceRangesKey]; len(texts) == 0 && older != "" {
		texts = strings.Split(older, ",")
	}
	var out []netip.Prefix
	for _, t := range texts {
		if t = strings.TrimSpace(t); t == "" {
			continue
		}
		p, ok := prefix(t)
		switch {
		case !ok:
			wrong.add("source range %q is not a range of addresses: left out", t)
		case !slices.Contains(out, p):
			out = append(out, p)
		}
	}
	return out
}

// prefix reads a range as Kubernetes does, with what addr says of addresses.
func prefix(s string) (netip.Prefix, bool) {
	_, n, err := netutils.ParseCIDRSloppy(s)
	if err != nil {
		return netip.Prefix{}, false
	}
	a, _ := netip.AddrFromSlice(n.IP)
	bits, _ := n.Mask.Size()
	if a.Is4In6() {
		bits -= 96
	}
	p := netip.PrefixFrom(a.Unmap(), bits)
	return p, p.IsValid()
}

// affinity is how long a client is remembered.
func affinity(s *corev1.Service, wrong *faults) time.Duration {
	if s.Spec.SessionAffinity != corev1.ServiceAffinityClientIP {
		return 0
	}
	seconds := int32(defaultAffinity)
	if c := s.Spec.SessionAffinityConfig; c != nil && c.ClientIP != nil {
		seconds = value(c.ClientIP.TimeoutSeconds, seconds)
	}
	if seconds < 1 || seconds > maxAffinity {
		wrong.add("session affinity of %d s is not between 1 and %d: taken for %d", seconds, maxAffinity, defaultAffinity)
		seconds = defaultAffinity
	}
	return time.Duration(seconds) * time.Second
}

// servicePorts leaves out what another port before it has already: a name, by which endpoints are
// found, or a number.
func servicePorts(ports []corev1.ServicePort, wrong *faults) []model.ServicePort {
	var out []model.ServicePort
	had := func(same func(model.ServicePort) bool) bool { return slices.ContainsFunc(out, same) }
	for _, p := range ports {
		proto, okProto := protocol(p.Protocol)
		number, okPort := port(p.Port)
		switch {
		case !okProto:
			wrong.add("port %s: protocol %q is not known: left out", label(p), p.Protocol)
		case !okPort:
			wrong.add("port %s: %d is not a port: left out", label(p), p.Port)
		case had(func(o model.ServicePort) bool { return o.Name == p.Name && o.Protocol == proto }):
			wrong.add("port %s: the name %q occurs twice with %s: only the first is used", label(p), p.Name, proto)
		case had(func(o model.ServicePort) bool { return o.Port == number && o.Protocol == proto }):
			wrong.add("port %s: %d/%s occurs twice: only the first is used", label(p), number, proto)
		default:
			nodePort, ok := port(p.NodePort)
			switch {
			case !ok && p.NodePort != 0:
				wrong.add("port %s: node port %d is not a port: left out", label(p), p.NodePort)
			case ok && had(func(o model.ServicePort) bool { return o.NodePort == nodePort && o.Protocol == proto }):
				wrong.add("port %s: node port %d/%s occurs twice: only the first is used", label(p), nodePort, proto)
				nodePort = 0
			}
			out = append(out, model.ServicePort{Name: p.Name, Protocol: proto, Port: number, NodePort: nodePort})
		}
	}
	return out
}

// label names a port for people.
func label(p corev1.ServicePort) string {
	if p.Name != "" {
		return p.Name
	}
	return strconv.Itoa(int(p.Port))
}

// topologyMode prefers the older annotation where both are set, as the EndpointSlice controller does.
func topologyMode(annotations map[string]string) string {
	if v, ok := annotations[corev1.DeprecatedAnnotationTopologyAwareHints]; ok {
		return v
	}
	return annotations[corev1.AnnotationTopologyMode]
}
