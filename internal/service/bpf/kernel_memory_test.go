//go:build kernel

package bpf

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/service"
	"github.com/zonewise/zonewise/internal/service/affinity"
)

const (
	remembers = affinity.Least
	choices   = 4
)

// affineWorld is a world whose only pod has one address of each family, at which four endpoints answer; and
// a Service with them that remembers clients.
type affineWorld struct {
	*world
	applier *Applier
	front   service.Frontend
	client  netip.Addr
}

func newAffineWorld(t *testing.T, v6 bool, p model.Protocol) affineWorld {
	t.Helper()
	w := affineWorld{world: newWorld(t, 1), client: endpointAddr(1, v6)}
	w.applier = w.world.applier(t)
	w.front = front(netip.AddrPortFrom(serviceAddr(1, v6), 80), p)
	w.front.Verdict = service.Balance
	w.front.Affinity, w.front.Group = remembers, service.Key{Addr: netip.AddrPortFrom(serviceAddr(9, v6), 80), Protocol: p}
	for i := range choices {
		w.front = w.with(i)
		w.serve(t, w.endpoint(i))
	}
	apply(t, w.applier, w.front)
	w.entries(t, 0) // from now on pods are known
	return w
}

func (w affineWorld) endpoint(i int) netip.AddrPort {
	return netip.AddrPortFrom(w.client, uint16(8080+i))
}

// with is the frontend with one endpoint more.
func (w affineWorld) with(i int) service.Frontend {
	f := w.front
	f.Backends = append(f.Backends[:len(f.Backends):len(f.Backends)], service.Backend{Addr: w.endpoint(i), Share: 0.25})
	if f.Protocol == model.UDP {
		f.Keep = append(f.Keep[:len(f.Keep):len(f.Keep)], w.endpoint(i))
	}
	return f
}

// entries are what is remembered, and have to be so many.
func (w affineWorld) entries(t *testing.T, want int) []affinity.Entry {
	t.Helper()
	list, err := w.applier.Remembered()
	if err != nil || len(list) != want {
		t.Fatalf("remembered %+v, %v, want %d", list, err, want)
	}
	return list
}

func (w affineWorld) now(t *testing.T) time.Duration {
	t.Helper()
	now, err := w.applier.Now()
	if err != nil {
		t.Fatal(err)
	}
	return now
}

// note tells of nft's note about an entry, which ends after so long.
func (w affineWorld) note(t *testing.T, e affinity.Entry, endpoint int, left time.Duration) {
	t.Helper()
	e.Backend, e.Until = w.endpoint(endpoint), w.now(t)+left
	if err := w.applier.Remember([]affinity.Entry{e}, nil); err != nil {
		t.Fatal(err)
	}
}

// asks connects some times, and wants this endpoint always; or to be left to nft, by -1.
func (w affineWorld) asks(t *testing.T, what string, to netip.AddrPort, want int) {
	t.Helper()
	network := "tcp"
	if w.front.Protocol == model.UDP {
		network = "udp"
	}
	for range 8 {
		got, err := w.ask(network, to)
		if want < 0 && err == nil {
			t.Fatalf("%s: led to %s", what, got)
		}
		if want >= 0 && (err != nil || got != w.endpoint(want)) {
			t.Fatalf("%s: %v, %v, want %s", what, got, err, w.endpoint(want))
		}
	}
}

func TestClientsAreLedWhereTheyWere(t *testing.T) {
	for _, f := range families {
		for _, p := range []model.Protocol{model.TCP, model.UDP} {
			t.Run(fmt.Sprintf("%s %s", f.name, p), func(t *testing.T) {
				w := newAffineWorld(t, f.v6, p)
				at := w.front.Addr
				if f.mapped {
					at = netip.AddrPortFrom(netip.AddrFrom16(at.Addr().As16()), at.Port())
				}
				w.asks(t, "not known", at, -1)
				asked := w.entries(t, 1)[0]
				if want := (affinity.Client{Group: w.front.Group, Addr: w.client}); asked.Client != want || asked.Backend.IsValid() || asked.Former || asked.Timeout != remembers {
					t.Errorf("asked: %+v, want %+v", asked, want)
				}
				w.note(t, asked, 2, remembers)
				begin := w.now(t)
				w.asks(t, "known", at, 2)
				known := w.entries(t, 1)[0]
				if known.Backend != w.endpoint(2) || known.Used < begin || known.Used > w.now(t) || known.Until > begin+remembers {
					t.Errorf("known: %+v", known)
				}
				counted, err := w.applier.Counters()
				if err != nil || counted[service.Pair{Frontend: w.front.Key(), Backend: w.endpoint(2)}].Connections != 8 {
					t.Errorf("counted: %v, %v", counted, err)
				}
				w.note(t, known, 3, remembers)
				w.asks(t, "nft says otherwise", at, 3)
				if again := w.entries(t, 1)[0]; again.Used < known.Used {
					t.Errorf("used %s, then %s", known.Used, again.Used)
				}
				if err := w.applier.Remember(nil, w.entries(t, 1)); err != nil {
					t.Fatal(err)
				}
				w.asks(t, "forgotten", at, -1)
			})
		}
	}
}

// Near its end a note is nft's alone; past it, what is left is what the socket path did itself.
func TestMemoryEnds(t *testing.T) {
	w := newAffineWorld(t, false, model.TCP)
	at := w.front.Addr
	w.asks(t, "not known", at, -1)
	w.note(t, w.entries(t, 1)[0], 1, -time.Second)
	w.asks(t, "past, and never used", at, -1)
	w.note(t, w.entries(t, 1)[0], 1, remembers/2-time.Second)
	w.asks(t, "the last while", at, -1)
	w.note(t, w.entries(t, 1)[0], 1, remembers)
	w.asks(t, "renewed", at, 1)
	w.note(t, w.entries(t, 1)[0], 1, -time.Second)
	w.asks(t, "past, and used in time", at, 1)
	w.note(t, w.entries(t, 1)[0], 1, remembers/2-time.Second)
	w.asks(t, "the last while again", at, -1)
}

// One who is not known by the pod's address is left to nft.
func TestClientsOfOtherAddresses(t *testing.T) {
	w := newAffineWorld(t, false, model.TCP)
	at := w.front.Addr
	w.asks(t, "not known", at, -1)
	w.note(t, w.entries(t, 1)[0], 1, remembers)
	for source, led := range map[string]bool{w.client.String(): true, "0.0.0.0": true, "127.0.0.1": false} {
		err := w.ns.Do(func() error {
			d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(source), 0)), Timeout: timeout}
			c, err := d.Dial("tcp", at.String())
			if err == nil {
				c.Close()
			}
			return err
		})
		if (err == nil) != led {
			t.Errorf("bound to %s: %v, want led %v", source, err, led)
		}
	}
	// A second address, and nobody knows which of them it takes.
	w.address(t, netip.AddrPortFrom(endpointAddr(2, false), 0))
	w.applier.host.(*machine).known = known{}
	w.entries(t, 0)
	w.asks(t, "two addresses", at, -1)
	w.entries(t, 0)
}

// The same for datagrams of sockets that are not connected, which can name another source for each.
func TestDatagramsOfOtherAddresses(t *testing.T) {
	w := newAffineWorld(t, false, model.UDP)
	w.asks(t, "not known", w.front.Addr, -1)
	w.note(t, w.entries(t, 1)[0], 1, remembers)
	other := netip.MustParseAddr("127.0.0.1")
	for _, c := range []struct {
		bound, named netip.Addr
		led          bool
	}{
		{w.client, netip.Addr{}, true}, {netip.IPv4Unspecified(), netip.Addr{}, true}, {other, netip.Addr{}, false},
		{netip.IPv4Unspecified(), w.client, true}, {netip.IPv4Unspecified(), other, false}, {w.client, other, false},
	} {
		var s *net.UDPConn
		w.in(t, w.ns, func() (err error) {
			s, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(c.bound, 0)))
			return err
		})
		var named []byte
		if c.named.IsValid() {
			named = unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: c.named.As4()})
		}
		if _, _, err := s.WriteMsgUDPAddrPort([]byte("who?"), named, w.front.Addr); (err == nil) != c.led {
			t.Errorf("bound to %s, from %s: %v, want led %v", c.bound, c.named, err, c.led)
		}
		s.Close()
	}
	free := unconnected(t, w.ns, "udp4")
	for range 4 {
		if who, from, err := exchange(free, w.front.Addr); err != nil || who != w.endpoint(1) || from != w.front.Addr {
			t.Errorf("%v answered as %v, %v", who, from, err)
		}
	}
}

// An endpoint that was away does not get its clients back: they may have been sent elsewhere.
func TestEndpointsThatComeBack(t *testing.T) {
	w := newAffineWorld(t, false, model.TCP)
	at, all := w.front.Addr, w.front
	w.asks(t, "not known", at, -1)
	w.note(t, w.entries(t, 1)[0], 0, remembers)
	w.asks(t, "known", at, 0)
	less := all
	less.Backends = all.Backends[1:]
	for _, f := range []service.Frontend{less, all} {
		if err := w.applier.Update(map[model.Name][]service.Frontend{f.Service: {f}}); err != nil {
			t.Fatal(err)
		}
	}
	w.asks(t, "it was away", at, -1)
	for _, e := range w.entries(t, 2) {
		if e.Former == (e.Backend != w.endpoint(0)) {
			t.Errorf("%+v", e)
		}
		if !e.Former {
			w.note(t, e, 3, remembers)
		}
	}
	w.asks(t, "sent elsewhere", at, 3)
	if err := w.applier.Update(map[model.Name][]service.Frontend{less.Service: {less}}); err != nil {
		t.Fatal(err)
	}
	w.asks(t, "another one left", at, -1)
	if list := w.entries(t, 2); list[0].Former == list[1].Former {
		t.Errorf("one of before, one who asked: %+v", list)
	}

	// One that comes is no reason to ask again.
	for _, e := range w.entries(t, 2) {
		if !e.Former {
			w.note(t, e, 3, remembers)
		}
	}
	if err := w.applier.Update(map[model.Name][]service.Frontend{all.Service: {all}}); err != nil {
		t.Fatal(err)
	}
	w.asks(t, "one came", at, 3)

	// The next agent goes on with what is there.
	if err := w.applier.Close(); err != nil {
		t.Fatal(err)
	}
	w.asks(t, "no agent", at, 3)
	w.applier = w.world.applier(t)
	apply(t, w.applier, all)
	w.asks(t, "another agent", at, 3)
	w.entries(t, 1)

	// Without affinity nobody is remembered.
	off := all
	off.Affinity = 0
	apply(t, w.applier, off)
	met := map[netip.AddrPort]bool{}
	for range 60 {
		got, err := w.ask("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		met[got] = true
	}
	if len(met) != choices {
		t.Errorf("without affinity: %v", met)
	}
	apply(t, w.applier, all)
	w.asks(t, "on again", at, -1)
	w.entries(t, 1)
}

// Sockets of namespaces that are no pod's are left alone.
func TestClientsOfNoPod(t *testing.T) {
	w := newAffineWorld(t, false, model.TCP)
	w.asks(t, "not known", w.front.Addr, -1)
	w.note(t, w.entries(t, 1)[0], 0, remembers)
	m := w.applier.host.(*machine)
	m.options.Namespaces, m.known = t.TempDir(), known{}
	w.entries(t, 0)
	w.asks(t, "no pod", w.front.Addr, -1)
	w.entries(t, 0)
}
