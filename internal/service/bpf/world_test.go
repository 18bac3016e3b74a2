//go:build kernel

package bpf

import (
	"bufio"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/zonewise/zonewise/internal/kernel/link/linktest"
	"golang.org/x/sys/unix"

	"github.com/zonewise/zonewise/internal/kernel/bpf/bpftest"
	"github.com/zonewise/zonewise/internal/kernel/netns"
	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/service"
)

// world is a namespace with loopback alone, on which endpoints have addresses and Services have
// none: who gets an answer from a Service was led. The test's process is in the world's cgroup.
type world struct {
	ns      *netns.NS
	options Options
}

const timeout = 3 * time.Second

// endpointAddr is the address of endpoint i: it has both families.
func endpointAddr(i int, v6 bool) netip.Addr {
	if v6 {
		return netip.AddrFrom16([16]byte{0xfd, 1, 14: byte(i >> 8), 15: byte(i)})
	}
	return netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})
}

// serviceAddr is the address of Service i.
func serviceAddr(i int, v6 bool) netip.Addr {
	if v6 {
		return netip.AddrFrom16([16]byte{0xfd, 0x64, 13: byte(i >> 16), 14: byte(i >> 8), 15: byte(i)})
	}
	return netip.AddrFrom4([4]byte{10, 100 + byte(i>>16), byte(i >> 8), byte(i)})
}

func newWorld(t testing.TB, count int) *world {
	t.Helper()
	w := &world{options: Options{Cgroup: bpftest.Cgroup(t), Pins: filepath.Join(bpftest.FileSystem(t), "zonewise"), Namespaces: t.TempDir()}}
	w.ns = w.space(t)
	w.address(t, append(endpoints(count, false, 0), endpoints(count, true, 0)...)...)
	return w
}

// address gives the namespace these addresses.
func (w *world) address(t testing.TB, addrs ...netip.AddrPort) {
	t.Helper()
	w.in(t, w.ns, func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		for _, ap := range addrs {
			if err := linktest.Add(lo, netip.PrefixFrom(ap.Addr(), ap.Addr().BitLen())); err != nil {
				return err
			}
		}
		return nil
	})
}

// space makes a namespace with loopback up, among those of pods.
func (w *world) space(t testing.TB) *netns.NS {
	t.Helper()
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	w.in(t, ns, func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(lo)
	})
	name := filepath.Join(w.options.Namespaces, fmt.Sprintf("pod-%d", ns.FD()))
	if err := os.Symlink(ns.Path(), name); err != nil {
		t.Fatal(err)
	}
	return ns
}

func (w *world) in(t testing.TB, ns *netns.NS, f func() error) {
	t.Helper()
	if err := ns.Do(f); err != nil {
		t.Fatal(err)
	}
}

// applier returns a new agent's.
func (w *world) applier(t testing.TB) *Applier {
	t.Helper()
	a, err := New(w.options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	return a
}

// serve answers at the endpoint, TCP and UDP, with its own address.
func (w *world) serve(t testing.TB, endpoints ...netip.AddrPort) {
	t.Helper()
	for _, at := range endpoints {
		var l net.Listener
		var p net.PacketConn
		w.in(t, w.ns, func() (err error) {
			if l, err = net.Listen("tcp", at.String()); err != nil {
				return err
			}
			p, err = net.ListenPacket("udp", at.String())
			return err
		})
		t.Cleanup(func() { l.Close(); p.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				fmt.Fprintf(c, "%s\n", at)
				c.Close()
			}
		}()
		go func() {
			buf := make([]byte, 64)
			for {
				_, from, err := p.ReadFrom(buf)
				if err != nil {
					return
				}
				_, _ = p.WriteTo([]byte(at.String()+"\n"), from)
			}
		}()
	}
}

func (w *world) dial(network string, to netip.AddrPort) (net.Conn, error) {
	return dialIn(w.ns, network, to)
}

// dialIn connects. To an IPv4 address in IPv6 it does so from an IPv6 socket, which net does not.
func dialIn(ns *netns.NS, network string, to netip.AddrPort) (c net.Conn, err error) {
	err = ns.Do(func() (err error) {
		if to.Addr().Is4In6() {
			c, err = dialMapped(network, to)
		} else {
			c, err = net.DialTimeout(network, to.String(), timeout)
		}
		return err
	})
	if err == nil {
		err = c.SetDeadline(time.Now().Add(timeout))
	}
	return c, err
}

func dialMapped(network string, to netip.AddrPort) (net.Conn, error) {
	kind := unix.SOCK_STREAM
	if network == "udp" {
		kind = unix.SOCK_DGRAM
	}
	fd, err := unix.Socket(unix.AF_INET6, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "socket")
	defer f.Close()
	if err := unix.Connect(fd, &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}); err != nil {
		return nil, err
	}
	return net.FileConn(f)
}

// ask connects and returns who answers.
func (w *world) ask(network string, to netip.AddrPort) (netip.AddrPort, error) {
	c, err := w.dial(network, to)
	if err != nil {
		return netip.AddrPort{}, err
	}
	defer c.Close()
	return answer(c)
}

func answer(c net.Conn) (netip.AddrPort, error) {
	if strings.HasPrefix(c.LocalAddr().Network(), "udp") {
		if _, err := c.Write([]byte("who?")); err != nil {
			return netip.AddrPort{}, err
		}
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return netip.AddrPort{}, err
	}
	return netip.ParseAddrPort(strings.TrimSpace(line))
}

// endpoints are the first n endpoints at a port.
func endpoints(n int, v6 bool, port uint16) []netip.AddrPort {
	var out []netip.AddrPort
	for i := 1; i <= n; i++ {
		out = append(out, netip.AddrPortFrom(endpointAddr(i, v6), port))
	}
	return out
}

// front is a frontend with even shares.
func front(at netip.AddrPort, p model.Protocol, endpoints ...netip.AddrPort) service.Frontend {
	f := service.Frontend{
		Service: model.Name{Namespace: "shop", Name: "s-" + at.Addr().String()},
		Kind:    service.ClusterIP, Addr: at, Protocol: p, Choice: service.Choice{Verdict: service.Balance},
	}
	for _, e := range endpoints {
		f.Backends = append(f.Backends, service.Backend{Addr: e, Share: 1 / float64(len(endpoints))})
		if p == model.UDP {
			f.Keep = append(f.Keep, e)
		}
	}
	if len(endpoints) == 0 {
		f.Verdict = service.Reject
	}
	return f
}

func all(frontends ...service.Frontend) map[model.Name][]service.Frontend {
	out := map[model.Name][]service.Frontend{}
	for _, f := range frontends {
		out[f.Service] = append(out[f.Service], f)
	}
	return out
}

func apply(t testing.TB, a *Applier, frontends ...service.Frontend) {
	t.Helper()
	if err := a.Apply(all(frontends...), true); err != nil {
		t.Fatal(err)
	}
}
