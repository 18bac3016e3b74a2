package link

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/zonewise/zonewise/internal/kernel/netns"
)

// Net is the network of one namespace.
type Net struct {
	handle *netlink.Handle
	space  vnetns.NsHandle // of the namespace; none where it is the caller's
}

// Here is the network of the namespace that the caller is in.
func Here() (*Net, error) {
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("netlink: %w", err)
	}
	return &Net{handle, vnetns.None()}, nil
}

// At is the network of the namespace; it may be closed before the Net is.
func At(ns *netns.NS) (*Net, error) {
	handle, err := netlink.NewHandleAt(vnetns.NsHandle(ns.FD()), unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("netlink in %s: %w", ns.Path(), err)
	}
	space, err := unix.FcntlInt(uintptr(ns.FD()), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		handle.Close()
		return nil, fmt.Errorf("netlink in %s: %w", ns.Path(), err)
	}
	return &Net{handle, vnetns.NsHandle(space)}, nil
}

// Close ends the conversation with the kernel.
func (n *Net) Close() {
	n.handle.Close()
	if n.space.IsOpen() {
		_ = n.space.Close() // of a descriptor on nothing that is written
	}
}

// Pair makes two devices joined by a wire: here in this namespace, there in the other. Both are
// made in their places at once, so nothing is ever seen half moved. Only names, MACs and the MTU
// are set. The error is ErrExists when one of the names is taken; then nothing was made.
func (n *Net) Pair(here, there Device, other *netns.NS) error {
	err := n.handle.LinkAdd(&netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{
			Name: here.Name, MTU: here.MTU, HardwareAddr: here.MAC.wish(), TxQLen: -1,
		},
		PeerName:         there.Name,
		PeerMTU:          uint32(there.MTU),
		PeerHardwareAddr: there.MAC.wish(),
		PeerTxQLen:       -1,
		PeerNamespace:    netlink.NsFd(other.FD()),
	})
	if errors.Is(err, unix.EEXIST) {
		err = ErrExists
	}
	if err != nil {
		return fmt.Errorf("veth %s, %s in %s: %w", here.Name, there.Name, other.Path(), err)
	}
	return nil
}

// Ensure gives an existing device what the wish names and it lacks; it takes nothing away. A
// neighbour or a route that is there with another value is replaced.
func (n *Net) Ensure(d Device) error {
	l, err := n.find(d.Name)
	if err != nil {
		return err
	}
	if d.Alias != "" && l.Attrs().Alias != d.Alias {
		if err := n.handle.LinkSetAlias(l, d.Alias); err != nil {
			return fmt.Errorf("device %s: alias: %w", d.Name, err)
		}
	}
	if d.MTU != 0 && l.Attrs().MTU != d.MTU {
		if err := n.handle.LinkSetMTU(l, d.MTU); err != nil {
			return fmt.Errorf("device %s: mtu %d: %w", d.Name, d.MTU, err)
		}
	}
	if d.Up && l.Attrs().Flags&net.FlagUp == 0 {
		if err := n.handle.LinkSetUp(l); err != nil {
			return fmt.Errorf("device %s: up: %w", d.Name, err)
		}
	}
	for _, a := range d.Addresses {
		k := address(a)
		if d.NoSubnetRoutes {
			k.Flags |= unix.IFA_F_NOPREFIXROUTE
		}
		err := n.handle.AddrReplace(l, k)
		if errors.Is(err, unix.EACCES) && a.Addr().Is6() {
			err = errors.New("IPv6 is off here (sysctl net.ipv6.conf.*.disable_ipv6)")
		}
		if err != nil {
			return fmt.Errorf("device %s: addr %s: %w", d.Name, a, err)
		}
		// Who gave the address before may have left the route.
		if subnet := (Route{To: a.Masked()}); d.NoSubnetRoutes && !a.IsSingleIP() {
			if err := n.unroute(l, subnet); err != nil {
				return err
			}
		}
	}
	for _, e := range d.Neighbours {
		if err := n.handle.NeighSet(neigh(l, e)); err != nil {
			return fmt.Errorf("device %s: neigh %s: %w", d.Name, e, err)
		}
	}
	for _, r := range d.Routes {
		if err := n.handle.RouteReplace(route(l, r)); err != nil {
			return fmt.Errorf("device %s: route %s: %w", d.Name, r, err)
		}
	}
	return nil
}

// Unroute takes a route of the device away. One that is not there is fine, and so is a device that is
// not there: its routes went with it.
func (n *Net) Unroute(device string, r Route) error {
	l, err := n.find(device)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return n.unroute(l, r)
}

func (n *Net) unroute(l netlink.Link, r Route) error {
	k := route(l, r)
	k.Scope = netlink.SCOPE_NOWHERE // any
	if err := n.handle.RouteDel(k); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("device %s: delete route %s: %w", l.Attrs().Name, r, err)
	}
	return nil
}

// Delete takes the device away, with its routes and the other end of its wire. A device that is
// not there is fine.
func (n *Net) Delete(name string) error {
	l, err := n.find(name)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	// The other end may have gone in the meantime, and taken this one along.
	if err := n.handle.LinkDel(l); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("device %s: delete: %w", name, err)
	}
	return nil
}

func (n *Net) find(name string) (netlink.Link, error) {
	l, err := n.handle.LinkByName(name)
	if _, missing := errors.AsType[netlink.LinkNotFoundError](err); missing {
		err = ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("device %s: %w", name, err)
	}
	return l, nil
}

// wish is the MAC to ask for; nil leaves it to the kernel.
func (m MAC) wish() net.HardwareAddr {
	if m == (MAC{}) {
		return nil
	}
	return m[:]
}

// address can be used at once: whoever gives it knows that nobody else has it, so an IPv6 address is
// not tried out for a second first.
func address(p netip.Prefix) *netlink.Addr {
	a := &netlink.Addr{IPNet: ipNet(p)}
	if p.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD
	}
	return a
}

func neigh(l netlink.Link, e Neighbour) *netlink.Neigh {
	return &netlink.Neigh{
		LinkIndex: l.Attrs().Index, State: netlink.NUD_PERMANENT, Family: family(e.Address),
		IP: e.Address.AsSlice(), HardwareAddr: e.MAC[:],
	}
}

func route(l netlink.Link, r Route) *netlink.Route {
	k := &netlink.Route{LinkIndex: l.Attrs().Index, Dst: ipNet(r.To), Scope: netlink.SCOPE_LINK, Table: r.Table}
	if r.Via.IsValid() {
		k.Gw, k.Scope = r.Via.AsSlice(), netlink.SCOPE_UNIVERSE
	}
	return k
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func family(a netip.Addr) int {
	if a.Is4() {
		return netlink.FAMILY_V4
	}
	return netlink.FAMILY_V6
}
