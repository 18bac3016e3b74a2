//go:build kernel

package bpf

import (
	"errors"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/cilium/ebpf"

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
	var programs []ebpf.ProgramID
	for _, p := range c.objects.Programs {
		info, err := p.Info()
		if err != nil {
			t.Fatal(err)
		}
		id, _ := info.ID()
		programs = append(programs, id)
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
	awaitGone(t, programs)
	ask(t, w.pods[0], "tcp", web, 1000)
	if r := w.read(t, w.start(t)); r.Epoch == before.Epoch || len(r.Totals) != 0 {
		t.Errorf("counted while there was no meter: %+v", r)
	}
}

// awaitGone waits until the kernel has let go of programs, which it does when nothing runs them any more.
func awaitGone(t *testing.T, programs []ebpf.ProgramID) {
	t.Helper()
	tick, end := time.NewTicker(10*time.Millisecond), time.After(timeout)
	defer tick.Stop()
	for _, id := range programs {
		for {
			p, err := ebpf.NewProgramFromID(id)
			if errors.Is(err, os.ErrNotExist) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			p.Close()
			select {
			case <-tick.C:
			case <-end:
				t.Fatalf("program %d is there still", id)
			}
		}
	}
}
