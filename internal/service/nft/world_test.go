//go:build kernel

package nft_test

import (
	"bufio"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/zonewise/zonewise/internal/kernel/link/linktest"
	"golang.org/x/sys/unix"

	"github.com/zonewise/zonewise/internal/kernel/netns"
	kernelnft "github.com/zonewise/zonewise/internal/kernel/nft"
)

// world is a node with two pods, and everything else behind the node's gateway:
//
//	podA 192.168.1.11 ─ eni… ┐
//	                         node 192.168.1.10 ─ eth0 ─ 192.168.1.1 out, with the addresses of
//	podB 192.168.1.12 ─ eni… ┘                         pods of other nodes, and of strangers
type world struct {
	node, podA, podB, out *netns.NS
}

const (
	nodeIP   = "192.168.1.10"
	podAIP   = "192.168.1.11"
	podBIP   = "192.168.1.12"
	remoteIP = "192.168.2.11" // a pod of another node
	otherIP  = "192.168.3.11" // another
	outIP    = "192.168.1.1"
)

// table4 is the table of the dataplane.
var table4 = kernelnft.Table{Family: kernelnft.IPv4, Name: "zonewise"}

func newWorld(t testing.TB) world {
	t.Helper()
	w := world{node: space(t), podA: space(t), podB: space(t), out: space(t)}
	w.in(t, w.node, func() error {
		if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0); err != nil {
			return err
		}
		if err := os.WriteFile("/proc/sys/net/ipv6/conf/all/forwarding", []byte("1"), 0); err != nil {
			return err
		}
		return pair("eth0", w.out)
	})
	w.in(t, w.node, func() error { return address("eth0", nodeIP+"/24", outIP) })
	w.in(t, w.out, func() error {
		for _, a := range []string{remoteIP, otherIP} {
			if err := address("lo", a+"/32", ""); err != nil {
				return err
			}
		}
		return address("eth0", outIP+"/24", nodeIP)
	})
	w.in(t, w.node, func() error { return address("eth0", six(nodeIP)+"/64", six(outIP)) })
	w.in(t, w.out, func() error {
		for _, a := range []string{remoteIP, otherIP} {
			if err := address("lo", six(a)+"/128", ""); err != nil {
				return err
			}
		}
		return address("eth0", six(outIP)+"/64", six(nodeIP))
	})
	w.pod(t, w.podA, "eni0000000000a", podAIP)
	w.pod(t, w.podB, "eni0000000000b", podBIP)
	return w
}

// six is the IPv6 address of who has the IPv4 address: fd00:192:168:1::10 for 192.168.1.10.
func six(four string) string {
	at := strings.LastIndex(four, ".")
	return netip.MustParseAddr("fd00:" + strings.ReplaceAll(four[:at], ".", ":") + "::" + four[at+1:]).String()
}

func space(t testing.TB) *netns.NS {
	t.Helper()
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	err = ns.Do(func() error {
		for _, which := range []string{"all", "default"} { // nobody else can have an address: no need to wait for an answer
			if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+which+"/accept_dad", []byte("0"), 0); err != nil {
				return err
			}
		}
		return address("lo", "", "")
	})
	if err != nil {
		t.Fatal(err)
	}
	return ns
}

func (w world) in(t testing.TB, ns *netns.NS, f func() error) {
	t.Helper()
	if err := ns.Do(f); err != nil {
		t.Fatal(err)
	}
}

func pair(name string, other *netns.NS) error {
	return netlink.LinkAdd(&netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: "eth0", PeerNamespace: netlink.NsFd(other.FD()),
	})
}

// address brings a device up, with an address and a default route where given.
func address(dev, cidr, gateway string) error {
	l, err := netlink.LinkByName(dev)
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(l); err != nil {
		return err
	}
	if cidr != "" {
		if err := linktest.Add(l, netip.MustParsePrefix(cidr)); err != nil {
			return err
		}
	}
	if gateway == "" {
		return nil
	}
	return netlink.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Gw: net.ParseIP(gateway)})
}

// pod wires a pod as the CNI plugin does: its own address alone on each side, no bridge.
func (w world) pod(t testing.TB, ns *netns.NS, dev, ip string) {
	t.Helper()
	w.in(t, w.node, func() error { return pair(dev, ns) })
	w.route(t, ns, dev, ip, nodeIP, "169.254.1.1")
	w.route(t, ns, dev, six(ip), six(nodeIP), "fe80::1")
}

// route gives a pod an address, a gateway that is the node, and the way back.
func (w world) route(t testing.TB, ns *netns.NS, dev, ip, node, gateway string) {
	t.Helper()
	var mac net.HardwareAddr
	w.in(t, w.node, func() error {
		l, err := netlink.LinkByName(dev)
		if err != nil {
			return err
		}
		mac = l.Attrs().HardwareAddr
		if err := netlink.LinkSetUp(l); err != nil {
			return err
		}
		return netlink.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Scope: netlink.SCOPE_LINK, Dst: alone(ip)})
	})
	w.in(t, w.out, func() error {
		return netlink.RouteAdd(&netlink.Route{Dst: alone(ip), Gw: net.ParseIP(node)})
	})
	w.in(t, ns, func() error {
		if err := address("eth0", alone(ip).String(), ""); err != nil {
			return err
		}
		l, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		err = netlink.NeighAdd(&netlink.Neigh{
			LinkIndex: l.Attrs().Index, State: unix.NUD_PERMANENT, IP: alone(gateway).IP, HardwareAddr: mac,
		})
		if err != nil {
			return err
		}
		err = netlink.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Scope: netlink.SCOPE_LINK, Dst: alone(gateway)})
		if err != nil {
			return err
		}
		return netlink.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Gw: alone(gateway).IP})
	})
}

// alone is the prefix that has the address and no other.
func alone(ip string) *net.IPNet {
	a := net.ParseIP(ip)
	if four := a.To4(); four != nil {
		a = four
	}
	return &net.IPNet{IP: a, Mask: net.CIDRMask(8*len(a), 8*len(a))}
}

// serve answers every connection to the address with the server's address and the client's, and
// then echoes, line by line.
func (w world) serve(t testing.TB, ns *netns.NS, addr string) {
	t.Helper()
	var l net.Listener
	w.in(t, ns, func() (err error) {
		l, err = net.Listen("tcp", addr)
		return err
	})
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				fmt.Fprintf(c, "%s %s\n", addr, host(c.RemoteAddr()))
				for s := bufio.NewScanner(c); s.Scan(); {
					fmt.Fprintf(c, "%s\n", s.Text())
				}
			}()
		}
	}()
}

// serveUDP answers every datagram with the server's address and the client's.
func (w world) serveUDP(t testing.TB, ns *netns.NS, addr string) {
	t.Helper()
	var c net.PacketConn
	w.in(t, ns, func() (err error) {
		c, err = net.ListenPacket("udp", addr)
		return err
	})
	t.Cleanup(func() { c.Close() })
	go func() {
		buf := make([]byte, 2048)
		for {
			_, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			fmt.Fprintf(addressed{c, from}, "%s %s\n", addr, host(from))
		}
	}()
}

type addressed struct {
	net.PacketConn
	to net.Addr
}

func (a addressed) Write(b []byte) (int, error) { return a.WriteTo(b, a.to) }

func host(a net.Addr) string { return netip.MustParseAddrPort(a.String()).Addr().String() }

const dialTimeout = 2 * time.Second

// dial opens a connection that has the given time to do anything.
func (w world) dial(ns *netns.NS, network, addr string, timeout time.Duration) (net.Conn, error) {
	var c net.Conn
	err := ns.Do(func() (err error) {
		c, err = net.DialTimeout(network, addr, timeout)
		return err
	})
	if err == nil {
		err = c.SetDeadline(time.Now().Add(timeout))
	}
	return c, err
}

// answer is who answered a connection, and the source that it saw.
type answer struct{ server, client string }

func (w world) ask(ns *netns.NS, addr string) (answer, error) {
	c, err := w.dial(ns, "tcp", addr, dialTimeout)
	if err != nil {
		return answer{}, err
	}
	defer c.Close()
	return read(c)
}

func (w world) askUDP(ns *netns.NS, addr string) (answer, error) {
	c, err := w.dial(ns, "udp", addr, dialTimeout)
	if err != nil {
		return answer{}, err
	}
	defer c.Close()
	return askOn(c)
}

func askOn(c net.Conn) (answer, error) {
	if _, err := c.Write([]byte("who?\n")); err != nil {
		return answer{}, err
	}
	return read(c)
}

func read(c net.Conn) (answer, error) {
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return answer{}, err
	}
	var a answer
	a.server, a.client, _ = strings.Cut(strings.TrimSpace(line), " ")
	return a, nil
}

// via routes an address to a gateway behind the device.
func (d device) via(ip, gateway string) error {
	return netlink.RouteAdd(&netlink.Route{LinkIndex: d.index, Dst: alone(ip), Gw: net.ParseIP(gateway)})
}
