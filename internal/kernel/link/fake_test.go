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
	List() ([]Device, error)
	Addresses() ([]netip.Addr, error)
	Delete(name string) error
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
	step("delete", here.Delete("a0"), nil)
	_, err = there.Read("b0")
	step("the other end goes too", err, ErrNotFound)
}

func sorted(d Device) string {
	lines := strings.Split(fmt.Sprint(d), "\n")
	slices.Sort(lines[1:])
	return strings.Join(lines, "\n")
}
