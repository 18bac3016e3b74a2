//go:build kernel

package bpf

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/service"
)

// families are the ways to name an address of a Service: by its own family, and IPv4 by an IPv6 socket.
var families = []struct {
	name   string
	v6     bool
	mapped bool
}{{name: "IPv4"}, {name: "IPv6", v6: true}, {name: "IPv4 at an IPv6 socket", mapped: true}}

func TestConnectIsLedToEveryEndpoint(t *testing.T) {
	for _, f := range families {
		for network, protocol := range map[string]model.Protocol{"tcp": model.TCP, "udp": model.UDP} {
			for _, n := range []int{maxNear, maxNear + 1} {
				t.Run(fmt.Sprintf("%s %s, %d endpoints", f.name, network, n), func(t *testing.T) {
					at := netip.AddrPortFrom(serviceAddr(1, f.v6), 80)
					to := at
					if f.mapped {
						to = netip.AddrPortFrom(netip.AddrFrom16(at.Addr().As16()), 80)
					}
					w := newWorld(t, n)
					backends := endpoints(n, f.v6, 8080)
					w.serve(t, backends...)
					w.ledToEvery(t, network, to, front(at, protocol, backends...))
				})
			}
		}
	}
}

// ledToEvery connects to the frontend's address, or to what is the same, until every endpoint should
// have been chosen often.
func (w *world) ledToEvery(t *testing.T, network string, to netip.AddrPort, f service.Frontend) {
	t.Helper()
	a := w.applier(t)
	apply(t, a, f)
	seen := map[netip.AddrPort]uint64{}
	for range 60 {
		c, err := w.dial(network, to)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.RemoteAddr().String(); got != f.Addr.String() {
			t.Errorf("connected to %s: the peer is called %s", f.Addr, got)
		}
		from, err := answer(c)
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		seen[from]++
	}
	counters, err := a.Counters()
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range f.Backends {
		if seen[b.Addr] < 5 {
			t.Errorf("%s was chosen %d times of 60, want about %d", b.Addr, seen[b.Addr], 60/len(f.Backends))
		}
		if got := counters[service.Pair{Frontend: f.Key(), Backend: b.Addr}].Connections; got != seen[b.Addr] {
			t.Errorf("%s counted %d, want %d", b.Addr, got, seen[b.Addr])
		}
	}
}

func TestWhatIsNotLedIsLeft(t *testing.T) {
	w := newWorld(t, 2)
	backends := endpoints(2, false, 8080)
	w.serve(t, backends...)
	a := w.applier(t)
	at := func(i int) netip.AddrPort { return netip.AddrPortFrom(serviceAddr(i, false), 80) }
	rejected, sources, affine := front(at(1), model.TCP), front(at(2), model.TCP, backends...), front(at(3), model.TCP, backends...)
	sources.Sources = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}
	affine.Affinity = timeout
	inside := front(at(4), model.TCP)
	inside.Verdict = service.Drop
	insiders := front(at(4), model.TCP, backends[0]).Choice
	inside.Inside = &insiders
	apply(t, a, rejected, sources, affine, inside)
	for i := 1; i <= 3; i++ {
		if got, err := w.ask("tcp", at(i)); err == nil {
			t.Errorf("%s was led to %s", at(i), got)
		}
	}
	got, err := w.ask("tcp", at(4))
	if err != nil || got != backends[0] {
		t.Errorf("an insider got %v, %v, want %v", got, err, backends[0])
	}
	if got, err := w.ask("tcp", backends[1]); err != nil || got != backends[1] {
		t.Errorf("a direct connection got %v, %v", got, err)
	}
	if err := a.Update(map[model.Name][]service.Frontend{inside.Service: nil}); err != nil {
		t.Fatal(err)
	}
	if got, err := w.ask("tcp", at(4)); err == nil {
		t.Errorf("a deleted Service was led to %s", got)
	}
}

func TestShapesAreAsInC(t *testing.T) {
	w := newWorld(t, 0)
	a := w.applier(t)
	f := front(netip.AddrPortFrom(serviceAddr(1, true), 53), model.UDP, endpoints(3, true, 53)...)
	f.Backends[0].Share = 0.5
	apply(t, a, f)
	here, used, err := sum(a.tables)
	m := a.host.(*machine)
	there, counted, errThere := m.sumInKernel(m.objects.Programs[objectProgSum])
	if err != nil || errThere != nil || here != there || used != counted || here != a.have.digest || used != a.have.usage {
		t.Errorf("digests: copied %+v %+v %v, summed by the kernel %+v %+v %v, want %+v %+v",
			here, used, err, there, counted, errThere, a.have.digest, a.have.usage)
	}
	again, err := read(a.tables)
	if err != nil {
		t.Fatal(err)
	}
	p := again.frontends[addressOf(f.Addr, model.UDP)]
	if p == nil || p.broken || len(p.slots) != 3 || p.weights == nil || len(p.kept) != 3 {
		t.Errorf("read %+v", p)
	}
	if !slices.ContainsFunc(p.slots, func(s seat) bool { return s.endpoint == addressOf(endpoints(1, true, 53)[0], model.UDP) }) {
		t.Errorf("slots are %v", p.slots)
	}
}
