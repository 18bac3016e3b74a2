//go:build kernel

package bpf

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/zonewise/zonewise/internal/kernel/bpf/bpftest"
	"github.com/zonewise/zonewise/internal/kernel/conntrack"
	"github.com/zonewise/zonewise/internal/kernel/netns"
	"github.com/zonewise/zonewise/internal/meter"
	"github.com/zonewise/zonewise/internal/model"
)

// What the socket path keeps, as it lays it out (sockets-v1).
type (
	socketAddress struct {
		IP       [16]byte
		Port     [2]byte
		Protocol model.Protocol
		Zero     uint8
	}
	socketPair  struct{ Service, Endpoint socketAddress }
	socketPlace struct {
		Cookie uint64
		Pair   socketPair
	}
	socketOrigin struct {
		Pair socketPair
		Used uint32
	}
	socketTalks [4]socketOrigin
)

func socketAddressOf(a netip.AddrPort, p model.Protocol) socketAddress {
	return socketAddress{IP: a.Addr().As16(), Port: [2]byte{byte(a.Port() >> 8), byte(a.Port())}, Protocol: p}
}

// sockets stands in for the socket path: its maps, filled by hand.
type sockets struct{ places, peers, conversations *ebpf.Map }

func (w *world) sockets(t *testing.T) sockets {
	t.Helper()
	w.options.Cgroup = bpftest.Cgroup(t)
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
	return sockets{made(objectMapPlaces), made(objectMapPeers), made(objectMapConversations)}
}

// The three places in which the socket path keeps what it did.
const (
	inPlace = iota
	withSocket
	inConversation
)

// lead makes it look as if the socket had dialled the Service and been led to the endpoint.
func (s sockets) lead(fd int, where int, service, endpoint netip.AddrPort, p model.Protocol) error {
	pair := socketPair{socketAddressOf(service, p), socketAddressOf(endpoint, p)}
	switch where {
	case withSocket:
		return s.peers.Put(uint32(fd), &socketOrigin{Pair: pair})
	case inConversation:
		return s.conversations.Put(uint32(fd), &socketTalks{2: {Pair: pair}})
	}
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
	if err != nil {
		return err
	}
	return s.places.Put(uint32(cookie%uint64(s.places.MaxEntries())), &socketPlace{cookie, pair})
}

// dialLed connects to an endpoint as the socket path would have it.
func (s sockets) dialLed(t *testing.T, ns *netns.NS, network string, local string, where int, service, endpoint netip.AddrPort) net.Conn {
	t.Helper()
	p := model.TCP
	if network == "udp" {
		p = model.UDP
	}
	d := net.Dialer{Timeout: timeout, Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		return errors.Join(c.Control(func(fd uintptr) {
			if service.IsValid() {
				err = s.lead(int(fd), where, service, endpoint, p)
			}
			err = errors.Join(err, unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1))
		}), err)
	}}
	if local != "" && network == "udp" {
		d.LocalAddr = net.UDPAddrFromAddrPort(netip.MustParseAddrPort(local))
	}
	var c net.Conn
	in(t, ns, func() (err error) {
		c, err = d.Dial(network, endpoint.String())
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
			where    int
		}{{"tcp", model.TCP, inPlace}, {"tcp", model.TCP, withSocket}, {"udp", model.UDP, inPlace}, {"udp", model.UDP, withSocket}, {"udp", model.UDP, inConversation}} {
			t.Run(fmt.Sprintf("v6=%v/%s/%d", v6, x.network, x.where), func(t *testing.T) {
				before := w.settled(t, c, 0)
				conn := s.dialLed(t, w.pods[0], x.network, "", x.where, service, endpoint)
				talk(t, conn, 1000)
				conn.Close()
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

// A flow that another's word replaced finds its own counter again, and its Service with it.
func TestLedIsRemembered(t *testing.T) {
	w := newWorld(t)
	w.rules(t)
	w.servers(t)
	s := w.sockets(t)
	c := w.start(t)
	service, endpoint := netip.AddrPortFrom(serviceAddr(7, false), 443), netip.AddrPortFrom(podAddr(1, false), 8080)
	conn := s.dialLed(t, w.pods[0], "tcp", "", inPlace, service, endpoint)
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
	local := netip.AddrPortFrom(podAddr(0, false), 20000).String()
	conn := s.dialLed(t, w.pods[0], "udp", local, inPlace, service, endpoint)
	talk(t, conn, 10)
	conn.Close()
	in(t, w.node, func() error {
		_, err := conntrack.Conn{}.CutUDP(false, func(conntrack.Flow) bool { return true })
		return err
	})
	before := w.settled(t, c, 0)
	talk(t, s.dialLed(t, w.pods[0], "udp", local, inPlace, netip.AddrPort{}, endpoint), 10)
	deltas, _ := meter.Deltas(before, w.settled(t, c, 0))
	if len(deltas) != 1 || deltas[0].Dialled.IsValid() || deltas[0].Connections != 1 {
		t.Errorf("%+v", deltas)
	}
}
