package bpf

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zonewise/zonewise/internal/kernel/bpf"
	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/service"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestAnyStateIsReachedFromAnyOther(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	k := newFakeKernel()
	a := k.agent("v1", &bpf.Life{})
	state := map[model.Name][]service.Frontend{}
	for i := range 300 {
		next := some(r, 24)
		switch i % 3 {
		case 0:
			must(t, a.Apply(next, true))
		case 1:
			changed := maps.Clone(next)
			for name := range state {
				if _, ok := changed[name]; !ok {
					changed[name] = nil
				}
			}
			must(t, a.Update(changed))
		case 2:
			a = k.agent("v1", &bpf.Life{})
			must(t, a.Apply(next, false)) // adds and changes, removes nothing
			must(t, a.Apply(next, true))
		}
		state = next
		k.layouts["v1"].holdsExactly(t, state)
		before := a.life().Taken
		must(t, a.Apply(state, true))
		if repaired, err := a.Audit(); err != nil || repaired || a.life().Taken != before {
			t.Fatalf("the second time: repaired %v, %v, %d steps", repaired, err, a.life().Taken-before)
		}
	}
	must(t, a.Apply(nil, true))
	k.layouts["v1"].holdsExactly(t, nil)
}

func (a *Applier) life() *bpf.Life { return a.host.(*fakeHost).life }

// An agent can die at any step, of an update, an upgrade or a downgrade. Whoever asks meanwhile gets
// an endpoint of before or of after, or is left to the packet path; the next agent ends the work.
func TestDeathAtAnyStep(t *testing.T) {
	for _, layouts := range [][3]string{{"v1", "v1", "v1"}, {"v1", "v2", "v2"}, {"v2", "v1", "v1"}, {"v1", "v2", "v1"}} {
		t.Run(strings.Join(layouts[:], " "), func(t *testing.T) {
			r := rand.New(rand.NewPCG(3, 4))
			for range 3 {
				before, after := some(r, 8), some(r, 8)
				steps := 0
				for {
					steps++
					if died := dieAfter(t, steps, layouts, before, after); !died {
						break
					}
				}
				if steps < 5 {
					t.Errorf("the whole work took %d steps", steps)
				}
			}
		})
	}
}

func dieAfter(t *testing.T, steps int, layouts [3]string, before, after map[model.Name][]service.Frontend) (died bool) {
	t.Helper()
	k := newFakeKernel()
	must(t, k.agent(layouts[0], &bpf.Life{}).Apply(before, true))
	allowed := map[address]map[address]bool{}
	for _, want := range []map[model.Name][]service.Frontend{before, after} {
		for _, list := range want {
			for _, f := range list {
				at := addressOf(f.Addr, f.Protocol)
				if allowed[at] == nil {
					allowed[at] = map[address]bool{}
				}
				for e := range wantLeads(f) {
					allowed[at][e] = true
				}
			}
		}
	}
	k.seen = func() {
		for hook, layout := range k.hooks {
			tables := k.layouts[layout]
			if tables == nil {
				t.Fatalf("step %d: hook %s has lost its maps", steps, hook)
			}
			for at, may := range allowed {
				leads, err := tables.leads(at)
				if err != nil {
					t.Fatalf("step %d: %v", steps, err)
				}
				for e := range leads {
					if !may[e] {
						t.Fatalf("step %d: %v leads to %v", steps, at.addrPort(), e.addrPort())
					}
				}
			}
		}
		if len(k.hooks) != len(hooks()) {
			t.Fatalf("step %d: %d hooks", steps, len(k.hooks))
		}
	}
	second := k.agent(layouts[1], &bpf.Life{Steps: steps})
	err := second.Apply(after, false)
	if err == nil {
		err = second.Apply(after, true)
	}
	died = errors.Is(err, bpf.ErrKilled)
	if err != nil && !died {
		t.Fatal(err)
	}
	third := k.agent(layouts[2], &bpf.Life{})
	must(t, third.Apply(after, false))
	must(t, third.Apply(after, true))
	if len(k.layouts) != 1 {
		t.Fatalf("step %d: %d layouts are left", steps, len(k.layouts))
	}
	k.layouts[layouts[2]].holdsExactly(t, after)
	return died
}

// The same agent tries again after a failure.
func TestFailureAndRetry(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	before, after := some(r, 10), some(r, 10)
	for steps := 1; ; steps++ {
		k := newFakeKernel()
		must(t, k.agent("v1", &bpf.Life{}).Apply(before, true))
		a := k.agent("v1", &bpf.Life{Steps: steps})
		err := a.Apply(after, true)
		if err == nil {
			break
		}
		a.life().Steps = 0
		if _, err := a.Audit(); err != nil {
			t.Fatal(err)
		}
		k.layouts["v1"].holdsExactly(t, after)
	}
}

func TestAnEndpointCostsThreeSteps(t *testing.T) {
	k := newFakeKernel()
	a := k.agent("v1", &bpf.Life{})
	at := netip.MustParseAddrPort("10.100.0.1:80")
	with := func(n ...int) map[model.Name][]service.Frontend {
		f := service.Frontend{Service: model.Name{Namespace: "shop", Name: "web"}, Addr: at, Protocol: model.TCP}
		f.Verdict = service.Balance
		for _, i := range n {
			e := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), 8080)
			f.Backends = append(f.Backends, service.Backend{Addr: e, Share: 1 / float64(len(n))})
		}
		return map[model.Name][]service.Frontend{f.Service: {f}}
	}
	var list []int
	for i := range 1000 {
		list = append(list, i)
	}
	must(t, a.Apply(with(list...), true))
	for _, c := range []struct {
		what  string
		list  []int
		steps int
	}{
		{"added", append(slices.Clone(list), 1000), 3},
		{"the first removed", append(slices.Clone(list[1:]), 1000), 3},
		{"the same in another order", append([]int{1000}, list[1:]...), 0},
		{"replaced", append([]int{1000, 2000}, list[2:]...), 2},
		{"another removed", append([]int{1000, 2000}, list[3:]...), 3},
	} {
		before := a.life().Taken
		must(t, a.Update(with(c.list...)))
		if got := a.life().Taken - before; got > c.steps {
			t.Errorf("%s: %d steps, want at most %d", c.what, got, c.steps)
		}
		k.layouts["v1"].holdsExactly(t, with(c.list...))
	}
}

func TestDamageIsRepaired(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	want := some(r, 40)
	for name, damage := range map[string]func(*fakeTables){
		"a frontend deleted":       func(t *fakeTables) { deleteOne(t.frontends.Entries) },
		"a slot deleted":           func(t *fakeTables) { deleteOne(t.slots.Entries) },
		"weights deleted":          func(t *fakeTables) { deleteOne(t.weights.Entries) },
		"a kept endpoint deleted":  func(t *fakeTables) { deleteOne(t.kept.Entries) },
		"a frontend changed":       func(t *fakeTables) { changeOne(t.frontends.Entries, func(f *frontend) { f.Count++ }) },
		"a frontend without an id": func(t *fakeTables) { changeOne(t.frontends.Entries, func(f *frontend) { *f = frontend{} }) },
		"an endpoint beside its frontend changed": func(t *fakeTables) {
			for at, f := range t.frontends.Entries {
				f.Near[0].Port[0]++
				t.frontends.Entries[at] = f.sealed(&at)
				return
			}
		},
		"a counter beside a frontend changed": func(t *fakeTables) { changeOne(t.frontends.Entries, func(f *frontend) { f.Near[1].Counter++ }) },
		"a slot changed":                      func(t *fakeTables) { changeOne(t.slots.Entries, func(s *slot) { s.Endpoint.Port[0]++ }) },
		"weights changed":                     func(t *fakeTables) { changeOne(t.weights.Entries, func(w *weights) { w[0].Limit++ }) },
		"a slot of nobody":                    func(t *fakeTables) { t.slots.Entries[slotKey{1 << 31, 7}] = slot{} },
		"a frontend of nobody":                func(t *fakeTables) { t.frontends.Entries[address{Protocol: 6}] = frontend{ID: 1, Count: 1 << 30} },
		"weights of nobody":                   func(t *fakeTables) { t.weights.Entries[^uint32(0)] = weights{} },
		"a kept endpoint of nobody":           func(t *fakeTables) { t.kept.Entries[pair{}] = 1 },
		"everything deleted": func(t *fakeTables) {
			clear(t.frontends.Entries)
			clear(t.slots.Entries)
		},
	} {
		t.Run(name, func(t *testing.T) {
			k := newFakeKernel()
			a := k.agent("v1", &bpf.Life{})
			must(t, a.Apply(want, true))
			damage(k.layouts["v1"])
			if repaired, err := a.Audit(); !repaired || err != nil {
				t.Errorf("repaired %v, %v", repaired, err)
			}
			k.layouts["v1"].holdsExactly(t, want)
			if repaired, err := a.Audit(); repaired || err != nil {
				t.Errorf("the second time: repaired %v, %v", repaired, err)
			}
			delete(k.hooks, "connect4")
			if repaired, err := a.Audit(); !repaired || err != nil || k.hooks["connect4"] != "v1" {
				t.Errorf("a hook: repaired %v, %v", repaired, err)
			}
		})
	}
}

func deleteOne[K comparable, V any](m map[K]V) {
	for k := range m {
		delete(m, k)
		return
	}
}

func changeOne[K comparable, V any](m map[K]V, f func(*V)) {
	for k, v := range m {
		f(&v)
		m[k] = v
		return
	}
}

// What does not fit is left to the packet path and named; it comes when there is room. In whatever
// order Go goes through a map: who does not fit once had the counters of others.
func TestFullMaps(t *testing.T) {
	for range 50 {
		fullMaps(t)
	}
}

func fullMaps(t *testing.T) {
	t.Helper()
	k := newFakeKernel()
	k.room = 8
	a := k.agent("v1", &bpf.Life{})
	web := func(i, backends int) service.Frontend {
		at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 100, 0, byte(i)}), 80)
		f := service.Frontend{Service: model.Name{Namespace: "shop", Name: fmt.Sprintf("web-%d", i)}, Addr: at, Protocol: model.TCP}
		f.Verdict = service.Balance
		for e := range backends {
			b := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, 0, byte(e)}), 8080)
			f.Backends = append(f.Backends, service.Backend{Addr: b, Share: 1 / float64(backends)})
		}
		return f
	}
	one := func(f service.Frontend) map[model.Name][]service.Frontend {
		return map[model.Name][]service.Frontend{f.Service: {f}}
	}
	must(t, a.Apply(one(web(1, 3)), true))
	must(t, a.Update(one(web(2, 6))))
	must(t, a.Update(one(web(3, 4))))
	tables := k.layouts["v1"]
	leads := func(i int) int {
		l, err := tables.leads(addressOf(web(i, 1).Addr, model.TCP))
		must(t, err)
		return len(l)
	}
	if got := [3]int{leads(1), leads(2), leads(3)}; got != [3]int{3, 0, 4} {
		t.Errorf("the Services lead to %v endpoints", got)
	}
	faults := a.Faults()
	if len(faults) != 1 || faults[0].Object.Name != "web-2" {
		t.Errorf("faults: %+v", faults)
	}
	if repaired, err := a.Audit(); repaired || err != nil {
		t.Errorf("repaired %v, %v", repaired, err)
	}
	must(t, a.Update(map[model.Name][]service.Frontend{web(1, 1).Service: nil, web(3, 1).Service: {web(3, 2)}}))
	if repaired, err := a.Audit(); !repaired || err != nil {
		t.Errorf("room: repaired %v, %v", repaired, err)
	}
	if leads(2) != 6 || leads(3) != 2 || len(a.Faults()) != 0 {
		t.Errorf("with room: %d and %d endpoints, %v", leads(2), leads(3), a.Faults())
	}
	// One that grows beyond the room is left whole.
	must(t, a.Update(one(web(3, 7))))
	if leads(3) != 0 || len(tables.slots.Entries) != 6 || len(a.Faults()) != 1 {
		t.Errorf("leads to %d, %d slots, %v", leads(3), len(tables.slots.Entries), a.Faults())
	}
}

// Two Services claim one address while one makes room for the other: the first by name has it.
func TestRivals(t *testing.T) {
	k := newFakeKernel()
	a := k.agent("v1", &bpf.Life{})
	at := netip.MustParseAddrPort("10.100.0.1:80")
	claim := func(name string, e string) service.Frontend {
		f := service.Frontend{Service: model.Name{Namespace: "shop", Name: name}, Addr: at, Protocol: model.TCP}
		f.Choice = service.Choice{Verdict: service.Balance, Backends: []service.Backend{{Addr: netip.MustParseAddrPort(e), Share: 1}}}
		return f
	}
	x, y, z := claim("x", "10.1.0.1:1"), claim("y", "10.1.0.2:2"), claim("z", "10.1.0.3:3")
	for _, step := range []struct {
		name string
		now  []service.Frontend
		has  service.Frontend
	}{{"y", []service.Frontend{y}, y}, {"x", []service.Frontend{x}, x}, {"z", []service.Frontend{z}, x}, {"x", nil, y}, {"y", nil, z}} {
		must(t, a.Update(map[model.Name][]service.Frontend{{Namespace: "shop", Name: step.name}: step.now}))
		k.layouts["v1"].holdsExactly(t, map[model.Name][]service.Frontend{step.has.Service: {step.has}})
	}
	must(t, a.Update(map[model.Name][]service.Frontend{z.Service: nil}))
	if len(a.owners)+len(a.rivals)+len(k.layouts["v1"].frontends.Entries) != 0 {
		t.Errorf("left: %v %v %v", a.owners, a.rivals, k.layouts["v1"].frontends.Entries)
	}
}

// Flows stay with what serves, and with what we lead to even if the plan forgot to say that it serves.
func TestWhatUDPKeeps(t *testing.T) {
	e := func(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }
	f := service.Frontend{Addr: e("10.100.0.1:53"), Protocol: model.UDP, Keep: []netip.AddrPort{e("10.1.0.1:53"), e("10.1.0.2:53")}}
	f.Choice = service.Choice{Verdict: service.Balance, Backends: []service.Backend{{Addr: e("10.1.0.2:53")}, {Addr: e("10.1.0.3:53")}}}
	want := []address{addressOf(e("10.1.0.1:53"), model.UDP), addressOf(e("10.1.0.2:53"), model.UDP), addressOf(e("10.1.0.3:53"), model.UDP)}
	if got := keeps(f); !slices.Equal(got, want) {
		t.Errorf("keeps %v, want %v", got, want)
	}
	f.Affinity = 1 // left to the packet path, as are new flows; those that we led stay
	if got := keeps(f); !slices.Equal(got, want[:2]) {
		t.Errorf("keeps %v, want %v", got, want[:2])
	}
}

// Sockets are looked for at once when an endpoint has gone, but not all the time.
func TestUDPIsEndedAtOnceAndSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newFakeKernel()
		a := k.agent("v1", &bpf.Life{})
		e := func(i int) netip.AddrPort { return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, 0, byte(i)}), 53) }
		move := func(i int) {
			t.Helper()
			f := service.Frontend{Service: model.Name{Name: "dns"}, Addr: netip.MustParseAddrPort("10.100.0.1:53"), Protocol: model.UDP}
			f.Choice = service.Choice{Verdict: service.Balance, Backends: []service.Backend{{Addr: e(i), Share: 1}}}
			must(t, a.Update(map[model.Name][]service.Frontend{f.Service: {f}}))
		}
		audit := func(want int) {
			t.Helper()
			if _, err := a.Audit(); err != nil || k.ended != want {
				t.Errorf("looked %d times, %v, want %d", k.ended, err, want)
			}
		}
		move(0)
		audit(0)
		for i := range 10 {
			move(i + 1)
		}
		audit(1)
		<-time.After(endPause + 1)
		audit(2)
		<-time.After(endPause)
		audit(3)
		<-time.After(time.Minute)
		audit(3)
		move(0)
		audit(4)
		<-time.After(time.Minute)
		audit(5)
		move(1)
		must(t, a.Close())
		<-time.After(time.Minute)
		audit(6)
	})
}

// Ids come round after 2^32 and are not given twice.
func TestIdsComeRound(t *testing.T) {
	n := &numbers{next: ^uint32(0) - 1, inUse: func() map[uint32]bool { return map[uint32]bool{1: true, 2: true, 4: true} }}
	for _, want := range []uint32{^uint32(0) - 1, ^uint32(0), 3, 5} {
		if got := n.id(); got != want {
			t.Errorf("got %d, want %d", got, want)
		}
	}
}
