//go:build kernel

package conformance

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/zonewise/zonewise/internal/kernel/link"
	"github.com/zonewise/zonewise/internal/kernel/netns"
	"github.com/zonewise/zonewise/internal/kernel/nft"
	"github.com/zonewise/zonewise/internal/vpc"
	vpclink "github.com/zonewise/zonewise/internal/vpc/link"
	"github.com/zonewise/zonewise/lab/rig"
)

// TestManyInterfaces is TestMasquerade on a node of a cloud, whose servers have addresses of a second
// interface: the cloud delivers these there, and drops what comes by the wrong interface. Whoever reaches
// whom as whom on a node with one interface does so here.
func TestManyInterfaces(t *testing.T) {
	for _, p := range paths {
		t.Run(string(p), func(t *testing.T) {
			s := newStage(t, p)
			dropped := s.attach(t)
			s.policies()
			for _, n := range []int{1, 2} {
				s.reachAll(t, "pod0", clusterIP(n), "pod2 remote", kept)
				s.reachAll(t, "pod3", clusterIP(n), "pod2 remote", kept)
				s.reachAll(t, "stranger", clusterIP(n), "pod2 remote", masked)
				s.reachAll(t, "node", clusterIP(n), "pod2 remote", masked)
			}
			for _, kind := range outward {
				for _, from := range []string{"stranger", "remote", "pod0", "node"} {
					s.reachAll(t, from, kind(1), "pod2 remote", masked)
				}
				s.reachAll(t, "stranger", kind(2), "pod2", kept)
				s.reachAll(t, "remote", kind(2), "pod2", kept)
				s.reachAll(t, "pod3", kind(2), "pod2 remote", kept)
			}
			far := svc(4, balanced)
			s.set(far, s.behind(far, on("stranger")...))
			for _, from := range []string{"pod0", "pod3"} {
				for _, o := range s.ask(t, from, clusterIP(4), false, 4, patienceForAnswers) {
					if o.Error != "" || o.Seen.Addr() != s.host("node").addr(false) {
						t.Errorf("%s to a Service outside: %+v", from, o)
					}
				}
			}
			if rules := dropped(); strings.Count(rules, "counter packets 0 ") != 2 {
				t.Errorf("dropped by the cloud: %s", rules)
			}
		})
	}
}

// attach gives the node a second interface, which has the servers' addresses of IPv4, and makes its network
// as the daemon does. It returns what tells of packets that the cloud dropped.
func (s *stage) attach(t *testing.T) (dropped func() string) {
	t.Helper()
	second, router := link.MAC{2, 0, 0, 0, 0, 2}, link.MAC{2, 0, 0, 0, 0, 1}
	outside := netip.MustParseAddr(rig.OutsideV4)
	supply := vpc.Supply{
		VPC: []netip.Prefix{netip.MustParsePrefix("192.168.0.0/16")},
		Interfaces: []vpc.Interface{
			{ID: "eni-0", Device: "eth0", Primary: true, Table: link.MainTable, Address: netip.MustParseAddr(rig.NodeV4)},
			{
				ID: "eni-1", Device: "eth1", Index: 1, MAC: second.String(), Table: 2, Gateway: outside,
				Address: netip.MustParseAddr("192.168.1.120"), Subnet: netip.MustParsePrefix("192.168.1.0/24"),
			},
		},
	}
	wire := link.Device{Name: "eth1", MAC: router, Up: true}
	var leases vpc.Leases
	var names []string
	for i, p := range s.world.Pods {
		own := &supply.Interfaces[0]
		if i >= 2 {
			own = &supply.Interfaces[1]
			wire.Neighbours = append(wire.Neighbours, link.Neighbour{Address: p.V4, MAC: second})
			wire.Routes = append(wire.Routes, link.Route{To: netip.PrefixFrom(p.V4, 32)})
			names = append(names, p.V4.String())
		}
		own.Addresses = append(own.Addresses, p.V4)
		leases.Held = append(leases.Held, vpc.Lease{Key: vpc.Key{Container: p.Interface, Interface: "eth0"}, Address: p.V4})
	}
	node, there := network(t, s.world.Node), network(t, s.world.Outside)
	tables := nft.Dial(s.world.Node.FD())
	t.Cleanup(func() { _ = tables.Close() })
	if err := errors.Join(
		there.Pair(wire, link.Device{Name: "eth1", MAC: second}, s.world.Node), there.Ensure(wire),
		vpclink.Apply(node, tables, vpclink.PlanHost(supply, leases, 1500)),
		node.Ensure(link.Device{Name: "eth1", Neighbours: []link.Neighbour{{Address: outside, MAC: router}}}),
	); err != nil {
		t.Fatal(err)
	}
	servers := "{ " + strings.Join(names, ", ") + " }"
	cmd := s.world.Command(s.world.Outside, "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(`table ip check { chain check { type filter hook prerouting priority -300;
		iifname "eth0" ip saddr ` + servers + ` counter drop
		iifname "eth1" ip saddr != ` + servers + ` counter drop
	}; }`)
	run(t, cmd)
	return func() string {
		return string(run(t, s.world.Command(s.world.Outside, "nft", "list", "table", "ip", "check")))
	}
}

func network(t *testing.T, ns *netns.NS) *link.Net {
	t.Helper()
	n, err := link.At(ns)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	return n
}
