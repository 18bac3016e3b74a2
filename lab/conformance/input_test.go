//go:build kernel

package conformance

import (
	"net/netip"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

func TestInput(t *testing.T) {
	onEachPath(t, []row{
		{"1 what is not for us is left alone", notOurs},
		{"2 ports, types and addresses change", serviceChanges},
		{"3 endpoints from many slices", manySlices},
		{"4 one port number in several protocols", protocols},
		{"5 addresses written strangely, or not addresses at all", strangeAddresses},
		{"6 each address family for itself", familiesApart},
		{"8 ranges of Services' addresses change", serviceRanges},
		{"9 the node's zone changes", nodeMoves},
	})
}

// untranslated is a ClusterIP about which nobody does anything: its packets get lost outside.
func (s *stage) untranslated(t *testing.T, n int) {
	t.Helper()
	for _, from := range []string{"pod0", "node"} {
		s.fails(t, from, clusterIP(n), silence)
	}
}

func notOurs(t *testing.T, s *stage) {
	foreign := func(s *corev1.Service) {
		s.Labels = map[string]string{"service.kubernetes.io/service-proxy-name": "another"}
	}
	web := svc(1, foreign)
	s.set(web, s.behind(web, on("pod2")...))
	s.untranslated(t, 1)
	s.set(svc(1))
	s.reach(t, "pod0", clusterIP(1), "pod2", kept)
	s.set(svc(1, foreign))
	s.untranslated(t, 1)

	headless := svc(2, func(s *corev1.Service) { s.Spec.ClusterIP, s.Spec.ClusterIPs = "None", []string{"None"} })
	named := svc(3, func(s *corev1.Service) {
		s.Spec.Type, s.Spec.ExternalName = corev1.ServiceTypeExternalName, "example.com"
		s.Spec.ClusterIP, s.Spec.ClusterIPs = "", nil
	})
	s.set(headless, named, s.behind(headless, on("pod2")...), s.behind(named, on("pod2")...))
	s.untranslated(t, 2)
	s.untranslated(t, 3)

	// Slices that are not for proxies stand beside one that is.
	four := svc(4)
	all := s.behind(four, on("pod3")...)
	for i, label := range []string{"service.kubernetes.io/service-proxy-name", corev1.IsHeadlessService} {
		other := s.slice(four, []string{"-foreign", "-headless"}[i], discoveryv1.AddressTypeIPv4, on("pod4"))
		other.Labels[label] = "x"
		all = append(all, other)
	}
	names := s.slice(four, "-names", discoveryv1.AddressTypeFQDN, on("pod5"))
	names.Endpoints[0].Addresses = []string{"pod5.example.com"}
	s.set(four, append(all, names))
	s.reach(t, "pod0", clusterIP(4), "pod3", kept)
}

func serviceChanges(t *testing.T, s *stage) {
	admin := func(s *corev1.Service) {
		s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Name: "admin", Protocol: corev1.ProtocolTCP, Port: 81})
	}
	web := svc(1, admin)
	all := s.behind(web, on("pod2")...)
	for _, slice := range all {
		slice.Ports = append(slice.Ports, discoveryv1.EndpointPort{Name: ptr("admin"), Protocol: ptr(corev1.ProtocolTCP), Port: ptr(int32(adminPort))})
	}
	s.set(web, all)
	second := clusterIP(1)
	second.port = 81
	s.reach(t, "pod0", clusterIP(1), "pod2", kept)
	s.reach(t, "pod0", second, "pod2:9090", kept)

	// Another name is another port, which the slices do not know.
	web = svc(1, admin)
	web.Spec.Ports[0].Name = "www"
	s.set(web)
	s.fails(t, "pod0", clusterIP(1), refused)
	s.reach(t, "pod0", second, "pod2:9090", kept)
	for _, slice := range all {
		slice.Ports[0].Name = ptr("www")
	}
	s.set(all)
	s.reach(t, "pod0", clusterIP(1), "pod2", kept)

	// Another number, and a port less.
	web = svc(1)
	web.Spec.Ports[0].Name, web.Spec.Ports[0].Port = "www", 88
	s.set(web)
	moved := clusterIP(1)
	moved.port = 88
	s.reach(t, "pod0", moved, "pod2", kept)
	s.fails(t, "pod0", clusterIP(1), refused)
	s.fails(t, "pod0", second, refused)

	// Types come and go.
	two := svc(2)
	s.set(two, s.behind(two, on("pod3")...))
	s.fails(t, "stranger", nodeAt(2), refused)
	s.set(svc(2, nodePort))
	s.reach(t, "stranger", nodeAt(2), "pod3", masked)
	s.set(svc(2, func(s *corev1.Service) {
		s.Spec.Type, s.Spec.ExternalName, s.Spec.ClusterIP, s.Spec.ClusterIPs = corev1.ServiceTypeExternalName, "example.com", "", nil
	}))
	s.untranslated(t, 2)
	s.fails(t, "stranger", nodeAt(2), refused)
	s.set(svc(2, balanced))
	s.reach(t, "stranger", balancer(2), "pod3", masked)
	s.set(svc(2))
	s.reach(t, "pod0", clusterIP(2), "pod3", kept)
	s.fails(t, "stranger", nodeAt(2), refused)

	// Deleted, and made again with another address.
	s.remove(two)
	s.untranslated(t, 2)
	three := svc(3)
	three.Name = two.Name
	s.set(three)
	s.untranslated(t, 2)
	s.reach(t, "pod0", clusterIP(3), "pod3", kept)
}

func manySlices(t *testing.T, s *stage) {
	web := svc(1)
	one := s.slice(web, "-1", discoveryv1.AddressTypeIPv4, on("pod2 pod3"))
	two := s.slice(web, "-2", discoveryv1.AddressTypeIPv4, on("pod3 remote"))
	six := s.slice(web, "-6", discoveryv1.AddressTypeIPv6, on("pod2"))
	more := s.slice(web, "-7", discoveryv1.AddressTypeIPv6, on("pod3 remote"))
	s.set(web, one, two, six, more)
	s.reach(t, "pod0", clusterIP(1), "pod2 pod3 remote", kept)

	// One moves from a slice to another; then a slice goes.
	s.set(s.slice(web, "-1", discoveryv1.AddressTypeIPv4, on("pod3")), s.slice(web, "-2", discoveryv1.AddressTypeIPv4, on("pod2 remote")))
	s.reach(t, "pod0", clusterIP(1), "pod2 pod3 remote", kept)
	s.remove(two, more)
	v4, v6 := clusterIP(1), clusterIP(1)
	v4.addrs[1], v6.addrs[0] = netip.Addr{}, netip.Addr{}
	s.reach(t, "pod0", v4, "pod3", kept)
	s.reach(t, "pod0", v6, "pod2", kept)

	// A port by name is another number in another pod.
	mixed := svc(2)
	same, other := s.behind(mixed, on("pod2")...), s.behind(mixed, on("pod3")...)
	for _, slice := range other {
		slice.Name += "-other"
		slice.Ports[0].Port = ptr(int32(adminPort))
	}
	s.set(mixed, append(same, other...))
	s.reach(t, "pod0", clusterIP(2), "pod2 pod3:9090", kept)

	// Slices by port, as the controller makes them where pods do not have the same ports.
	split := svc(3)
	onlyTCP, onlyUDP := s.behind(split, on("pod2")...), s.behind(split, on("pod3")...)
	for i := range onlyTCP {
		onlyTCP[i].Ports = onlyTCP[i].Ports[:1]
		onlyUDP[i].Name, onlyUDP[i].Ports = onlyUDP[i].Name+"-udp", onlyUDP[i].Ports[1:]
	}
	s.set(split, append(onlyTCP, onlyUDP...))
	s.reach(t, "pod0", clusterIP(3), "pod2", kept)
	s.reach(t, "pod0", overUDP(clusterIP(3)), "pod3", kept)
}

func protocols(t *testing.T, s *stage) {
	web := svc(1, balanced)
	sctp := corev1.ServicePort{Name: "sig", Protocol: corev1.ProtocolSCTP, Port: 80, NodePort: web.Spec.Ports[0].NodePort}
	web.Spec.Ports = append(web.Spec.Ports, sctp)
	all := s.behind(web, on("pod2 remote")...)
	for _, slice := range all {
		slice.Ports[1].Port = ptr(int32(adminPort))
		slice.Ports = append(slice.Ports, discoveryv1.EndpointPort{Name: ptr("sig"), Protocol: ptr(corev1.ProtocolSCTP), Port: ptr(int32(webPort))})
	}
	s.set(web, all)
	for _, from := range []string{"pod0", "stranger"} {
		for _, to := range []target{clusterIP(1), nodeAt(1), balancer(1)} {
			masquerade := from != "pod0" || to.what != "ClusterIP"
			s.reach(t, from, to, "pod2 remote", masquerade)
			s.reach(t, from, overUDP(to), "pod2:9090 remote:9090", masquerade)
		}
	}
	// SCTP has an endpoint, and the others have none.
	alone := s.behind(web, on("pod2")...)
	for _, slice := range alone {
		slice.Ports = all[0].Ports[2:]
	}
	s.set(alone)
	for _, to := range []target{clusterIP(1), nodeAt(1), balancer(1)} {
		s.associates(t, "pod0", to, "pod2", to.what != "ClusterIP")
		s.associates(t, "stranger", to, "pod2", masked)
		s.fails(t, "pod0", to, refused)
	}
}

func strangeAddresses(t *testing.T, s *stage) {
	web := svc(1, external, balanced)
	web.Spec.ClusterIP, web.Spec.ClusterIPs = "10.100.000.001", []string{"10.100.000.001", "fd00:10:100:0::1"}
	web.Spec.ExternalIPs = []string{"198.051.100.001", "2001:0db8:51::1", "300.1.1.1", "127.0.0.1", "0.0.0.0", "224.0.0.5", "::1", ""}
	web.Status.LoadBalancer.Ingress[0].IP = "198.018.000.001"
	web.Status.LoadBalancer.Ingress = append(web.Status.LoadBalancer.Ingress, corev1.LoadBalancerIngress{IP: "not an address"}, corev1.LoadBalancerIngress{IP: "127.0.0.1"})
	all := s.behind(web, on("pod2")...)
	all[0].Endpoints[0].Addresses[0] = "192.168.001.013"
	for _, bad := range []string{"1.2.3", "fd00::zz", ""} {
		for i := range all {
			all[i].Endpoints = append(all[i].Endpoints, discoveryv1.Endpoint{Addresses: []string{bad}})
		}
	}
	all[0].Endpoints = append(all[0].Endpoints, discoveryv1.Endpoint{})
	s.set(web, all)
	for _, to := range []target{clusterIP(1), externalIP(1), balancer(1)} {
		s.reach(t, "pod0", to, "pod2", to.what != "ClusterIP")
	}
	s.fails(t, "node", at("loopback", tcp, 80, "127.0.0.1", "::1"), refused)
	s.fails(t, "pod0", at("loopback", tcp, 80, "127.0.0.1", "::1"), refused)
}

func familiesApart(t *testing.T, s *stage) {
	four, six := clusterIP(1), clusterIP(2)
	four.addrs[1], six.addrs[0] = netip.Addr{}, netip.Addr{}
	one := svc(1, nodePort, func(s *corev1.Service) {
		s.Spec.ClusterIPs, s.Spec.IPFamilies = s.Spec.ClusterIPs[:1], s.Spec.IPFamilies[:1]
	})
	two := svc(2, nodePort, func(s *corev1.Service) {
		s.Spec.ClusterIPs, s.Spec.IPFamilies = s.Spec.ClusterIPs[1:], s.Spec.IPFamilies[1:]
		s.Spec.ClusterIP = s.Spec.ClusterIPs[0]
	})
	s.set(one, two, s.behind(one, on("pod2")...), s.behind(two, on("pod3")...))
	s.reach(t, "pod0", four, "pod2", kept)
	s.reach(t, "pod0", six, "pod3", kept)
	for n, has := range map[int]bool{1: false, 2: true} { // whether node port n is one of IPv6
		for _, v6 := range []bool{false, true} {
			to := nodeAt(n)
			if v6 {
				to.addrs[0] = netip.Addr{}
			} else {
				to.addrs[1] = netip.Addr{}
			}
			if v6 == has {
				s.reach(t, "stranger", to, map[int]string{1: "pod2", 2: "pod3"}[n], masked)
			} else {
				s.fails(t, "stranger", to, refused)
			}
		}
	}

	// Both families, and endpoints in one of them alone; then others in each.
	both := svc(3)
	all := s.behind(both, on("pod2")...)
	s.set(both, all[:1])
	v4, v6 := clusterIP(3), clusterIP(3)
	v4.addrs[1], v6.addrs[0] = netip.Addr{}, netip.Addr{}
	s.reach(t, "pod0", v4, "pod2", kept)
	s.fails(t, "pod0", v6, refused)
	s.set(s.slice(both, "-v6", discoveryv1.AddressTypeIPv6, on("pod3")))
	s.reach(t, "pod0", v4, "pod2", kept)
	s.reach(t, "pod0", v6, "pod3", kept)
	s.remove(all[0])
	s.fails(t, "pod0", v4, refused)
	s.reach(t, "pod0", v6, "pod3", kept)
}

// ranged is what knows where Services' addresses are.
type ranged interface {
	ServiceCIDRs([]netip.Prefix) error
}

func (s *stage) ranges(texts ...string) {
	s.t.Helper()
	var all []netip.Prefix
	for _, text := range texts {
		all = append(all, netip.MustParsePrefix(text))
	}
	s.each(func(a applier) error {
		if r, ok := a.(ranged); ok {
			return r.ServiceCIDRs(all)
		}
		return nil
	})
}

func serviceRanges(t *testing.T, s *stage) {
	t.Cleanup(func() { s.ranges() })
	web := svc(1)
	s.set(web, s.behind(web, on("pod2")...))
	// Somebody outside really has an address that no Service has.
	free := at("unallocated address", tcp, 80, "10.100.0.200", "fd00:10:100::200")
	for _, a := range free.addrs {
		lend(t, s.world.Outside, "lo", a)
		serveTCP(t, s.world.Outside, netip.AddrPortFrom(a, 80))
	}
	check := func(how string) {
		t.Helper()
		for _, from := range []string{"pod0", "node"} {
			if how == "" {
				s.reach(t, from, free, "itself", kept)
			} else {
				s.fails(t, from, free, how)
			}
			s.reach(t, from, clusterIP(1), "pod2", kept)
		}
	}
	check("")
	s.ranges("10.100.0.0/24", "fd00:10:100::/112")
	check(silence)
	s.ranges("10.101.0.0/24", "fd00:10:101::/112")
	check("")
	s.ranges("10.100.0.0/16", "10.101.0.0/24", "fd00:10:100::/108", "fd00:10:101::/112")
	check(silence)
	s.ranges()
	check("")
}

func nodeMoves(t *testing.T, s *stage) {
	web := svc(1)
	s.set(web, s.behind(web, endpoint{host: "pod2", zones: "a"}, endpoint{host: "remote", zones: "b"}, endpoint{host: "other", zones: "c"}))
	s.reach(t, "pod0", clusterIP(1), "pod2", kept)
	for _, zone := range []struct{ name, servers string }{{"b", "remote"}, {"c", "other"}, {"", "pod2 remote other"}, {"a", "pod2"}} {
		node := theNode()
		node.Labels[corev1.LabelTopologyZone] = zone.name
		if zone.name == "" {
			delete(node.Labels, corev1.LabelTopologyZone)
		}
		s.set(node)
		s.reach(t, "pod0", clusterIP(1), zone.servers, kept)
	}
}
