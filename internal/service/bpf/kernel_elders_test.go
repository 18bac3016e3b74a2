//go:build kernel

package bpf

import (
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"sync/atomic"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/zonewise/zonewise/internal/kernel/netns"
	"github.com/zonewise/zonewise/internal/model"
)

// translate has a namespace's packets to a Service led to an endpoint, as another proxy's rules do.
func (w *world) translate(t *testing.T, ns *netns.NS, at, to netip.AddrPort) {
	t.Helper()
	w.in(t, ns, func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		a := at.Addr()
		if err := netlink.RouteAdd(&netlink.Route{LinkIndex: lo.Attrs().Index, Dst: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}}); err != nil {
			return err
		}
		family := "ip"
		if a.Is6() {
			family = "ip6"
		}
		out, err := exec.Command("nft", fmt.Sprintf("table %[1]s other { chain out { type nat hook output priority -100; %[1]s daddr %[2]v udp dport %[3]d dnat to %[4]v; }; }",
			family, a, at.Port(), to)).CombinedOutput()
		if err != nil {
			return fmt.Errorf("nft: %w: %s", err, out)
		}
		return nil
	})
}

// goesTo fails unless a datagram to a Service is answered by an endpoint in the Service's name.
func goesTo(t *testing.T, what string, c *net.UDPConn, at, want netip.AddrPort) {
	t.Helper()
	if who, from, err := exchange(c, at); err != nil || who != want || from != at {
		t.Errorf("%s: got %v from %v, %v: want %v", what, who, from, err, want)
	}
}

// Sockets that sent to a Service before the socket path came go on to their endpoint, until they are
// closed and whichever agents come; new ones are led.
func TestElders(t *testing.T) {
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			w := newWorld(t, 2)
			backends := endpoints(2, f.v6, 53)
			before, after := backends[0], backends[1]
			w.serve(t, backends...)
			at := netip.AddrPortFrom(serviceAddr(1, f.v6), 53)
			w.translate(t, w.ns, at, before)
			pod := &world{ns: w.space(t)}
			pod.address(t, backends...)
			pod.serve(t, backends...)
			w.translate(t, pod.ns, at, before)
			network := "udp" // a socket of IPv6 that does IPv4 too
			if !f.v6 && !f.mapped {
				network = "udp4"
			}
			goes := func(what string, c *net.UDPConn, want netip.AddrPort) {
				t.Helper()
				goesTo(t, what, c, at, want)
			}
			old := map[string]*net.UDPConn{"on the node": unconnected(t, w.ns, network), "in a pod": unconnected(t, pod.ns, network)}
			for where, c := range old {
				goes(where+", before", c, before)
			}
			var young *net.UDPConn
			for _, layout := range []string{"v1", "v1", "v2", "v1"} {
				m, err := open(w.options, layout)
				if err != nil {
					t.Fatal(err)
				}
				a := newApplier(m)
				apply(t, a, front(at, model.UDP, after))
				for where, c := range old {
					goes(where+", with "+layout, c, before)
				}
				if young == nil {
					young = unconnected(t, w.ns, network)
				}
				goes("a younger one", young, after)
				goes("a new one in a pod", unconnected(t, pod.ns, network), after)
				if repaired, err := a.Audit(); repaired || err != nil {
					t.Errorf("repaired %v, %v", repaired, err)
				}
				if err := a.Close(); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// While sockets are being marked, who sends is marked. What an agent that died then left is completed
// by the next.
func TestEldersAgentDiesAmid(t *testing.T) {
	w := newWorld(t, 2)
	backends := endpoints(2, false, 53)
	w.serve(t, backends...)
	at := netip.AddrPortFrom(serviceAddr(1, false), 53)
	w.translate(t, w.ns, at, backends[0])
	a := w.applier(t)
	apply(t, a, front(at, model.UDP, backends[1]))
	led, idle := unconnected(t, w.ns, "udp4"), unconnected(t, w.ns, "udp4")
	goes := func(what string, c *net.UDPConn, want netip.AddrPort) {
		t.Helper()
		goesTo(t, what, c, at, want)
	}
	goes("a led one", led, backends[1])
	if err := a.host.(*machine).set(func(s *settings) { s.Settling = 1 }); err != nil {
		t.Fatal(err)
	}
	amid := unconnected(t, w.ns, "udp4")
	goes("a led one, amid", led, backends[1])
	goes("a new one, amid", amid, backends[0])
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	a = w.applier(t)
	apply(t, a, front(at, model.UDP, backends[1]))
	goes("a led one, after", led, backends[1])
	goes("one of amid, after", amid, backends[0])
	goes("one that had not sent, after", idle, backends[0])
	goes("a new one", unconnected(t, w.ns, "udp4"), backends[1])
}

// Where a hook of sendmsg was taken away for a while, who was led before is led again, and others stay
// where packets went meanwhile.
func TestEldersAfterDamage(t *testing.T) {
	w := newWorld(t, 2)
	backends := endpoints(2, false, 53)
	w.serve(t, backends...)
	at := netip.AddrPortFrom(serviceAddr(1, false), 53)
	w.translate(t, w.ns, at, backends[0])
	a := w.applier(t)
	apply(t, a, front(at, model.UDP, backends[1]))
	led := unconnected(t, w.ns, "udp4")
	goes := func(what string, c *net.UDPConn, want netip.AddrPort) {
		t.Helper()
		goesTo(t, what, c, at, want)
	}
	goes("before", led, backends[1])
	if err := a.host.(*machine).links[objectProgSendmsg4].(interface{ Detach() error }).Detach(); err != nil {
		t.Fatal(err)
	}
	meanwhile := unconnected(t, w.ns, "udp4")
	goes("meanwhile", meanwhile, backends[0])
	if repaired, err := a.Audit(); !repaired || err != nil {
		t.Errorf("repaired %v, %v", repaired, err)
	}
	goes("who was led", led, backends[1])
	goes("who was not", meanwhile, backends[0])
	goes("a new one", unconnected(t, w.ns, "udp4"), backends[1])
}

// Sockets that are opened and used while the socket path comes have one endpoint each.
func TestEldersHaveNoGap(t *testing.T) {
	w := newWorld(t, 2)
	backends := endpoints(2, false, 53)
	w.serve(t, backends...)
	at := netip.AddrPortFrom(serviceAddr(1, false), 53)
	w.translate(t, w.ns, at, backends[0])
	const users = 4
	done := make(chan error)
	var led atomic.Int32
	for range users {
		go func() {
			for {
				who, err := w.talk(at)
				if who == backends[1] {
					led.Add(1)
				}
				if err != nil || led.Load() >= 10*users {
					done <- err
					return
				}
			}
		}()
	}
	apply(t, w.applier(t), front(at, model.UDP, backends[1]))
	for range users {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// talk has a new socket speak with a Service for a while, and returns who answered, always the same.
func (w *world) talk(at netip.AddrPort) (first netip.AddrPort, err error) {
	var c *net.UDPConn
	if err := w.ns.Do(func() (err error) {
		c, err = net.ListenUDP("udp4", nil)
		return err
	}); err != nil {
		return first, err
	}
	defer c.Close()
	for i := range 20 {
		who, _, err := exchange(c, at)
		if err != nil {
			return first, err
		}
		if i > 0 && who != first {
			return first, fmt.Errorf("%v went from %v to %v with datagram %d", c.LocalAddr(), first, who, i)
		}
		first = who
	}
	return first, nil
}
