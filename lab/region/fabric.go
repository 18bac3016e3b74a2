// Package region is the stand-in cloud under a lab, as far as the kernel is concerned: the fabric, a
// network namespace that delivers an address to the interface which owns it, to nobody else, takes
// nothing from an address that the interface does not own, and counts every byte by source and
// destination zone. That count is the bill. Who owns what, package ec2 records.
package region

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/zonewise/zonewise/lab/region/ec2"
	"github.com/zonewise/zonewise/lab/topology"
)

// MTU of the fabric: AWS networks carry jumbo frames.
const MTU = 9001

// Fabric is the VPC of one lab. Its namespace, links, routes and counters vanish with Close.
type Fabric struct {
	Thread  *Thread
	topo    topology.Topology
	latency error // why there is no cross-zone latency; nil where there is, or none was asked for
	outside *outside

	// Of the thread alone, which does one thing at a time.
	delivery ec2.Delivery
	places   map[string]*place   // of nodes that run, by alias
	answers  map[netip.Addr]bool // its own addresses
}

// New makes the VPC of a topology, with no node attached yet. With static addresses it knows whose each
// is; else nobody has any until Apply.
func New(topo topology.Topology) (*Fabric, error) {
	thread, err := NewThread()
	if err != nil {
		return nil, err
	}
	f := &Fabric{Thread: thread, topo: topo, places: map[string]*place{}, answers: map[netip.Addr]bool{}}
	if f.outside, err = newOutside(topo.IPv6 != nil); err != nil {
		thread.Close()
		return nil, err
	}
	if err := thread.Do(f.setup); err != nil {
		f.Close()
		return nil, fmt.Errorf("fabric: %w", err)
	}
	if topo.CNI == topology.CNIStatic {
		if err := f.Apply(fixed(topo)); err != nil {
			f.Close()
			return nil, err
		}
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
	if f.topo.IPv6 != nil {
		if err := sysctls(map[string]string{"net/ipv6/conf/all/forwarding": "1"}); err != nil {
			return err
		}
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("lo: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("lo: %w", err)
	}
	if err := f.answerFor(nil); err != nil {
		return err
	}
	if err := f.setupRules(); err != nil {
		return err
	}
	return f.outside.connect()
}

// answerFor makes the fabric's own addresses those of the region's services and of the subnets'
// gateways, and no others. Those that a user gave the region, to have something there, stay.
func (f *Fabric) answerFor(subnets []ec2.SubnetDelivery) error {
	want := map[netip.Addr]bool{f.topo.API: true, f.topo.Resolver: true, f.topo.EC2: true}
	if f.topo.IPv6 != nil {
		want[f.topo.IPv6.Region] = true
		if f.topo.IPv6.Alone {
			want[f.topo.IPv6.Resolver] = true
		}
	}
	for _, s := range subnets {
		want[gateway(s.CIDR)] = true
		if s.IPv6.IsValid() && f.topo.IPv6 != nil {
			want[gateway(s.IPv6)] = true
		}
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("lo: %w", err)
	}
	have, err := netlink.AddrList(lo, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("addresses of lo: %w", err)
	}
	for _, h := range have {
		a, _ := netip.AddrFromSlice(h.IP)
		switch a = a.Unmap(); {
		case want[a]:
			delete(want, a)
		case f.answers[a]:
			if err := netlink.AddrDel(lo, &h); err != nil {
				return fmt.Errorf("address %s: %w", a, err)
			}
			delete(f.answers, a)
		}
	}
	for a := range want {
		f.answers[a] = true
		if err := netlink.AddrAdd(lo, own(a)); err != nil {
			return fmt.Errorf("address %s: %w", a, err)
		}
	}
	return nil
}

// gateway of a subnet: its first address.
func gateway(subnet netip.Prefix) netip.Addr { return subnet.Masked().Addr().Next() }

// Apply makes the network deliver as the records of the region say. Nodes that run get interfaces and
// lose them; those that do not run yet get theirs when they are attached.
func (f *Fabric) Apply(d ec2.Delivery) error {
	if err := check(d, f.topo.Zones); err != nil {
		return fmt.Errorf("fabric: %w", err)
	}
	if err := f.Thread.Do(func() error {
		f.delivery = d
		if err := f.answerFor(d.Subnets); err != nil {
			return err
		}
		return f.converge()
	}); err != nil {
		return fmt.Errorf("fabric: %w", err)
	}
	return nil
}

// converge makes links and routes those that are wanted, whatever is there. One interface that cannot
// be made does not keep others from theirs.
func (f *Fabric) converge() error {
	wanted := map[string]attachment{} // by name of the fabric's end
	for alias, p := range f.places {
		if !p.alive() {
			p.forget()
			delete(f.places, alias)
			continue
		}
		for _, a := range f.attachments(p) {
			wanted[a.name] = a
		}
	}
	links, err := nodeLinks()
	if err != nil {
		return err
	}
	var errs []error
	for name, link := range links {
		if a, ok := wanted[name]; ok && a.ID == link.Attrs().Alias {
			continue
		}
		if err := remove(link); err != nil {
			errs = append(errs, err)
		}
		delete(links, name)
	}
	for _, name := range slices.Sorted(maps.Keys(wanted)) {
		if _, ok := links[name]; ok {
			continue
		}
		link, err := f.link(wanted[name])
		if err != nil {
			errs = append(errs, err)
			continue
		}
		links[name] = link
	}
	for name := range wanted {
		if _, ok := links[name]; !ok {
			delete(wanted, name) // its error is told already
		}
	}
	if err := f.trust(); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(append(errs, f.lead(wanted, links))...)
}

// Attach gives the node in the network namespace of process pid its interfaces, and sets up the first
// one as a cloud's image does when it boots: with the primary address and the way to all others.
func (f *Fabric) Attach(node topology.Node, pid int) error {
	if err := f.Thread.Do(func() error { return f.attach(node, pid) }); err != nil {
		return fmt.Errorf("attach %s: %w", node.Alias, err)
	}
	return nil
}

func (f *Fabric) attach(node topology.Node, pid int) error {
	// A node that died and is started again: its links go with its namespace, but not at once.
	if old, ok := f.places[node.Alias]; ok {
		old.forget()
		delete(f.places, node.Alias)
	}
	links, err := nodeLinks()
	if err != nil {
		return err
	}
	for name, link := range links {
		if alias, _ := splitName(name); alias == node.Alias {
			if err := remove(link); err != nil {
				return err
			}
		}
	}
	p, err := newPlace(node.Alias, pid)
	if err != nil {
		return err
	}
	all := f.attachments(p)
	if len(all) == 0 || all[0].DeviceIndex != 0 {
		p.forget()
		return errors.New("the cloud has no running instance for it, with a first interface")
	}
	wanted, made := map[string]attachment{}, map[string]netlink.Link{}
	for _, a := range all {
		link, err := f.link(a)
		if err != nil {
			p.forget()
			return err
		}
		wanted[a.name], made[a.name] = a, link
	}
	f.places[node.Alias] = p
	// The routes of others need no look: a start of many nodes would spend its time on that.
	for name, a := range wanted {
		for _, r := range f.routes(a, made[name].Attrs().Index) {
			if err := netlink.RouteReplace(r); err != nil {
				return fmt.Errorf("route %s: %w", r.Dst, err)
			}
		}
	}
	if err := f.boot(all[0], pid); err != nil {
		return err
	}
	return f.trust()
}

// boot configures a node's first interface.
func (f *Fabric) boot(a attachment, pid int) error {
	ns, err := netns.GetFromPid(pid)
	if err != nil {
		return fmt.Errorf("namespace of process %d: %w", pid, err)
	}
	defer func() { _ = ns.Close() }()
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("netlink in node: %w", err)
	}
	defer h.Close()
	lo, err := h.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("lo: %w", err)
	}
	eth0, err := h.LinkByName(a.device)
	if err != nil {
		return fmt.Errorf("%s: %w", a.device, err)
	}
	for _, l := range []netlink.Link{lo, eth0} {
		if err := h.LinkSetUp(l); err != nil {
			return fmt.Errorf("%s: %w", l.Attrs().Name, err)
		}
	}
	address := &net.IPNet{IP: a.Primary.AsSlice(), Mask: net.CIDRMask(a.CIDR.Bits(), 32)}
	if err := h.AddrAdd(eth0, &netlink.Addr{IPNet: address}); err != nil {
		return fmt.Errorf("%s address %s: %w", a.device, address, err)
	}
	route := &netlink.Route{LinkIndex: eth0.Attrs().Index, Gw: gateway(a.CIDR).AsSlice()}
	if err := h.RouteAdd(route); err != nil {
		return fmt.Errorf("default route: %w", err)
	}
	if f.topo.IPv6 != nil && len(a.IPv6) > 0 {
		return f.bootIPv6(h, eth0, a)
	}
	return nil
}

// Close takes the VPC away.
func (f *Fabric) Close() {
	_ = f.Thread.Do(func() error {
		for _, p := range f.places {
			p.forget()
		}
		return nil
	})
	f.outside.close()
	f.Thread.Close()
}

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
