//go:build kernel

package bpf

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zonewise/zonewise/internal/kernel/bpf"
	"github.com/zonewise/zonewise/internal/kernel/netns"
	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/service"
)

// unconnected opens a UDP socket in the namespace.
func unconnected(t *testing.T, ns *netns.NS, network string) *net.UDPConn {
	t.Helper()
	var c net.PacketConn
	if err := ns.Do(func() (err error) {
		c, err = (&net.ListenConfig{}).ListenPacket(context.Background(), network, ":0")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*net.UDPConn)
}

// exchange sends a datagram and returns who answered and from which address it came.
func exchange(c *net.UDPConn, to netip.AddrPort) (who, from netip.AddrPort, err error) {
	if err := c.SetDeadline(time.Now().Add(timeout)); err != nil {
		return who, from, err
	}
	if _, err := c.WriteToUDPAddrPort([]byte("who?"), to); err != nil {
		return who, from, err
	}
	buf := make([]byte, 64)
	n, from, err := c.ReadFromUDPAddrPort(buf)
	if err != nil {
		return who, from, err
	}
	who, err = netip.ParseAddrPort(strings.TrimSpace(string(buf[:n])))
	return who, netip.AddrPortFrom(from.Addr().Unmap(), from.Port()), err
}

func TestUnconnectedUDPSticksAndHearsTheService(t *testing.T) {
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			w := newWorld(t, 3)
			backends := endpoints(3, f.v6, 53)
			w.serve(t, backends...)
			at := netip.AddrPortFrom(serviceAddr(1, f.v6), 53)
			a := w.applier(t)
			apply(t, a, front(at, model.UDP, backends...))
			network := "udp" // a socket of IPv6 that does IPv4 too
			if !f.v6 && !f.mapped {
				network = "udp4"
			}
			seen := map[netip.AddrPort]bool{}
			for range 20 {
				c := unconnected(t, w.ns, network)
				first, _, err := exchange(c, at)
				if err != nil {
					t.Fatal(err)
				}
				seen[first] = true
				for range 5 {
					who, from, err := exchange(c, at)
					if err != nil || from != at || who != first {
						t.Fatalf("got %v from %v, %v: want %v from %v", who, from, err, first, at)
					}
				}
				who, from, err := exchange(c, backends[0])
				if err != nil || who != backends[0] || from != backends[0] {
					t.Errorf("directly: got %v from %v, %v", who, from, err)
				}
			}
			if len(seen) != 3 {
				t.Errorf("20 sockets were led to %v, want 3 endpoints", seen)
			}
		})
	}
}

// A socket that speaks with more Services than fit is led to those that fit.
func TestUnconnectedUDPWithManyServices(t *testing.T) {
	const services = 6
	w := newWorld(t, services)
	backends := endpoints(services, false, 53)
	w.serve(t, backends...)
	var frontends []service.Frontend
	for i := range services {
		frontends = append(frontends, front(netip.AddrPortFrom(serviceAddr(i, false), 53), model.UDP, backends[i]))
	}
	apply(t, w.applier(t), frontends...)
	c := unconnected(t, w.ns, "udp4")
	for range 3 {
		led := 0
		for i, f := range frontends {
			who, from, err := exchange(c, f.Addr)
			if errors.Is(err, unix.ENETUNREACH) {
				continue // left to the packet path, which this world does not have
			}
			if err != nil || who != backends[i] || from != f.Addr {
				t.Fatalf("%v: got %v from %v, %v", f.Addr, who, from, err)
			}
			led++
		}
		if led != 4 {
			t.Errorf("led to %d Services, want 4", led)
		}
	}
}

// Two Services with one endpoint: answers could be either's, so only one is led.
func TestUnconnectedUDPAmbiguity(t *testing.T) {
	w := newWorld(t, 1)
	backends := endpoints(1, false, 53)
	w.serve(t, backends...)
	one, two := netip.AddrPortFrom(serviceAddr(1, false), 53), netip.AddrPortFrom(serviceAddr(2, false), 53)
	apply(t, w.applier(t), front(one, model.UDP, backends...), front(two, model.UDP, backends...))
	c := unconnected(t, w.ns, "udp4")
	if _, from, err := exchange(c, one); err != nil || from != one {
		t.Fatalf("answered by %v, %v", from, err)
	}
	if _, from, err := exchange(c, two); !errors.Is(err, unix.ENETUNREACH) {
		t.Errorf("the second Service answered as %v, %v", from, err)
	}
	if _, from, err := exchange(c, one); err != nil || from != one {
		t.Errorf("answered by %v, %v", from, err)
	}
}

func TestUDPLeavesAnEndpointThatHasGone(t *testing.T) {
	w := newWorld(t, 2)
	backends := endpoints(2, false, 53)
	w.serve(t, backends...)
	at := netip.AddrPortFrom(serviceAddr(1, false), 53)
	a := w.applier(t)
	apply(t, a, front(at, model.UDP, backends[0]))

	free := unconnected(t, w.ns, "udp4")
	if who, _, err := exchange(free, at); err != nil || who != backends[0] {
		t.Fatalf("got %v, %v", who, err)
	}
	port := free.LocalAddr().String()
	bound, err := w.dial("udp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer bound.Close()
	direct, err := w.dial("udp", backends[0])
	if err != nil {
		t.Fatal(err)
	}
	defer direct.Close()
	tcp := w.held(t, netip.AddrPortFrom(backends[0].Addr(), 99))

	// Not chosen any more, but it still serves: flows stay.
	f := front(at, model.UDP, backends[1])
	f.Keep = slices.Clone(backends)
	apply(t, a, f)
	for _, c := range []net.Conn{bound, direct} {
		if who, err := answer(c); err != nil || who != backends[0] {
			t.Errorf("got %v, %v", who, err)
		}
	}
	if who, _, err := exchange(free, at); err != nil || who != backends[0] {
		t.Errorf("got %v, %v", who, err)
	}

	// It has gone.
	f.Keep = backends[1:]
	if err := a.Update(all(f)); err != nil {
		t.Fatal(err)
	}
	if _, err := bound.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNABORTED) {
		t.Errorf("a connected socket got %v, want ECONNABORTED", err)
	}
	if who, err := answer(direct); err != nil || who != backends[0] {
		t.Errorf("a socket that was never led got %v, %v", who, err)
	}
	if who, from, err := exchange(free, at); err != nil || who != backends[1] || from != at {
		t.Errorf("an unconnected socket got %v from %v, %v", who, from, err)
	}
	if free.LocalAddr().String() != port {
		t.Errorf("an unconnected socket changed from %s to %s", port, free.LocalAddr())
	}
	if _, err := tcp.Write([]byte("still here")); err != nil {
		t.Errorf("a TCP connection: %v", err)
	}
}

// held is a TCP connection to an endpoint that goes on.
func (w *world) held(t *testing.T, at netip.AddrPort) net.Conn {
	t.Helper()
	var l net.Listener
	w.in(t, w.ns, func() (err error) {
		l, err = net.Listen("tcp", at.String())
		return err
	})
	t.Cleanup(func() { l.Close() })
	c, err := w.dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// Sockets of pods are ended in their own namespaces.
func TestUDPIsEndedInEveryNamespace(t *testing.T) {
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			w := newWorld(t, 2)
			backends := endpoints(2, f.v6, 53)
			at := netip.AddrPortFrom(serviceAddr(1, f.v6), 53)
			to := at
			if f.mapped {
				to = netip.AddrPortFrom(netip.AddrFrom16(at.Addr().As16()), at.Port())
			}
			a := w.applier(t)
			apply(t, a, front(at, model.UDP, backends...))
			var conns []net.Conn
			for range 3 {
				pod := w.space(t)
				pw := &world{ns: pod}
				pw.address(t, backends...)
				c, err := dialIn(pod, "udp", to)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				conns = append(conns, c)
			}
			if err := a.Update(map[model.Name][]service.Frontend{front(at, model.UDP).Service: nil}); err != nil {
				t.Fatal(err)
			}
			for i, c := range conns {
				if _, err := c.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNABORTED) {
					t.Errorf("pod %d: got %v, want ECONNABORTED", i, err)
				}
			}
		})
	}
}

// Where the kernel cannot end sockets, connected ones are left to the packet path, which cuts flows.
func TestConnectedUDPWhereItCannotBeEnded(t *testing.T) {
	w := newWorld(t, 1)
	backends := endpoints(1, false, 53)
	w.serve(t, backends...)
	at := netip.AddrPortFrom(serviceAddr(1, false), 53)
	a := w.applier(t)
	apply(t, a, front(at, model.UDP, backends...))
	if err := a.host.(*machine).set(func(s *settings) { s.ConnectedUDP = 0 }); err != nil {
		t.Fatal(err)
	}
	if got, err := w.ask("udp", at); !errors.Is(err, unix.ENETUNREACH) {
		t.Errorf("a connected socket was led to %v, %v", got, err)
	}
	if _, from, err := exchange(unconnected(t, w.ns, "udp4"), at); err != nil || from != at {
		t.Errorf("an unconnected one got an answer from %v, %v", from, err)
	}
}

// A socket that connects again forgets where it was led to before.
func TestUDPConnectsAgain(t *testing.T) {
	w := newWorld(t, 1)
	backends := endpoints(1, false, 53)
	w.serve(t, backends...)
	at := netip.AddrPortFrom(serviceAddr(1, false), 53)
	a := w.applier(t)
	apply(t, a, front(at, model.UDP, backends...))
	sockaddr := func(a netip.AddrPort) unix.Sockaddr {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	var fd int
	w.in(t, w.ns, func() (err error) {
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		return err
	})
	defer unix.Close(fd)
	peer := func(to netip.AddrPort) netip.AddrPort {
		t.Helper()
		if err := unix.Connect(fd, sockaddr(to)); err != nil {
			t.Fatal(err)
		}
		got, err := unix.Getpeername(fd)
		if err != nil {
			t.Fatal(err)
		}
		v4 := got.(*unix.SockaddrInet4)
		return netip.AddrPortFrom(netip.AddrFrom4(v4.Addr), uint16(v4.Port))
	}
	for _, to := range []netip.AddrPort{at, backends[0], at} {
		if got := peer(to); got != to {
			t.Errorf("connected to %v: the peer is %v", to, got)
		}
	}
	peer(backends[0])
	if err := a.Update(map[model.Name][]service.Frontend{front(at, model.UDP).Service: nil}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Send(fd, []byte("who?"), 0); err != nil {
		t.Errorf("a socket that connected directly in the end was ended: %v", err)
	}
}

// While the socket path is taken away, who asked by it still gets the answer from where it asked.
func TestAnswersOnTheirWayComeFromTheService(t *testing.T) {
	w := newWorld(t, 1)
	endpoint := endpoints(1, false, 53)[0]
	at := netip.AddrPortFrom(serviceAddr(1, false), 53)
	var server *net.UDPConn
	w.in(t, w.ns, func() (err error) {
		server, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(endpoint))
		return err
	})
	defer server.Close()
	a := w.applier(t)
	apply(t, a, front(at, model.UDP, endpoint))
	client := unconnected(t, w.ns, "udp4")
	for _, c := range []*net.UDPConn{client, server} {
		if err := c.SetDeadline(time.Now().Add(timeout)); err != nil {
			t.Fatal(err)
		}
	}
	buf := make([]byte, 64)
	if _, err := client.WriteToUDPAddrPort([]byte("who?"), at); err != nil {
		t.Fatal(err)
	}
	_, from, err := server.ReadFromUDPAddrPort(buf)
	if err != nil {
		t.Fatal(err)
	}
	removed := make(chan error)
	go func() { removed <- a.Remove() }()
	looks := time.NewTicker(50 * time.Millisecond)
	defer looks.Stop()
	for leading := true; leading; {
		<-looks.C
		leading = bpf.Exists(filepath.Join(w.options.Pins, linksDir, objectProgSendmsg4))
	}
	<-looks.C // another moment, in which all the rest would go
	if _, err := server.WriteToUDPAddrPort([]byte("me"), from); err != nil {
		t.Fatal(err)
	}
	if _, from, err := client.ReadFromUDPAddrPort(buf); err != nil || from != at {
		t.Errorf("the answer came from %v, %v, want %v", from, err, at)
	}
	if err := <-removed; err != nil {
		t.Fatal(err)
	}
}
