package region

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/zonewise/zonewise/lab/region/ec2"
	"github.com/zonewise/zonewise/lab/topology"
)

// check refuses a delivery that cannot be true, before anything is changed: an address with two owners,
// two interfaces in one place, a zone that there is not.
func check(d ec2.Delivery, zones []topology.Zone) error {
	owner := map[netip.Prefix]string{}
	nodes := map[string]bool{}
	for _, i := range d.Instances {
		if nodes[i.Node] {
			return fmt.Errorf("node %s has two instances", i.Node)
		}
		nodes[i.Node] = true
		if zoneIndex(zones, i.Zone) < 0 {
			return fmt.Errorf("instance %s is in zone %q, which the region has not", i.ID, i.Zone)
		}
		indexes := map[int]bool{}
		for _, v := range i.Interfaces {
			switch {
			case indexes[v.DeviceIndex]:
				return fmt.Errorf("instance %s has two interfaces with device index %d", i.ID, v.DeviceIndex)
			case len(v.MAC) != 6 || v.ID == "" || !v.Primary.Is4():
				return fmt.Errorf("interface %q of instance %s lacks an id, a hardware address or a primary address", v.ID, i.ID)
			}
			indexes[v.DeviceIndex] = true
			for _, p := range ranges(v) {
				if other, taken := owner[p]; taken {
					return fmt.Errorf("%s belongs to interface %s and to %s", p, other, v.ID)
				}
				owner[p] = v.ID
			}
		}
	}
	return nil
}

func zoneIndex(zones []topology.Zone, name string) int {
	return slices.IndexFunc(zones, func(z topology.Zone) bool { return z.Name == name })
}

// ranges are all that is delivered to an interface.
func ranges(v ec2.InterfaceDelivery) []netip.Prefix {
	var out []netip.Prefix
	for _, a := range slices.Concat(v.Addresses, v.IPv6) {
		out = append(out, netip.PrefixFrom(a, a.BitLen()))
	}
	return slices.Concat(out, v.Prefixes, v.IPv6Prefixes)
}

// routes lead what an interface owns to it. There is nobody to ask for neighbours: every packet goes to
// the interface's hardware address.
func (f *Fabric) routes(a attachment, index int) []*netlink.Route {
	var out []*netlink.Route
	for _, p := range ranges(a.InterfaceDelivery) {
		r := &netlink.Route{LinkIndex: index, Dst: network(p), Protocol: unix.RTPROT_STATIC}
		switch {
		case p.Addr() == a.Primary:
			r.Scope, r.Src = netlink.SCOPE_LINK, f.topo.API.AsSlice()
		case p.Addr().Is4():
			r.Gw, r.Flags, r.Src = a.Primary.AsSlice(), int(netlink.FLAG_ONLINK), f.topo.API.AsSlice()
		case f.topo.IPv6 == nil:
			continue
		default:
			r.Gw, r.Src = farEndIPv6.AsSlice(), f.topo.IPv6.Region.AsSlice()
		}
		out = append(out, r)
	}
	return out
}

func network(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// lead makes the fabric's routes those of the attachments. An address that moves is led to its new owner
// in one step.
func (f *Fabric) lead(wanted map[string]attachment, links map[string]netlink.Link) error {
	type way struct {
		index int
		gw    string
	}
	have := map[string]netlink.Route{}
	families := []int{netlink.FAMILY_V4}
	if f.topo.IPv6 != nil {
		families = append(families, netlink.FAMILY_V6)
	}
	for _, family := range families {
		routes, err := netlink.RouteListFiltered(family, &netlink.Route{Protocol: unix.RTPROT_STATIC}, netlink.RT_FILTER_PROTOCOL)
		if err != nil {
			return fmt.Errorf("routes: %w", err)
		}
		for _, r := range routes {
			have[r.Dst.String()] = r
		}
	}
	wayOf := func(r netlink.Route) way { return way{r.LinkIndex, r.Gw.String()} }
	var errs []error
	for name, a := range wanted {
		for _, r := range f.routes(a, links[name].Attrs().Index) {
			key := r.Dst.String()
			if h, ok := have[key]; !ok || wayOf(h) != wayOf(*r) {
				if err := netlink.RouteReplace(r); err != nil {
					errs = append(errs, fmt.Errorf("route %s: %w", key, err))
				}
			}
			delete(have, key)
		}
	}
	for key, r := range have {
		if err := netlink.RouteDel(&r); err != nil && !errors.Is(err, unix.ESRCH) {
			errs = append(errs, fmt.Errorf("remove route %s: %w", key, err))
		}
	}
	return errors.Join(errs...)
}
