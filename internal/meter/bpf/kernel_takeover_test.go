//go:build kernel

package bpf

import (
	"net/netip"
	"path/filepath"
	"testing"

	"github.com/zonewise/zonewise/internal/kernel/bpf"
	"github.com/zonewise/zonewise/internal/meter"
)

// layout makes the node count by an agent of a layout.
func (w *world) layout(t *testing.T, layout string, known ...string) *Counter {
	t.Helper()
	var c *Counter
	in(t, w.node, func() (err error) {
		if c, err = open(w.options, layout, known...); err != nil {
			return err
		}
		return c.Attach()
	})
	t.Cleanup(func() { c.Close() })
	return c
}

// ledger adds up what readings tell.
type ledger struct {
	before meter.Reading
	bytes  uint64
}

func (l *ledger) add(r meter.Reading) {
	deltas, _ := meter.Deltas(l.before, r)
	for _, d := range deltas {
		l.bytes += d.Bytes()
	}
	l.before = r
}

// An agent of a later layout takes over while bytes flow: what the earlier one's programs counted is told
// first, also if the agent dies in between, and nothing is lost or counted twice.
func TestLaterLayout(t *testing.T) {
	w := newWorld(t)
	w.rules(t)
	w.servers(t)
	c := w.layout(t, "v1")
	first := w.read(t, c)
	l := ledger{before: meter.Reading{Boot: "none", Totals: map[meter.Key]meter.Totals{}}}
	stop := w.traffic(t)
	for range 3 {
		l.add(w.read(t, c))
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		c = w.layout(t, "v1")
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	c = w.layout(t, "v2", "v1")
	r := w.read(t, c) // and the agent dies before it can tell
	if r.Epoch != first.Epoch || len(r.Totals) == 0 {
		t.Errorf("epoch %d, was %d: %+v", r.Epoch, first.Epoch, r)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	c = w.layout(t, "v2", "v1")
	l.add(w.read(t, c))
	l.add(w.read(t, c))
	if l.before.Epoch == first.Epoch || bpf.Exists(filepath.Join(w.options.Pins, "v1")) {
		t.Errorf("epoch %d, or the earlier layout is there", l.before.Epoch)
	}
	stop()
	l.add(w.settled(t, c, l.bytes-total(l.before).Bytes()))
	if want := w.counters(t)["seen"]; l.bytes != want {
		t.Errorf("%d bytes, nftables counted %d", l.bytes, want)
	}
}

// Back at an earlier layout counting goes on, with counters of its own.
func TestEarlierLayout(t *testing.T) {
	w := newWorld(t)
	w.rules(t)
	w.servers(t)
	web := netip.AddrPortFrom(podAddr(1, false), 8080)
	c := w.layout(t, "v2")
	ask(t, w.pods[0], "tcp", web, 1000)
	w.settled(t, c, 0)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	before := w.counters(t)["seen"]
	c = w.layout(t, "v1")
	if bpf.Exists(filepath.Join(w.options.Pins, "v2")) {
		t.Error("the later layout is there")
	}
	ask(t, w.pods[0], "tcp", web, 1000)
	if r := w.settled(t, c, before); len(r.Totals) != 1 {
		t.Errorf("%+v", r)
	}
}
