package region

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/zonewise/zonewise/lab/topology"
)

// routerIPv6 is every node's next hop, as a cloud's router is: a link-local address. It is on no
// device, for a permanent entry says whose it is, so no neighbour is ever asked for.
var routerIPv6 = netip.MustParseAddr("fe80::1")

// deliverIPv6 leads a node's address and the range of its pods to its link.
func (f *Fabric) deliverIPv6(node topology.Node, link netlink.Link, mac net.HardwareAddr) error {
	index, address := link.Attrs().Index, node.AddressIPv6
	if err := netlink.NeighSet(&netlink.Neigh{
		LinkIndex: index, Family: netlink.FAMILY_V6, IP: address.AsSlice(), HardwareAddr: mac, State: netlink.NUD_PERMANENT,
	}); err != nil {
		return fmt.Errorf("neighbour %s: %w", address, err)
	}
	source := f.topo.IPv6.Region.AsSlice()
	pods := &net.IPNet{IP: node.PodsIPv6.Addr().AsSlice(), Mask: net.CIDRMask(node.PodsIPv6.Bits(), 128)}
	for _, r := range []*netlink.Route{
		{LinkIndex: index, Dst: host(address), Scope: netlink.SCOPE_LINK, Src: source},
		{LinkIndex: index, Dst: pods, Gw: address.AsSlice(), Src: source, Flags: int(netlink.FLAG_ONLINK)},
	} {
		if err := netlink.RouteReplace(r); err != nil {
			return fmt.Errorf("route %s: %w", r.Dst, err)
		}
	}
	return nil
}

// attachIPv6 gives a node its second address and the way to all others.
func (f *Fabric) attachIPv6(h *netlink.Handle, eth0 netlink.Link, node topology.Node) error {
	index := eth0.Attrs().Index
	if err := h.AddrAdd(eth0, own(node.AddressIPv6)); err != nil {
		return fmt.Errorf("eth0 address %s: %w", node.AddressIPv6, err)
	}
	near, err := netlink.LinkByName(linkName(node))
	if err != nil {
		return fmt.Errorf("link %s: %w", linkName(node), err)
	}
	if err := h.NeighSet(&netlink.Neigh{
		LinkIndex: index, Family: netlink.FAMILY_V6, IP: routerIPv6.AsSlice(), HardwareAddr: near.Attrs().HardwareAddr, State: netlink.NUD_PERMANENT,
	}); err != nil {
		return fmt.Errorf("router: %w", err)
	}
	all := &net.IPNet{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)}
	if err := h.RouteAdd(&netlink.Route{LinkIndex: index, Dst: all, Gw: routerIPv6.AsSlice()}); err != nil {
		return fmt.Errorf("default route: %w", err)
	}
	// An address of the range that no pod has must not go back to the router, which sent it here.
	pods := &net.IPNet{IP: node.PodsIPv6.Addr().AsSlice(), Mask: net.CIDRMask(node.PodsIPv6.Bits(), 128)}
	if err := h.RouteAdd(&netlink.Route{Dst: pods, Type: unix.RTN_UNREACHABLE}); err != nil {
		return fmt.Errorf("route %s: %w", pods, err)
	}
	return nil
}
