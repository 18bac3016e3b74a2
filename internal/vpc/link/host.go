package link

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/zonewise/zonewise/internal/kernel/link"
	"github.com/zonewise/zonewise/internal/kernel/nft"
	"github.com/zonewise/zonewise/internal/vpc"
)

// The priorities of our rules. They are upstream's, for people and programs look for them there.
const (
	toPod         = 512   // to a pod, before all else: by its wire
	marked        = 1024  // of a flow that belongs to the primary interface
	fromPod       = 1536  // from a pod of another interface: by that one
	fromInterface = 32765 // from such an interface's own address
)

// Host is what must be there on the node itself, for packets of its pods to leave by the interface that
// owns their address: the cloud drops what comes by another. The zero Host is nothing at all.
type Host struct {
	Primary string        // device that lets in what is answered by another; empty: none
	Devices []link.Device // of the other interfaces
	Rules   []link.Rule   // in order of priority
	chains  []chain       // of the table for marks and NAT; none: no table
	chains6 []chain       // of that for marks of IPv6
}

// PlanHost tells what the node needs for the interfaces that the cloud has given it, and for the pods that
// hold their addresses. MTU, in bytes, is that of the primary interface.
//
// Interfaces that are draining are as good as others here: they have pods, or had until lately. Of those
// of other people nothing is known, and one without an address of IPv4 or a table of its own gets nothing: a
// rule for no address would be one for all.
func PlanHost(s vpc.Supply, l vpc.Leases, mtu int) Host {
	var h Host
	for _, i := range s.Interfaces {
		switch {
		case i.Unmanaged || !i.Address.Is4():
		case i.Primary:
			h.Primary = i.Device
			h.chains = program(i.Device, i.Address, s)
			h.Rules = append(h.Rules, link.Rule{Priority: marked, Mark: primaryMark, Mask: primaryMark})
			if s.Family == vpc.Dual {
				h.chains6 = marks(i.Device)
				h.Rules = append(h.Rules, link.Rule{Priority: marked, From: all6, Mark: primaryMark, Mask: primaryMark})
			}
		case i.Gateway.Is4() && i.Table > 0:
			for _, a := range own(i) {
				h.Rules = append(h.Rules, link.Rule{Priority: fromInterface, From: single(a.Addr()), Table: i.Table})
			}
			if i.Device != "" {
				h.Devices = append(h.Devices, device(i, mtu))
			}
		}
	}
	if len(s.Interfaces) > 0 {
		for _, lease := range l.Held {
			h.Rules = append(h.Rules, PodRules(s, lease)...)
		}
	}
	slices.SortStableFunc(h.Rules, func(a, b link.Rule) int {
		return cmp.Or(cmp.Compare(a.Priority, b.Priority), a.To.Compare(b.To), a.From.Compare(b.From))
	})
	return h
}

var (
	// router is the next hop of IPv6 in every subnet of the cloud.
	router = netip.MustParseAddr("fe80:ec2::1")
	all6   = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
)

// own are the addresses of an interface that no pod has. That of IPv6 is the one of its prefix which goes
// with its address of IPv4: what is masqueraded and leaves by the interface must be from an address that
// the cloud takes from there. Its length is that of every subnet of the cloud; with a longer one the kernel
// would think it nearer to pods than the node's address, and masquerade with it what goes to them.
func own(i vpc.Interface) []netip.Prefix {
	out := []netip.Prefix{netip.PrefixFrom(i.Address, i.Subnet.Bits())}
	if i.IPv6Prefix.IsValid() {
		out = append(out, netip.PrefixFrom(vpc.Behind(i.IPv6Prefix, i.Address), 64))
	}
	return out
}

// device is the interface as the node has it: with its own address, and with a table of routes that is for
// its pods. The main table does not know it.
func device(i vpc.Interface, mtu int) link.Device {
	mac, _ := link.ParseMAC(i.MAC) // one that makes no sense is that of no device: Apply says so
	d := link.Device{
		Name: i.Device, MAC: mac, MTU: mtu, Up: true,
		Addresses:      own(i),
		NoSubnetRoutes: true,
		Routes: []link.Route{
			{To: single(i.Gateway), Table: i.Table},
			{To: netip.PrefixFrom(netip.IPv4Unspecified(), 0), Via: i.Gateway, Table: i.Table},
		},
	}
	if i.IPv6Prefix.IsValid() {
		d.Routes = append(d.Routes, link.Route{To: all6, Via: router, Table: i.Table})
	}
	return d
}

// PodRules are those of one pod. Without them its packets would all leave by the primary interface. A pod
// of IPv6 alone has none: its prefix is the primary's.
func PodRules(s vpc.Supply, l vpc.Lease) []link.Rule {
	if !l.Address.Is4() {
		return nil
	}
	var rules []link.Rule
	for _, a := range []netip.Addr{l.Address, l.IPv6} {
		if !a.IsValid() {
			continue
		}
		rules = append(rules, link.Rule{Priority: toPod, To: single(a)})
		if i, ok := s.Find(a); ok && !i.Primary && i.Table > 0 {
			rules = append(rules, link.Rule{Priority: fromPod, From: single(a), Table: i.Table})
		}
	}
	return rules
}

func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// String prints all of it, a fact a line, in the words of ip and nft.
func (h Host) String() string {
	var b strings.Builder
	if h.Primary != "" {
		fmt.Fprintf(&b, "%s rp_filter 2\n", h.Primary)
	}
	for _, d := range h.Devices {
		b.WriteString(d.String())
	}
	for _, r := range h.Rules {
		fmt.Fprintf(&b, "rule %s\n", r)
	}
	for _, t := range h.tables() {
		if len(t.chains) > 0 {
			fmt.Fprintf(&b, "table %s\n", t.Table)
		}
		for _, c := range t.chains {
			fmt.Fprintf(&b, "  chain %s: %s, hook %d, priority %d\n", c.Name, c.Hook.Type, c.Hook.Point, c.Hook.Priority)
			for _, r := range c.rules {
				fmt.Fprintf(&b, "    %s\n", r.Comment)
			}
		}
	}
	return b.String()
}

// Tables is what is needed of nf_tables; package kernel/nft has it.
type Tables interface {
	Read(nft.Table) (nft.Contents, bool, error)
	Commit(*nft.Batch) error
}

// Apply makes the node's network what the plan says, and takes away what an earlier plan made and this one
// does not have; what others made stays. What is there already is not made again.
//
// A rule comes after the table that it leads to, and goes before it. An interface that cannot be set up
// does not keep the others from it: the error names each.
func Apply(host Net, tables Tables, h Host) error {
	var errs []error
	for _, d := range h.Devices {
		errs = append(errs, setUp(host, d))
	}
	if h.Primary != "" {
		errs = append(errs, host.Loosen(h.Primary))
	}
	have, err := host.Rules()
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	for _, r := range h.Rules {
		if !slices.Contains(have, r) {
			errs = append(errs, host.AddRule(r))
		}
	}
	for _, t := range h.tables() {
		errs = append(errs, mark(tables, t.Table, t.chains))
	}
	return errors.Join(append(errs, prune(host, have, h.Rules))...)
}

// setUp makes the device of an interface what it should be. Its name was found some time ago: the device
// that has it now may be another.
func setUp(host Net, want link.Device) error {
	have, err := host.Read(want.Name)
	if err != nil {
		return err
	}
	if have.MAC != want.MAC {
		return fmt.Errorf("device %s: mac %s, not %s: another interface has the name now", want.Name, have.MAC, want.MAC)
	}
	if err := host.Ensure(want); err != nil {
		return err
	}
	var errs []error
	for _, r := range have.Routes {
		if r.Table != 0 && !slices.Contains(want.Routes, r) {
			errs = append(errs, host.Unroute(want.Name, r))
		}
	}
	return errors.Join(errs...)
}

// prune deletes our rules that are not wanted, and before them the routes of tables to which none leads any
// more: it is by the rules that those tables are known.
func prune(host Net, have, want []link.Rule) error {
	var stale []link.Rule
	gone := map[int]bool{}
	for _, r := range have {
		if !slices.Contains(want, r) {
			stale = append(stale, r)
			gone[r.Table] = true
		}
	}
	for _, r := range want {
		delete(gone, r.Table)
	}
	delete(gone, 0) // the main table is everybody's
	if err := clearTables(host, gone); err != nil {
		return err
	}
	var errs []error
	for _, r := range stale {
		errs = append(errs, host.DeleteRule(r))
	}
	return errors.Join(errs...)
}

func clearTables(host Net, gone map[int]bool) error {
	if len(gone) == 0 {
		return nil
	}
	devices, err := host.List()
	if err != nil {
		return err
	}
	for _, d := range devices {
		for _, r := range d.Routes {
			if gone[r.Table] {
				if err := host.Unroute(d.Name, r); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// Is tells whether the device is there and has the hardware address.
func Is(host Net, device, mac string) (bool, error) {
	want, err := link.ParseMAC(mac)
	if err != nil {
		return false, err
	}
	d, err := host.Find(device)
	if errors.Is(err, link.ErrNotFound) {
		return false, nil
	}
	return err == nil && d.MAC == want, err
}

// Names are those of the node's devices by their hardware addresses, by which a cloud knows its interfaces.
type Names map[link.MAC]string

// NamesOf asks the node once for all of them.
func NamesOf(host Net) (Names, error) {
	devices, err := host.List()
	names := make(Names, len(devices))
	for _, d := range devices {
		if names[d.MAC] == "" {
			names[d.MAC] = d.Name
		}
	}
	return names, err
}

// Find returns the name of the device with the hardware address. It is empty when there is none: an interface
// appears in the node some time after it was attached.
func (n Names) Find(mac string) (string, error) {
	want, err := link.ParseMAC(mac)
	if err != nil {
		return "", err
	}
	return n[want], nil
}
