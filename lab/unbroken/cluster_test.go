//go:build kernel

package unbroken

import (
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apiruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/ptr"

	"github.com/zonewise/zonewise/lab/rig"
)

const (
	namespace = "shop"
	nodeName  = "n1"
	port      = 8080 // of every endpoint
)

// server is an endpoint: its addresses, IPv4 and IPv6, and the node that it is on.
type server struct {
	addrs [2]string
	node  string
}

// serversOf are those of steady, whose endpoints stay, and those of changing, whose come and go.
func serversOf(w *rig.World) (steady, changing []server) {
	pod := func(i int) server { return server{[2]string{w.Pods[i].V4.String(), w.Pods[i].V6.String()}, nodeName} }
	return []server{pod(2), pod(3), {[2]string{rig.RemoteV4, rig.RemoteV6}, "n2"}},
		[]server{pod(4), pod(5), {[2]string{rig.OtherV4, rig.OtherV6}, "n3"}}
}

// virtual is the cluster address of Service number n.
func virtual(n int, v6 bool) netip.AddrPort {
	if v6 {
		return netip.AddrPortFrom(netip.MustParseAddr(fmt.Sprintf("fd00:10:100::%x", n)), 80)
	}
	return netip.AddrPortFrom(netip.MustParseAddr(fmt.Sprintf("10.100.%d.%d", n/256, n%256)), 80)
}

// open is the node port of Service number n.
func open(n int, v6 bool) netip.AddrPort {
	at := netip.MustParseAddr(rig.NodeV4)
	if v6 {
		at = netip.MustParseAddr(rig.NodeV6)
	}
	return netip.AddrPortFrom(at, uint16(30000+n))
}

// The Services by their numbers.
const (
	steadily = 1 // always the same endpoints
	changes  = 2
	sticky   = 3 // remembers clients; from outside at this node's endpoints alone
	limited  = 4 // a load balancer's, for some sources, at this node's endpoints alone
	nobody   = 5 // without endpoints
)

func service(n int, change ...func(*corev1.Service)) *corev1.Service {
	v4, v6 := virtual(n, false).Addr().String(), virtual(n, true).Addr().String()
	s := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: fmt.Sprint("s", n)},
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeNodePort, ClusterIP: v4, ClusterIPs: []string{v4, v6},
			IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol}, IPFamilyPolicy: ptr.To(corev1.IPFamilyPolicyRequireDualStack),
			SessionAffinity: corev1.ServiceAffinityNone, InternalTrafficPolicy: ptr.To(corev1.ServiceInternalTrafficPolicyCluster),
			ExternalTrafficPolicy: corev1.ServiceExternalTrafficPolicyCluster,
			Ports: []corev1.ServicePort{
				{Name: "tcp", Protocol: corev1.ProtocolTCP, Port: 80, NodePort: int32(30000 + n)},
				{Name: "udp", Protocol: corev1.ProtocolUDP, Port: 80, NodePort: int32(30000 + n)},
			},
		},
	}
	for _, c := range change {
		c(s)
	}
	return s
}

// endpoints are the slices of Service number n, one for each family.
func endpoints(n int, servers ...server) []apiruntime.Object {
	var out []apiruntime.Object
	for i, family := range []discoveryv1.AddressType{discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6} {
		slice := &discoveryv1.EndpointSlice{
			ObjectMeta:  metav1.ObjectMeta{Namespace: namespace, Name: fmt.Sprintf("s%d-%d", n, i), Labels: map[string]string{discoveryv1.LabelServiceName: fmt.Sprint("s", n)}},
			AddressType: family,
			Ports: []discoveryv1.EndpointPort{
				{Name: ptr.To("tcp"), Port: ptr.To(int32(port)), Protocol: ptr.To(corev1.ProtocolTCP)},
				{Name: ptr.To("udp"), Port: ptr.To(int32(port)), Protocol: ptr.To(corev1.ProtocolUDP)},
			},
		}
		for _, s := range servers {
			slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{Addresses: []string{s.addrs[i]}, NodeName: ptr.To(s.node),
				Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(true), Serving: ptr.To(true), Terminating: ptr.To(false)}})
		}
		out = append(out, slice)
	}
	return out
}

// cluster is every object that there is at first.
func cluster(w *rig.World) []apiruntime.Object {
	steady, changing := serversOf(w)
	out := []apiruntime.Object{
		&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: nodeName}, Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{
			{Type: corev1.NodeInternalIP, Address: rig.NodeV4}, {Type: corev1.NodeInternalIP, Address: rig.NodeV6}}}},
		&networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: "kubernetes"}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{"10.100.0.0/16", "fd00:10:100::/112"}},
			Status: networkingv1.ServiceCIDRStatus{Conditions: []metav1.Condition{{Type: networkingv1.ServiceCIDRConditionReady, Status: metav1.ConditionTrue}}}},
		service(steadily), service(changes), service(nobody),
		service(sticky, func(s *corev1.Service) {
			s.Spec.SessionAffinity, s.Spec.ExternalTrafficPolicy = corev1.ServiceAffinityClientIP, corev1.ServiceExternalTrafficPolicyLocal
			s.Spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: ptr.To(int32(600))}}
		}),
		service(limited, func(s *corev1.Service) {
			s.Spec.Type, s.Spec.ExternalTrafficPolicy = corev1.ServiceTypeLoadBalancer, corev1.ServiceExternalTrafficPolicyLocal
			s.Spec.LoadBalancerSourceRanges = []string{"203.0.113.0/24", "2001:db8:203::/48"}
			s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "198.18.0.4"}, {IP: "2001:db8:18::4"}}
		}),
	}
	out = append(out, endpoints(steadily, steady...)...)
	out = append(out, endpoints(changes, changing...)...)
	out = append(out, endpoints(sticky, steady...)...)
	out = append(out, endpoints(limited, steady...)...)
	return append(out, endpoints(nobody)...)
}

// unused are Services of which no client knows, with endpoints that nobody is.
func unused(count int) []apiruntime.Object {
	var out []apiruntime.Object
	for i := range count {
		n := 1000 + i
		out = append(out, service(n, func(s *corev1.Service) {
			s.Spec.Type = corev1.ServiceTypeClusterIP
			for p := range s.Spec.Ports {
				s.Spec.Ports[p].NodePort = 0
			}
		}))
		out = append(out, endpoints(n, server{[2]string{fmt.Sprintf("192.168.4.%d", n%250), fmt.Sprintf("fd00:192:168:4::%x", n)}, "n4"})...)
	}
	return out
}

// sameName tells whether two are the same slice.
func sameName(a, b apiruntime.Object) bool {
	x, ok := a.(*discoveryv1.EndpointSlice)
	y, also := b.(*discoveryv1.EndpointSlice)
	return ok && also && x.Name == y.Name
}
