//go:build kernel

package conformance

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/zonewise/zonewise/internal/kernel/netns"
	"github.com/zonewise/zonewise/lab/rig"
)

func TestDispatch(t *testing.T) {
	onEachPath(t, []row{
		{"10 ClusterIP from pods, the node and the endpoint itself", clusterIPs},
		{"11 node ports at the primary addresses, or where configured", nodePorts},
		{"12 external addresses", externalIPs},
		{"13 addresses of load balancers", balancers},
		{"14 refused without endpoints", refusedWithout},
		{"15 silence where a Local policy has no endpoint here", silentWithoutLocal},
		{"16 other ports of a ClusterIP are refused", otherPorts},
		{"17 source ranges", sourceRanges},
	})
}

func clusterIPs(t *testing.T, s *stage) {
	web := svc(1)
	s.set(web, s.behind(web, on("pod2 pod3 remote")...))
	for _, to := range []target{clusterIP(1), overUDP(clusterIP(1))} {
		s.reach(t, "pod0", to, "pod2 pod3 remote", kept)
		s.reach(t, "node", to, "pod2 pod3 remote", masked)
	}
	// The node itself is an endpoint: a pod that uses the host's network.
	host := svc(2)
	s.set(host, s.behind(host, on("node")...))
	for _, to := range []target{clusterIP(2), overUDP(clusterIP(2))} {
		s.reach(t, "pod0", to, "node", kept)
		s.reach(t, "node", to, "node", masked)
	}
	self := svc(3)
	s.set(self, s.behind(self, on("pod2")...))
	for _, to := range []target{clusterIP(3), overUDP(clusterIP(3))} {
		s.reach(t, "pod2", to, "pod2", masked)
	}
}

func nodePorts(t *testing.T, s *stage) {
	web := svc(1, nodePort)
	primary, second := nodeAt(1), at("second address", tcp, 30001, rig.SecondV4, rig.SecondV6)
	loopback := at("loopback", tcp, 30001, "127.0.0.1", "::1")
	s.set(web, s.behind(web, on("pod2 remote")...))
	for _, from := range []string{"stranger", "remote", "pod0", "node"} {
		s.reach(t, from, primary, "pod2 remote", masked)
		s.reach(t, from, overUDP(primary), "pod2 remote", masked)
		s.fails(t, from, second, refused)
	}
	s.fails(t, "node", loopback, refused)

	s.nodePorts = []netip.Addr{second.addrs[0], second.addrs[1]}
	s.apply()
	s.reach(t, "stranger", second, "pod2 remote", masked)
	s.fails(t, "stranger", primary, refused)

	s.nodePorts = append(s.nodePorts, primary.addrs[0], primary.addrs[1])
	s.apply()
	for _, from := range []string{"stranger", "pod0", "node"} {
		s.reach(t, from, primary, "pod2 remote", masked)
		s.reach(t, from, second, "pod2 remote", masked)
	}
}

func externalIPs(t *testing.T, s *stage) {
	web := svc(1, external)
	s.set(web, s.behind(web, on("pod2 remote")...))
	for _, to := range []target{externalIP(1), overUDP(externalIP(1))} {
		for _, from := range []string{"stranger", "remote", "pod0", "node"} {
			s.reach(t, from, to, "pod2 remote", masked)
		}
	}
	// One of the node's own addresses will do as well.
	own := svc(2)
	own.Spec.ExternalIPs = []string{rig.SecondV4, rig.SecondV6}
	s.set(own, s.behind(own, on("pod3")...))
	to := at("external address of the node", tcp, 80, rig.SecondV4, rig.SecondV6)
	for _, from := range []string{"stranger", "pod0", "node"} {
		s.reach(t, from, to, "pod3", masked)
	}
}

func balancers(t *testing.T, s *stage) {
	web := svc(1, balanced)
	s.set(web, s.behind(web, on("pod2 remote")...))
	for _, from := range []string{"stranger", "remote", "pod0", "node"} {
		s.reach(t, from, balancer(1), "pod2 remote", masked)
		s.reach(t, from, overUDP(balancer(1)), "pod2 remote", masked)
		s.reach(t, from, nodeAt(1), "pod2 remote", masked)
	}

	// Without node ports, with the mode said, and with a host name among the addresses.
	bare := svc(2, balanced)
	bare.Spec.AllocateLoadBalancerNodePorts = ptr(false)
	for i := range bare.Spec.Ports {
		bare.Spec.Ports[i].NodePort = 0
	}
	for i := range bare.Status.LoadBalancer.Ingress {
		bare.Status.LoadBalancer.Ingress[i].IPMode = ptr(corev1.LoadBalancerIPModeVIP)
	}
	bare.Status.LoadBalancer.Ingress = append(bare.Status.LoadBalancer.Ingress, corev1.LoadBalancerIngress{Hostname: "lb.example.com"})
	s.set(bare, s.behind(bare, on("pod3")...))
	s.reach(t, "stranger", balancer(2), "pod3", masked)
	s.reach(t, "pod0", balancer(2), "pod3", masked)
	s.fails(t, "stranger", nodeAt(2), refused)

	// A balancer that is a proxy is left to answer for itself: it stands outside.
	proxy := svc(3, balanced)
	for i := range proxy.Status.LoadBalancer.Ingress {
		proxy.Status.LoadBalancer.Ingress[i].IPMode = ptr(corev1.LoadBalancerIPModeProxy)
	}
	s.set(proxy, s.behind(proxy, on("pod3")...))
	to := balancer(3)
	for _, a := range to.addrs {
		lend(t, s.world.Outside, "lo", a)
		serveTCP(t, s.world.Outside, netip.AddrPortFrom(a, 80))
	}
	s.reach(t, "pod0", to, "itself", kept)
	s.reach(t, "stranger", nodeAt(3), "pod3", masked)
}

// lend gives a namespace an address for the time of the test.
func lend(t *testing.T, ns *netns.NS, device string, a netip.Addr) {
	t.Helper()
	change := func(do func(netlink.Link, *netlink.Addr) error) error {
		return ns.Do(func() error {
			l, err := netlink.LinkByName(device)
			if err != nil {
				return err
			}
			addr, err := netlink.ParseAddr(netip.PrefixFrom(a, a.BitLen()).String())
			if err != nil {
				return err
			}
			if a.Is6() {
				addr.Flags = unix.IFA_F_NODAD
			}
			return do(l, addr)
		})
	}
	if err := change(netlink.AddrAdd); err != nil {
		t.Fatal(err)
	}
	if err := ns.Do(func() error { return arrives(a) }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := change(netlink.AddrDel); err != nil {
			t.Error(err)
		}
	})
}

// arrives waits until the kernel takes an address of the calling thread's namespace for its own: for
// one of IPv6 that is a moment after it was added.
func arrives(a netip.Addr) error {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patienceForAnswers)
	for {
		routes, err := netlink.RouteGet(a.AsSlice())
		if err == nil && len(routes) > 0 && routes[0].Type == unix.RTN_LOCAL {
			return nil
		}
		select {
		case <-tick.C:
		case <-deadline:
			return fmt.Errorf("%s is not there: %v, %w", a, routes, err)
		}
	}
}

func everyKind(n int) []target {
	return []target{clusterIP(n), externalIP(n), balancer(n), nodeAt(n)}
}

func refusedWithout(t *testing.T, s *stage) {
	all := svc(1, balanced, external)
	local := svc(2, balanced, external, externalLocal, internalLocal)
	check := func() {
		t.Helper()
		for _, n := range []int{1, 2} {
			for _, to := range everyKind(n) {
				for _, from := range []string{"pod0", "node", "stranger"} {
					s.fails(t, from, to, refused)
					s.fails(t, from, overUDP(to), refused)
				}
			}
		}
	}
	s.set(all, local)
	check()
	// An evicted pod leaves its endpoint behind for a moment, neither ready nor serving.
	evicted := []endpoint{{host: "pod2", gone: true}, {host: "remote", unready: true}}
	s.set(s.behind(all, evicted...), s.behind(local, evicted...))
	check()
	s.set(s.behind(all, on("pod2")...))
	for _, to := range everyKind(1) {
		s.reach(t, "pod0", to, "pod2", to.what != "ClusterIP")
	}
}

func silentWithoutLocal(t *testing.T, s *stage) {
	web := svc(1, balanced, external, externalLocal)
	s.set(web, s.behind(web, on("remote other")...))
	for _, to := range everyKind(1)[1:] {
		for _, to := range []target{to, overUDP(to)} {
			s.fails(t, "stranger", to, silence)
			s.reach(t, "pod0", to, "remote other", kept)
			s.reach(t, "node", to, "remote other", masked)
		}
	}
	s.reach(t, "stranger", clusterIP(1), "remote other", masked)

	inner := svc(2, internalLocal, nodePort)
	s.set(inner, s.behind(inner, on("remote other")...))
	for _, from := range []string{"pod0", "node", "stranger"} {
		s.fails(t, from, clusterIP(2), silence)
		s.fails(t, from, overUDP(clusterIP(2)), silence)
	}
	s.reach(t, "stranger", nodeAt(2), "remote other", masked)
}

func otherPorts(t *testing.T, s *stage) {
	web := svc(1, external)
	s.set(web, s.behind(web, on("pod2")...))
	for _, from := range []string{"pod0", "node", "stranger"} {
		for _, protocol := range []int{tcp, udp} {
			other := clusterIP(1)
			other.protocol, other.port = protocol, 81
			s.fails(t, from, other, refused)
		}
	}
	// That goes for a ClusterIP alone: an external address may be a machine with ports of its own.
	other := externalIP(1)
	other.port = 81
	for _, a := range other.addrs {
		lend(t, s.world.Outside, "lo", a)
		serveTCP(t, s.world.Outside, netip.AddrPortFrom(a, 81))
	}
	s.reach(t, "pod0", other, "itself", kept)
}

func sourceRanges(t *testing.T, s *stage) {
	web := svc(1, balanced)
	web.Spec.LoadBalancerSourceRanges = []string{rig.StrangerV4 + "/24", " " + rig.StrangerV6 + "/64 "}
	s.set(web, s.behind(web, on("pod2 remote")...))
	guarded := left(balancer(1))
	for _, to := range []target{guarded, overUDP(guarded)} {
		s.reach(t, "stranger", to, "pod2 remote", masked)
		for _, from := range []string{"remote", "pod0", "node"} {
			s.fails(t, from, to, silence)
		}
	}
	for _, from := range []string{"remote", "pod0", "node"} {
		s.reach(t, from, nodeAt(1), "pod2 remote", masked)
		s.reach(t, from, clusterIP(1), "pod2 remote", from == "remote")
	}

	// Ranges change on a live Service.
	web = svc(1, balanced)
	pod0 := s.host("pod0")
	web.Spec.LoadBalancerSourceRanges = []string{pod0.addrs[0].String() + "/32", pod0.addrs[1].String() + "/128"}
	s.set(web)
	s.reach(t, "pod0", guarded, "pod2 remote", masked)
	for _, from := range []string{"pod1", "stranger", "node"} {
		s.fails(t, from, guarded, silence)
	}

	// A node that has the balancer's address speaks from that address, which counts as its own.
	web = svc(1, balanced)
	web.Spec.LoadBalancerSourceRanges = []string{rig.NodeV4 + "/32", rig.NodeV6 + "/128"}
	s.set(web)
	s.reach(t, "node", guarded, "pod2 remote", masked)
	for _, a := range guarded.addrs {
		lend(t, s.world.Node, "eth0", a)
	}
	s.reach(t, "node", guarded, "pod2 remote", masked)
	s.fails(t, "stranger", guarded, silence)
	s.set(svc(1, balanced))
	s.reach(t, "stranger", balancer(1), "pod2 remote", masked)
}

// left is a target that the socket path leaves to nft.
func left(to target) target {
	to.never = true
	return to
}
