package vpc

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func pools() *rapid.Generator[Pool] {
	return rapid.Custom(func(t *rapid.T) Pool {
		var specs []string
		for i := range rapid.IntRange(1, 3).Draw(t, "ranges") {
			n := rapid.IntRange(0, 3).Draw(t, "size")
			specs = append(specs, fmt.Sprintf("10.0.%d.1-10.0.%d.%d", i, i, 1+n))
		}
		p, err := NewPool(specs)
		if err != nil {
			t.Fatal(err)
		}
		return p
	})
}

func key(i int) Key { return Key{Container: fmt.Sprint("c", i), Interface: "eth0"} }

func mustAssign(t *testing.T, p Pool, l Leases, i int) (netip.Addr, Leases) {
	t.Helper()
	lease, l, err := Assign(p, l, key(i), Owner{Namespace: "default", Pod: fmt.Sprint("p", i)}, epoch)
	if err != nil {
		t.Fatal(err)
	}
	return lease.Address, l
}

func TestAddressRestsAsLongAsThePoolAllows(t *testing.T) {
	p, err := NewPool([]string{"10.0.0.1-10.0.0.3"})
	if err != nil {
		t.Fatal(err)
	}
	var l Leases
	var got []string
	give := func(i int) {
		a, next := mustAssign(t, p, l, i)
		l, got = next, append(got, a.String())
	}
	give(1)
	l = Release(l, key(1), epoch)
	give(2) // .1 rests: two others were never used
	give(3)
	l = Release(l, key(2), epoch)
	give(4) // all were used: .1 has rested longest, then .2
	give(5)
	want := []string{"10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.1", "10.0.0.2"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	_, after, err := Assign(p, l, key(6), Owner{}, epoch)
	if !errors.Is(err, ErrExhausted) || !strings.Contains(err.Error(), "all 3 addresses of the pool 10.0.0.1-10.0.0.3 are leased; remove a pod") {
		t.Errorf("exhausted: %v", err)
	}
	if len(after.Held) != 3 {
		t.Errorf("a refused assignment changed the leases: %v", after)
	}
}

// A pool with a prefix gives two addresses that belong together; a lease keeps both, whatever becomes of
// the prefix.
func TestLeaseOfBothFamilies(t *testing.T) {
	pool, err := NewPool([]string{"10.0.0.1-10.0.0.2"})
	if err != nil {
		t.Fatal(err)
	}
	before, old, err := Assign(pool, Leases{}, key(1), Owner{}, epoch)
	if err != nil || before.IPv6.IsValid() {
		t.Fatalf("without a prefix: %+v, %v", before, err)
	}
	dual, err := pool.WithIPv6(netip.MustParsePrefix("fd00:192:168:1:1::/80"))
	if err != nil {
		t.Fatal(err)
	}
	if kept, _, _ := Assign(dual, old, key(1), Owner{}, epoch); kept != before {
		t.Errorf("a lease that was there: %+v, now %+v", before, kept)
	}
	lease, l, err := Assign(dual, old, key(2), Owner{}, epoch)
	if err != nil || lease.Address.String() != "10.0.0.2" || lease.IPv6 != netip.MustParseAddr("fd00:192:168:1:1::10.0.0.2") {
		t.Errorf("got %+v, %v", lease, err)
	}
	if kept, _, _ := Assign(pool, l, key(2), Owner{}, epoch); kept != lease {
		t.Errorf("had %+v, now %+v", lease, kept)
	}
}

func TestLeaseOutlivesItsPool(t *testing.T) {
	wide, _ := NewPool([]string{"10.0.0.1-10.0.0.2"})
	narrow, _ := NewPool([]string{"10.0.0.9"})
	a, l := mustAssign(t, wide, Leases{}, 1)
	if again, _ := mustAssign(t, narrow, l, 1); again != a {
		t.Errorf("got %s, had %s", again, a)
	}
	l = Release(l, key(1), epoch)
	if other, _ := mustAssign(t, narrow, l, 1); other.String() != "10.0.0.9" {
		t.Errorf("got %s, which has left the pool", other)
	}
}

func TestValidate(t *testing.T) {
	a, b, six := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("fd00::1")
	both := Leases{Held: []Lease{{Key: key(1), Address: a}, {Key: key(2), Address: b}}}
	if err := both.Validate(); err != nil { // without IPv6 addresses
		t.Error(err)
	}
	for want, l := range map[string]Leases{
		"held twice":      {Held: []Lease{{Key: key(1), Address: a}, {Key: key(2), Address: a}}},
		"fd00::1":         {Held: []Lease{{Key: key(1), Address: a, IPv6: six}, {Key: key(2), Address: b, IPv6: six}}},
		"second lease":    {Held: []Lease{{Key: key(1), Address: a}, {Key: key(1), Address: b}}},
		"incomplete":      {Held: []Lease{{Key: key(1)}}},
		"resting address": {Resting: []Rest{{}}},
	} {
		if err := l.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

// In any order of calls: no address has two holders, every lease is of the pool, the same key has
// the same lease, an address is refused only when all are held, and what is released can be had.
func TestLeasesInAnyOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pool := pools().Draw(t, "pool")
		var l Leases
		holders := map[Key]netip.Addr{} // the model that the leases are held against
		t.Repeat(map[string]func(*rapid.T){
			"assign": func(t *rapid.T) {
				k := key(rapid.IntRange(0, 15).Draw(t, "key"))
				lease, next, err := Assign(pool, l, k, Owner{}, epoch)
				had, holds := holders[k]
				switch {
				case err != nil && (holds || len(holders) < pool.Size()):
					t.Fatalf("refused with %d of %d held: %v", len(holders), pool.Size(), err)
				case err == nil && holds && lease.Address != had:
					t.Fatalf("%s had %s, now %s", k, had, lease.Address)
				case err == nil:
					l, holders[k] = next, lease.Address
				}
			},
			"release": func(t *rapid.T) {
				k := key(rapid.IntRange(0, 15).Draw(t, "key"))
				l = Release(l, k, epoch)
				delete(holders, k)
			},
			"collect": func(t *rapid.T) {
				valid := rapid.SliceOf(rapid.IntRange(0, 15)).Draw(t, "valid")
				keep := func(h Lease) bool { return slices.ContainsFunc(valid, func(i int) bool { return key(i) == h.Key }) }
				before := l
				var gone []Lease
				l, gone = Collect(l, keep, epoch)
				if len(l.Held)+len(gone) != len(before.Held) {
					t.Fatalf("collected %v of %v, kept %v", gone, before.Held, l.Held)
				}
				for _, g := range gone {
					delete(holders, g.Key)
				}
			},
			"": func(t *rapid.T) {
				if err := l.Validate(); err != nil {
					t.Fatal(err)
				}
				for _, h := range l.Held {
					if holders[h.Key] != h.Address || !pool.Contains(h.Address) {
						t.Fatalf("lease %s: holder has %s", h, holders[h.Key])
					}
				}
				if len(l.Held) != len(holders) || len(l.Held)+len(l.Resting) > pool.Size() {
					t.Fatalf("%d held, %d resting, want %d held of %d", len(l.Held), len(l.Resting), len(holders), pool.Size())
				}
			},
		})
	})
}

// A new value is returned: what the caller had stays as it was.
func TestLeasesAreValues(t *testing.T) {
	pool, _ := NewPool([]string{"10.0.0.1-10.0.0.4"})
	_, one := mustAssign(t, pool, Leases{}, 1)
	_, two := mustAssign(t, pool, one, 2)
	before := fmt.Sprint(two)
	Release(two, key(1), epoch)
	mustAssign(t, pool, Release(two, key(2), epoch), 3)
	if fmt.Sprint(two) != before {
		t.Errorf("changed from %s to %v", before, two)
	}
}
