// Package linktest gives addresses to interfaces that tests make.
package linktest

import (
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// patience is for a kernel that has much else to do.
const patience = 10 * time.Second

// Add gives an interface of the calling thread's namespace an address, and returns when packets to it are
// delivered: of IPv6 the kernel makes the route to it later, on a thread of its own, even where nothing is probed.
func Add(l netlink.Link, a netip.Prefix) error {
	address := &netlink.Addr{IPNet: &net.IPNet{IP: a.Addr().AsSlice(), Mask: net.CIDRMask(a.Bits(), a.Addr().BitLen())}}
	if a.Addr().Is6() {
		address.Flags = unix.IFA_F_NODAD
	}
	if err := netlink.AddrAdd(l, address); err != nil {
		return fmt.Errorf("address %v: %w", a, err)
	}
	if a.Addr().Is4() {
		return nil
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); ; <-tick.C {
		routes, err := netlink.RouteGet(address.IP)
		if err == nil && len(routes) > 0 && routes[0].Type == unix.RTN_LOCAL {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("address %v: not delivered to after %v: %v, %w", a, patience, routes, err)
		}
	}
}
