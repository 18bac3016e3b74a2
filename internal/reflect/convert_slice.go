package reflect

import (
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/zonewise/zonewise/internal/model"
)

// Slice returns false for a slice that belongs to no Service of ours or holds no addresses.
func Slice(s *discoveryv1.EndpointSlice) (model.Slice, bool) {
	_, foreign := s.Labels[labelProxyName]
	owner := s.Labels[discoveryv1.LabelServiceName]
	if foreign || headless(s) || owner == "" || s.AddressType == discoveryv1.AddressTypeFQDN {
		return model.Slice{}, false
	}
	out := model.Slice{
		Name:     model.Name{Namespace: s.Namespace, Name: s.Name},
		Service:  owner,
		V6:       s.AddressType == discoveryv1.AddressTypeIPv6,
		HintMark: s.Annotations[annotationHints],
	}
	var wrong faults
	out.Ports = make([]model.EndpointPort, 0, len(s.Ports))
	for i := range s.Ports {
		if p, ok := endpointPort(&s.Ports[i], &wrong); ok {
			out.Ports = append(out.Ports, p)
		}
	}
	var lost firstAndMore
	out.Endpoints = make([]model.Endpoint, 0, len(s.Endpoints))
	for i := range s.Endpoints {
		ip, why := endpointAddr(&s.Endpoints[i], out.V6)
		if why != "" {
			lost.add(why)
			continue
		}
		out.Endpoints = append(out.Endpoints, endpoint(&s.Endpoints[i], ip))
	}
	lost.report(&wrong)
	out.Ports, out.Endpoints = exact(out.Ports), exact(out.Endpoints)
	out.Faults = wrong
	return out, true
}

func headless(s *discoveryv1.EndpointSlice) bool {
	_, yes := s.Labels[corev1.IsHeadlessService]
	return yes
}

// HeadlessSlice returns the addresses and ports of a headless Service's slice, whatever state the endpoints
// are in, and nothing else of it; false for another slice.
func HeadlessSlice(s *discoveryv1.EndpointSlice) (model.Slice, bool) {
	owner := s.Labels[discoveryv1.LabelServiceName]
	if !headless(s) || owner == "" || s.AddressType == discoveryv1.AddressTypeFQDN {
		return model.Slice{}, false
	}
	out := model.Slice{Name: model.Name{Namespace: s.Namespace, Name: s.Name}, Service: owner, V6: s.AddressType == discoveryv1.AddressTypeIPv6}
	var wrong faults // the dataplane has nothing to do with it, and nobody reports them
	for i := range s.Ports {
		if p, ok := endpointPort(&s.Ports[i], &wrong); ok {
			out.Ports = append(out.Ports, p)
		}
	}
	for i := range s.Endpoints {
		if ip, why := endpointAddr(&s.Endpoints[i], out.V6); why == "" {
			out.Endpoints = append(out.Endpoints, model.Endpoint{Addr: ip})
		}
	}
	out.Ports, out.Endpoints = exact(out.Ports), exact(out.Endpoints)
	return out, true
}

// firstAndMore keeps a long list of what is wrong short: a slice may have a thousand endpoints.
type firstAndMore struct {
	first string
	more  int
}

func (f *firstAndMore) add(what string) {
	if f.first == "" {
		f.first = what
	} else {
		f.more++
	}
}

func (f *firstAndMore) report(wrong *faults) {
	switch {
	case f.first == "":
	case f.more == 0:
		wrong.add("%s: left out", f.first)
	default:
		wrong.add("%s: left out, and %d more", f.first, f.more)
	}
}

func endpointPort(p *discoveryv1.EndpointPort, wrong *faults) (model.EndpointPort, bool) {
	name := value(p.Name, "")
	proto, ok := protocol(value(p.Protocol, corev1.ProtocolTCP))
	if !ok {
		wrong.add("port %q: protocol %q is not known: left out", name, *p.Protocol)
		return model.EndpointPort{}, false
	}
	if p.Port == nil {
		// It means every port, which no Service port can map to.
		wrong.add("port %q has no number: left out", name)
		return model.EndpointPort{}, false
	}
	number, ok := port(*p.Port)
	if !ok {
		wrong.add("port %q: %d is not a port: left out", name, *p.Port)
	}
	return model.EndpointPort{Name: name, Protocol: proto, Port: number}, ok
}

// endpointAddr takes the first address alone: the API says that all of them reach the same
// endpoint. It returns why there is none.
func endpointAddr(e *discoveryv1.Endpoint, v6 bool) (netip.Addr, string) {
	if len(e.Addresses) == 0 {
		return netip.Addr{}, "an endpoint has no address"
	}
	ip, ok := addr(e.Addresses[0])
	switch {
	case !ok:
		return ip, fmt.Sprintf("endpoint %q is not an address", e.Addresses[0])
	case ip.Is6() && !v6:
		return ip, fmt.Sprintf("endpoint %s is IPv6, and the slice IPv4", ip)
	case !ip.Is6() && v6:
		return ip, fmt.Sprintf("endpoint %s is IPv4, and the slice IPv6", ip)
	}
	if s := special(ip); s != "" {
		return ip, fmt.Sprintf("endpoint %s is %s", ip, s)
	}
	return ip, ""
}

func endpoint(e *discoveryv1.Endpoint, ip netip.Addr) model.Endpoint {
	out := model.Endpoint{
		Addr:        ip,
		Node:        value(e.NodeName, ""),
		Zone:        value(e.Zone, ""),
		Ready:       value(e.Conditions.Ready, true),
		Serving:     value(e.Conditions.Serving, true),
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
	return out
}
