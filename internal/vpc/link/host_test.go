package link

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/zonewise/zonewise/internal/golden"
	"github.com/zonewise/zonewise/internal/kernel/link"
	"github.com/zonewise/zonewise/internal/kernel/nft"
	"github.com/zonewise/zonewise/internal/vpc"
)

// interfaceOf is the n-th interface of a node: 192.168.1.N0, with five addresses for pods after it.
func interfaceOf(n int) vpc.Interface {
	address := netip.AddrFrom4([4]byte{192, 168, 1, byte(10 * (n + 1))})
	i := vpc.Interface{
		ID: fmt.Sprint("eni-", n), Device: fmt.Sprint("eth", n), Index: n, MAC: fmt.Sprintf("02:00:00:00:00:%02x", n+1),
		Primary: n == 0, Subnet: netip.MustParsePrefix("192.168.1.0/24"), Gateway: netip.MustParseAddr("192.168.1.1"),
		Table: n + 1, Address: address,
	}
	if n == 0 {
		i.Table = link.MainTable
	}
	for range 5 {
		address = address.Next()
		i.Addresses = append(i.Addresses, address)
	}
	return i
}

func supplyOf(interfaces int) vpc.Supply {
	s := vpc.Supply{VPC: []netip.Prefix{netip.MustParsePrefix("192.168.0.0/16")}}
	for n := range interfaces {
		s.Interfaces = append(s.Interfaces, interfaceOf(n))
	}
	return s
}

// leasesOf is pods with these addresses.
func leasesOf(addresses ...string) vpc.Leases {
	var l vpc.Leases
	for i, a := range addresses {
		lease := leaseOf(i)
		lease.Address = netip.MustParseAddr(a)
		l.Held = append(l.Held, lease)
	}
	return l
}

func TestHostPlans(t *testing.T) {
	two := supplyOf(2)
	two.Interfaces[1].Prefixes = []netip.Prefix{netip.MustParsePrefix("192.168.1.32/28")}
	pods := leasesOf("192.168.1.21", "192.168.1.11", "192.168.1.40")
	outside := two
	outside.ExternalSNAT = true
	excluded := two
	excluded.Excluded = []netip.Prefix{netip.MustParsePrefix("10.8.0.0/16"), netip.MustParsePrefix("fd00::/8")}
	odd := supplyOf(7)
	odd.Interfaces[1].Device = ""      // not in the node yet
	odd.Interfaces[2].Unmanaged = true // somebody else's
	odd.Interfaces[3].Draining = true
	odd.Interfaces[4].Address = netip.Addr{}
	odd.Interfaces[5].Gateway = netip.Addr{}
	odd.Interfaces[6].Table = 0
	both := leasesOf("192.168.1.11", "192.168.1.21")
	dual := supplyOf(2)
	dual.Family = vpc.Dual
	for n := range dual.Interfaces {
		prefix := netip.MustParsePrefix(fmt.Sprintf("fd00:192:168:1:%d::/80", n+1))
		dual.Interfaces[n].IPv6Prefix = prefix
		both.Held[n].IPv6 = prefix.Addr().Next()
	}
	six := leasesOf("fd00:192:168:1:1::2")
	for name, p := range map[string]Host{
		"nothing":       PlanHost(vpc.Supply{}, pods, 9001),
		"two":           PlanHost(two, pods, 9001),
		"external-snat": PlanHost(outside, pods, 9001),
		"excluded":      PlanHost(excluded, pods, 9001),
		"odd":           PlanHost(odd, leasesOf("192.168.1.41", "10.0.0.1"), 9001),
		"dual-stack":    PlanHost(dual, both, 9001),
		"ipv6":          PlanHost(supplyOf(1), six, 9001),
	} {
		t.Run(name, func(t *testing.T) { golden.Check(t, "host-"+name+".txt", p.String()) })
	}
}

// node is a node without a kernel, on which the cloud's interfaces have appeared.
type node struct {
	rig
	tables nft.Fake
}

func newNode(interfaces int) *node {
	n := &node{}
	n.machine.Here().Put(link.Device{Name: "lo"})
	for i := range interfaces {
		n.appear(interfaceOf(i))
	}
	return n
}

func (n *node) appear(i vpc.Interface) {
	mac, err := link.ParseMAC(i.MAC)
	if err != nil {
		panic(err)
	}
	d := link.Device{Name: i.Device, MAC: mac, MTU: 1500}
	if i.Primary {
		d.Up, d.Routes = true, []link.Route{{To: i.Subnet}, {To: netip.MustParsePrefix("0.0.0.0/0"), Via: i.Gateway}}
	}
	n.machine.Here().Put(d)
}

func (n *node) apply(h Host) error { return Apply(n.machine.Here(), &n.tables, h) }

// everything is all that is on the node, as text.
func (n *node) everything(t testing.TB) string {
	t.Helper()
	here := n.machine.Here()
	devices, err := here.List()
	if err != nil {
		t.Fatal(err)
	}
	rules, err := here.Rules()
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(rules, func(a, b link.Rule) int { return strings.Compare(a.String(), b.String()) })
	s := ""
	for _, of := range []nft.Table{table, table6} {
		contents, there, err := n.tables.Read(of)
		if err != nil {
			t.Fatal(err)
		}
		s += fmt.Sprintln(of, there, contents.Chains)
	}
	for _, d := range devices {
		slices.SortFunc(d.Routes, func(a, b link.Route) int { return strings.Compare(a.String(), b.String()) })
		s += fmt.Sprint(d, " loose ", here.Loose(d.Name), "\n")
	}
	return s + fmt.Sprint(rules)
}

func TestApplyTwiceAndOff(t *testing.T) {
	n := newNode(3)
	foreign := link.Route{To: netip.MustParsePrefix("10.0.0.0/8"), Table: 77}
	if err := n.machine.Here().Ensure(link.Device{Name: "eth0", Routes: []link.Route{foreign}}); err != nil {
		t.Fatal(err)
	}
	s := supplyOf(3)
	s.Family = vpc.Dual
	h := PlanHost(s, leasesOf("192.168.1.11", "192.168.1.21"), 9001)
	if err := n.apply(h); err != nil {
		t.Fatal(err)
	}
	once, commits := n.everything(t), n.tables.Commits
	for _, want := range []string{"default via 192.168.1.1 table 2", "1536: from 192.168.1.21 lookup 2", "loose true", "mtu 9001", "to the outside: as 192.168.1.10", "ip6 zonewise-vpc true map[marks:[who comes by eth0 to the node is answered by it"} {
		if !strings.Contains(once, want) {
			t.Errorf("no %q in %s", want, once)
		}
	}
	if err := n.apply(h); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(once, n.everything(t)); diff != "" || n.tables.Commits != commits {
		t.Errorf("%d transactions, then %d: %s", commits, n.tables.Commits, diff)
	}
	for range 2 {
		if err := n.apply(Host{}); err != nil {
			t.Fatal(err)
		}
		off := n.everything(t)
		if strings.Count(off, " false map[]") != 2 || !strings.HasSuffix(off, "[]") || strings.Contains(off, "table 2") || !strings.Contains(off, "table 77") {
			t.Errorf("off: %s", off)
		}
	}
}

// What is there of another version, with more chains or fewer, is replaced whole.
func TestTableOfAnotherVersion(t *testing.T) {
	n := newNode(1)
	b := nft.NewBatch(table)
	b.AddTable()
	b.AddChain(nft.Chain{Name: "marks"})
	b.AddRule("marks", nft.Rule{Comment: "older"})
	b.AddChain(nft.Chain{Name: "other"})
	if err := n.tables.Commit(b); err != nil {
		t.Fatal(err)
	}
	if err := n.apply(PlanHost(supplyOf(1), vpc.Leases{}, 1500)); err != nil {
		t.Fatal(err)
	}
	fresh := newNode(1)
	if err := fresh.apply(PlanHost(supplyOf(1), vpc.Leases{}, 1500)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(fresh.everything(t), n.everything(t)); diff != "" {
		t.Error(diff)
	}
}

// One interface that is not as it was said to be does not keep the others from it.
func TestApplyNamesWhatCannotBe(t *testing.T) {
	n := newNode(3)
	s := supplyOf(4)
	s.Interfaces[2].MAC = "02:00:00:00:00:99"
	h := PlanHost(s, leasesOf("192.168.1.21"), 1500)
	err := n.apply(h)
	if err == nil || !strings.Contains(err.Error(), "device eth2: mac 02:00:00:00:00:03, not 02:00:00:00:00:99") ||
		!strings.Contains(err.Error(), "device eth3: no such device") {
		t.Errorf("got %v", err)
	}
	if all := n.everything(t); !strings.Contains(all, "default via 192.168.1.1 table 2") || strings.Contains(all, "table 3") {
		t.Errorf("got %s", all)
	}
}

// From any state to any other, with each operation failing now and then: a retry makes it what a fresh
// node would be. What plans do not tell of, such as the address of an interface that is no longer
// in one, may stay: the cloud takes the device away.
func TestApplyFromAnyState(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := newNode(4)
		for range rapid.IntRange(1, 4).Draw(t, "steps") {
			h := anyHost(t)
			fails := rapid.IntRange(-5, 30).Draw(t, "fails at")
			n.machine.Fail = func(op string) error {
				if fails--; fails == 0 {
					return errors.New("flaky " + op)
				}
				return nil
			}
			n.tables.Fail = func(*nft.Batch) error { return n.machine.Fail("commit") }
			first := n.apply(h)
			n.machine.Fail, n.tables.Fail = nil, nil
			if err := n.apply(h); err != nil {
				t.Fatalf("retry after %v: %v", first, err)
			}
			n.is(t, h)
		}
	})
}

func anyHost(t *rapid.T) Host {
	s := supplyOf(rapid.IntRange(0, 4).Draw(t, "interfaces"))
	var addresses []string
	for _, i := range s.Interfaces {
		for _, a := range i.Addresses[:rapid.IntRange(0, 5).Draw(t, "pods")] {
			addresses = append(addresses, a.String())
		}
	}
	if rapid.Bool().Draw(t, "dual") {
		s.Family = vpc.Dual
		for n := range s.Interfaces {
			s.Interfaces[n].IPv6Prefix = netip.MustParsePrefix(fmt.Sprintf("fd00:192:168:1:%d::/80", n+1))
		}
	}
	s.ExternalSNAT = rapid.Bool().Draw(t, "external SNAT")
	if rapid.Bool().Draw(t, "excluded") {
		s.Excluded = []netip.Prefix{netip.MustParsePrefix("10.8.0.0/16")}
	}
	return PlanHost(s, leasesOf(addresses...), 9001)
}

// is holds rules, tables of routes and the table of nft against the plan.
func (n *node) is(t *rapid.T, h Host) {
	rules, err := n.machine.Here().Rules()
	if err != nil {
		t.Fatal(err)
	}
	want := slices.Clone(h.Rules)
	for _, list := range [][]link.Rule{rules, want} {
		slices.SortFunc(list, func(a, b link.Rule) int { return strings.Compare(a.String(), b.String()) })
	}
	if !slices.Equal(rules, want) {
		t.Fatalf("rules %v, want %v", rules, want)
	}
	devices, err := n.machine.Here().List()
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range devices {
		var routes, want []link.Route
		for _, r := range d.Routes {
			if r.Table != 0 {
				routes = append(routes, r)
			}
		}
		if i := slices.IndexFunc(h.Devices, func(w link.Device) bool { return w.Name == d.Name }); i >= 0 {
			want = h.Devices[i].Routes
		}
		if !slices.Equal(routes, want) {
			t.Fatalf("%s: routes %v, want %v", d.Name, routes, want)
		}
	}
	for _, w := range h.tables() {
		contents, there, err := n.tables.Read(w.Table)
		if err != nil || there != (len(w.chains) > 0) || len(contents.Chains) != len(w.chains) {
			t.Fatalf("table %s: %v, %v, %v", w.Table, contents, there, err)
		}
		for _, c := range w.chains {
			if !slices.Equal(contents.Chains[c.Name], c.comments()) {
				t.Fatalf("table %s, chain %s: %v, want %v", w.Table, c.Name, contents.Chains[c.Name], c.comments())
			}
		}
	}
}

func TestNames(t *testing.T) {
	n := newNode(2)
	names, err := NamesOf(n.machine.Here())
	if err != nil {
		t.Fatal(err)
	}
	if name, err := names.Find("02:00:00:00:00:02"); name != "eth1" || err != nil {
		t.Errorf("got %q, %v", name, err)
	}
	if name, err := names.Find("02:00:00:00:00:09"); name != "" || err != nil {
		t.Errorf("got %q, %v", name, err)
	}
	if _, err := names.Find("02:00"); err == nil {
		t.Error("half an address is fine")
	}
}

// A pod's rules are made with its wire, are missed by a check, and replace those that its address had on
// another interface.
func TestRulesOfAPod(t *testing.T) {
	n := newNode(2)
	ns, l := n.open(t, "/pod"), leaseOf(10)
	w := Plan(l, 1500)
	w.Rules = PodRules(supplyOf(2), l) // 192.168.1.21
	here, pod := n.machine.Here(), n.machine.At(ns)
	stale := link.Rule{Priority: fromPod, From: single(l.Address), Table: 7}
	other := link.Rule{Priority: fromPod, From: netip.MustParsePrefix("192.168.1.22/32"), Table: 7}
	for _, r := range []link.Rule{stale, other} {
		if err := here.AddRule(r); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if err := Setup(here, pod, ns, w); err != nil {
			t.Fatal(err)
		}
		if err := Check(here, pod, w); err != nil {
			t.Error(err)
		}
		rules, _ := here.Rules()
		if got, want := fmt.Sprint(rules), "[512: from all to 192.168.1.21 lookup main 1536: from 192.168.1.22 lookup 7 1536: from 192.168.1.21 lookup 2]"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	if err := here.DeleteRule(w.Rules[1]); err != nil {
		t.Fatal(err)
	}
	if err := Check(here, pod, w); err == nil || !strings.Contains(err.Error(), "host: no rule 1536: from 192.168.1.21 lookup 2") {
		t.Errorf("check: %v", err)
	}
	if err := here.AddRule(link.Rule{Priority: marked, Mark: primaryMark, Mask: primaryMark}); err != nil {
		t.Fatal(err)
	}
	if err := PruneRules(here, func(a netip.Addr) bool { return a == other.From.Addr() }); err != nil {
		t.Fatal(err)
	}
	rules, _ := here.Rules()
	if got, want := fmt.Sprint(rules), "[1024: from all fwmark 0x80/0x80 lookup main 1536: from 192.168.1.22 lookup 7]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
