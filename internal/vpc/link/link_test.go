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

	"github.com/zonewise/zonewise/internal/kernel/link"
	"github.com/zonewise/zonewise/internal/kernel/netns"
	"github.com/zonewise/zonewise/internal/vpc"
)

func leaseOf(i int) vpc.Lease {
	return vpc.Lease{
		Key:     vpc.Key{Container: fmt.Sprint("sandbox", i), Interface: "eth0"},
		Owner:   vpc.Owner{Namespace: "default", Pod: fmt.Sprint("web-", i)},
		Address: netip.AddrFrom4([4]byte{192, 168, 1, byte(11 + i)}),
	}
}

func TestPlan(t *testing.T) {
	const want = `host eni1da1ac7cb6d mac e2:cd:8f:c6:20:5c mtu 9001 up
  alias zonewise sandbox1/eth0 default/web-1
  route 192.168.1.12/32 scope link
pod eth0 mac d2:8a:1c:4e:1e:21 mtu 9001 up
  addr 192.168.1.12/32
  neigh 169.254.1.1 lladdr e2:cd:8f:c6:20:5c permanent
  route 169.254.1.1/32 scope link
  route default via 169.254.1.1
`
	if diff := cmp.Diff(want, Plan(leaseOf(1), 9001).String()); diff != "" {
		t.Error(diff)
	}
}

// leaseOfBoth has an address of each family.
func leaseOfBoth(i int) vpc.Lease {
	l := leaseOf(i)
	l.IPv6 = netip.MustParseAddr(fmt.Sprintf("fd00:192:168:1:1::c0a8:1%02x", 11+i))
	return l
}

func TestPlanOfBothFamilies(t *testing.T) {
	const want = `host eni1da1ac7cb6d mac e2:cd:8f:c6:20:5c mtu 9001 up
  alias zonewise sandbox1/eth0 default/web-1
  neigh fd00:192:168:1:1:0:c0a8:10c lladdr d2:8a:1c:4e:1e:21 permanent
  route 192.168.1.12/32 scope link
  route fd00:192:168:1:1:0:c0a8:10c/128 scope link
pod eth0 mac d2:8a:1c:4e:1e:21 mtu 9001 up
  addr 192.168.1.12/32
  addr fd00:192:168:1:1:0:c0a8:10c/128
  neigh 169.254.1.1 lladdr e2:cd:8f:c6:20:5c permanent
  neigh fe80::1 lladdr e2:cd:8f:c6:20:5c permanent
  route 169.254.1.1/32 scope link
  route default via 169.254.1.1
  route default via fe80::1
`
	if diff := cmp.Diff(want, Plan(leaseOfBoth(1), 9001).String()); diff != "" {
		t.Error(diff)
	}
}

// What Plan writes on the host's end is enough to know the lease again, also when the pod's name
// had to be cut; the alias of somebody else's device is not taken for it.
func TestLeaseIsReadBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := vpc.Lease{
			Key: vpc.Key{
				Container: rapid.StringMatching(`[a-z0-9][a-z0-9_.-]{0,63}`).Draw(t, "container"),
				Interface: rapid.StringMatching(`[a-z0-9]{1,15}`).Draw(t, "interface"),
			},
			Owner: vpc.Owner{
				Namespace: rapid.StringMatching(`[a-z0-9]{0,63}`).Draw(t, "namespace"),
				Pod:       rapid.StringMatching(`[a-z0-9]{0,253}`).Draw(t, "pod"),
			},
			Address: netip.MustParseAddr("192.168.1.11"),
		}
		if rapid.Bool().Draw(t, "dual") {
			l.IPv6 = netip.MustParseAddr("fd00::c0a8:10b")
		}
		got, ok := lease(Plan(l, 1500).Host)
		if !ok || got.Key != l.Key || got.Address != l.Address || got.IPv6 != l.IPv6 ||
			got.Namespace != l.Namespace || !strings.HasPrefix(l.Pod, got.Pod) {
			t.Fatalf("wrote %s, read %s, %v", l, got, ok)
		}
	})
	for _, d := range []link.Device{
		{},
		{Name: "eth0", Alias: "zonewise sandbox1/eth0 default/web-1"},
		{Name: HostName(leaseOf(1).Key), Alias: "zonewise sandbox1/eth0 default/web-1"}, // no route
		{Name: HostName(leaseOf(1).Key), Alias: "other sandbox1/eth0 default/web-1"},
	} {
		if l, ok := lease(d); ok {
			t.Errorf("%v: read %s", d, l)
		}
	}
}

// rig is a node without a kernel.
type rig struct {
	machine link.Fake
	spaces  netns.Fake
}

func (r *rig) open(t testing.TB, path string) *netns.NS {
	t.Helper()
	r.spaces.Add(path)
	ns, err := r.spaces.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return ns
}

func (r *rig) setup(ns *netns.NS, l vpc.Lease) error {
	return Setup(r.machine.Here(), r.machine.At(ns), ns, Plan(l, 1500))
}

func (r *rig) check(ns *netns.NS, l vpc.Lease) error {
	return Check(r.machine.Here(), r.machine.At(ns), Plan(l, 1500))
}

func (r *rig) state(t testing.TB) []link.Device {
	t.Helper()
	devices, err := r.machine.Here().List()
	if err != nil {
		t.Fatal(err)
	}
	return devices
}

func TestSetupTwiceAndTeardownTwice(t *testing.T) {
	var r rig
	ns, l := r.open(t, "/pod"), leaseOf(1)
	if err := r.check(ns, l); !errors.Is(err, link.ErrNotFound) {
		t.Errorf("check before setup: %v", err)
	}
	if err := r.setup(ns, l); err != nil {
		t.Fatal(err)
	}
	once := r.state(t)
	if err := r.setup(ns, l); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(once, r.state(t), cmp.Comparer(equal)); diff != "" {
		t.Error(diff)
	}
	if err := r.check(ns, l); err != nil {
		t.Error(err)
	}
	for range 2 {
		if err := Teardown(r.machine.Here(), l.Key); err != nil {
			t.Fatal(err)
		}
		if left := r.state(t); len(left) > 0 {
			t.Errorf("left over: %v", left)
		}
	}
}

func equal(a, b link.Device) bool { return a.String() == b.String() }

func TestSetupLeavesOthersInterfaceAlone(t *testing.T) {
	var r rig
	ns := r.open(t, "/pod")
	r.machine.At(ns).Put(link.Device{Name: "eth0", MAC: link.MAC{2, 1}})
	err := r.setup(ns, leaseOf(1))
	if !errors.Is(err, link.ErrExists) || !strings.Contains(err.Error(), "interface eth0 of the pod") {
		t.Errorf("got %v", err)
	}
	if left := r.state(t); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
}

// A sandbox that was made again under the same id: the old wire leads to nobody.
func TestSetupReplacesWireToFormerSandbox(t *testing.T) {
	var r rig
	l := leaseOf(1)
	if err := r.setup(r.open(t, "/old"), l); err != nil {
		t.Fatal(err)
	}
	ns := r.open(t, "/new")
	if err := r.setup(ns, l); err != nil {
		t.Fatal(err)
	}
	if err := r.check(ns, l); err != nil {
		t.Error(err)
	}
}

// From anywhere to anywhere, with each operation failing now and then: a failed setup leaves what
// was there, a retry succeeds, and what is wired is exactly what was asked for.
func TestAnyOrderWithFailures(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var r rig
		flaky := errors.New("flaky")
		var fail []bool
		r.machine.Fail = func(op string) error {
			if len(fail) == 0 || op == "list" {
				return nil
			}
			now := fail[0]
			if fail = fail[1:]; now {
				return flaky
			}
			return nil
		}
		wired := map[int]bool{}
		some := rapid.IntRange(0, 4)
		t.Repeat(map[string]func(*rapid.T){
			"setup": func(t *rapid.T) {
				i := some.Draw(t, "pod")
				path := fmt.Sprint("/pod", i)
				r.spaces.Add(path)
				ns, err := r.spaces.Open(path)
				if err != nil {
					t.Fatal(err)
				}
				fail = rapid.SliceOfN(rapid.Bool(), 0, 3).Draw(t, "fail") // cleaning up is left to succeed
				first := r.setup(ns, leaseOf(i))
				fail = nil
				if err := r.setup(ns, leaseOf(i)); err != nil {
					t.Fatalf("retry after %v: %v", first, err)
				}
				if err := r.check(ns, leaseOf(i)); err != nil {
					t.Fatal(err)
				}
				wired[i] = true
			},
			"teardown": func(t *rapid.T) {
				i := some.Draw(t, "pod")
				if err := Teardown(r.machine.Here(), leaseOf(i).Key); err != nil {
					t.Fatal(err)
				}
				delete(wired, i)
			},
			"vanish": func(t *rapid.T) {
				i := some.Draw(t, "pod")
				r.machine.Vanish(fmt.Sprint("/pod", i))
				delete(wired, i)
			},
			"": func(t *rapid.T) {
				leases, err := Wired(r.machine.Here())
				if err != nil {
					t.Fatal(err)
				}
				if len(leases) != len(wired) {
					t.Fatalf("wired: %v, want %v", leases, wired)
				}
				for i := range wired {
					if !slices.ContainsFunc(leases, func(l vpc.Lease) bool { return l.Key == leaseOf(i).Key }) {
						t.Fatalf("pod %d is not wired: %v", i, leases)
					}
				}
			},
		})
	})
}

func TestCheckNamesWhatIsWrong(t *testing.T) {
	var r rig
	ns, l := r.open(t, "/pod"), leaseOf(1)
	w := Plan(l, 1500)
	r.machine.Here().Put(link.Device{Name: w.Host.Name, MAC: w.Host.MAC, MTU: 1400})
	r.machine.At(ns).Put(link.Device{Name: "eth0", MAC: link.MAC{2}, MTU: 1500, Up: true, Routes: w.Pod.Routes})
	const want = `host: device eni1da1ac7cb6d: mtu 1400, not 1500; down; no route 192.168.1.12/32 scope link
pod: device eth0: mac 02:00:00:00:00:00, not d2:8a:1c:4e:1e:21; no address 192.168.1.12/32; no neighbour 169.254.1.1 lladdr e2:cd:8f:c6:20:5c permanent`
	err := r.check(ns, l)
	if err == nil {
		t.Fatal("nothing is wrong")
	}
	if diff := cmp.Diff(want, err.Error()); diff != "" {
		t.Error(diff)
	}
}

func TestUplinkMTU(t *testing.T) {
	var r rig
	if mtu, err := UplinkMTU(r.machine.Here()); mtu != DefaultMTU || err != nil {
		t.Errorf("without a default route: %d, %v", mtu, err)
	}
	r.machine.Here().Put(link.Device{Name: "lo", MTU: 65536})
	r.machine.Here().Put(link.Device{Name: "eth0", MTU: 9001, Routes: []link.Route{{
		To: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.MustParseAddr("192.168.1.1"),
	}}})
	if mtu, err := UplinkMTU(r.machine.Here()); mtu != 9001 || err != nil {
		t.Errorf("got %d, %v", mtu, err)
	}
}
