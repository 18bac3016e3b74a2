//go:build kernel

package nft_test

import (
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zonewise/zonewise/internal/kernel/netns"
	kernelnft "github.com/zonewise/zonewise/internal/kernel/nft"
	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/service"
	"github.com/zonewise/zonewise/internal/service/nft"
)

// hours is as long as nothing is forgotten in a test.
func hours(m *model.Service) { m.Affinity = 3 * time.Hour }

// who asks and returns the server's address.
func (s stack) who(t *testing.T, from *netns.NS, addr string) string {
	t.Helper()
	got, err := s.ask(from, addr)
	if err != nil {
		t.Fatalf("%s: %v", addr, err)
	}
	return netip.MustParseAddrPort(got.server).Addr().String()
}

// spread returns who answered, of many times.
func (s stack) spread(t *testing.T, from *netns.NS, addr string) []string {
	t.Helper()
	hits := map[string]bool{}
	for range 24 {
		hits[s.who(t, from, addr)] = true
	}
	return slices.Sorted(maps.Keys(hits))
}

func (d dataplane) remembered() map[nft.Sticky]nft.Stuck {
	d.t.Helper()
	var out map[nft.Sticky]nft.Stuck
	d.w.in(d.t, d.w.node, func() (err error) {
		out, err = d.applier.AffinityTable()
		return err
	})
	return out
}

func (s stack) four() []model.Endpoint {
	return []model.Endpoint{endpoint(s.podA, "n1"), endpoint(s.podB, "n1"), endpoint(s.remote, "n2"), endpoint(s.other, "n3")}
}

// A client goes to the same endpoint by every frontend, as long as that is there.
func TestClientsAreRemembered(t *testing.T) {
	inBoth(t, func(t *testing.T, s stack) {
		d := newDataplane(t, s.world)
		d.apply(nil)
		four := s.four()
		d.update("all", s.all(hours, four...))
		first := s.who(t, s.world.out, at(s.cluster, 80))
		same := func(step string, d dataplane) {
			t.Helper()
			if got := s.spread(t, s.world.out, at(s.cluster, 80)); len(got) != 1 || got[0] != first {
				t.Errorf("%s: cluster IP: %v, want %s", step, got, first)
			}
			for what, addr := range s.outside() {
				if got := s.who(t, s.world.out, addr); got != first {
					t.Errorf("%s: %s: %s, want %s", step, what, got, first)
				}
			}
		}
		same("at once", d)
		key := nft.Sticky{
			Group:  service.Key{Addr: netip.MustParseAddrPort(at(s.cluster, 80)), Protocol: model.TCP},
			Client: netip.MustParseAddr(s.out),
		}
		got := d.remembered()
		if stuck := got[key]; len(got) != 1 || stuck.Backend != netip.MustParseAddrPort(target(first)) ||
			stuck.Left > 3*time.Hour || stuck.Left < 3*time.Hour-time.Minute {
			t.Errorf("remembered: %v", got)
		}

		others := slices.DeleteFunc(slices.Clone(four), func(e model.Endpoint) bool { return e.Addr.String() == first })
		d.update("all", s.all(hours, append(slices.Clone(four), endpoint(s.out, "n9"))...))
		slices.Reverse(four)
		d.update("all", s.all(hours, four...))
		same("others come and go", d)

		d = newDataplane(t, s.world)
		d.apply(map[model.Name][]service.Frontend{{Namespace: "t", Name: "all"}: s.all(hours, four...)})
		same("another agent", d)

		d.update("all", s.all(hours, others...))
		gone := first
		if first = s.who(t, s.world.out, at(s.cluster, 80)); first == gone {
			t.Errorf("%s answers, which is gone", gone)
		}
		same("the endpoint is gone", d)
		d.update("all", s.all(hours, four...))
		same("and comes back", d)

		rules := s.nft(t, "list", "ruleset")
		readable(t, rules)
		for _, want := range []string{"lb-keep-4", "ext-keep-4", "remember-10800", "timeout 3h"} {
			if !strings.Contains(rules, want) {
				t.Errorf("no %s in %s", want, rules)
			}
		}
		s.nft(t, "-j", "list", "ruleset")
	})
}

// Under a Local policy a client that was sent abroad is sent home, where it must be.
func TestMemoryAndLocalPolicy(t *testing.T) {
	inBoth(t, func(t *testing.T, s stack) {
		d := newDataplane(t, s.world)
		d.apply(nil)
		local := func(m *model.Service) { hours(m); m.ExternalLocal = true }
		plan := s.all(local, endpoint(s.podA, "n1"), endpoint(s.remote, "n2"), endpoint(s.other, "n3"))
		d.update("all", plan)
		for range 10 {
			if got := s.spread(t, s.world.out, at(s.balancer, 80)); len(got) != 1 || got[0] != s.podA {
				t.Errorf("outside: %v, want this node's", got)
			}
		}
		inside := s.who(t, s.world.podB, at(s.balancer, 80))
		for _, addr := range []string{at(s.balancer, 80), at(s.cluster, 80), at(s.external, 80)} {
			if got := s.spread(t, s.world.podB, addr); len(got) != 1 || got[0] != inside {
				t.Errorf("a pod at %s: %v, want %s", addr, got, inside)
			}
		}
		// What was good for all is not good for internalTrafficPolicy Local.
		d.update("all", s.all(func(m *model.Service) { local(m); m.InternalLocal = true }, endpoint(s.podA, "n1"), endpoint(s.remote, "n2")))
		if got := s.spread(t, s.world.podB, at(s.cluster, 80)); len(got) != 1 || got[0] != s.podA {
			t.Errorf("internalTrafficPolicy Local: %v, want this node's", got)
		}
	})
}

// Affinity goes on and off with the Service alive, and clients do not stick to what is not theirs.
func TestAffinityOnAndOff(t *testing.T) {
	inBoth(t, func(t *testing.T, s stack) {
		d := newDataplane(t, s.world)
		d.apply(nil)
		for round := range 2 {
			d.update("all", s.all(nil, s.four()...))
			if got := s.spread(t, s.world.out, at(s.balancer, 80)); len(got) < 2 {
				t.Errorf("round %d, off: %v", round, got)
			}
			d.update("all", s.all(hours, s.four()...))
			if got := s.spread(t, s.world.out, at(s.balancer, 80)); len(got) != 1 {
				t.Errorf("round %d, on: %v", round, got)
			}
		}
		if n := len(s.spread(t, s.world.podA, at(s.cluster, 80))) + len(s.spread(t, s.world.podB, at(s.cluster, 80))); n != 2 {
			t.Errorf("two pods: %d endpoints", n)
		}
		if got := d.remembered(); len(got) != 3 {
			t.Errorf("three clients: %v", got)
		}
	})
}

// What nobody comes back for in time is forgotten; coming back begins the time anew.
func TestMemoryFades(t *testing.T) {
	inBoth(t, func(t *testing.T, s stack) {
		d := newDataplane(t, s.world)
		d.apply(nil)
		d.update("all", s.all(func(m *model.Service) { m.Affinity = 2 * time.Second }, s.four()...))
		first := s.who(t, s.world.podB, at(s.cluster, 80))
		tick := time.NewTicker(500 * time.Millisecond)
		defer tick.Stop()
		for range 6 { // three seconds, never two of them without it
			<-tick.C
			if got := s.who(t, s.world.podB, at(s.cluster, 80)); got != first {
				t.Fatalf("%s, want %s: it was there half a second ago", got, first)
			}
		}
		for deadline := time.After(10 * time.Second); len(d.remembered()) > 0; {
			select {
			case <-tick.C:
			case <-deadline:
				t.Fatalf("%v is still there", d.remembered())
			}
		}
	})
}

// Shares hold for the endpoints that clients are first sent to.
func TestFirstChoicesFollowTheWeights(t *testing.T) {
	inBoth(t, func(t *testing.T, s stack) {
		const n = 4000
		d := newDataplane(t, s.world)
		d.apply(nil)
		shares := map[string]float64{s.podA: .1, s.podB: .1, s.remote: .3, s.other: .5}
		plan := weighted(s.all(hours, s.four()...), shares)
		for i := range plan {
			plan[i].Protocol, plan[i].Group.Protocol = model.UDP, model.UDP
		}
		d.update("all", plan)
		w, v6 := s.world, netip.MustParseAddr(s.cluster).Is6()
		network := "10.9.%d.%d"
		if v6 {
			network = "fd00:9::%x:%x"
		}
		var clients []string
		for i := range n {
			clients = append(clients, fmt.Sprintf(network, i/250, 1+i%250))
		}
		for again := range 2 {
			w.flowsOf(t, w.podB, clients, firstPort+again, at(s.cluster, 80))
		}
		got := map[string]float64{}
		for _, stuck := range d.remembered() {
			got[stuck.Backend.Addr().String()]++
		}
		opened := map[string]uint64{}
		for p, c := range d.counters() {
			opened[p.Backend.Addr().String()] += c.Connections
		}
		for ip, share := range shares {
			if math.Abs(got[ip]-n*share) > 5*math.Sqrt(n*share*(1-share)) {
				t.Errorf("%s has %v clients of %d, want %v", ip, got[ip], n, n*share)
			}
			if opened[ip] != 2*uint64(got[ip]) {
				t.Errorf("%s got %d flows of %v clients, want two of each", ip, opened[ip], got[ip])
			}
		}
	})
}

// When no more clients can be remembered, connections are made as if there were no memory.
func TestMemoryFull(t *testing.T) {
	inBoth(t, func(t *testing.T, s stack) {
		d := newDataplane(t, s.world)
		table := kernelnft.Table{Family: kernelnft.IPv4, Name: "zonewise"}
		if netip.MustParseAddr(s.cluster).Is6() {
			table.Family = kernelnft.IPv6
		}
		// The agent takes the set as it finds it: with room for one.
		b := kernelnft.NewBatch(table)
		b.AddTable()
		b.AddChain(kernelnft.Chain{Name: "layout-8"})
		b.AddSet(kernelnft.Set{
			Name: "sticky", Key: []kernelnft.Field{kernelnft.Addr, kernelnft.Port, kernelnft.Addr, kernelnft.Protocol},
			Data: []kernelnft.Field{kernelnft.Protocol, kernelnft.Addr, kernelnft.Port}, Dynamic: true, Timeouts: true, Size: 1,
		})
		door := kernelnft.Dial(s.world.node.FD())
		defer door.Close()
		if err := door.Commit(b); err != nil {
			t.Fatal(err)
		}
		d.apply(map[model.Name][]service.Frontend{{Namespace: "t", Name: "all"}: s.all(hours, s.four()...)})
		if got := s.spread(t, s.world.podA, at(s.cluster, 80)); len(got) != 1 {
			t.Errorf("the first client: %v", got)
		}
		if got := s.spread(t, s.world.podB, at(s.cluster, 80)); len(got) < 2 {
			t.Errorf("one too many: %v, want it served, unremembered", got)
		}
	})
}
