// Package link is the door to the network devices of one namespace, and to its policy routing: make a
// pair, give a device its addresses, neighbours and routes, read them back, take it away; say which
// packets which table of routes is for. It speaks in plain values, so that nobody else needs to know
// netlink.
package link

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
)

// The ways in which a device can be in the way.
var (
	ErrNotFound = errors.New("no such device")
	ErrExists   = errors.New("device exists")
)

// MAC is an Ethernet address.
type MAC [6]byte

// String returns it as 02:00:5e:00:53:01.
func (m MAC) String() string {
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5])
}

// ParseMAC reads what String returns.
func ParseMAC(s string) (MAC, error) {
	b, err := net.ParseMAC(s)
	if err != nil || len(b) != len(MAC{}) {
		return MAC{}, fmt.Errorf("%q is not an Ethernet address such as 02:00:5e:00:53:01", s)
	}
	return MAC(b), nil
}

// Device is a network device with all that hangs on it. As a wish it is the least that must be
// there; as read it is all that is there.
type Device struct {
	Name      string
	Alias     string // free text that `ip link` shows; at most MaxAlias bytes
	MAC       MAC    // zero in a wish: whatever it has
	MTU       int    // bytes; zero in a wish: whatever it has
	Up        bool
	Addresses []netip.Prefix
	// NoSubnetRoutes, in a wish, keeps the main table free of the routes to the subnets that the
	// addresses are of: another device leads there.
	NoSubnetRoutes bool
	Neighbours     []Neighbour
	Routes         []Route // of all tables but that of local addresses; in a wish, those that others go through come first
}

// MaxAlias is the length of the longest alias that Linux keeps.
const MaxAlias = 255

// Neighbour is a permanent entry: nobody is asked, and it does not age.
type Neighbour struct {
	Address netip.Addr
	MAC     MAC
}

// String returns it as `ip neigh` would.
func (n Neighbour) String() string { return fmt.Sprintf("%s lladdr %s permanent", n.Address, n.MAC) }

// Route leads to a prefix through the device: directly, or by way of a gateway.
type Route struct {
	To  netip.Prefix
	Via netip.Addr // the zero address: directly, scope link
	// Table is MainTable where it is zero.
	Table int
}

// String returns it as `ip route` would.
func (r Route) String() string {
	to := r.To.String()
	if r.To.Bits() == 0 {
		to = "default"
	}
	way := " scope link"
	if r.Via.IsValid() {
		way = " via " + r.Via.String()
	}
	if r.Table != 0 {
		way += fmt.Sprint(" table ", r.Table)
	}
	return to + way
}

// String prints the device, a fact a line.
func (d Device) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s mac %s mtu %d", d.Name, d.MAC, d.MTU)
	if d.Up {
		b.WriteString(" up")
	}
	if d.Alias != "" {
		fmt.Fprintf(&b, "\n  alias %s", d.Alias)
	}
	for _, a := range d.Addresses {
		fmt.Fprintf(&b, "\n  addr %s", a)
		if d.NoSubnetRoutes {
			b.WriteString(" noprefixroute")
		}
	}
	for _, n := range d.Neighbours {
		fmt.Fprintf(&b, "\n  neigh %s", n)
	}
	for _, r := range d.Routes {
		fmt.Fprintf(&b, "\n  route %s", r)
	}
	b.WriteString("\n")
	return b.String()
}
