package link

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Read returns the device with all its addresses, permanent neighbours and routes, but for what the
// kernel itself put there. The error is ErrNotFound when it is not there.
func (n *Net) Read(name string) (Device, error) {
	l, err := n.find(name)
	if err != nil {
		return Device{}, err
	}
	d := device(l)
	for _, family := range families {
		addrs, err := whole(func() ([]netlink.Addr, error) { return n.handle.AddrList(l, family) })
		if err != nil {
			return d, fmt.Errorf("device %s: addresses: %w", name, err)
		}
		for _, a := range addrs {
			// Of its own accord the kernel gives each device that is up an IPv6 link-local address.
			if p := prefix(a.IPNet, family); family == netlink.FAMILY_V4 || !p.Addr().IsLinkLocalUnicast() {
				d.Addresses = append(d.Addresses, p)
			}
		}
		neighs, err := whole(func() ([]netlink.Neigh, error) { return n.handle.NeighList(l.Attrs().Index, family) })
		if err != nil {
			return d, fmt.Errorf("device %s: neighbours: %w", name, err)
		}
		for _, e := range neighs {
			if e.State&netlink.NUD_PERMANENT != 0 {
				d.Neighbours = append(d.Neighbours, Neighbour{Address: addr(e.IP), MAC: mac(e.HardwareAddr)})
			}
		}
	}
	routes, err := n.routes()
	d.Routes = routes[l.Attrs().Index]
	return d, err
}

// Find returns the device alone, without what hangs on it. It asks for no list, which others who change the network would
// tear. The error is ErrNotFound when it is not there.
func (n *Net) Find(name string) (Device, error) {
	l, err := n.find(name)
	if err != nil {
		return Device{}, err
	}
	return device(l), nil
}

// anywhere are addresses that no route but the default one leads to: nobody has them.
var anywhere = []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}

// Uplink returns the device alone that the default route goes through, of IPv4 before that of IPv6. The error is ErrNotFound
// when there is no such route.
func (n *Net) Uplink() (Device, error) {
	for _, a := range anywhere {
		routes, err := n.handle.RouteGet(a.AsSlice())
		switch {
		case errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.EAFNOSUPPORT), errors.Is(err, unix.EOPNOTSUPP):
			continue
		case err != nil:
			return Device{}, fmt.Errorf("default route: %w", err)
		case len(routes) == 0:
			continue
		}
		l, err := n.handle.LinkByIndex(routes[0].LinkIndex)
		if err != nil {
			return Device{}, fmt.Errorf("default route: device: %w", err)
		}
		return device(l), nil
	}
	return Device{}, fmt.Errorf("default route: %w", ErrNotFound)
}

// List returns every device with its routes; addresses and neighbours are left out.
func (n *Net) List() ([]Device, error) {
	links, err := whole(n.handle.LinkList)
	if err != nil {
		return nil, fmt.Errorf("devices: %w", err)
	}
	routes, err := n.routes()
	if err != nil {
		return nil, err
	}
	devices := make([]Device, len(links))
	for i, l := range links {
		devices[i] = device(l)
		devices[i].Routes = routes[l.Attrs().Index]
	}
	return devices, nil
}

var families = []int{netlink.FAMILY_V4, netlink.FAMILY_V6}

// routes returns the routes of all tables, but that of local addresses, by the index of their device.
func (n *Net) routes() (map[int][]Route, error) {
	routes := map[int][]Route{}
	for _, family := range families {
		list, err := whole(func() ([]netlink.Route, error) {
			return n.handle.RouteListFiltered(family, &netlink.Route{}, netlink.RT_FILTER_TABLE)
		})
		if err != nil {
			return nil, fmt.Errorf("routes: %w", err)
		}
		for _, r := range list {
			if family == netlink.FAMILY_V6 && r.Protocol == unix.RTPROT_KERNEL {
				continue // it came with an address
			}
			if r.Table == unix.RT_TABLE_LOCAL {
				continue
			}
			if r.Table == MainTable {
				r.Table = 0
			}
			routes[r.LinkIndex] = append(routes[r.LinkIndex], Route{To: prefix(r.Dst, r.Family), Via: addr(r.Gw), Table: r.Table})
		}
	}
	return routes, nil
}

// whole asks again when the kernel says that its answer was torn by somebody who wrote meanwhile.
// It gives up after a number of times that only a machine in trouble reaches.
func whole[T any](ask func() ([]T, error)) ([]T, error) {
	for range 100 {
		list, err := ask()
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			return list, err
		}
	}
	return nil, netlink.ErrDumpInterrupted
}

func device(l netlink.Link) Device {
	a := l.Attrs()
	return Device{
		Name: a.Name, Alias: a.Alias, MAC: mac(a.HardwareAddr), MTU: a.MTU,
		Up: a.Flags&net.FlagUp != 0,
	}
}

func mac(b net.HardwareAddr) (m MAC) {
	copy(m[:], b)
	return m
}

func addr(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

// prefix reads a nil net as the whole family: the kernel leaves the destination out of a default
// route.
func prefix(n *net.IPNet, family int) netip.Prefix {
	if n == nil && family == netlink.FAMILY_V4 {
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	if n == nil {
		return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(addr(n.IP), bits)
}
