//go:build kernel

package conntrack_test

import (
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
	client := net.IPv4(10, 0, 0, 1).To4()
	f := &netlink.ConntrackFlow{
		FamilyType: unix.AF_INET, TimeOut: 100,
		Forward: netlink.IPTuple{
			SrcIP: client, SrcPort: port, DstIP: net.ParseIP(to).To4(), DstPort: 53, Protocol: protocol,
		},
		Reverse: netlink.IPTuple{
			SrcIP: net.ParseIP(from).To4(), SrcPort: 5353, DstIP: client, DstPort: port, Protocol: protocol,
		},
	}
	if protocol == unix.IPPROTO_TCP {
		f.ProtoInfo = &netlink.ProtoInfoTCP{State: nfctEstablished}
	}
	return netlink.ConntrackCreate(netlink.ConntrackTable, unix.AF_INET, f)
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
		} {
			if err := flow(f.protocol, uint16(1000+i), f.to, f.from); err != nil {
				return err
			}
		}
		gone := conntrack.Flow{To: netip.MustParseAddrPort("10.100.0.10:53"), From: netip.MustParseAddrPort("10.0.0.2:5353")}
		var offered int
		n, err := conntrack.Conn{}.CutUDP(func(f conntrack.Flow) bool {
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
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
