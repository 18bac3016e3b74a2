package upstream_test

import (
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"
)

// drawService draws a Service as the API server would let it pass.
func drawService(t *rapid.T) *v1.Service {
	out := &v1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"},
		Spec:       v1.ServiceSpec{Type: rapid.SampledFrom([]v1.ServiceType{"ClusterIP", "NodePort", "LoadBalancer"}).Draw(t, "type")},
	}
	drawAddresses(t, out)
	drawPorts(t, out)
	policy := func(what string) string { return rapid.SampledFrom([]string{"Cluster", "Local"}).Draw(t, what) }
	internal := v1.ServiceInternalTrafficPolicy(policy("internal"))
	out.Spec.InternalTrafficPolicy = &internal
	if out.Spec.Type != v1.ServiceTypeClusterIP || len(out.Spec.ExternalIPs) > 0 {
		out.Spec.ExternalTrafficPolicy = v1.ServiceExternalTrafficPolicy(policy("external"))
	}
	if out.Spec.Type == v1.ServiceTypeLoadBalancer && out.Spec.ExternalTrafficPolicy == v1.ServiceExternalTrafficPolicyLocal {
		out.Spec.HealthCheckNodePort = 32000
	}
	out.Spec.SessionAffinity = v1.ServiceAffinityNone
	if rapid.Bool().Draw(t, "affinity") {
		seconds := rapid.Int32Range(1, 86400).Draw(t, "seconds")
		out.Spec.SessionAffinity = v1.ServiceAffinityClientIP
		out.Spec.SessionAffinityConfig = &v1.SessionAffinityConfig{ClientIP: &v1.ClientIPConfig{TimeoutSeconds: &seconds}}
	}
	switch rapid.IntRange(0, 30).Draw(t, "special") {
	case 0:
		out.Spec.ClusterIP, out.Spec.ClusterIPs = v1.ClusterIPNone, []string{v1.ClusterIPNone}
	case 1:
		out.Spec.Type, out.Spec.ExternalName = v1.ServiceTypeExternalName, "example.com"
	}
	return out
}

func drawAddresses(t *rapid.T, s *v1.Service) {
	switch rapid.IntRange(0, 3).Draw(t, "families") {
	case 0:
		s.Spec.ClusterIPs, s.Spec.IPFamilies = []string{"fd00:1::7"}, []v1.IPFamily{v1.IPv6Protocol}
	case 1:
		s.Spec.ClusterIPs, s.Spec.IPFamilies = []string{"10.100.3.7"}, []v1.IPFamily{v1.IPv4Protocol}
	case 2:
		s.Spec.ClusterIPs, s.Spec.IPFamilies = []string{"10.100.3.7", "fd00:1::7"}, []v1.IPFamily{v1.IPv4Protocol, v1.IPv6Protocol}
	case 3:
		s.Spec.ClusterIPs, s.Spec.IPFamilies = []string{"fd00:1::7", "10.100.3.7"}, []v1.IPFamily{v1.IPv6Protocol, v1.IPv4Protocol}
	}
	s.Spec.ClusterIP = s.Spec.ClusterIPs[0]
	some := func(what string, texts ...string) []string {
		var out []string
		for _, s := range texts {
			if rapid.Bool().Draw(t, what) {
				out = append(out, s)
			}
		}
		return out
	}
	s.Spec.ExternalIPs = some("external", "203.0.113.7", "203.000.113.008", "2001:db8::7", "")
	if s.Spec.Type != v1.ServiceTypeLoadBalancer {
		return
	}
	for _, ip := range some("balancer", "198.51.100.1", "198.51.100.2", "2001:db8:1::1", "2001:0db8:1:0::2", "") {
		in := v1.LoadBalancerIngress{IP: ip}
		if ip == "" {
			in.Hostname = "lb.example.com"
		}
		if mode := rapid.SampledFrom([]v1.LoadBalancerIPMode{"", v1.LoadBalancerIPModeVIP, v1.LoadBalancerIPModeProxy}).Draw(t, "mode"); mode != "" {
			in.IPMode = &mode
		}
		s.Status.LoadBalancer.Ingress = append(s.Status.LoadBalancer.Ingress, in)
	}
	s.Spec.LoadBalancerSourceRanges = some("range", "10.0.0.0/8", " 192.168.1.0/24 ", "192.0.2.0/24", "fd00::/8", "2001:db8::/48")
	if rapid.IntRange(0, 5).Draw(t, "everybody") == 0 {
		s.Spec.LoadBalancerSourceRanges = append(s.Spec.LoadBalancerSourceRanges, rapid.SampledFrom([]string{"0.0.0.0/0", "::/0"}).Draw(t, "all"))
	}
}

// drawPorts draws one to three ports, of which two may have one number with different protocols.
func drawPorts(t *rapid.T, s *v1.Service) {
	p := v1.ServicePort{Name: "p", Port: 80, NodePort: 30080,
		Protocol: rapid.SampledFrom([]v1.Protocol{v1.ProtocolTCP, v1.ProtocolUDP, v1.ProtocolSCTP}).Draw(t, "protocol")}
	s.Spec.Ports = []v1.ServicePort{p}
	if rapid.Bool().Draw(t, "other") {
		o := v1.ServicePort{Name: "other", Port: 80, NodePort: 30080, Protocol: v1.ProtocolTCP}
		if p.Protocol == o.Protocol {
			o.Port, o.NodePort = 81, 30081
		}
		s.Spec.Ports = append(s.Spec.Ports, o)
	}
	if rapid.Bool().Draw(t, "without endpoints") {
		s.Spec.Ports = append(s.Spec.Ports, v1.ServicePort{Name: "nobody", Port: 53, NodePort: 30053, Protocol: v1.ProtocolUDP})
	}
	nodePorts := s.Spec.Type == v1.ServiceTypeNodePort ||
		s.Spec.Type == v1.ServiceTypeLoadBalancer && rapid.Bool().Draw(t, "allocateLoadBalancerNodePorts")
	for i := range s.Spec.Ports {
		if !nodePorts {
			s.Spec.Ports[i].NodePort = 0
		}
	}
}
