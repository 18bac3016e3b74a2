//go:build kernel

package bpf

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/zonewise/zonewise/internal/kernel/bpf"
)

// What an agent left goes without another agent: nothing counts any more, and whoever comes begins anew.
func TestRemoveWhatAnAgentLeft(t *testing.T) {
	w := newWorld(t)
	w.rules(t)
	w.servers(t)
	c := w.start(t)
	if got := c.Capacity(); got != 65535 {
		t.Errorf("capacity %d", got)
	}
	web := netip.AddrPortFrom(podAddr(1, false), 8080)
	ask(t, w.pods[0], "tcp", web, 1000)
	before := w.settled(t, c, 0)
	if now, err := c.Now(); err != nil || now < before.At || len(before.Totals) == 0 {
		t.Errorf("now %v, read at %v: %v", now, before.At, err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(Remove(w.options), Remove(w.options)); err != nil {
		t.Fatal(err)
	}
	if bpf.Exists(w.options.Pins) {
		t.Error("pins are left")
	}
	ask(t, w.pods[0], "tcp", web, 1000)
	if r := w.read(t, w.start(t)); r.Epoch == before.Epoch || len(r.Totals) != 0 {
		t.Errorf("counted while there was no meter: %+v", r)
	}
}
