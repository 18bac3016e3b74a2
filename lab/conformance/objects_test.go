//go:build kernel

package conformance

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/zonewise/zonewise/lab/rig"
)

const namespace = "t"

// Where hosts are: pods of the world and the node itself on n1 in zone a, the others elsewhere.
var places = map[string]struct{ node, zone string }{
	"remote": {"n2", "b"},
	"other":  {"n3", "c"},
}

func place(host string) (node, zone string) {
	if p, ok := places[host]; ok {
		return p.node, p.zone
	}
	return "n1", "a"
}

func theNode() *corev1.Node {
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "n1", Labels: map[string]string{corev1.LabelTopologyZone: "a"}},
		Status: corev1.NodeStatus{
			Addresses: []corev1.NodeAddress{
				{Type: corev1.NodeInternalIP, Address: rig.NodeV4},
				{Type: corev1.NodeInternalIP, Address: rig.NodeV6},
			},
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
		},
	}
}

// svc makes Service number n, with one port 80 that leads to the endpoints' port web, by TCP and,
// under another name, by UDP. It has both families.
func svc(n int, change ...func(*corev1.Service)) *corev1.Service {
	v4, v6 := fmt.Sprintf("10.100.0.%d", n), fmt.Sprintf("fd00:10:100::%d", n)
	policy := corev1.IPFamilyPolicyPreferDualStack
	s := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: fmt.Sprint("svc", n)},
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeClusterIP, ClusterIP: v4, ClusterIPs: []string{v4, v6},
			IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol}, IPFamilyPolicy: &policy,
			Ports: []corev1.ServicePort{
				{Name: "web", Protocol: corev1.ProtocolTCP, Port: 80},
				{Name: "dns", Protocol: corev1.ProtocolUDP, Port: 80},
			},
		},
	}
	for _, c := range change {
		c(s)
	}
	return s
}

// number is the n of a Service that svc made.
func number(s *corev1.Service) int {
	var n int
	if _, err := fmt.Sscanf(s.Name, "svc%d", &n); err != nil {
		panic(err)
	}
	return n
}

// nodePort opens node port 30000+n, by TCP and by UDP.
func nodePort(s *corev1.Service) {
	s.Spec.Type = corev1.ServiceTypeNodePort
	for i := range s.Spec.Ports {
		s.Spec.Ports[i].NodePort = int32(30000 + number(s))
	}
}

// external gives external addresses, which are nobody's.
func external(s *corev1.Service) {
	s.Spec.ExternalIPs = externalAddrs(number(s))
}

func externalAddrs(n int) []string {
	return []string{fmt.Sprintf("198.51.100.%d", n), fmt.Sprintf("2001:db8:51::%d", n)}
}

// balanced gives addresses of a load balancer, with node ports.
func balanced(s *corev1.Service) {
	nodePort(s)
	s.Spec.Type = corev1.ServiceTypeLoadBalancer
	for _, a := range balancerAddrs(number(s)) {
		s.Status.LoadBalancer.Ingress = append(s.Status.LoadBalancer.Ingress, corev1.LoadBalancerIngress{IP: a})
	}
}

func balancerAddrs(n int) []string {
	return []string{fmt.Sprintf("198.18.0.%d", n), fmt.Sprintf("2001:db8:18::%d", n)}
}

func internalLocal(s *corev1.Service) {
	local := corev1.ServiceInternalTrafficPolicyLocal
	s.Spec.InternalTrafficPolicy = &local
}

func externalLocal(s *corev1.Service) {
	s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
}

// The targets of Service number n, by TCP; overUDP has the same by UDP.
func clusterIP(n int) target {
	return at("ClusterIP", tcp, 80, fmt.Sprintf("10.100.0.%d", n), fmt.Sprintf("fd00:10:100::%d", n))
}

func externalIP(n int) target { return at("external address", tcp, 80, externalAddrs(n)...) }

func balancer(n int) target { return at("load balancer", tcp, 80, balancerAddrs(n)...) }

func nodeAt(n int) target {
	return at("node port", tcp, uint16(30000+n), rig.NodeV4, rig.NodeV6)
}

func overUDP(to target) target {
	to.what, to.protocol = to.what+" by UDP", udp
	return to
}

// endpoint is one of a slice.
type endpoint struct {
	host     string
	unready  bool // not ready and not serving
	leaving  bool // terminating, and still serving
	gone     bool // terminating, and no longer serving
	zones    string
	nodes    string
	anywhere bool // without a node's name
}

// on makes ready endpoints on hosts.
func on(hosts string) []endpoint {
	var out []endpoint
	for _, h := range strings.Fields(hosts) {
		out = append(out, endpoint{host: h})
	}
	return out
}

// behind makes the slices of a Service, one for each family: ports web (TCP) and dns (UDP).
func (s *stage) behind(svc *corev1.Service, endpoints ...endpoint) []*discoveryv1.EndpointSlice {
	return []*discoveryv1.EndpointSlice{
		s.slice(svc, "-v4", discoveryv1.AddressTypeIPv4, endpoints),
		s.slice(svc, "-v6", discoveryv1.AddressTypeIPv6, endpoints),
	}
}

func (s *stage) slice(svc *corev1.Service, suffix string, family discoveryv1.AddressType, endpoints []endpoint) *discoveryv1.EndpointSlice {
	out := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: svc.Namespace, Name: svc.Name + suffix, Labels: map[string]string{discoveryv1.LabelServiceName: svc.Name},
		},
		AddressType: family,
		Ports: []discoveryv1.EndpointPort{
			{Name: ptr("web"), Protocol: ptr(corev1.ProtocolTCP), Port: ptr(int32(webPort))},
			{Name: ptr("dns"), Protocol: ptr(corev1.ProtocolUDP), Port: ptr(int32(webPort))},
		},
	}
	for _, e := range endpoints {
		node, zone := place(e.host)
		d := discoveryv1.Endpoint{
			Addresses: []string{s.host(e.host).addr(family == discoveryv1.AddressTypeIPv6).String()},
			Conditions: discoveryv1.EndpointConditions{
				Ready:       ptr(!e.unready && !e.leaving && !e.gone),
				Serving:     ptr(!e.unready && !e.gone),
				Terminating: ptr(e.leaving || e.gone),
			},
			Zone: &zone,
		}
		if !e.anywhere {
			d.NodeName = &node
		}
		if e.zones+e.nodes != "" {
			d.Hints = &discoveryv1.EndpointHints{}
		}
		for _, z := range strings.Fields(e.zones) {
			d.Hints.ForZones = append(d.Hints.ForZones, discoveryv1.ForZone{Name: z})
		}
		for _, n := range strings.Fields(e.nodes) {
			d.Hints.ForNodes = append(d.Hints.ForNodes, discoveryv1.ForNode{Name: n})
		}
		out.Endpoints = append(out.Endpoints, d)
	}
	return out
}

func ptr[T any](v T) *T { return &v }
