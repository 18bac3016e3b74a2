//go:build kernel

package conntrack_test

import (
	"fmt"
	"net"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/zonewise/zonewise/internal/kernel/conntrack"
	"github.com/zonewise/zonewise/internal/kernel/netns"
)

// flow makes a tracked flow that was sent to one address and is answered from another.
func flow(protocol uint8, port uint16, to, from string) error {
	client, family := net.ParseIP("10.0.0.1"), netlink.InetFamily(unix.AF_INET)
	if net.ParseIP(to).To4() == nil {
		client, family = net.ParseIP("fd00::1"), unix.AF_INET6
	}
	f := &netlink.ConntrackFlow{
		FamilyType: uint8(family), TimeOut: 100,
		Forward: netlink.IPTuple{
			SrcIP: addr(client.String()), SrcPort: port, DstIP: addr(to), DstPort: 53, Protocol: protocol,
		},
		Reverse: netlink.IPTuple{
			SrcIP: addr(from), SrcPort: 5353, DstIP: addr(client.String()), DstPort: port, Protocol: protocol,
		},
	}
	if protocol == unix.IPPROTO_TCP {
		f.ProtoInfo = &netlink.ProtoInfoTCP{State: nfctEstablished}
	}
	return netlink.ConntrackCreate(netlink.ConntrackTable, family, f)
}

// addr is the address in as many bytes as its family has.
func addr(s string) net.IP {
	ip := net.ParseIP(s)
	if four := ip.To4(); four != nil {
		return four
	}
	return ip
}

const nfctEstablished = 3

func TestCutUDP(t *testing.T) {
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	err = ns.Do(func() error {
		for i, f := range []struct {
			protocol uint8
			to, from string
		}{
			{unix.IPPROTO_UDP, "10.100.0.10", "10.0.0.2"},
			{unix.IPPROTO_UDP, "10.100.0.10", "10.0.0.3"},
			{unix.IPPROTO_UDP, "10.100.0.11", "10.0.0.2"},
			{unix.IPPROTO_TCP, "10.100.0.10", "10.0.0.2"},
			{unix.IPPROTO_UDP, "fd00:100::a", "fd00::2"},
			{unix.IPPROTO_UDP, "fd00:100::a", "fd00::3"},
		} {
			if err := flow(f.protocol, uint16(1000+i), f.to, f.from); err != nil {
				return err
			}
		}
		gone := conntrack.Flow{To: netip.MustParseAddrPort("10.100.0.10:53"), From: netip.MustParseAddrPort("10.0.0.2:5353")}
		var offered int
		n, err := conntrack.Conn{}.CutUDP(false, func(f conntrack.Flow) bool {
			offered++
			return f == gone
		})
		if n != 1 || offered != 3 {
			t.Errorf("cut %d of %d UDP flows, want 1 of 3", n, offered)
		}
		left, e := netlink.ConntrackTableList(netlink.ConntrackTable, unix.AF_INET)
		if len(left) != 3 || e != nil {
			t.Errorf("%d flows are left: %v", len(left), e)
		}
		gone = conntrack.Flow{To: netip.MustParseAddrPort("[fd00:100::a]:53"), From: netip.MustParseAddrPort("[fd00::3]:5353")}
		offered = 0
		six, e := conntrack.Conn{}.CutUDP(true, func(f conntrack.Flow) bool {
			offered++
			return f == gone
		})
		if six != 1 || offered != 2 || e != nil {
			t.Errorf("IPv6: cut %d of %d UDP flows, want 1 of 2: %v", six, offered, e)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// BenchmarkCutUDP looks for flows to cut among few, and among many that are none of UDP.
func BenchmarkCutUDP(b *testing.B) {
	for _, others := range []int{0, 30000} {
		b.Run(fmt.Sprintf("others=%d", others), func(b *testing.B) {
			ns, err := netns.New()
			if err != nil {
				b.Fatal(err)
			}
			defer ns.Close()
			err = ns.Do(func() error {
				for i := range 20 {
					if err := flow(unix.IPPROTO_UDP, uint16(1000+i), "10.100.0.10", "10.0.0.2"); err != nil {
						return err
					}
				}
				for i := range others {
					if err := flow(unix.IPPROTO_TCP, uint16(1000+i), "10.100.0.11", "10.0.0.2"); err != nil {
						return err
					}
				}
				for b.Loop() {
					if _, err := (conntrack.Conn{}).CutUDP(false, func(conntrack.Flow) bool { return false }); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				b.Fatal(err)
			}
		})
	}
}
