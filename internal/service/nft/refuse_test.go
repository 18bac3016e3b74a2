package nft

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/zonewise/zonewise/internal/kernel/conntrack"
	"github.com/zonewise/zonewise/internal/kernel/nft"
	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/service"
)

// refusing makes a kernel that takes nothing of the named Services.
func refusing(k *nft.Fake, all desired, names ...model.Name) {
	bad := map[string]bool{}
	for _, n := range names {
		for _, f := range all[n] {
			bad[frontend(f.Key())] = true
		}
	}
	k.Refuse = func(set string, e nft.Element) error {
		if (set == sets[services].Name || set == sets[unreachable].Name) && bad[e.Key] {
			return syscall.ENOSPC
		}
		return nil
	}
}

func without(all desired, names ...model.Name) desired {
	out := maps.Clone(all)
	for _, n := range names {
		delete(out, n)
	}
	return out
}

// What the kernel refuses is left out and named; all others are programmed, by whichever way they
// came; and it is programmed as soon as the kernel takes it.
func TestARefusedServiceIsAlone(t *testing.T) {
	for seed := range uint64(8) {
		r := rand.New(rand.NewPCG(seed, 13))
		all := random(r)
		names := sortedNames(all)
		bad := []model.Name{names[r.IntN(len(names))], names[r.IntN(len(names))]}
		whole, w := world(t)
		ok(t, w.Apply(all, true))
		rest, o := world(t)
		ok(t, o.Apply(without(all, bad...), true))

		for way, apply := range map[string]func(*Applier) error{
			"at the start": func(a *Applier) error { return a.Apply(all, true) },
			"at once":      func(a *Applier) error { return errors.Join(a.Apply(nil, true), a.Update(all)) },
			"one by one": func(a *Applier) error {
				errs := []error{a.Apply(nil, true)}
				for _, n := range names {
					errs = append(errs, a.Update(desired{n: all[n]}))
				}
				return errors.Join(errs...)
			},
			"by a successor": func(a *Applier) error {
				errs := []error{a.Apply(without(all, bad...), true), a.Apply(nil, false)}
				return errors.Join(append(errs, a.Update(all), a.Apply(all, true))...)
			},
		} {
			k, a := world(t)
			refusing(k, all, bad...)
			if err := apply(a); err != nil {
				t.Fatalf("seed %d, %s: %v", seed, way, err)
			}
			sweep(t, a)
			if d := cmp.Diff(meaning(t, rest), meaning(t, k)); d != "" {
				t.Fatalf("seed %d, %s (-without the refused +what is there):\n%s", seed, way, d)
			}
			var faulty []model.Name
			for _, f := range a.Faults() {
				if !slices.Contains(faulty, f.Object) { // one may be refused in both families
					faulty = append(faulty, f.Object)
				}
				if f.Kind != "Service" || !strings.Contains(f.Problem, "no space left") {
					t.Errorf("seed %d, %s: %v", seed, way, f)
				}
			}
			slices.SortFunc(bad, model.Name.Compare)
			slices.SortFunc(faulty, model.Name.Compare)
			if want := slices.Compact(slices.Clone(bad)); !slices.Equal(faulty, want) {
				t.Errorf("seed %d, %s: faults of %v, want %v", seed, way, faulty, want)
			}
			_, err := a.Audit()
			ok(t, err)
			k.Refuse = nil
			_, err = a.Audit()
			ok(t, err)
			sweep(t, a)
			if d := cmp.Diff(meaning(t, whole), meaning(t, k)); d != "" || len(a.Faults()) > 0 {
				t.Fatalf("seed %d, %s: taken again: %v\n%s", seed, way, a.Faults(), d)
			}
			if d := cmp.Diff(uses(w), uses(a)); d != "" {
				t.Fatalf("seed %d, %s: uses:\n%s", seed, way, d)
			}
		}
	}
}

// An endpoint of another family is the planner's mistake; it costs its own Service only.
func TestWhatNoKernelTakes(t *testing.T) {
	k, a := world(t)
	at := netip.MustParseAddrPort
	front := func(name, addr, endpoint string) desired {
		n := model.Name{Namespace: "t", Name: name}
		return desired{n: {{Service: n, Kind: service.ClusterIP, Protocol: model.TCP, Addr: at(addr), Choice: service.Choice{
			Verdict: service.Balance, Backends: []service.Backend{{Addr: at(endpoint)}},
		}}}}
	}
	all := front("mixed", "10.100.0.1:80", "[fd00::1]:80")
	maps.Copy(all, front("good", "10.100.0.2:80", "10.0.0.1:80"))
	ok(t, a.Apply(all, true))
	_, err := a.Audit()
	ok(t, err)
	want := []service.Fault{{Kind: "Service", Object: model.Name{Namespace: "t", Name: "mixed"},
		Problem: "not programmed: 10.100.0.1:80 has endpoint [fd00::1]:80, of another family"}}
	if d := cmp.Diff(want, a.Faults()); d != "" {
		t.Error(d)
	}
	if m := meaning(t, k); len(m.Frontends) != 1 {
		t.Errorf("programmed: %v", m.Frontends)
	}
	ok(t, a.Update(front("mixed", "10.100.0.1:80", "10.0.0.2:80")))
	if m := meaning(t, k); len(m.Frontends) != 2 || len(a.Faults()) > 0 {
		t.Errorf("mended: %v %v", m.Frontends, a.Faults())
	}
}

// Who claims another's address is told so, as long as that other has it.
func TestALostClaimIsAFault(t *testing.T) {
	_, a := world(t)
	front := func(name string) desired {
		n := model.Name{Namespace: "t", Name: name}
		f := service.Frontend{Service: n, Kind: service.ExternalIP, Protocol: model.TCP, Addr: netip.MustParseAddrPort("203.0.113.7:80")}
		f.Verdict = service.Reject
		return desired{n: {f}}
	}
	ok(t, a.Apply(nil, true))
	for _, name := range []string{"c", "b", "a"} {
		ok(t, a.Update(front(name)))
	}
	var got []string
	for _, f := range a.Faults() {
		got = append(got, fmt.Sprint(f))
	}
	want := []string{
		"{Service t/b 203.0.113.7:80/TCP is left to t/a, which claims it too}",
		"{Service t/c 203.0.113.7:80/TCP is left to t/a, which claims it too}",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	ok(t, a.Update(desired{{Namespace: "t", Name: "a"}: nil}))
	ok(t, a.Update(desired{{Namespace: "t", Name: "c"}: nil}))
	if got := a.Faults(); len(got) > 0 {
		t.Errorf("%v, though nobody else claims it", got)
	}
}

// A kernel that fails for one family serves the other.
func TestFamiliesAreIndependent(t *testing.T) {
	at := netip.MustParseAddrPort
	front := func(name, addr, endpoint string) desired {
		n := model.Name{Namespace: "t", Name: name}
		return desired{n: {{Service: n, Kind: service.ClusterIP, Protocol: model.TCP, Addr: at(addr), Choice: service.Choice{
			Verdict: service.Balance, Backends: []service.Backend{{Addr: at(endpoint)}},
		}}}}
	}
	four, six := front("four", "10.100.0.1:80", "10.0.0.1:80"), front("six", "[fd00:100::1]:80", "[fd00::1]:80")
	all := maps.Clone(four)
	maps.Copy(all, six)
	table := func(family nft.Family) nft.Table { return nft.Table{Family: family, Name: tableName} }
	for _, broken := range []nft.Family{nft.IPv4, nft.IPv6} {
		k := &nft.Fake{}
		a := New(oneFamily{k, broken}, &conntrack.Fake{}, Options{})
		for step, err := range map[string]error{"apply": a.Apply(all, true), "update": a.Update(all)} {
			if !errors.Is(err, errFamily) {
				t.Errorf("%s: %v", step, err)
			}
		}
		for _, family := range []nft.Family{nft.IPv4, nft.IPv6} {
			elements, err := k.Elements(table(family), sets[services])
			if family != broken && (err != nil || len(elements) != 1) {
				t.Errorf("%v broken: %s has %d frontends: %v", broken, table(family), len(elements), err)
			}
		}
	}
}

var errFamily = errors.New("family not supported")

// oneFamily is a kernel that cannot do the other.
type oneFamily struct {
	*nft.Fake
	broken nft.Family
}

func (o oneFamily) Read(t nft.Table) (nft.Contents, bool, error) {
	if t.Family == o.broken {
		return nft.Contents{}, false, errFamily
	}
	return o.Fake.Read(t)
}

// A kernel that takes nothing is at fault itself, and is not asked for each of many Services.
func TestAKernelThatRefusesAll(t *testing.T) {
	k, a := world(t)
	k.Refuse = func(set string, _ nft.Element) error {
		if set == sets[services].Name || set == sets[unreachable].Name {
			return syscall.EINVAL
		}
		return nil
	}
	all := desired{}
	for i := range mostRefused + 50 {
		f := service.Frontend{
			Service: model.Name{Namespace: "t", Name: fmt.Sprint(i)}, Kind: service.ClusterIP, Protocol: model.TCP,
			Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 100, byte(i >> 8), byte(i)}), 80),
		}
		f.Verdict = service.Reject
		all[f.Service] = []service.Frontend{f}
	}
	if err := a.Apply(all, true); !errors.Is(err, syscall.EINVAL) {
		t.Fatalf("%v, want what the kernel says", err)
	}
	k.Refuse = nil
	ok(t, a.Apply(all, true))
	if n := len(meaning(t, k).Frontends); n != len(all) || len(a.Faults()) > 0 {
		t.Errorf("%d of %d are programmed: %v", n, len(all), a.Faults())
	}
}
