package bpf

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/zonewise/zonewise/internal/kernel/bpf"
	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/service"
	"github.com/zonewise/zonewise/internal/service/affinity"
)

// fakeTables are the maps of one layout.
type fakeTables struct {
	frontends   *bpf.Fake[address, frontend]
	slots       *bpf.Fake[slotKey, slot]
	weights     *bpf.Fake[uint32, weights]
	kept        *bpf.Fake[pair, uint32]
	connections *bpf.Fake[uint32, uint64]
	optouts     *bpf.Fake[uint64, uint32]
	remembered  *bpf.Fake[memoryKey, memory]
	uses        *bpf.Fake[memoryKey, uint64]
	pods        *bpf.Fake[uint64, pod]
}

// fakeKernel is what outlives agents.
type fakeKernel struct {
	room    int
	layouts map[string]*fakeTables
	hooks   map[string]string // hook: layout
	ended   int
	// seen is called after every change of anything.
	seen func()
}

func newFakeKernel() *fakeKernel {
	return &fakeKernel{room: 1 << 20, layouts: map[string]*fakeTables{}, hooks: map[string]string{}, seen: func() {}}
}

// fakeHost is one agent's view of the kernel, for as long as it lives.
type fakeHost struct {
	*fakeKernel
	layout string
	life   *bpf.Life
}

func (k *fakeKernel) agent(layout string, life *bpf.Life) *Applier {
	t := k.layouts[layout]
	if t == nil {
		t = &fakeTables{
			bpf.NewFake[address, frontend](k.room), bpf.NewFake[slotKey, slot](k.room), bpf.NewFake[uint32, weights](k.room),
			bpf.NewFake[pair, uint32](k.room), bpf.NewFake[uint32, uint64](k.room), bpf.NewFake[uint64, uint32](k.room),
			bpf.NewFake[memoryKey, memory](k.room), bpf.NewFake[memoryKey, uint64](k.room), bpf.NewFake[uint64, pod](k.room),
		}
		k.layouts[layout] = t
	}
	h := &fakeHost{k, layout, life}
	for _, of := range []struct {
		life **bpf.Life
		seen *func()
	}{
		{&t.frontends.Life, &t.frontends.Seen}, {&t.slots.Life, &t.slots.Seen}, {&t.weights.Life, &t.weights.Seen},
		{&t.kept.Life, &t.kept.Seen}, {&t.connections.Life, &t.connections.Seen}, {&t.optouts.Life, &t.optouts.Seen},
		{&t.remembered.Life, &t.remembered.Seen}, {&t.uses.Life, &t.uses.Seen}, {&t.pods.Life, &t.pods.Seen},
	} {
		*of.life, *of.seen = life, func() { k.seen() }
	}
	return newApplier(h)
}

func (h *fakeHost) Tables() tables {
	t := h.layouts[h.layout]
	return tables{t.frontends, t.slots, t.weights, t.kept, t.connections, t.optouts, t.remembered, t.uses, t.pods}
}

func (h *fakeHost) Own() error { return nil }

func (h *fakeHost) Sum(usage) (digest, usage, error) { return sum(h.Tables()) }

func (h *fakeHost) Standing() (standing, error) {
	out := ready
	for _, at := range hooks() {
		switch h.hooks[at.program] {
		case h.layout:
		case "":
			out = max(out, missing)
		default:
			out = max(out, strangers)
		}
	}
	return out, nil
}

func (h *fakeHost) Attach() error {
	for _, at := range hooks() {
		if h.hooks[at.program] == h.layout {
			continue
		}
		if err := h.life.Step(); err != nil {
			return err
		}
		h.hooks[at.program] = h.layout
		h.seen()
	}
	return nil
}

func (h *fakeHost) Tidy() error {
	for name := range h.layouts {
		if name == h.layout {
			continue
		}
		if err := h.life.Step(); err != nil {
			return err
		}
		delete(h.layouts, name)
		h.seen()
	}
	return nil
}

func (h *fakeHost) EndUDP() error {
	if !h.life.Alive() {
		return bpf.ErrKilled
	}
	h.ended++
	return nil
}

func (h *fakeHost) OptOut([]netip.Addr) error { return nil }
func (h *fakeHost) KnowPods() error           { return nil }
func (h *fakeHost) Remove() error             { return nil }
func (h *fakeHost) Close() error              { return nil }

// leads is what a caller can be led to by one frontend, as the programs read the maps. Anything
// that a program would have to pass over, or that is not there, is an error.
func (t *fakeTables) leads(at address) (map[address]float64, error) {
	f, ok := t.frontends.Entries[at]
	if !ok {
		return nil, nil
	}
	if f != f.sealed(&at) || f.Count == 0 {
		return nil, fmt.Errorf("frontend %v is %+v", at, f)
	}
	if f.Flags&hasNear != 0 {
		return f.leadsNear(at.Protocol)
	}
	draws := []draw{{f.Count, 0}}
	if f.Flags&weighted != 0 {
		w, ok := t.weights.Entries[f.ID]
		if !ok {
			return nil, fmt.Errorf("frontend %v has no weights", at)
		}
		draws = w[:]
	}
	out := map[address]float64{}
	before := uint32(0)
	for i, d := range draws {
		odds := float64(d.Limit-before) / (1 << 32)
		if d.Limit < before {
			odds = 0
		}
		if i == len(draws)-1 {
			odds = 1 - float64(before)/(1<<32)
		}
		before = max(before, d.Limit)
		for n := range d.N {
			s, ok := t.slots.Entries[slotKey{f.ID, n}]
			if !ok || s != newSlot(f.ID, seat{s.Endpoint, s.Counter}) {
				return nil, fmt.Errorf("frontend %v: slot %d of %d is %v %v", at, n, d.N, s, ok)
			}
			out[s.Endpoint] += odds / float64(d.N)
		}
	}
	return out, nil
}

// leadsNear is the same for the endpoints beside a frontend.
func (f frontend) leadsNear(p model.Protocol) (map[address]float64, error) {
	if f.Count > maxNear || f.Flags&weighted != 0 {
		return nil, fmt.Errorf("a frontend with endpoints beside it is %+v", f)
	}
	out := map[address]float64{}
	for _, n := range f.Near[:f.Count] {
		at := netip.AddrPortFrom(netip.AddrFrom4(n.IP), binary.BigEndian.Uint16(n.Port[:]))
		out[addressOf(at, p)] += 1 / float64(f.Count)
	}
	return out, nil
}

// wantLeads is the same by what is wanted.
func wantLeads(f service.Frontend) map[address]float64 {
	choice, ok := here(f)
	if !ok {
		return nil
	}
	out := map[address]float64{}
	for _, b := range choice.Backends {
		if b.Share > 0 {
			out[addressOf(b.Addr, f.Protocol)] += b.Share
		}
	}
	return out
}

// holdsExactly fails unless the layout's maps lead as wanted, and hold nothing else.
func (t *fakeTables) holdsExactly(tb testing.TB, want map[model.Name][]service.Frontend) {
	tb.Helper()
	fronts, slots, weighing, keep := 0, 0, 0, 0
	counted := map[uint32]slotKey{}
	for k, s := range t.slots.Entries {
		if other, taken := counted[s.Counter]; taken || s.Counter == 0 {
			tb.Fatalf("slots %v and %v have the counter %d", k, other, s.Counter)
		}
		counted[s.Counter] = k
	}
	for at, f := range t.frontends.Entries {
		for i := range f.Near[:min(f.Count, maxNear)] {
			if s := t.slots.Entries[slotKey{f.ID, uint32(i)}]; f.Flags&hasNear != 0 && f.Near[i].Counter != s.Counter {
				tb.Fatalf("frontend %v counts by %d, its slot by %d", at, f.Near[i].Counter, s.Counter)
			}
		}
	}
	for _, list := range want {
		for _, f := range list {
			at := addressOf(f.Addr, f.Protocol)
			got, err := t.leads(at)
			if err != nil {
				tb.Fatal(err)
			}
			expect := wantLeads(f)
			if len(got) != len(expect) {
				tb.Fatalf("%v leads to %d endpoints, want %d", f.Addr, len(got), len(expect))
			}
			for e, share := range expect {
				if d := got[e] - share; d > 1e-8 || d < -1e-8 {
					tb.Fatalf("%v: %v has %v of all, want %v", f.Addr, e.addrPort(), got[e], share)
				}
			}
			if len(expect) > 0 {
				fronts++
				slots += len(expect)
				weighing += int(t.frontends.Entries[at].Flags & weighted)
			}
			for _, k := range f.Keep {
				if _, ok := t.kept.Entries[pair{at, addressOf(k, f.Protocol)}]; !ok {
					tb.Fatalf("%v: %v is not kept", f.Addr, k)
				}
				keep++
			}
		}
	}
	got := [4]int{len(t.frontends.Entries), len(t.slots.Entries), len(t.weights.Entries), len(t.kept.Entries)}
	if expect := [4]int{fronts, slots, weighing, keep}; got != expect {
		tb.Fatalf("frontends, slots, weights, kept: %v, want %v", got, expect)
	}
}

// some returns some Services, for the same random numbers the same: even and weighted, TCP and
// UDP, both families, with and without endpoints and affinity.
func some(r *rand.Rand, services int) map[model.Name][]service.Frontend {
	out := map[model.Name][]service.Frontend{}
	for i := range services {
		if r.IntN(4) == 0 {
			continue
		}
		v6, protocol := i%2 == 1, model.TCP
		if i%3 == 0 {
			protocol = model.UDP
		}
		at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 100, 0, byte(i)}), 80)
		if v6 {
			at = netip.AddrPortFrom(netip.AddrFrom16([16]byte{0xfd, 15: byte(i)}), 80)
		}
		f := service.Frontend{Service: model.Name{Namespace: "shop", Name: at.String()}, Addr: at, Protocol: protocol}
		weigh := r.IntN(3) == 0
		sum := 0.0
		for e := range 1 + r.IntN(6) {
			if r.IntN(3) == 0 {
				continue
			}
			b := service.Backend{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, 0, byte(e)}), 8080), Share: 1}
			if weigh {
				b.Share = float64(1 + r.IntN(3))
			}
			sum += b.Share
			f.Backends = append(f.Backends, b)
			if protocol == model.UDP {
				f.Keep = append(f.Keep, b.Addr)
			}
		}
		for i := range f.Backends {
			f.Backends[i].Share /= sum
		}
		if r.IntN(4) == 0 {
			f.Affinity, f.Group = affinity.Least, f.Key()
		}
		f.Verdict = service.Balance
		if len(f.Backends) == 0 {
			f.Verdict = service.Reject
		}
		out[f.Service] = []service.Frontend{f}
	}
	return out
}
