package link

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/zonewise/zonewise/internal/kernel/netns"
)

// door is what Net and FakeNet have in common.
type door interface {
	Pair(here, there Device, other *netns.NS) error
	Ensure(Device) error
	Read(name string) (Device, error)
	Find(name string) (Device, error)
	Uplink() (Device, error)
	List() ([]Device, error)
	Addresses() ([]netip.Addr, error)
	Unroute(device string, r Route) error
	Delete(name string) error
	Rules() ([]Rule, error)
	AddRule(Rule) error
	DeleteRule(Rule) error
	Loosen(device string) error
	Close()
}

func TestFakeConforms(t *testing.T) {
	var spaces netns.Fake
	var f Fake
	spaces.Add("/far")
	far, err := spaces.Open("/far")
	if err != nil {
		t.Fatal(err)
	}
	f.Here().Put(Device{Name: "lo"})
	conforms(t, f.Here(), f.At(far), far)
}

func TestFakeUplink(t *testing.T) {
	var spaces netns.Fake
	var f Fake
	spaces.Add("/far")
	far, err := spaces.Open("/far")
	if err != nil {
		t.Fatal(err)
	}
	uplinks(t, f.Here(), far)
}

// uplinks gives a namespace without devices one that leads everywhere.
func uplinks(t *testing.T, here door, far *netns.NS) {
	t.Helper()
	if _, err := here.Uplink(); !errors.Is(err, ErrNotFound) {
		t.Errorf("without a route: %v", err)
	}
	address := Device{Name: "up0", Up: true, Addresses: []netip.Prefix{netip.MustParsePrefix("10.9.0.2/24")}}
	route := Device{Name: "up0", Routes: []Route{{To: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.MustParseAddr("10.9.0.1")}}}
	if err := errors.Join(here.Pair(Device{Name: "up0", MTU: 9001}, Device{Name: "up0", MTU: 9001}, far), here.Ensure(address), here.Ensure(route)); err != nil {
		t.Fatal(err)
	}
	for what, ask := range map[string]func() (Device, error){"uplink": here.Uplink, "find": func() (Device, error) { return here.Find("up0") }} {
		d, err := ask()
		if err != nil || d.Name != "up0" || d.MTU != 9001 || len(d.Routes)+len(d.Addresses) > 0 {
			t.Errorf("%s: %+v, %v", what, d, err)
		}
	}
	if _, err := here.Find("up1"); !errors.Is(err, ErrNotFound) {
		t.Errorf("find nothing: %v", err)
	}
}

func TestFakeFails(t *testing.T) {
	fault := errors.New("fault")
	f := Fake{Fail: func(op string) error {
		if op == "ensure" {
			return fault
		}
		return nil
	}}
	if err := f.Here().Ensure(Device{Name: "a"}); !errors.Is(err, fault) {
		t.Errorf("got %v", err)
	}
	if err := f.Here().Delete("a"); err != nil {
		t.Error(err)
	}
}

// conforms is what both the kernel and the fake do, step by step.
func conforms(t *testing.T, here, there door, far *netns.NS) {
	a := Device{
		Name: "a0", Alias: "left hand", MAC: MAC{2, 0, 0, 0, 0, 1}, MTU: 1400, Up: true,
		Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/32"), netip.MustParsePrefix("fd00::1/128")},
		Neighbours: []Neighbour{
			{Address: netip.MustParseAddr("10.0.0.2"), MAC: MAC{2, 0, 0, 0, 0, 2}},
			{Address: netip.MustParseAddr("fe80::1"), MAC: MAC{2, 0, 0, 0, 0, 2}},
		},
		Routes: []Route{
			{To: netip.MustParsePrefix("10.0.0.2/32")},
			{To: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.MustParseAddr("10.0.0.2")},
			{To: netip.MustParsePrefix("fd00::2/128")},
			{To: netip.MustParsePrefix("::/0"), Via: netip.MustParseAddr("fe80::1")},
		},
	}
	b := Device{Name: "b0", MAC: MAC{2, 0, 0, 0, 0, 2}, MTU: 1400}
	step := func(what string, err, want error) {
		t.Helper()
		if !errors.Is(err, want) || want == nil && err != nil {
			t.Fatalf("%s: got %v, want %v", what, err, want)
		}
	}
	shows := func(d door, want Device) {
		t.Helper()
		got, err := d.Read(want.Name)
		step("read", err, nil)
		if sorted(got) != sorted(want) {
			t.Errorf("got %swant %s", got, want)
		}
	}
	_, err := here.Read("a0")
	step("read nothing", err, ErrNotFound)
	step("delete nothing", here.Delete("a0"), nil)
	step("ensure nothing", here.Ensure(a), ErrNotFound)
	step("pair", here.Pair(a, b, far), nil)
	step("pair again", here.Pair(a, b, far), ErrExists)
	step("pair with a name taken there", here.Pair(Device{Name: "a1"}, b, far), ErrExists)
	_, err = here.Read("a1")
	step("nothing half made", err, ErrNotFound)
	shows(there, b)
	for range 2 {
		step("ensure", there.Ensure(Device{Name: "b0", Up: true}), nil)
		step("ensure", here.Ensure(a), nil)
		shows(here, a)
	}
	addresses, err := here.Addresses()
	step("addresses", err, nil)
	if !slices.Contains(addresses, netip.MustParseAddr("10.0.0.1")) {
		t.Errorf("addresses: %v", addresses)
	}
	a.Neighbours[0].MAC = MAC{2, 0, 0, 0, 0, 3}
	step("another neighbour", here.Ensure(a), nil)
	shows(here, a)
	list, err := here.List()
	step("list", err, nil)
	if i := slices.IndexFunc(list, func(d Device) bool { return d.Name == "a0" }); i < 0 ||
		list[i].Alias != a.Alias || len(list[i].Routes) != len(a.Routes) || len(list) != 2 {
		t.Errorf("list: %v", list)
	}
	conformsInTables(t, here)
	conformsInRules(t, here)
	step("loosen", here.Loosen("a0"), nil)
	step("loosen again", here.Loosen("a0"), nil)
	step("loosen nothing", here.Loosen("a1"), ErrNotFound)
	step("delete", here.Delete("a0"), nil)
	_, err = there.Read("b0")
	step("the other end goes too", err, ErrNotFound)
}

// conformsInTables takes a0 for the second interface of a node: its routes are in a table of its own, and
// no subnet is reached by it but through that.
func conformsInTables(t *testing.T, d door) {
	gateway := netip.MustParseAddr("10.1.0.1")
	all := netip.MustParsePrefix("0.0.0.0/0")
	subnet := Route{To: netip.MustParsePrefix("10.1.0.0/24")}
	want := Device{Name: "a0", MTU: 1300, Addresses: []netip.Prefix{netip.MustParsePrefix("10.1.0.2/24")}}
	expect := func(what string, routes ...Route) {
		t.Helper()
		have, err := d.Read("a0")
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range routes {
			if !slices.Contains(have.Routes, r) {
				t.Errorf("%s: no %s in %v", what, r, have.Routes)
			}
		}
		if slices.Contains(have.Routes, subnet) != slices.Contains(routes, subnet) || have.MTU != want.MTU {
			t.Errorf("%s: %v", what, have)
		}
	}
	ensure := func() {
		t.Helper()
		if err := d.Ensure(want); err != nil {
			t.Fatal(err)
		}
	}
	ensure()
	expect("an address brings the route to its subnet", subnet)
	want.NoSubnetRoutes = true
	want.Routes = []Route{{To: netip.PrefixFrom(gateway, 32), Table: 2}, {To: all, Via: gateway, Table: 2}}
	for range 2 {
		ensure()
		expect("in a table of its own", append(want.Routes, Route{To: all, Via: netip.MustParseAddr("10.0.0.2")})...)
	}
	for range 2 {
		for _, r := range want.Routes {
			if err := d.Unroute("a0", r); err != nil {
				t.Fatal(err)
			}
		}
	}
	have, err := d.Read("a0")
	if i := slices.IndexFunc(have.Routes, func(r Route) bool { return r.Table != 0 }); err != nil || i >= 0 {
		t.Errorf("left: %v, %v", have.Routes, err)
	}
	if err := d.Unroute("a1", subnet); err != nil {
		t.Errorf("of no device: %v", err)
	}
}

func conformsInRules(t *testing.T, d door) {
	pod := netip.MustParsePrefix("10.1.0.3/32")
	want := []Rule{
		{Priority: 512, To: pod},
		{Priority: 1024, Mark: 0x80, Mask: 0x80},
		{Priority: 1536, From: pod, Table: 2},
		{Priority: 1536, From: netip.MustParsePrefix("10.1.0.16/28"), Table: 3},
		{Priority: 1540, From: pod, To: netip.MustParsePrefix("10.2.0.0/16"), Table: 1000},
		{Priority: 512, To: netip.MustParsePrefix("fd00::3/128")},
		{Priority: 1024, From: netip.MustParsePrefix("::/0"), Mark: 0x80, Mask: 0x80},
		{Priority: 1536, From: netip.MustParsePrefix("fd00::3/128"), Table: 2},
	}
	shows := func(want []Rule) {
		t.Helper()
		if have, err := d.Rules(); err != nil || !slices.Equal(have, want) {
			t.Errorf("got %v, %v, want %v", have, err, want)
		}
	}
	shows(nil) // those that every namespace has are not ours
	for range 2 {
		for _, r := range []Rule{want[1], want[5], want[2], want[0], want[7], want[3], want[6], want[4]} {
			if err := d.AddRule(r); err != nil {
				t.Fatal(err)
			}
		}
		shows(want)
	}
	for range 2 {
		if err := d.DeleteRule(want[2]); err != nil {
			t.Fatal(err)
		}
		shows(append([]Rule{want[0], want[1]}, want[3:]...))
	}
	for _, r := range want {
		if err := d.DeleteRule(r); err != nil {
			t.Fatal(err)
		}
	}
	shows(nil)
}

func TestStrings(t *testing.T) {
	pod := netip.MustParsePrefix("192.168.1.12/32")
	for _, c := range []struct {
		fact fmt.Stringer
		want string
	}{
		{Rule{Priority: 512, To: pod}, "512: from all to 192.168.1.12 lookup main"},
		{Rule{Priority: 1024, Mark: 0x80, Mask: 0x80}, "1024: from all fwmark 0x80/0x80 lookup main"},
		{Rule{Priority: 1536, From: pod, Table: 2}, "1536: from 192.168.1.12 lookup 2"},
		{Rule{Priority: 1, From: netip.MustParsePrefix("10.0.0.0/8"), Table: 2}, "1: from 10.0.0.0/8 lookup 2"},
		{Route{To: pod, Table: 2}, "192.168.1.12/32 scope link table 2"},
		{Route{To: netip.MustParsePrefix("0.0.0.0/0"), Via: pod.Addr(), Table: 2}, "default via 192.168.1.12 table 2"},
	} {
		if got := c.fact.String(); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}

func sorted(d Device) string {
	lines := strings.Split(fmt.Sprint(d), "\n")
	slices.Sort(lines[1:])
	return strings.Join(lines, "\n")
}
