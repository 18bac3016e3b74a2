package link

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
)

// Addresses returns every address of every device, of both families, in order, each once.
func (n *Net) Addresses() ([]netip.Addr, error) {
	list, err := whole(func() ([]netlink.Addr, error) { return n.handle.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("addresses: %w", err)
	}
	var out []netip.Addr
	for _, a := range list {
		if a.IPNet != nil {
			out = append(out, addr(a.IP))
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out), nil
}

// Addresses is as Net.Addresses.
func (n *FakeNet) Addresses() ([]netip.Addr, error) {
	done, err := n.begin("addresses")
	if err != nil {
		return nil, err
	}
	defer done()
	var out []netip.Addr
	for _, e := range n.fake.nets[n.path] {
		for _, p := range e.Addresses {
			out = append(out, p.Addr())
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out), nil
}
