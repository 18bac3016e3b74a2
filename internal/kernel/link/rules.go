package link

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// MainTable is the number of the table that `ip route` shows.
const MainTable = unix.RT_TABLE_MAIN

// protocol marks our rules among those of others, as the kernel's numbers for routing daemons do. No
// registered daemon has it.
const protocol = 90

// Rule says of packets which table of routes is for them. The rule of the lowest priority that leads
// anywhere holds. A rule of priority zero is none.
type Rule struct {
	Priority   int
	From, To   netip.Prefix // the zero prefix: all; with two of them, all of IPv4. All of IPv6 is from ::/0
	Mark, Mask uint32       // bits of the packet's mark; a mask of zero: whatever mark
	Table      int          // MainTable where it is zero
}

// String returns it as `ip rule` would.
func (r Rule) String() string {
	all := func(p netip.Prefix) string {
		switch {
		case !p.IsValid():
			return "all"
		case p.IsSingleIP():
			return p.Addr().String()
		}
		return p.String()
	}
	s := fmt.Sprintf("%d: from %s", r.Priority, all(r.From))
	if r.To.IsValid() {
		s += " to " + all(r.To)
	}
	if r.Mask != 0 {
		s += fmt.Sprintf(" fwmark 0x%x/0x%x", r.Mark, r.Mask)
	}
	if r.Table == 0 {
		return s + " lookup main"
	}
	return s + fmt.Sprint(" lookup ", r.Table)
}

// Rules returns the rules that AddRule made, here or in an earlier life of the program: those of IPv4
// first, and of each family the lowest priority.
func (n *Net) Rules() ([]Rule, error) {
	var rules []Rule
	for _, family := range families {
		list, err := whole(func() ([]netlink.Rule, error) { return n.handle.RuleList(family) })
		if errors.Is(err, unix.EAFNOSUPPORT) {
			continue // a kernel without IPv6
		}
		if err != nil {
			return nil, fmt.Errorf("rules: %w", err)
		}
		for _, k := range list {
			if k.Protocol == protocol {
				rules = append(rules, ruleOf(k, family))
			}
		}
	}
	return rules, nil
}

func ruleOf(k netlink.Rule, family int) Rule {
	r := Rule{Priority: k.Priority, From: selector(k.Src), To: selector(k.Dst), Mark: k.Mark, Table: k.Table}
	if family == netlink.FAMILY_V6 && k.Src == nil && k.Dst == nil {
		r.From = prefix(nil, family)
	}
	if k.Mask != nil {
		r.Mask = *k.Mask
	}
	if r.Table == MainTable {
		r.Table = 0
	}
	return r
}

// AddRule adds a rule. One that is there is fine.
func (n *Net) AddRule(r Rule) error {
	if err := n.handle.RuleAdd(r.kernel()); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("add rule %s: %w", r, err)
	}
	return nil
}

// DeleteRule takes a rule of ours away. One that is not there is fine.
func (n *Net) DeleteRule(r Rule) error {
	if err := n.handle.RuleDel(r.kernel()); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("delete rule %s: %w", r, err)
	}
	return nil
}

func (r Rule) six() bool { return r.From.Addr().Is6() || r.To.Addr().Is6() }

func (r Rule) kernel() *netlink.Rule {
	k := netlink.NewRule()
	k.Priority, k.Table, k.Protocol = r.Priority, cmp.Or(r.Table, MainTable), protocol
	k.Family = netlink.FAMILY_V4
	if r.six() {
		k.Family = netlink.FAMILY_V6
	}
	if r.From.Bits() > 0 { // all of a family is what the kernel is not told of
		k.Src = ipNet(r.From)
	}
	if r.To.IsValid() {
		k.Dst = ipNet(r.To)
	}
	if r.Mask != 0 {
		k.Mark, k.Mask = r.Mark, &r.Mask
	}
	return k
}

func selector(n *net.IPNet) netip.Prefix {
	if n == nil {
		return netip.Prefix{}
	}
	return prefix(n, netlink.FAMILY_V4)
}

// Loosen lets packets in by a device also where the answer to them would leave by another one, as long
// as there is any way back. It is the setting rp_filter = 2 of the device, whatever that of all is.
//
// It goes by netlink: /proc/sys can only be read in a container, and shows the caller's namespace.
func (n *Net) Loosen(device string) error {
	l, err := n.find(device)
	if err != nil {
		return err
	}
	if err := n.loosen(l); err != nil {
		return fmt.Errorf("device %s: rp_filter: %w", device, err)
	}
	return nil
}

func (n *Net) loosen(l netlink.Link) error {
	const inet, reversePath, loose = 1, 8, 2 // IFLA_INET_CONF, IPV4_DEVCONF_RP_FILTER, and its value
	message := nl.NewIfInfomsg(unix.AF_UNSPEC)
	message.Index = int32(l.Attrs().Index)
	families := nl.NewRtAttr(unix.IFLA_AF_SPEC|unix.NLA_F_NESTED, nil)
	families.AddRtAttr(unix.AF_INET|unix.NLA_F_NESTED, nil).
		AddRtAttr(inet|unix.NLA_F_NESTED, nil).
		AddRtAttr(reversePath, nl.Uint32Attr(loose))
	request := nl.NewNetlinkRequest(unix.RTM_SETLINK, unix.NLM_F_ACK)
	request.AddData(message)
	request.AddData(families)
	if n.space.IsOpen() {
		socket, err := nl.GetNetlinkSocketAt(n.space, vnetns.None(), unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		defer socket.Close()
		request.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: {Socket: socket}}
	}
	_, err := request.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// Rules is as Net.Rules.
func (n *FakeNet) Rules() ([]Rule, error) {
	done, err := n.begin("rules")
	if err != nil {
		return nil, err
	}
	defer done()
	rules := slices.Clone(n.fake.rules[n.path])
	slices.SortStableFunc(rules, func(a, b Rule) int {
		switch {
		case a.six() && !b.six():
			return 1
		case b.six() && !a.six():
			return -1
		}
		return cmp.Compare(a.Priority, b.Priority)
	})
	return rules, nil
}

// AddRule is as Net.AddRule.
func (n *FakeNet) AddRule(r Rule) error {
	done, err := n.begin("add rule")
	if err != nil {
		return err
	}
	defer done()
	if n.fake.rules == nil {
		n.fake.rules = map[string][]Rule{}
	}
	if !slices.Contains(n.fake.rules[n.path], r) {
		n.fake.rules[n.path] = append(n.fake.rules[n.path], r)
	}
	return nil
}

// DeleteRule is as Net.DeleteRule.
func (n *FakeNet) DeleteRule(r Rule) error {
	done, err := n.begin("delete rule")
	if err != nil {
		return err
	}
	defer done()
	n.fake.rules[n.path] = slices.DeleteFunc(n.fake.rules[n.path], same(r))
	return nil
}

// Loosen is as Net.Loosen.
func (n *FakeNet) Loosen(device string) error {
	done, err := n.begin("loosen")
	if err != nil {
		return err
	}
	defer done()
	have := n.fake.nets[n.path][device]
	if have == nil {
		return fmt.Errorf("device %s: %w", device, ErrNotFound)
	}
	have.loose = true
	return nil
}

// Loose tells whether the device was loosened.
func (n *FakeNet) Loose(device string) bool {
	n.fake.mu.Lock()
	defer n.fake.mu.Unlock()
	have := n.fake.nets[n.path][device]
	return have != nil && have.loose
}
