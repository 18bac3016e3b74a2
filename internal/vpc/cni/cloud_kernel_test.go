//go:build kernel

package cni

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/zonewise/zonewise/internal/kernel/netns"
	"github.com/zonewise/zonewise/internal/vpc"
	"github.com/zonewise/zonewise/internal/vpc/files"
)

// give writes a pool as the daemon would: two interfaces with so many addresses each.
func (h *host) give(t testing.TB, addresses int) {
	t.Helper()
	s := supplyOf(2)
	s.Grows = true
	for n := range s.Interfaces {
		i := &s.Interfaces[n]
		i.Addresses = nil
		for k := range addresses {
			i.Addresses = append(i.Addresses, netip.AddrFrom4([4]byte{10, 0, byte(n), byte(11 + k)}))
		}
	}
	d, err := files.Open(h.dir)
	if err == nil {
		err = errors.Join(d.WritePool(s), d.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

func cloudHost(t *testing.T, addresses int) *host {
	h := newHost(t)
	h.wait = "10s"
	h.give(t, addresses)
	return h
}

func (h *host) noRules() {
	h.Helper()
	if rules, err := h.net.Rules(); err != nil || len(rules) > 0 {
		h.Errorf("left over: %v, %v", rules, err)
	}
}

// emptied is nothingLeft, but for the pool.
func (h *host) emptied() {
	h.Helper()
	if err := os.Remove(h.dir + "/" + files.Pool); err != nil {
		h.Fatal(err)
	}
	h.nothingLeft()
	h.noRules()
}

// At any point at which the plugin is killed, DEL, GC or a second ADD finds what it left.
func TestKilledAnywhere(t *testing.T) {
	for _, at := range []string{"pair", "add rule", "ensure", "deleted"} {
		for _, mend := range []string{"DEL", "GC", "ADD"} {
			t.Run(at+" "+mend, func(t *testing.T) {
				h := cloudHost(t, 1)
				ns, _ := space(t)
				verb := "ADD"
				if at == "deleted" {
					verb = "DEL"
				}
				h.must("ADD", "first", ns.Path()) // on eth0; the next is on eth1, and has two rules
				pod, _ := space(t)
				if verb == "DEL" {
					h.must("ADD", "a", pod.Path())
				}
				h.killed(verb, at, "a", pod)
				switch mend {
				case "GC":
					c := h.command("GC", "", "")
					c.Stdin = strings.NewReader(h.config([]types.GCAttachment{{ContainerID: "first", IfName: "eth0"}}))
					if _, err := h.run(c); err != nil {
						t.Fatal(err)
					}
				case "ADD":
					h.must("ADD", "a", pod.Path())
					h.must("CHECK", "a", pod.Path())
					fallthrough
				default:
					h.must("DEL", "a", pod.Path())
				}
				other, _ := space(t)
				if got := addrOf(h.must("ADD", "other", other.Path())); got.String() != "10.0.1.11" {
					t.Errorf("the address is lost; got %s", got)
				}
				h.must("DEL", "other", other.Path())
				h.must("DEL", "first", ns.Path())
				h.emptied()
			})
		}
	}
}

// Thirty pods at once, the pool growing under them: each gets an address of its own, with its rules.
func TestManyWaitAtOnce(t *testing.T) {
	h := cloudHost(t, 5)
	const pods = 30
	var spaces []*netns.NS
	for range pods {
		ns, _ := space(t)
		spaces = append(spaces, ns)
	}
	watch, err := files.Follow(h.dir, files.Leases)
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Close()
	var wg sync.WaitGroup
	var mu sync.Mutex
	addresses := map[string]bool{}
	begun := time.Now()
	for i, ns := range spaces {
		wg.Go(func() {
			r, err := h.call("ADD", fmt.Sprint("p", i), ns.Path())
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Errorf("%d: %v", i, err)
				return
			}
			addresses[addrOf(r).String()] = true
		})
	}
	for h.waiting() < pods-10 {
		<-watch.Changed
	}
	t.Logf("%d wait after %v", pods-10, time.Since(begun))
	grown := time.Now()
	h.give(t, 15)
	wg.Wait()
	t.Logf("all have addresses %v after the pool has grown", time.Since(grown))
	if len(addresses) != pods {
		t.Errorf("%d addresses for %d pods", len(addresses), pods)
	}
	if rules, err := h.net.Rules(); err != nil || len(rules) != pods+15 {
		t.Errorf("%d rules, %v", len(rules), err)
	}
	for i, ns := range spaces {
		h.must("DEL", fmt.Sprint("p", i), ns.Path())
	}
	h.emptied()
}

func (h *host) waiting() int {
	h.Helper()
	d, err := files.Open(h.dir)
	if err != nil {
		h.Fatal(err)
	}
	defer d.Close()
	l, err := d.ReadLeases(func() (vpc.Leases, error) { return vpc.Leases{}, nil })
	if err != nil {
		h.Fatal(err)
	}
	return len(l.Waiting)
}

// What the plugin alone takes, for one pod after the other and for thirty at once.
func BenchmarkCloudAdd(b *testing.B) {
	for _, pods := range []int{1, 30} {
		b.Run(fmt.Sprint(pods, " at once"), func(b *testing.B) {
			h := benchHost(b)
			h.wait = "10s"
			h.give(b, 16)
			var spaces []*netns.NS
			for range pods {
				ns, err := netns.New()
				if err != nil {
					b.Fatal(err)
				}
				defer ns.Close()
				spaces = append(spaces, ns)
			}
			all := func(verb string) (took []time.Duration) {
				var wg sync.WaitGroup
				var mu sync.Mutex
				begun := time.Now()
				for i, ns := range spaces {
					wg.Go(func() {
						c := h.command(verb, fmt.Sprint("p", i), ns.Path())
						err := h.ns.Do(c.Run)
						mu.Lock()
						defer mu.Unlock()
						if err != nil {
							b.Error(verb, err)
						}
						took = append(took, time.Since(begun))
					})
				}
				wg.Wait()
				return took
			}
			var adds []time.Duration
			for b.Loop() {
				adds = append(adds, all("ADD")...)
				all("DEL")
			}
			slices.Sort(adds)
			b.ReportMetric(float64(adds[len(adds)/2].Microseconds()), "µs/p50")
			b.ReportMetric(float64(adds[len(adds)*99/100].Microseconds()), "µs/p99")
			b.ReportMetric(float64(adds[len(adds)-1].Microseconds()), "µs/max")
		})
	}
}
