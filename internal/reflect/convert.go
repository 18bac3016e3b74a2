package reflect

import (
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
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
	// taintLeaving is what the cluster autoscaler puts on a node that it will delete.
	taintLeaving = "ToBeDeletedByClusterAutoscaler"
)

// Node returns a Node in our terms.
func Node(n *corev1.Node) (model.Node, bool) {
	out := model.Node{
		Name:         n.Name,
		Zone:         n.Labels[corev1.LabelTopologyZone],
		Region:       n.Labels[corev1.LabelTopologyRegion],
		InstanceType: n.Labels[corev1.LabelInstanceTypeStable],
		MilliCPU:     max(0, n.Status.Allocatable.Cpu().MilliValue()),
		Leaving: n.DeletionTimestamp != nil ||
			slices.ContainsFunc(n.Spec.Taints, func(t corev1.Taint) bool { return t.Key == taintLeaving }),
	}
	_, out.ControlPlane = n.Labels[labelControlPlane]
	if _, master := n.Labels[labelMaster]; master {
		out.ControlPlane = true
	}
	out.Addresses = nodeAddresses(n.Status.Addresses)
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			out.Ready = c.Status == corev1.ConditionTrue
		}
	}
	return out, true
}

// nodeAddresses returns the internal addresses, and an external one of a family that has no internal one.
func nodeAddresses(all []corev1.NodeAddress) []netip.Addr {
	var out []netip.Addr
	for _, a := range all {
		if ip, ok := addr(a.Address); ok && a.Type == corev1.NodeInternalIP {
			out = append(out, ip)
		}
	}
	for _, a := range all {
		ip, ok := addr(a.Address)
		had := slices.ContainsFunc(out, func(o netip.Addr) bool { return o.Is6() == ip.Is6() })
		if ok && a.Type == corev1.NodeExternalIP && !had {
			out = append(out, ip)
		}
	}
	return out
}

// addr reads an address as Kubernetes does: leading zeros are decimal, and an IPv4 address in
// IPv6 clothes is an IPv4 address.
func addr(s string) (netip.Addr, bool) {
	// What is written as it should be, nearly all, is read without garbage.
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		return a.Unmap(), true
	}
	a, ok := netip.AddrFromSlice(netutils.ParseIPSloppy(s))
	return a.Unmap(), ok
}

// special tells why no node can answer for an address, or send to it; empty if it can.
func special(a netip.Addr) string {
	switch {
	case a.IsUnspecified():
		return "the unspecified address"
	case a.IsLoopback():
		return "a loopback address"
	case a.IsMulticast():
		return "a multicast address"
	}
	return ""
}

// faults gathers what is wrong with one object, each a short sentence, each once.
type faults []string

func (f *faults) add(format string, args ...any) {
	if s := fmt.Sprintf(format, args...); !slices.Contains(*f, s) {
		*f = append(*f, s)
	}
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
