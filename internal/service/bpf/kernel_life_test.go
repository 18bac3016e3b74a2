//go:build kernel

package bpf

import (
	"errors"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"github.com/zonewise/zonewise/internal/kernel/bpf"
	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/service"
)

// programsAt are the programs that the pinned links run.
func (a *Applier) programsAt(t *testing.T) map[string]ebpf.ProgramID {
	t.Helper()
	out := map[string]ebpf.ProgramID{}
	for name, l := range a.host.(*machine).links {
		info, err := l.Info()
		if err != nil {
			t.Fatal(err)
		}
		out[name] = info.Program
	}
	return out
}

func TestRestart(t *testing.T) {
	w := newWorld(t, 2)
	backends := endpoints(2, false, 8080)
	w.serve(t, backends...)
	at := netip.AddrPortFrom(serviceAddr(1, false), 80)
	first := w.applier(t)
	f := front(at, model.TCP, backends...)
	apply(t, first, f)
	before := first.programsAt(t)
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := w.ask("tcp", at); err != nil {
		t.Errorf("without an agent: %v", err)
	}
	second := w.applier(t)
	if err := second.Apply(nil, false); err != nil {
		t.Fatal(err)
	}
	if _, err := w.ask("tcp", at); err != nil {
		t.Errorf("before the agent has heard of every Service: %v", err)
	}
	apply(t, second, f)
	for name, id := range second.programsAt(t) {
		if before[name] != id {
			t.Errorf("%s was put in place again, and is the same", name)
		}
	}
	if err := second.Apply(nil, true); err != nil {
		t.Fatal(err)
	}
	if got, err := w.ask("tcp", at); err == nil {
		t.Errorf("a deleted Service was led to %v", got)
	}
}

// Agents of two layouts hand over to each other in both directions: connects never fail, and UDP
// sockets keep their conversation.
func TestUpgradeAndDowngrade(t *testing.T) {
	w := newWorld(t, 2)
	backends := endpoints(2, false, 8080)
	w.serve(t, backends...)
	at := netip.AddrPortFrom(serviceAddr(1, false), 80)
	tcp, udp := front(at, model.TCP, backends...), front(at, model.UDP, backends...)
	agent := func(layout string) *Applier {
		t.Helper()
		m, err := open(w.options, layout)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { m.Close() })
		return newApplier(m)
	}
	first := agent("v1")
	apply(t, first, tcp, udp)
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	free := unconnected(t, w.ns, "udp4")
	who, _, err := exchange(free, at)
	if err != nil {
		t.Fatal(err)
	}
	lasting := w.open(t, unix.SOCK_STREAM)
	defer unix.Close(lasting)
	connectFD(t, lasting, at)
	stop, done := make(chan struct{}), make(chan error)
	go func() {
		for {
			select {
			case <-stop:
				done <- nil
				return
			default:
				if _, err := w.ask("tcp", at); err != nil {
					done <- err
					return
				}
			}
		}
	}()
	for _, layout := range []string{"v2", "v1", "v1", "v2"} {
		a := agent(layout)
		if err := a.Apply(nil, false); err != nil {
			t.Fatal(err)
		}
		apply(t, a, tcp, udp)
		if got, from, err := exchange(free, at); err != nil || got != who || from != at {
			t.Errorf("after %s: got %v from %v, %v: want %v", layout, got, from, err, who)
		}
		if got := peerName(t, lasting); got != at {
			t.Errorf("after %s: the peer of an open connection is %v, want %v", layout, got, at)
		}
		dirs, err := os.ReadDir(w.options.Pins)
		if err != nil || len(dirs) != 3 || !bpf.Exists(filepath.Join(w.options.Pins, layout)) {
			t.Errorf("after %s: %v, %v", layout, dirs, err)
		}
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	if err := <-done; err != nil {
		t.Errorf("a connection through it all: %v", err)
	}
}

// Two agents cannot write at once; the second can when the first has gone.
func TestOneAgentAtATime(t *testing.T) {
	w := newWorld(t, 0)
	first, second := w.applier(t), w.applier(t)
	apply(t, first)
	if err := second.Apply(nil, true); !errors.Is(err, bpf.ErrTaken) {
		t.Errorf("beside another: %v", err)
	}
	if err := second.Remove(); !errors.Is(err, bpf.ErrTaken) || !bpf.Exists(w.options.Pins) {
		t.Errorf("remove what another runs: %v", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	apply(t, second)
}

func TestDamageIsRepairedInTheKernel(t *testing.T) {
	w := newWorld(t, 2)
	backends := endpoints(2, false, 8080)
	w.serve(t, backends...)
	at := netip.AddrPortFrom(serviceAddr(1, false), 80)
	for name, damage := range map[string]func(*testing.T, *machine) error{
		"an element deleted": func(_ *testing.T, m *machine) error {
			return m.objects.Maps[objectMapFrontends].Delete(addressOf(at, model.TCP))
		},
		"a link detached": func(_ *testing.T, m *machine) error {
			return m.links[objectProgConnect4].(interface{ Detach() error }).Detach()
		},
		"a link's pin removed": func(_ *testing.T, m *machine) error { return os.Remove(m.linkPin(objectProgConnect4)) },
		"a map's pin removed":  func(_ *testing.T, m *machine) error { return os.Remove(m.mapPin(objectMapSlots)) },
		"another program in place": func(t *testing.T, m *machine) error {
			other, err := ebpf.NewProgram(&ebpf.ProgramSpec{
				Type: ebpf.CGroupSockAddr, AttachType: ebpf.AttachCGroupInet4Connect, License: "GPL",
				Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 1), asm.Return()},
			})
			if err != nil {
				return err
			}
			t.Cleanup(func() { other.Close() })
			return m.links[objectProgConnect4].Update(other)
		},
	} {
		t.Run(name, func(t *testing.T) {
			a := w.applier(t)
			apply(t, a, front(at, model.TCP, backends...))
			if err := damage(t, a.host.(*machine)); err != nil {
				t.Fatal(err)
			}
			if repaired, err := a.Audit(); !repaired || err != nil {
				t.Errorf("repaired %v, %v", repaired, err)
			}
			if repaired, err := a.Audit(); repaired || err != nil {
				t.Errorf("the second time: repaired %v, %v", repaired, err)
			}
			if err := a.Close(); err != nil {
				t.Fatal(err)
			}
			if _, err := w.ask("tcp", at); err != nil {
				t.Errorf("without the agent: %v", err)
			}
		})
	}
}

func TestRemove(t *testing.T) {
	w := newWorld(t, 1)
	backends := endpoints(1, false, 8080)
	w.serve(t, backends...)
	at := netip.AddrPortFrom(serviceAddr(1, false), 80)
	for _, remove := range []func(*Applier) error{
		(*Applier).Remove,
		func(a *Applier) error { return errors.Join(a.Close(), Remove(w.options)) },
	} {
		a := w.applier(t)
		apply(t, a, front(at, model.TCP, backends...), front(at, model.UDP, backends...))
		tcp, err := w.dial("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		udp, err := w.dial("udp", at)
		if err != nil {
			t.Fatal(err)
		}
		if err := remove(a); err != nil {
			t.Fatal(err)
		}
		if bpf.Exists(w.options.Pins) {
			t.Error("pins are left")
		}
		if _, err := w.ask("tcp", at); err == nil {
			t.Error("calls are still led")
		}
		if _, err := answer(tcp); err != nil {
			t.Errorf("a connection of before: %v", err)
		}
		if _, err := udp.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNABORTED) {
			t.Errorf("a connected UDP socket, whose endpoint nobody watches any more, got %v", err)
		}
		tcp.Close()
		udp.Close()
	}
}

func TestRemoveAndComeBack(t *testing.T) {
	w := newWorld(t, 1)
	backends := endpoints(1, false, 8080)
	w.serve(t, backends...)
	at := netip.AddrPortFrom(serviceAddr(1, false), 80)
	a := w.applier(t)
	for range 2 {
		apply(t, a, front(at, model.TCP, backends...))
		if _, err := w.ask("tcp", at); err != nil {
			t.Fatal(err)
		}
		if err := a.Remove(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestOptOut(t *testing.T) {
	w := newWorld(t, 1)
	backends := endpoints(1, false, 8080)
	w.serve(t, backends...)
	at := netip.AddrPortFrom(serviceAddr(1, false), 80)
	a := w.applier(t)
	apply(t, a, front(at, model.TCP, backends...))
	for _, c := range []struct {
		pods []netip.Addr
		led  bool
	}{
		{nil, true}, {[]netip.Addr{endpointAddr(9, false)}, true}, {[]netip.Addr{endpointAddr(1, false)}, false},
		{[]netip.Addr{endpointAddr(1, true)}, false}, {nil, true},
	} {
		if err := a.OptOut(c.pods); err != nil {
			t.Fatal(err)
		}
		if _, err := w.ask("tcp", at); (err == nil) != c.led {
			t.Errorf("opted out: %v: %v, want led %v", c.pods, err, c.led)
		}
	}
}

func TestUnsupported(t *testing.T) {
	w := newWorld(t, 0)
	for name, o := range map[string]Options{
		"no cgroup": {Cgroup: t.TempDir(), Pins: w.options.Pins},
		"no bpffs":  {Cgroup: w.options.Cgroup, Pins: filepath.Join(t.TempDir(), "a", "b")},
	} {
		_, err := New(o)
		var u *Unsupported
		if !errors.As(err, &u) || u.Missing == "" {
			t.Errorf("%s: %v", name, err)
		}
		if err := Remove(o); err != nil {
			t.Errorf("%s: remove: %v", name, err)
		}
	}
}

// The weights of a Service hold, to what chance allows: chi-square beyond 1 in 10^6 fails.
func TestWeightsInTheKernel(t *testing.T) {
	w := newWorld(t, 5)
	backends := endpoints(5, false, 8080)
	at := netip.AddrPortFrom(serviceAddr(1, false), 80)
	f := front(at, model.UDP, backends...)
	shares := []float64{0.4, 0.3, 0.15, 0.1, 0.05}
	for i := range f.Backends {
		f.Backends[i].Share = shares[i]
	}
	a := w.applier(t)
	apply(t, a, f)
	const n = 20_000
	w.in(t, w.ns, func() error {
		for range n {
			if _, err := connectOnce(unix.SOCK_DGRAM, &unix.SockaddrInet4{Port: 80, Addr: at.Addr().As4()}, unix.AF_INET); err != nil {
				return err
			}
		}
		return nil
	})
	counters, err := a.Counters()
	if err != nil {
		t.Fatal(err)
	}
	chi := 0.0
	for i, b := range backends {
		got := float64(counters[service.Pair{Frontend: f.Key(), Backend: b}].Connections)
		chi += math.Pow(got-shares[i]*n, 2) / (shares[i] * n)
	}
	if chi > 33.4 { // 4 degrees of freedom
		t.Errorf("chi-square is %.1f: %v", chi, counters)
	}
}

// Counts go on through restarts and other weights, and begin anew with an endpoint that is new.
func TestCounters(t *testing.T) {
	w := newWorld(t, 3)
	backends := endpoints(3, false, 8080)
	w.serve(t, backends...)
	at := netip.AddrPortFrom(serviceAddr(1, false), 80)
	a := w.applier(t)
	want := map[netip.AddrPort]uint64{}
	check := func(what string) {
		t.Helper()
		for range 10 {
			got, err := w.ask("tcp", at)
			if err != nil {
				t.Fatal(err)
			}
			want[got]++
		}
		counters, err := a.Counters()
		if err != nil {
			t.Fatal(err)
		}
		for p, c := range counters {
			if c.Connections != want[p.Backend] {
				t.Errorf("%s: %v counted %d, want %d", what, p.Backend, c.Connections, want[p.Backend])
			}
		}
	}
	f := front(at, model.TCP, backends[:2]...)
	apply(t, a, f)
	check("at first")
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	a = w.applier(t)
	apply(t, a, f)
	check("after a restart")
	f.Backends[0].Share, f.Backends[1].Share = 0.7, 0.3
	apply(t, a, f)
	check("with weights")
	apply(t, a, front(at, model.TCP, backends[1:]...))
	delete(want, backends[0])
	check("an endpoint replaced")
	apply(t, a, front(at, model.TCP, backends...))
	check("an endpoint that is back")
}
