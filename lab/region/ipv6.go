package region

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/zonewise/zonewise/lab/topology"
)

// Link-local addresses of the two ends of an interface: the router, every node's next hop in every subnet, as
// in EC2, which answers who asks for it; and the node as the fabric calls it, which is on no device: a
// permanent entry says whose it is.
var (
	routerIPv6 = netip.MustParseAddr("fe80:ec2::1")
	farEndIPv6 = netip.MustParseAddr("fe80::2")
)

// bootIPv6 gives a node its second address and the way to all others.
func (f *Fabric) bootIPv6(h *netlink.Handle, eth0 netlink.Link, a attachment) error {
	index := eth0.Attrs().Index
	if err := h.AddrAdd(eth0, own(a.IPv6[0])); err != nil {
		return fmt.Errorf("%s address %s: %w", a.device, a.IPv6[0], err)
	}
	all := &net.IPNet{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)}
	if err := h.RouteAdd(&netlink.Route{LinkIndex: index, Dst: all, Gw: routerIPv6.AsSlice()}); err != nil {
		return fmt.Errorf("default route: %w", err)
	}
	if f.topo.CNI != topology.CNIStatic {
		return nil // which ranges are its pods', a node learns from the cloud
	}
	// An address of the range that no pod has must not go back to the router, which sent it here.
	for _, pods := range a.IPv6Prefixes {
		if err := h.RouteAdd(&netlink.Route{Dst: network(pods), Type: unix.RTN_UNREACHABLE}); err != nil {
			return fmt.Errorf("route %s: %w", pods, err)
		}
	}
	return nil
}
