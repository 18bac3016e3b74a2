//go:build kernel

package bpf

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/zonewise/zonewise/internal/kernel/link/linktest"

	"github.com/zonewise/zonewise/internal/kernel/bpf/bpftest"
	"github.com/zonewise/zonewise/internal/kernel/netns"
)

// world is a node with two pods and all others outside, each a network namespace.
//
//	pod 0  10.1.0.10  fd01::10 ─ eni0 ┐
//	                                  node 10.1.0.1 fd01::1 ─ eth0 ─ outside 10.2.0.1 fd02::1
//	pod 1  10.1.0.11  fd01::11 ─ eni1 ┘
type world struct {
	node, outside *netns.NS
	pods          [2]*netns.NS
	options       Options
}

const timeout = 5 * time.Second

func podAddr(i int, v6 bool) netip.Addr     { return addrOf(v6, 1, byte(10+i)) }
func nodeAddr(v6 bool) netip.Addr           { return addrOf(v6, 1, 1) }
func outsideAddr(v6 bool) netip.Addr        { return addrOf(v6, 2, 1) }
func serviceAddr(i int, v6 bool) netip.Addr { return addrOf(v6, 9, byte(i)) }

func addrOf(v6 bool, net, host byte) netip.Addr {
	if v6 {
		return netip.AddrFrom16([16]byte{0xfd, net, 15: host})
	}
	return netip.AddrFrom4([4]byte{10, net, 0, host})
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{options: Options{Pins: filepath.Join(bpftest.FileSystem(t), "meter"), PodInterface: "eni"}}
	w.node, w.outside = space(t), space(t)
	in(t, w.node, func() error {
		return errors.Join(os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0), os.WriteFile("/proc/sys/net/ipv6/conf/all/forwarding", []byte("1"), 0))
	})
	for i := range w.pods {
		w.pods[i] = space(t)
		w.wire(t, fmt.Sprintf("eni%d", i), w.pods[i], podAddr(i, false), podAddr(i, true))
	}
	w.wire(t, "eth0", w.outside, outsideAddr(false), outsideAddr(true))
	in(t, w.node, func() error {
		l, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		for _, v6 := range []bool{false, true} {
			if err := route(l, netip.PrefixFrom(outsideAddr(v6), 0).Masked(), outsideAddr(v6)); err != nil {
				return err
			}
		}
		return nil
	})
	return w
}

func space(t testing.TB) *netns.NS {
	t.Helper()
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	in(t, ns, func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(lo)
	})
	return ns
}

// wire joins a namespace to the node.
func (w *world) wire(t testing.TB, name string, to *netns.NS, addrs ...netip.Addr) {
	t.Helper()
	in(t, w.node, func() error {
		veth := netlink.NewVeth(netlink.LinkAttrs{Name: name})
		veth.PeerName, veth.PeerNamespace = "eth0", netlink.NsFd(to.FD())
		if err := netlink.LinkAdd(veth); err != nil {
			return err
		}
		l, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		for _, v6 := range []bool{false, true} {
			if err := own(l, nodeAddr(v6)); err != nil {
				return err
			}
		}
		return netlink.LinkSetUp(l)
	})
	in(t, to, func() error {
		l, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		for _, a := range addrs {
			if err := own(l, a); err != nil {
				return err
			}
		}
		if err := netlink.LinkSetUp(l); err != nil {
			return err
		}
		for _, v6 := range []bool{false, true} {
			gw := nodeAddr(v6)
			if err := route(l, netip.PrefixFrom(gw, gw.BitLen()), netip.Addr{}); err != nil {
				return err
			}
			if err := route(l, netip.PrefixFrom(gw, 0).Masked(), gw); err != nil {
				return err
			}
		}
		return nil
	})
	in(t, w.node, func() error {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		for _, a := range addrs {
			if err := route(l, netip.PrefixFrom(a, a.BitLen()), netip.Addr{}); err != nil {
				return err
			}
		}
		return nil
	})
}

func own(l netlink.Link, a netip.Addr) error {
	return linktest.Add(l, netip.PrefixFrom(a, a.BitLen()))
}

func route(l netlink.Link, to netip.Prefix, via netip.Addr) error {
	r := &netlink.Route{LinkIndex: l.Attrs().Index, Dst: &net.IPNet{IP: to.Addr().AsSlice(), Mask: net.CIDRMask(to.Bits(), to.Addr().BitLen())}}
	if via.IsValid() {
		r.Gw = via.AsSlice()
	} else {
		r.Scope = netlink.SCOPE_LINK
	}
	return netlink.RouteReplace(r)
}

func in(t testing.TB, ns *netns.NS, f func() error) {
	t.Helper()
	if err := ns.Do(f); err != nil {
		t.Fatal(err)
	}
}

// nft runs commands of nftables on the node.
func (w *world) nft(t testing.TB, script string) {
	t.Helper()
	in(t, w.node, func() error {
		cmd := exec.Command("nft", "-f", "-")
		cmd.Stdin = strings.NewReader(script)
		out, err := cmd.CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
}

// counters are the bytes of nftables' named counters on the node.
func (w *world) counters(t testing.TB) map[string]uint64 {
	t.Helper()
	var out []byte
	in(t, w.node, func() (err error) {
		out, err = exec.Command("nft", "-j", "list", "counters").Output()
		return err
	})
	var all struct {
		Nftables []struct {
			Counter *struct {
				Name  string
				Bytes uint64
			}
		}
	}
	if err := json.Unmarshal(out, &all); err != nil {
		t.Fatal(err)
	}
	found := map[string]uint64{}
	for _, x := range all.Nftables {
		if x.Counter != nil {
			found[x.Counter.Name] = x.Counter.Bytes
		}
	}
	return found
}

// start makes the node count.
func (w *world) start(t testing.TB) *Counter {
	t.Helper()
	var c *Counter
	in(t, w.node, func() (err error) {
		if c, err = New(w.options); err != nil {
			return err
		}
		return c.Attach()
	})
	t.Cleanup(func() { c.Close() })
	return c
}

// echo sends back what comes to the address, TCP and UDP.
func echo(t testing.TB, ns *netns.NS, at netip.AddrPort) {
	t.Helper()
	var l net.Listener
	var p net.PacketConn
	in(t, ns, func() (err error) {
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
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	go func() {
		buf := make([]byte, 65536)
		for {
			n, from, err := p.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = p.WriteTo(buf[:n], from)
		}
	}()
}

func dial(t testing.TB, ns *netns.NS, network string, to netip.AddrPort) net.Conn {
	t.Helper()
	var c net.Conn
	in(t, ns, func() (err error) {
		c, err = net.DialTimeout(network, to.String(), timeout)
		return err
	})
	if err := c.SetDeadline(time.Now().Add(timeout)); err != nil {
		t.Fatal(err)
	}
	return c
}

// ask sends so many bytes and waits until they are back.
func ask(t testing.TB, ns *netns.NS, network string, to netip.AddrPort, size int) {
	t.Helper()
	c := dial(t, ns, network, to)
	defer c.Close()
	talk(t, c, size)
	if network == "tcp" {
		if err := c.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, c); err != nil {
			t.Fatal(err)
		}
	}
}

func talk(t testing.TB, c net.Conn, size int) {
	t.Helper()
	sent := make(chan error, 1)
	go func() {
		_, err := c.Write(bytes.Repeat([]byte{'z'}, size))
		sent <- err
	}()
	if _, err := io.ReadFull(c, make([]byte, size)); err != nil {
		t.Fatal(err)
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
}
