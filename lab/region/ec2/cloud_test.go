package ec2

import (
	"errors"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// clock is a time that stands still until it is moved.
type clock struct {
	now     time.Time
	pending []alarm
}

type alarm struct {
	at time.Time
	do func()
}

func (c *clock) after(d time.Duration, do func()) {
	c.pending = append(c.pending, alarm{c.now.Add(d), do})
}

// move lets time pass, and what was to happen in it happen.
func (c *clock) move(d time.Duration) {
	c.now = c.now.Add(d)
	due := c.pending
	c.pending = nil
	for _, a := range due {
		if a.at.After(c.now) {
			c.pending = append(c.pending, a)
		} else {
			a.do()
		}
	}
}

var (
	subnetA = netip.MustParsePrefix("192.168.1.0/24")
	subnetB = netip.MustParsePrefix("192.168.2.0/28")
	ipv6A   = netip.MustParsePrefix("fd00:192:168:1::/64")
)

func blueprint() Blueprint {
	return Blueprint{
		Name: "lab", Region: "ap-northeast-2",
		VPC: netip.MustParsePrefix("192.168.0.0/16"), IPv6: netip.MustParsePrefix("fd00:192:168::/56"),
		Kept: []netip.Prefix{netip.MustParsePrefix("192.168.0.0/24")},
		Subnets: []NewSubnet{
			{Zone: "ap-northeast-2a", CIDR: subnetA, IPv6: ipv6A},
			{Zone: "ap-northeast-2b", CIDR: subnetB},
		},
	}
}

// region is a cloud for tests, with an instance in each subnet.
type region struct {
	*Cloud
	*clock
	t    testing.TB
	a, b *Instance
}

func newRegion(t testing.TB, o Options) *region {
	t.Helper()
	r := &region{t: t, clock: &clock{now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}}
	o.Now, o.After, o.Seed = func() time.Time { return r.clock.now }, r.after, "test"
	cloud, err := Open(blueprint(), o)
	if err != nil {
		t.Fatal(err)
	}
	r.Cloud = cloud
	r.a = r.launch("a1", "t3.medium", subnetA, "192.168.1.10")
	r.b = r.launch("b1", "t3.small", subnetB, "192.168.2.4")
	return r
}

func (r *region) launch(node, kind string, subnet netip.Prefix, address string) *Instance {
	r.t.Helper()
	i, err := r.Launch(Launch{Node: node, Type: kind, Subnet: subnet, DNSName: node, Address: netip.MustParseAddr(address)})
	if err != nil {
		r.t.Fatal(err)
	}
	return i
}

func (r *region) subnet(cidr netip.Prefix) string {
	for id, s := range r.Records().Subnets {
		if s.CIDR == cidr {
			return id
		}
	}
	r.t.Fatalf("no subnet %s", cidr)
	return ""
}

func (r *region) primary(i *Instance) *Interface { return r.Records().Attached(i.ID)[0] }

// create makes an interface with so many secondary addresses.
func (r *region) create(subnet netip.Prefix, secondary int) *Interface {
	r.t.Helper()
	n, err := r.CreateInterface(NewInterface{Subnet: r.subnet(subnet), IPv4: Ask{Count: secondary}})
	if err != nil {
		r.t.Fatal(err)
	}
	return n
}

// code is EC2's code of an error; the text of any other.
func code(err error) string {
	if e := (*Error)(nil); errors.As(err, &e) {
		return e.Code
	} else if err != nil {
		return err.Error()
	}
	return ""
}

func TestLimitsOfTheInstanceType(t *testing.T) {
	r := newRegion(t, Options{})
	for range 2 {
		if _, err := r.Attach(r.a.ID, r.create(subnetA, 5).ID, len(r.Records().Attached(r.a.ID)), 0); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := r.Attach(r.a.ID, r.create(subnetA, 0).ID, 3, 0); code(err) != "AttachmentLimitExceeded" {
		t.Errorf("fourth interface of a t3.medium: %v", err)
	}
	id := r.primary(r.a).ID
	if got, err := r.Assign(id, Ask{Count: 3, PrefixCount: 2}, false); err != nil || len(got.Addresses) != 3 || len(got.Prefixes) != 2 {
		t.Fatalf("assign: %v, %v", got, err)
	}
	for _, ask := range []Ask{{Count: 1}, {PrefixCount: 1}, {Addresses: []netip.Addr{netip.MustParseAddr("192.168.1.200")}}} {
		if _, err := r.Assign(id, ask, false); code(err) != "PrivateIpAddressLimitExceeded" {
			t.Errorf("seventh slot by %+v: %v", ask, err)
		}
	}
	// An interface that nobody uses can have more, but then nobody of that type can have it.
	large := r.create(subnetA, 6)
	if _, err := r.Attach(r.b.ID, large.ID, 1, 0); code(err) != "InvalidParameterCombination" {
		t.Errorf("attach across zones: %v", err)
	}
	if err := r.Detach(r.Records().Attached(r.a.ID)[2].Attachment.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Attach(r.a.ID, large.ID, 2, 0); code(err) != "PrivateIpAddressLimitExceeded" {
		t.Errorf("attach of what is too large: %v", err)
	}
}

func TestPrefixesNeedATypeThatHasThem(t *testing.T) {
	r := newRegion(t, Options{})
	old := r.launch("a2", "c3.large", subnetA, "192.168.1.20")
	if _, err := r.Assign(r.primary(old).ID, Ask{PrefixCount: 1}, false); code(err) != "UnsupportedOperation" {
		t.Errorf("a prefix on a c3.large: %v", err)
	}
	if _, err := r.Launch(Launch{Node: "a3", Type: "t9.large", Subnet: subnetA, Address: netip.MustParseAddr("192.168.1.30")}); code(err) != "InvalidInstanceType" {
		t.Errorf("a type that does not exist: %v", err)
	}
}

func TestAddresses(t *testing.T) {
	r := newRegion(t, Options{})
	free := func(cidr netip.Prefix) int {
		records := r.Records()
		return records.FreeAddresses(records.Subnets[r.subnet(cidr)])
	}
	if got := free(subnetA); got != 256-5-1 {
		t.Errorf("free in %s with one instance: %d", subnetA, got)
	}
	n := r.create(subnetA, 2)
	want := []netip.Addr{netip.MustParseAddr("192.168.1.4"), netip.MustParseAddr("192.168.1.5"), netip.MustParseAddr("192.168.1.6")}
	if !slices.Equal(n.Addresses, want) {
		t.Errorf("the lowest free addresses are %v, not %v", want, n.Addresses)
	}
	if _, err := r.Assign(n.ID, Ask{PrefixCount: 2}, false); err != nil {
		t.Fatal(err)
	}
	if got := free(subnetA); got != 256-5-1-3-32 {
		t.Errorf("free after an interface with two prefixes: %d", got)
	}
	if got := r.Records().Interfaces[n.ID].Prefixes[0]; got != netip.MustParsePrefix("192.168.1.16/28") {
		t.Errorf("the first prefix is the first block that nothing is in, not %s", got)
	}
	for _, c := range []struct{ address, want string }{
		{"192.168.1.0", "InvalidParameterValue"}, {"192.168.1.3", "InvalidParameterValue"}, {"192.168.1.255", "InvalidParameterValue"},
		{"192.168.2.5", "InvalidParameterValue"}, {"fd00::1", "InvalidParameterValue"},
		{"192.168.1.10", "InvalidIPAddress.InUse"}, {"192.168.1.17", "InvalidIPAddress.InUse"},
		{"192.168.1.5", ""}, // it has it
		{"192.168.1.99", ""},
	} {
		if _, err := r.Assign(n.ID, Ask{Addresses: []netip.Addr{netip.MustParseAddr(c.address)}}, false); code(err) != c.want {
			t.Errorf("assign %s: %v, not %q", c.address, err, c.want)
		}
	}
	// A /28 has 16 addresses, of which five are reserved and one is the instance's.
	r.create(subnetB, 8)
	if got := free(subnetB); got != 1 {
		t.Errorf("free in %s: %d", subnetB, got)
	}
	if _, err := r.CreateInterface(NewInterface{Subnet: r.subnet(subnetB), IPv4: Ask{Count: 1}}); code(err) != "InsufficientFreeAddressesInSubnet" {
		t.Errorf("two more: %v", err)
	}
	if got := free(subnetB); got != 1 {
		t.Errorf("a refused interface took %d addresses", 1-got)
	}
	if _, err := r.CreateInterface(NewInterface{Subnet: r.subnet(subnetB), IPv4: Ask{PrefixCount: 1}}); code(err) != "InsufficientCidrBlocks" {
		t.Errorf("a prefix: %v", err)
	}
}

func TestFragments(t *testing.T) {
	r := newRegion(t, Options{})
	var every []netip.Addr
	for i := range 16 {
		every = append(every, netip.AddrFrom4([4]byte{192, 168, 1, byte(16*i + 9)}))
	}
	n, err := r.CreateInterface(NewInterface{Subnet: r.subnet(subnetA), IPv4: Ask{Addresses: every}})
	if err != nil {
		t.Fatal(err)
	}
	ask := NewInterface{Subnet: r.subnet(subnetA), IPv4: Ask{PrefixCount: 1}}
	if _, err := r.CreateInterface(ask); code(err) != "InsufficientCidrBlocks" {
		t.Fatalf("a prefix in a subnet with an address in every block: %v", err)
	}
	if err := r.Unassign(n.ID, Granted{Addresses: every[15:]}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.CreateInterface(ask); code(err) != "InsufficientCidrBlocks" {
		t.Errorf("the last block has the last address, which nobody can have: %v", err)
	}
	if err := r.Unassign(n.ID, Granted{Addresses: every[7:8]}); err != nil {
		t.Fatal(err)
	}
	got, err := r.CreateInterface(ask)
	if err != nil || got.Prefixes[0] != netip.MustParsePrefix("192.168.1.112/28") {
		t.Errorf("a prefix where a block is free: %v, %v", got, err)
	}
}

func TestReservations(t *testing.T) {
	r := newRegion(t, Options{})
	id := r.subnet(subnetA)
	reserve := func(cidr, kind string) error {
		_, err := r.Reserve(id, Reservation{CIDR: netip.MustParsePrefix(cidr), Type: kind})
		return err
	}
	for _, c := range []struct{ cidr, kind, want string }{
		{"192.168.1.128/26", ReservePrefix, ""},
		{"192.168.1.64/27", ReserveExplicit, ""},
		{"192.168.1.24/29", ReserveExplicit, ""},
		{"192.168.1.128/28", ReservePrefix, "InvalidSubnetCidrReservation.Conflict"},
		{"192.168.2.0/28", ReservePrefix, "InvalidParameterValue"},
		{"192.168.1.192/29", ReservePrefix, "InvalidParameterValue"},
		{"192.168.1.192/28", "other", "InvalidParameterValue"},
	} {
		if err := reserve(c.cidr, c.kind); code(err) != c.want {
			t.Errorf("reserve %s for %s: %v, not %q", c.cidr, c.kind, err, c.want)
		}
	}
	n, err := r.CreateInterface(NewInterface{Subnet: id, IPv4: Ask{Count: 100, PrefixCount: 5}})
	if err != nil {
		t.Fatal(err)
	}
	if n.Prefixes[0] != netip.MustParsePrefix("192.168.1.128/28") {
		t.Errorf("prefixes come from what is reserved for them first: %v", n.Prefixes)
	}
	if n.Prefixes[4] != netip.MustParsePrefix("192.168.1.32/28") {
		t.Errorf("the next is the first block of which nothing is reserved: %v", n.Prefixes)
	}
	for _, a := range n.Addresses {
		if k, ok := r.Records().ground(r.Records().Subnets[id]).reservation(a); ok {
			t.Errorf("%s was chosen within reservation %s", a, k.CIDR)
		}
	}
	if _, err := r.Assign(n.ID, Ask{Addresses: []netip.Addr{netip.MustParseAddr("192.168.1.70")}}, false); err != nil {
		t.Errorf("an address that was reserved for those who ask by value: %v", err)
	}
	for kid, k := range r.Records().Subnets[id].Reservations {
		if _, of, err := r.Unreserve(k.ID); err != nil || of != id {
			t.Errorf("end of reservation %d: %v", kid, err)
		}
		if _, _, err := r.Unreserve(k.ID); code(err) != "InvalidSubnetCidrReservationID.NotFound" {
			t.Errorf("end of reservation %d again: %v", kid, err)
		}
	}
}

func TestReassignment(t *testing.T) {
	r := newRegion(t, Options{})
	from, to := r.create(subnetA, 1), r.create(subnetA, 0)
	moves := Ask{Addresses: from.Addresses[1:]}
	if _, err := r.Assign(to.ID, moves, false); code(err) != "InvalidIPAddress.InUse" {
		t.Errorf("an address of another without leave: %v", err)
	}
	if _, err := r.Assign(to.ID, moves, true); err != nil {
		t.Fatal(err)
	}
	if len(r.Records().Interfaces[from.ID].Addresses) != 1 || len(r.Records().Interfaces[to.ID].Addresses) != 2 {
		t.Error("the address did not move")
	}
	if _, err := r.Assign(to.ID, Ask{Addresses: from.Addresses[:1]}, true); code(err) != "InvalidIPAddress.InUse" {
		t.Errorf("a primary address of another: %v", err)
	}
	if err := r.Unassign(to.ID, Granted{Addresses: to.Addresses[:1]}); code(err) != "InvalidParameterValue" {
		t.Errorf("the primary address: %v", err)
	}
	if err := r.Unassign(from.ID, Granted{Addresses: moves.Addresses}); code(err) != "InvalidParameterValue" {
		t.Errorf("what it no longer has: %v", err)
	}
}

func TestIPv6(t *testing.T) {
	r := newRegion(t, Options{})
	n := r.primary(r.a)
	got, err := r.AssignIPv6(n.ID, Ask{Count: 1, PrefixCount: 1})
	if err != nil || got.Addresses[0].String() != "fd00:192:168:1::4" || got.Prefixes[0].String() != "fd00:192:168:1:1::/80" {
		t.Fatalf("got %v, %v", got, err)
	}
	if _, err := r.AssignIPv6(n.ID, Ask{Count: 5}); code(err) != "PrivateIpAddressLimitExceeded" {
		t.Errorf("seven slots: %v", err)
	}
	if _, err := r.AssignIPv6(n.ID, Ask{Addresses: []netip.Addr{netip.MustParseAddr("fd00:192:168:1:1::9")}}); code(err) != "InvalidIPAddress.InUse" {
		t.Errorf("an address of the prefix: %v", err)
	}
	if _, err := r.AssignIPv6(r.primary(r.b).ID, Ask{Count: 1}); code(err) != "InvalidParameterValue" {
		t.Errorf("in a subnet without IPv6: %v", err)
	}
	if err := r.UnassignIPv6(n.ID, got); err != nil {
		t.Fatal(err)
	}
	if n := r.primary(r.a); len(n.IPv6)+len(n.IPv6Prefixes) != 0 {
		t.Error("not unassigned")
	}
}

func TestTokens(t *testing.T) {
	r := newRegion(t, Options{})
	want := NewInterface{Subnet: r.subnet(subnetA), Token: "once", Tags: Tags{"b": "1", "a": "2"}}
	first, err := r.CreateInterface(want)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := r.CreateInterface(want); err != nil || again.ID != first.ID {
		t.Errorf("the same token made %v, %v", again, err)
	}
	want.Description = "other"
	if _, err := r.CreateInterface(want); code(err) != "IdempotentParameterMismatch" {
		t.Errorf("the same token for something else: %v", err)
	}
}

func TestAttachmentsTakeTheirTime(t *testing.T) {
	r := newRegion(t, Options{AttachTime: 2 * time.Second, DetachTime: time.Second})
	changes := r.Changes()
	<-changes
	n := r.create(subnetA, 1)
	a, err := r.Attach(r.a.ID, n.ID, 1, 0)
	if err != nil {
		t.Fatal(err)
	}
	delivered := func() bool {
		return slices.ContainsFunc(r.Delivery().Instances[0].Interfaces, func(i InterfaceDelivery) bool { return i.ID == n.ID })
	}
	state := func() string {
		if a := r.Records().Interfaces[n.ID].Attachment; a != nil {
			return a.State(r.clock.now)
		}
		return ""
	}
	if delivered() || state() != Attaching {
		t.Errorf("at once: delivered %v, %q", delivered(), state())
	}
	<-changes
	r.move(2 * time.Second)
	select {
	case <-changes:
	default:
		t.Error("nobody was told that the interface is there")
	}
	if !delivered() || state() != Attached {
		t.Errorf("after two seconds: delivered %v, %q", delivered(), state())
	}
	if err := r.DeleteInterface(n.ID); code(err) != "InvalidParameterValue" {
		t.Errorf("delete while attached: %v", err)
	}
	if err := r.Detach(a.ID); err != nil {
		t.Fatal(err)
	}
	if delivered() || state() != Detaching {
		t.Errorf("detached: delivered %v, %q", delivered(), state())
	}
	if err := r.Detach(a.ID); code(err) != "IncorrectState" {
		t.Errorf("detach again: %v", err)
	}
	if _, err := r.Attach(r.a.ID, n.ID, 2, 0); code(err) != "InvalidNetworkInterface.InUse" {
		t.Errorf("attach while it is being detached: %v", err)
	}
	r.move(time.Second)
	if state() != "" {
		t.Errorf("after a second: %q", state())
	}
	if err := r.DeleteInterface(n.ID); err != nil {
		t.Error(err)
	}
	if err := r.Detach(r.primary(r.a).Attachment.ID); code(err) != "OperationNotPermitted" {
		t.Errorf("detach the primary interface: %v", err)
	}
}

func TestTermination(t *testing.T) {
	r := newRegion(t, Options{})
	goes, stays := r.create(subnetA, 0), r.create(subnetA, 0)
	for device, n := range []*Interface{goes, stays} {
		a, err := r.Attach(r.a.ID, n.ID, device+1, 0)
		if err != nil {
			t.Fatal(err)
		}
		yes := n == goes
		if err := r.ModifyInterface(n.ID, InterfaceChange{Attachment: a.ID, DeleteOnTermination: &yes}); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range []Power{PowerOff, PowerOff} { // the second time changes nothing
		if err := r.Power(p, r.a.ID); err != nil {
			t.Fatal(err)
		}
	}
	if i := r.Records().Instances[r.a.ID]; i.Running() || i.Gone() || r.Records().Interfaces[goes.ID].Attachment == nil {
		t.Errorf("stopped: %+v", i)
	}
	if d := r.Delivery(); len(d.Instances) != 1 {
		t.Errorf("delivered to %v, of which one has no power", d.Instances)
	}
	if again := r.launch("a1", "t3.medium", subnetA, "192.168.1.10"); again.ID != r.a.ID || !again.Running() || again.Boots != 1 {
		t.Errorf("a lab that goes on starts what was stopped: %+v", again)
	}
	if err := r.Power(Reboot, r.a.ID, "i-0123456789abcdef0"); code(err) != "InvalidInstanceID.NotFound" || r.Records().Instances[r.a.ID].Boots != 1 {
		t.Errorf("a reboot of two, one of which is not there: %v", err)
	}
	for range 2 { // the second time changes nothing
		if err := r.Terminate(r.a.ID); err != nil {
			t.Fatal(err)
		}
	}
	records := r.Records()
	if records.Interfaces[goes.ID] != nil || records.Interfaces[stays.ID] == nil || records.Interfaces[stays.ID].Attachment != nil {
		t.Error("of two interfaces the one that is not to go with the instance stays, unattached")
	}
	if d := r.Delivery(); len(d.Instances) != 1 || d.Instances[0].Node != "b1" {
		t.Errorf("delivered to %v", d.Instances)
	}
	if _, err := r.Attach(r.a.ID, stays.ID, 1, 0); code(err) != "IncorrectState" {
		t.Errorf("attach to what is terminated: %v", err)
	}
	for range 20 { // more than there is room for before the node's address
		if slices.Contains(r.create(subnetA, 0).Addresses, netip.MustParseAddr("192.168.1.10")) {
			t.Fatal("the address of a node that is away was given to another")
		}
	}
	next := r.launch("a1", "t3.medium", subnetA, "192.168.1.10")
	if next.ID == r.a.ID {
		t.Error("an instance that was terminated runs again")
	}
	if again := r.launch("a1", "t3.medium", subnetA, "192.168.1.10"); again.ID != next.ID {
		t.Error("a node that has an instance got another")
	}
	if _, err := r.Launch(Launch{Node: "a1", Type: "t3.large", Subnet: subnetA, Address: netip.MustParseAddr("192.168.1.10")}); err == nil || !strings.Contains(err.Error(), "take the lab down") {
		t.Errorf("a node that changed its type: %v", err)
	}
	r.move(remembered)
	if r.Records().Instances[r.a.ID] != nil {
		t.Error("a terminated instance is listed for ever")
	}
}

func TestSubnets(t *testing.T) {
	r := newRegion(t, Options{})
	zone := "ap-northeast-2a"
	for _, c := range []struct{ zone, cidr, want string }{
		{zone, "192.168.0.0/25", "InvalidSubnet.Conflict"}, // kept
		{zone, "192.168.1.128/25", "InvalidSubnet.Conflict"},
		{zone, "10.0.0.0/24", "InvalidSubnet.Range"},
		{zone, "192.168.3.0/29", "InvalidSubnet.Range"},
		{zone, "192.168.3.1/24", "InvalidSubnet.Range"},
		{"ap-northeast-2z", "192.168.3.0/24", "InvalidParameterValue"},
		{zone, "192.168.3.0/24", ""},
		{zone, "100.64.0.0/24", "InvalidSubnet.Range"},
	} {
		if _, err := r.CreateSubnet(NewSubnet{Zone: c.zone, CIDR: netip.MustParsePrefix(c.cidr)}, nil); code(err) != c.want {
			t.Errorf("subnet %s in %s: %v, not %q", c.cidr, c.zone, err, c.want)
		}
	}
	if err := r.Associate(netip.MustParsePrefix("100.64.0.0/16")); err != nil {
		t.Fatal(err)
	}
	s, err := r.CreateSubnet(NewSubnet{Zone: zone, CIDR: netip.MustParsePrefix("100.64.0.0/24")}, nil)
	if err != nil {
		t.Fatal(err)
	}
	n := r.create(s.CIDR, 0)
	if err := r.DeleteSubnet(s.ID); code(err) != "DependencyViolation" {
		t.Errorf("delete a subnet in use: %v", err)
	}
	if err := r.DeleteInterface(n.ID); err != nil {
		t.Fatal(err)
	}
	if err := r.DeleteSubnet(s.ID); err != nil {
		t.Error(err)
	}
	if got := r.Records().ZoneID("ap-northeast-2b"); got != "apne2-az2" {
		t.Errorf("zone b is %s", got)
	}
}

func TestGroupsAndTags(t *testing.T) {
	r := newRegion(t, Options{})
	group := r.Records().groupsNamed("-ng1-")[0]
	rule := Rule{Protocol: "-1", From: -1, To: -1, CIDR: netip.MustParsePrefix("192.168.1.100/32")}
	if added, err := r.Authorize(group, []Rule{rule}); err != nil || added[0].ID == "" {
		t.Fatalf("authorize: %v, %v", added, err)
	}
	if _, err := r.Authorize(group, []Rule{rule}); code(err) != "InvalidPermission.Duplicate" {
		t.Errorf("authorize again: %v", err)
	}
	if err := r.Revoke(group, []Rule{rule}); err != nil {
		t.Error(err)
	}
	if err := r.Revoke(group, []Rule{rule}); code(err) != "InvalidPermission.NotFound" {
		t.Errorf("revoke again: %v", err)
	}
	if err := r.DeleteGroup(group); code(err) != "DependencyViolation" {
		t.Errorf("delete a group in use: %v", err)
	}
	n, other := r.primary(r.a), "other"
	if err := r.Tag([]string{n.ID, r.a.ID}, Tags{"k": "v"}); err != nil {
		t.Fatal(err)
	}
	if err := r.Tag([]string{n.ID, "eni-00000000000000000"}, Tags{"half": "done"}); code(err) != "InvalidNetworkInterfaceID.NotFound" {
		t.Errorf("tag what is not there: %v", err)
	}
	if err := r.Untag([]string{n.ID}, map[string]*string{"k": &other}); err != nil {
		t.Fatal(err)
	}
	if got := r.primary(r.a).Tags; !reflect.DeepEqual(got, Tags{"k": "v"}) {
		t.Errorf("tags are %v", got)
	}
	if err := r.Untag([]string{n.ID}, map[string]*string{"k": nil}); err != nil || len(r.primary(r.a).Tags) != 0 {
		t.Errorf("tags are %v, %v", r.primary(r.a).Tags, err)
	}
}
