//go:build kernel

package sockets

import (
	"net"
	"net/netip"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/zonewise/zonewise/internal/model"
)

// Every connected socket is listed by the cookie that programs know it by; others are not.
func TestConnected(t *testing.T) {
	for _, x := range []struct {
		network, at string
		protocol    model.Protocol
	}{{"tcp4", "127.0.0.1:0", model.TCP}, {"tcp6", "[::1]:0", model.TCP}, {"udp4", "127.0.0.1:0", model.UDP}, {"udp6", "[::1]:0", model.UDP}} {
		var to string
		if x.protocol == model.TCP {
			l, err := net.Listen(x.network, x.at)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			to = l.Addr().String()
		} else {
			l, err := net.ListenPacket(x.network, x.at)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			to = l.LocalAddr().String()
		}
		c, err := net.Dial(x.network, to)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		raw, err := c.(syscall.Conn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		want := Socket{Local: netip.MustParseAddrPort(c.LocalAddr().String()), Peer: netip.MustParseAddrPort(to), Protocol: x.protocol}
		var problem error
		if err := raw.Control(func(fd uintptr) {
			want.Cookie, problem = unix.GetsockoptUint64(int(fd), unix.SOL_SOCKET, unix.SO_COOKIE)
		}); err != nil || problem != nil {
			t.Fatal(err, problem)
		}
		all, err := Connected()
		if err != nil || !slices.Contains(all, want) {
			t.Errorf("%s: no %+v among %+v, %v", x.network, want, all, err)
		}
		if slices.ContainsFunc(all, func(s Socket) bool { return !s.Peer.IsValid() || s.Peer.Port() == 0 }) {
			t.Errorf("one is not connected: %+v", all)
		}
	}
}
