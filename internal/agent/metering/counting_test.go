package metering

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/zonewise/zonewise/internal/meter"
	"github.com/zonewise/zonewise/internal/state"
)

func total(flows []meter.Observed) (sum uint64) {
	for _, f := range flows {
		sum += f.Bytes()
	}
	return sum
}

// A first reading is kept before anything is counted; who finds one goes on from there.
func TestBegin(t *testing.T) {
	w := newWorld(t)
	w.book.full = true
	if err := w.meter.pass(ended); err == nil || w.kernel.counting {
		t.Fatalf("%v: the kernel counts (%v) before its first reading is kept", err, w.kernel.counting)
	}
	w.book.full = false
	w.look()
	if !w.kernel.counting || w.kernel.reads != 2 {
		t.Errorf("counts: %v, after %d readings", w.kernel.counting, w.kernel.reads)
	}
	w.kernel.send(key("192.168.1.1", "192.168.2.1:80"), 5)
	w.start(nil)
	w.look()
	if total(w.disk.flows) != 5 || w.meter.metrics.lost["adopted"] > 0 {
		t.Errorf("%d bytes of 5 from before the restart; lost %v", total(w.disk.flows), w.meter.metrics.lost)
	}
	// Without a mark nobody knows what was told before.
	w.kernel.send(key("192.168.1.1", "192.168.2.1:80"), 7)
	for i, mark := range [][]byte{nil, []byte("zwr1, and then nonsense")} {
		w.disk.mark, w.disk.flows = mark, nil
		w.start(nil)
		w.look()
		w.kernel.send(key("192.168.1.1", "192.168.2.1:80"), 9)
		w.read()
		if total(w.disk.flows) != 9 || w.meter.metrics.lost["adopted"] != 12+9*uint64(i) {
			t.Errorf("mark %q: %d bytes of 9; lost %v", mark, total(w.disk.flows), w.meter.metrics.lost)
		}
	}
}

// Before the tables are complete nothing is told: a pod would be taken for somebody outside.
func TestNothingIsToldBeforeAllIsKnown(t *testing.T) {
	w := newWorld(t)
	full := w.meter.names.residents
	w.meter.names.residents = state.New(state.Pods)
	w.look()
	w.kernel.send(key("192.168.1.1", "192.168.2.1:80"), 5)
	w.read()
	if s := w.meter.Status(); len(w.disk.flows) > 0 || !s.On || s.Why != "waiting for the API server to list [pods]" {
		t.Errorf("told %v; status %+v", w.disk.flows, s)
	}
	w.meter.names.residents = full
	w.meter.names.served = func() *state.Snapshot { return nil }
	w.read()
	if s := w.meter.Status(); len(w.disk.flows) > 0 || s.Why != "waiting for the node's first sync" {
		t.Errorf("told %v; status %+v", w.disk.flows, s)
	}
	w.meter.names.served = w.services.Snapshot
	w.look()
	if s := w.meter.Status(); total(w.disk.flows) != 5 || !s.On || s.Why != "" {
		t.Errorf("told %v; status %+v", w.disk.flows, s)
	}
}

// While the journal cannot be written the kernel is not read: it would give back what it has told of.
func TestNoReadingWhileTheJournalIsBehind(t *testing.T) {
	w := newWorld(t)
	w.look()
	k := key("192.168.1.1", "192.168.2.1:80")
	w.kernel.send(k, 5)
	w.book.full = true
	w.meter.due.Store(true)
	for range 3 {
		if err := w.meter.pass(ended); err == nil {
			t.Fatal("a full disk is no error")
		}
		w.kernel.send(k, 1)
	}
	reads := w.kernel.reads
	if err := w.meter.pass(ended); err == nil || w.kernel.reads != reads {
		t.Errorf("%v; read %d times while the journal is behind", err, w.kernel.reads-reads)
	}
	w.book.full = false
	w.look()
	if got := total(w.disk.flows); got != 8 {
		t.Errorf("%d bytes of 8", got)
	}
}

// An error of the kernel's loses nothing, and is seen.
func TestTheKernelFails(t *testing.T) {
	w := newWorld(t)
	w.look()
	w.kernel.send(key("192.168.1.1", "192.168.2.1:80"), 5)
	w.kernel.broken = errors.New("map given: gone")
	w.meter.due.Store(true)
	err := w.meter.pass(ended)
	if err == nil {
		t.Fatal("no error")
	}
	w.meter.failed(err, time.Second)
	if s := w.meter.Status(); s.Why != "map given: gone" || w.meter.metrics.failures != 1 {
		t.Errorf("status %+v", s)
	}
	w.kernel.broken = nil
	w.look() // still due
	if s := w.meter.Status(); total(w.disk.flows) != 5 || s.Why != "" {
		t.Errorf("%d bytes of 5; status %+v", total(w.disk.flows), s)
	}
}

func TestIdle(t *testing.T) {
	const m = time.Minute
	now := meter.Reading{At: 60 * m, Totals: map[meter.Key]meter.Totals{{Side: meter.ClientEnd}: {Last: m}}}
	for i, last := range []time.Duration{0, 54 * m, 55 * m, 56 * m, 59 * m, 60*m - 10*time.Second, 60*m - time.Second} {
		now.Totals[key(fmt.Sprint("10.0.0.", i), "8.8.8.8:53")] = meter.Totals{Last: last}
	}
	for _, c := range []struct{ capacity, want int }{{100, 2}, {16, 2}, {15, 4}, {10, 5}, {8, 5}} {
		if got := len(idle(now, 60*m-10*time.Second, c.capacity)); got != c.want {
			t.Errorf("%d of %d: %d are idle, want %d", len(now.Totals), c.capacity, got, c.want)
		}
	}
}

// TestAgentDiesAtAnyMoment kills agents after each number of steps, while pods change hands and counters are
// retired; what was handed on in the end is what the kernel counted.
func TestAgentDiesAtAnyMoment(t *testing.T) {
	for seed := range uint64(20) {
		w := newWorld(t)
		random := rand.New(rand.NewPCG(seed, 1))
		w.look()
		for steps := range 40 {
			l := &life{left: steps % 20}
			w.start(l)
			w.book.full = random.IntN(8) == 0
			for i := 0; l.left >= 0 && i < 50; i++ {
				client := fmt.Sprint("10.0.1.", random.IntN(4))
				w.kernel.send(key(client, fmt.Sprint("10.0.2.1:", 80+random.IntN(3))), random.Uint64N(100))
				w.kernel.pass(time.Duration(random.IntN(200)) * time.Second)
				if random.IntN(3) == 0 {
					w.puts(w.pod("p"+client, "a1", fmt.Sprint("deployment/", random.IntN(5)), client))
				}
				if random.IntN(5) == 0 {
					w.deletes("p" + client)
				}
				w.meter.due.Store(random.IntN(2) == 0)
				if err := w.meter.pass(ended); errors.Is(err, errKilled) {
					break
				}
				if random.IntN(4) == 0 {
					w.book.full = false
				}
			}
		}
		w.start(nil)
		w.read()
		if got := total(w.disk.flows); got != w.kernel.counted || got == 0 {
			t.Fatalf("seed %d: %d bytes were told of %d", seed, got, w.kernel.counted)
		}
		if m := w.meter.metrics; m.lost["adopted"] > 0 || m.events["restart"] > 0 {
			t.Errorf("seed %d: lost %v, %v", seed, m.lost, m.events)
		}
	}
}
