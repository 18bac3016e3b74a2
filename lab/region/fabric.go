// Package region is the stand-in cloud under a lab. For now it is the fabric: a network namespace
// that delivers an address to the interface which owns it, to nobody else, and counts every byte by
// source and destination zone. That count is the bill.
package region

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/zonewise/zonewise/lab/topology"
)

// MTU of the fabric: AWS networks carry jumbo frames.
const MTU = 9001

// Fabric is the VPC of one lab. Its namespace, links, routes and counters vanish with Close.
type Fabric struct {
	Thread  *Thread
	topo    topology.Topology
	latency error // why there is no cross-zone latency; nil where there is, or none was asked for
}

// New makes the VPC of a topology, with no node attached yet.
func New(topo topology.Topology) (*Fabric, error) {
	thread, err := NewThread()
	if err != nil {
		return nil, err
	}
	f := &Fabric{Thread: thread, topo: topo}
	if err := thread.Do(f.setup); err != nil {
		thread.Close()
		return nil, fmt.Errorf("fabric: %w", err)
	}
	return f, nil
}

func (f *Fabric) setup() error {
	if err := sysctls(map[string]string{
		"net/ipv4/ip_forward":                  "1",
		"net/ipv4/conf/all/rp_filter":          "0",
		"net/ipv4/conf/default/arp_ignore":     "0",
		"net/ipv4/conf/all/send_redirects":     "0",
		"net/ipv4/conf/default/send_redirects": "0",
		// The lab's processes in here serve hosts and nodes at well-known ports.
		"net/ipv4/ip_unprivileged_port_start": "0",
	}); err != nil {
		return err
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("lo: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("lo: %w", err)
	}
	all := []netip.Addr{f.topo.API, f.topo.Resolver}
	for _, z := range f.topo.Zones {
		all = append(all, z.Gateway)
	}
	if f.topo.IPv6 != nil {
		if err := sysctls(map[string]string{"net/ipv6/conf/all/forwarding": "1"}); err != nil {
			return err
		}
		all = append(all, f.topo.IPv6.Region)
		for _, z := range f.topo.Zones {
			all = append(all, z.GatewayIPv6)
		}
	}
	for _, a := range all {
		if err := netlink.AddrAdd(lo, own(a)); err != nil {
			return fmt.Errorf("address %s: %w", a, err)
		}
	}
	return f.setupCounters()
}

// Attach gives the node in the network namespace of process pid its interface and delivers its
// addresses, primary and pool, there.
func (f *Fabric) Attach(node topology.Node, pid int) error {
	if err := f.Thread.Do(func() error { return f.attach(node, pid) }); err != nil {
		return fmt.Errorf("attach %s: %w", node.Alias, err)
	}
	return nil
}

func (f *Fabric) attach(node topology.Node, pid int) error {
	name := linkName(node)
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = name, MTU
	// A node that died and is started again: its link goes with its namespace, but not at once.
	if old, err := netlink.LinkByName(name); err == nil {
		if err := netlink.LinkDel(old); err != nil && !errors.Is(err, unix.ENODEV) {
			return fmt.Errorf("old link %s: %w", name, err)
		}
	}
	pair := &netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerMTU: MTU, PeerNamespace: netlink.NsPid(pid)}
	if err := netlink.LinkAdd(pair); err != nil {
		return fmt.Errorf("link %s: %w", name, err)
	}
	mac, err := f.attachNodeSide(node, pid)
	if err != nil {
		return err
	}
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("link %s: %w", name, err)
	}
	if err := sysctls(map[string]string{
		// The fabric answers for every address of the VPC, at once, as AWS does.
		"net/ipv4/conf/" + name + "/proxy_arp":    "1",
		"net/ipv4/neigh/" + name + "/proxy_delay": "0",
		"net/ipv4/conf/" + name + "/rp_filter":    "0",
	}); err != nil {
		return err
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("link %s: %w", name, err)
	}
	index := link.Attrs().Index
	err = netlink.NeighSet(&netlink.Neigh{
		LinkIndex: index, IP: node.Address.AsSlice(), HardwareAddr: mac, State: netlink.NUD_PERMANENT,
	})
	if err != nil {
		return fmt.Errorf("neighbour %s: %w", node.Address, err)
	}
	err = netlink.RouteReplace(&netlink.Route{
		LinkIndex: index, Dst: host(node.Address), Scope: netlink.SCOPE_LINK, Src: f.topo.API.AsSlice(),
	})
	if err != nil {
		return fmt.Errorf("route %s: %w", node.Address, err)
	}
	for _, a := range node.Pool {
		err = netlink.RouteReplace(&netlink.Route{
			LinkIndex: index, Dst: host(a), Gw: node.Address.AsSlice(), Src: f.topo.API.AsSlice(), Flags: int(netlink.FLAG_ONLINK),
		})
		if err != nil {
			return fmt.Errorf("route %s: %w", a, err)
		}
	}
	if f.topo.IPv6 != nil {
		if err := f.deliverIPv6(node, link, mac); err != nil {
			return err
		}
	}
	return f.delay(link)
}

// attachNodeSide configures eth0 inside the node and returns its hardware address.
func (f *Fabric) attachNodeSide(node topology.Node, pid int) (net.HardwareAddr, error) {
	ns, err := netns.GetFromPid(pid)
	if err != nil {
		return nil, fmt.Errorf("namespace of process %d: %w", pid, err)
	}
	defer func() { _ = ns.Close() }()
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("netlink in node: %w", err)
	}
	defer h.Close()
	lo, err := h.LinkByName("lo")
	if err != nil {
		return nil, fmt.Errorf("lo: %w", err)
	}
	eth0, err := h.LinkByName("eth0")
	if err != nil {
		return nil, fmt.Errorf("eth0: %w", err)
	}
	for _, l := range []netlink.Link{lo, eth0} {
		if err := h.LinkSetUp(l); err != nil {
			return nil, fmt.Errorf("%s: %w", l.Attrs().Name, err)
		}
	}
	zone := f.zoneOf(node)
	address := &net.IPNet{IP: node.Address.AsSlice(), Mask: net.CIDRMask(zone.Subnet.Bits(), 32)}
	if err := h.AddrAdd(eth0, &netlink.Addr{IPNet: address}); err != nil {
		return nil, fmt.Errorf("eth0 address %s: %w", address, err)
	}
	route := &netlink.Route{LinkIndex: eth0.Attrs().Index, Gw: node.Gateway.AsSlice()}
	if err := h.RouteAdd(route); err != nil {
		return nil, fmt.Errorf("default route: %w", err)
	}
	if f.topo.IPv6 != nil {
		if err := f.attachIPv6(h, eth0, node); err != nil {
			return nil, err
		}
	}
	return eth0.Attrs().HardwareAddr, nil
}

// linkName is the fabric's end of a node's link.
func linkName(node topology.Node) string { return "vpc-" + node.Alias }

func (f *Fabric) zoneOf(node topology.Node) topology.Zone {
	for _, z := range f.topo.Zones {
		if z.Name == node.Zone {
			return z
		}
	}
	return topology.Zone{}
}

// Close takes the VPC away.
func (f *Fabric) Close() { f.Thread.Close() }

func host(a netip.Addr) *net.IPNet {
	return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}
}

// own is an address as a device gets it. Whose it is, is the fabric's to say: one of IPv6 is not tried out
// first, and can be used at once.
func own(a netip.Addr) *netlink.Addr {
	out := &netlink.Addr{IPNet: host(a)}
	if a.Is6() {
		out.Flags = unix.IFA_F_NODAD
	}
	return out
}

// sysctls sets keys such as net/ipv4/ip_forward in the calling thread's network namespace.
func sysctls(values map[string]string) error {
	for key, value := range values {
		if err := os.WriteFile("/proc/sys/"+key, []byte(value), 0); err != nil {
			return fmt.Errorf("sysctl %s=%s: %w", key, value, err)
		}
	}
	return nil
}
