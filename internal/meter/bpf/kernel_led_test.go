//go:build kernel

package bpf

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/zonewise/zonewise/internal/kernel/conntrack"
	"github.com/zonewise/zonewise/internal/kernel/netns"
	"github.com/zonewise/zonewise/internal/meter"
	"github.com/zonewise/zonewise/internal/model"
)

// lastDial is what the socket path keeps of the last dial of an endpoint (sockets-v1).
type lastDial struct {
	Service socketAddress
	Check   uint32
	At      uint64
}

// socketPath stands in for the socket path: its maps, filled by hand.
type socketPath struct{ places, dialling, lasts *ebpf.Map }

func (w *world) sockets(t testing.TB) socketPath {
	t.Helper()
	w.options.Sockets = filepath.Join(filepath.Dir(w.options.Pins), "sockets-v1")
	if err := os.Mkdir(w.options.Sockets, 0o700); err != nil {
		t.Fatal(err)
	}
	spec, err := loadObject()
	if err != nil {
		t.Fatal(err)
	}
	made := func(name string) *ebpf.Map {
		m, err := ebpf.NewMap(spec.Maps[name])
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { m.Close() })
		if err := m.Pin(filepath.Join(w.options.Sockets, name)); err != nil {
			t.Fatal(err)
		}
		return m
	}
	return socketPath{made(objectMapPlaces), made(objectMapDialling), made(objectMapLasts)}
}

func (a socketAddress) mix() uint64 {
	return mixIP(a.IP) + (uint64(binary.LittleEndian.Uint16(a.Port[:]))|uint64(a.Protocol)<<16)*0xd6e8feb86659fd93
}

func mixIP(ip [16]byte) uint64 {
	word := func(i int) uint64 {
		return uint64(binary.LittleEndian.Uint32(ip[i:]))<<32 | uint64(binary.LittleEndian.Uint32(ip[i+4:]))
	}
	return word(0)*0x9e3779b97f4a7c15 + word(8)*0xc2b2ae3d27d4eb4f
}

// dialled makes it look as if a client, or anybody, had just dialled the Service and been led to the endpoint.
func (s socketPath) dialled(t *testing.T, c *Counter, client netip.Addr, service, endpoint netip.AddrPort, p model.Protocol) {
	t.Helper()
	now, err := c.ticks()
	if err != nil {
		t.Fatal(err)
	}
	whose, of := socketAddressOf(endpoint, p).mix(), socketAddressOf(service, p)
	if client.IsValid() {
		whose += mixIP(client.As16()) * 0xa0761d6478bd642f
	}
	if err := s.lasts.Put(uint32(whose>>48), &lastDial{of, uint32((whose^of.mix()*0xe7037ed1a0b428db)>>32) | 1, now.jiffies}); err != nil {
		t.Fatal(err)
	}
}

// dialFrom connects from a port.
func dialFrom(t *testing.T, ns *netns.NS, network string, local, to netip.AddrPort) net.Conn {
	t.Helper()
	d := net.Dialer{Timeout: timeout, LocalAddr: net.UDPAddrFromAddrPort(local)}
	var c net.Conn
	in(t, ns, func() (err error) {
		c, err = d.Dial(network, to.String())
		return err
	})
	if err := c.SetDeadline(time.Now().Add(timeout)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// What the socket path leads is counted by what was dialled, from the first packet to the last.
func TestLed(t *testing.T) {
	w := newWorld(t)
	w.rules(t)
	w.servers(t)
	s := w.sockets(t)
	c := w.start(t)
	for _, v6 := range []bool{false, true} {
		service, endpoint := netip.AddrPortFrom(serviceAddr(7, v6), 443), netip.AddrPortFrom(podAddr(1, v6), 8080)
		for _, x := range []struct {
			network  string
			protocol model.Protocol
			client   netip.Addr
		}{{"tcp", model.TCP, netip.Addr{}}, {"udp", model.UDP, netip.Addr{}}, {"udp", model.UDP, podAddr(0, v6)}} {
			t.Run(fmt.Sprintf("v6=%v/%s/%v", v6, x.network, x.client), func(t *testing.T) {
				before := w.settled(t, c, 0)
				s.dialled(t, c, x.client, service, endpoint, x.protocol)
				ask(t, w.pods[0], x.network, endpoint, 1000)
				now := w.settled(t, c, 0)
				want := meter.Key{Client: podAddr(0, v6), Dialled: service, Server: endpoint, Protocol: x.protocol, Side: meter.BothEnds}
				deltas, _ := meter.Deltas(before, now)
				if len(deltas) != 1 || deltas[0].Key != want || deltas[0].Connections != 1 {
					t.Errorf("%+v, want %+v", deltas, want)
				}
			})
		}
	}
}

// What others dialled is not taken for what a client did.
func TestOthersAreLed(t *testing.T) {
	w := newWorld(t)
	w.rules(t)
	w.servers(t)
	s := w.sockets(t)
	c := w.start(t)
	service, endpoint := netip.AddrPortFrom(serviceAddr(7, false), 443), netip.AddrPortFrom(podAddr(1, false), 8080)
	s.dialled(t, c, podAddr(0, true), service, endpoint, model.UDP)
	s.dialled(t, c, netip.Addr{}, service, endpoint, model.TCP)
	before := w.settled(t, c, 0)
	ask(t, w.pods[0], "udp", endpoint, 10)
	ask(t, w.outside, "tcp", endpoint, 10)
	deltas, _ := meter.Deltas(before, w.settled(t, c, 0))
	if len(deltas) != 2 || deltas[0].Dialled.IsValid() || deltas[1].Dialled.IsValid() {
		t.Errorf("%+v", deltas)
	}
}

// A flow that another's word replaced finds its own counter again, and its Service with it.
func TestLedIsRemembered(t *testing.T) {
	w := newWorld(t)
	w.rules(t)
	w.servers(t)
	s := w.sockets(t)
	c := w.start(t)
	service, endpoint := netip.AddrPortFrom(serviceAddr(7, false), 443), netip.AddrPortFrom(podAddr(1, false), 8080)
	s.dialled(t, c, netip.Addr{}, service, endpoint, model.TCP)
	conn := dial(t, w.pods[0], "tcp", endpoint)
	defer conn.Close()
	talk(t, conn, 1000)
	before := w.settled(t, c, 0)
	for i := range c.objects.Maps[objectMapFlows].MaxEntries() {
		if err := c.objects.Maps[objectMapFlows].Put(i, uint64(0)); err != nil {
			t.Fatal(err)
		}
	}
	talk(t, conn, 1000)
	deltas, _ := meter.Deltas(before, w.settled(t, c, 0))
	if len(deltas) != 1 || deltas[0].Dialled != service {
		t.Errorf("%+v", deltas)
	}
}

// A direct connection from where a led one was is direct.
func TestLedIsForgotten(t *testing.T) {
	w := newWorld(t)
	w.rules(t)
	w.servers(t)
	s := w.sockets(t)
	c := w.start(t)
	service, endpoint := netip.AddrPortFrom(serviceAddr(7, false), 53), netip.AddrPortFrom(podAddr(1, false), 8080)
	local := netip.AddrPortFrom(podAddr(0, false), 20000)
	s.dialled(t, c, podAddr(0, false), service, endpoint, model.UDP)
	conn := dialFrom(t, w.pods[0], "udp", local, endpoint)
	talk(t, conn, 10)
	conn.Close()
	if r := w.settled(t, c, 0); len(r.Totals) != 1 {
		t.Fatalf("%+v", r)
	}
	for i := range s.lasts.MaxEntries() {
		if err := s.lasts.Put(i, &lastDial{}); err != nil {
			t.Fatal(err)
		}
	}
	in(t, w.node, func() error {
		_, err := conntrack.Conn{}.CutUDP(false, func(conntrack.Flow) bool { return true })
		return err
	})
	before := w.settled(t, c, 0)
	talk(t, dialFrom(t, w.pods[0], "udp", local, endpoint), 10)
	deltas, _ := meter.Deltas(before, w.settled(t, c, 0))
	if len(deltas) != 1 || deltas[0].Dialled.IsValid() || deltas[0].Connections != 1 {
		t.Errorf("%+v", deltas)
	}
}
