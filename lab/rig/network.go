package rig

import (
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"

	"github.com/zonewise/zonewise/internal/kernel/link/linktest"
	"golang.org/x/sys/unix"

	"github.com/zonewise/zonewise/internal/kernel/netns"
)

// The gateways that pods have are nobody's addresses: the pod knows the node's hardware address.
var podGateways = []string{"169.254.1.1", "fe80::1"}

// makeNetwork wires it all. Neighbours are written down rather than found, so that no packet ever
// waits for discovery.
func (w *World) makeNetwork() error {
	for _, ns := range []**netns.NS{&w.Node, &w.Outside} {
		if err := w.quiet(ns); err != nil {
			return err
		}
	}
	if err := w.uplink(); err != nil {
		return fmt.Errorf("uplink: %w", err)
	}
	for i := range clients + servers {
		if err := w.pod(i); err != nil {
			return fmt.Errorf("pod %d: %w", i, err)
		}
	}
	return nil
}

// quiet makes a namespace with loopback up, in which no IPv6 address is tried out before use.
func (w *World) quiet(into **netns.NS) error {
	ns, err := w.space()
	if err != nil {
		return err
	}
	*into = ns
	return ns.Do(func() error {
		for _, of := range []string{"all", "default"} {
			for name, value := range map[string]string{"accept_dad": "0", "accept_ra": "0"} {
				if err := sysctl("net/ipv6/conf/"+of+"/"+name, value); err != nil {
					return err
				}
			}
		}
		return device{name: "lo"}.up()
	})
}

func (w *World) uplink() error {
	var near, far net.HardwareAddr
	err := w.Node.Do(func() (err error) {
		for _, name := range []string{"net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"} {
			if err := sysctl(name, "1"); err != nil {
				return err
			}
		}
		near, err = veth("eth0", w.Outside)
		return err
	})
	if err != nil {
		return err
	}
	err = w.Outside.Do(func() error {
		lo := device{name: "lo", addrs: []string{RemoteV4 + "/32", OtherV4 + "/32", StrangerV4 + "/32", RemoteV6 + "/128", OtherV6 + "/128", StrangerV6 + "/128"}}
		if err := lo.up(); err != nil {
			return err
		}
		eth := device{name: "eth0", addrs: []string{OutsideV4 + "/24", OutsideV6 + "/64"}, gateways: []string{NodeV4, NodeV6}, neighbours: near}
		if err := eth.up(); err != nil {
			return err
		}
		far, err = hardware("eth0")
		return err
	})
	if err != nil {
		return err
	}
	return w.Node.Do(func() error {
		// As a source the kernel prefers the eldest of equal addresses of IPv4, the youngest of IPv6.
		return device{name: "eth0", addrs: []string{NodeV4 + "/24", SecondV4 + "/24", SecondV6 + "/64", NodeV6 + "/64"},
			gateways: []string{OutsideV4, OutsideV6}, neighbours: far}.up()
	})
}

// pod wires a pod as the CNI plugin does: one address of each family for itself, no bridge.
func (w *World) pod(i int) error {
	p := Pod{Interface: fmt.Sprintf("eni%011d", i), V4: netip.MustParseAddr(NodeV4), V6: netip.MustParseAddr(NodeV6)}
	for range i + 1 {
		p.V4 = p.V4.Next()
	}
	p.V6 = netip.MustParseAddr(fmt.Sprintf("fd00:192:168:1::%d", 11+i))
	if err := w.quiet(&p.NS); err != nil {
		return err
	}
	var near, inside net.HardwareAddr
	err := w.Node.Do(func() (err error) {
		near, err = veth(p.Interface, p.NS)
		return err
	})
	if err != nil {
		return err
	}
	addrs := []string{p.V4.String() + "/32", p.V6.String() + "/128"}
	err = p.NS.Do(func() (err error) {
		eth := device{name: "eth0", addrs: addrs, gateways: podGateways, neighbours: near, onLink: true}
		if err := eth.up(); err != nil {
			return err
		}
		inside, err = hardware("eth0")
		return err
	})
	if err != nil {
		return err
	}
	w.Pods = append(w.Pods, p)
	if err := w.Node.Do(func() error { return route(p.Interface, addrs, inside) }); err != nil {
		return err
	}
	// The pod's addresses are within the network that the node shares with the outside: their
	// neighbour there is the node.
	return w.Outside.Do(func() error {
		for _, a := range addrs {
			_, dst, err := net.ParseCIDR(a)
			if err != nil {
				return err
			}
			gateway := NodeV4
			if dst.IP.To4() == nil {
				gateway = NodeV6
			}
			if err := netlink.RouteAdd(&netlink.Route{Dst: dst, Gw: net.ParseIP(gateway)}); err != nil {
				return fmt.Errorf("route to %s: %w", a, err)
			}
		}
		return nil
	})
}

// device is what a device of the calling thread's namespace shall be.
type device struct {
	name       string
	addrs      []string // with their prefix lengths
	gateways   []string // default routes
	neighbours net.HardwareAddr
	onLink     bool // gateways are in no network of ours, and get a route of their own
}

func (d device) up() error {
	l, err := netlink.LinkByName(d.name)
	if err != nil {
		return fmt.Errorf("%s: %w", d.name, err)
	}
	if err := netlink.LinkSetUp(l); err != nil {
		return fmt.Errorf("%s: up: %w", d.name, err)
	}
	for _, text := range d.addrs {
		a, err := netip.ParsePrefix(text)
		if err != nil {
			return err
		}
		if err := linktest.Add(l, a); err != nil {
			return fmt.Errorf("%s: %w", d.name, err)
		}
	}
	for _, gateway := range d.gateways {
		ip := net.ParseIP(gateway)
		if err := neighbour(l, ip, d.neighbours); err != nil {
			return fmt.Errorf("%s: neighbour %s: %w", d.name, gateway, err)
		}
		if d.onLink {
			err := netlink.RouteReplace(&netlink.Route{LinkIndex: l.Attrs().Index, Scope: netlink.SCOPE_LINK, Dst: host(ip)})
			if err != nil {
				return fmt.Errorf("%s: route to %s: %w", d.name, gateway, err)
			}
		}
		if err := netlink.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Gw: ip}); err != nil {
			return fmt.Errorf("%s: route by %s: %w", d.name, gateway, err)
		}
	}
	return nil
}

// route leads addresses to a device that is a wire to one machine.
func route(name string, addrs []string, at net.HardwareAddr) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(l); err != nil {
		return err
	}
	for _, text := range addrs {
		ip, dst, err := net.ParseCIDR(text)
		if err != nil {
			return err
		}
		if err := netlink.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Scope: netlink.SCOPE_LINK, Dst: dst}); err != nil {
			return fmt.Errorf("route to %s: %w", text, err)
		}
		if err := neighbour(l, ip, at); err != nil {
			return fmt.Errorf("neighbour %s: %w", text, err)
		}
	}
	return nil
}

func neighbour(l netlink.Link, ip net.IP, at net.HardwareAddr) error {
	n := &netlink.Neigh{LinkIndex: l.Attrs().Index, State: unix.NUD_PERMANENT, IP: ip, HardwareAddr: at, Family: unix.AF_INET}
	if ip.To4() == nil {
		n.Family = unix.AF_INET6
	}
	return netlink.NeighSet(n)
}

// host is the network of one address.
func host(ip net.IP) *net.IPNet {
	if v4 := ip.To4(); v4 != nil {
		return &net.IPNet{IP: v4, Mask: net.CIDRMask(32, 32)}
	}
	return &net.IPNet{IP: ip, Mask: net.CIDRMask(128, 128)}
}

// veth makes a wire from this thread's namespace to eth0 of another, and returns its near end's address.
func veth(name string, other *netns.NS) (net.HardwareAddr, error) {
	err := netlink.LinkAdd(&netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: "eth0", PeerNamespace: netlink.NsFd(other.FD()),
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return hardware(name)
}

func hardware(name string) (net.HardwareAddr, error) {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return l.Attrs().HardwareAddr, nil
}

// sysctl sets one of the calling thread's namespace.
func sysctl(name, value string) error {
	return os.WriteFile("/proc/sys/"+name, []byte(value), 0)
}
