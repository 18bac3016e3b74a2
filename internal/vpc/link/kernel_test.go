//go:build kernel

package link

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/zonewise/zonewise/internal/kernel/link"
	"github.com/zonewise/zonewise/internal/kernel/netns"
	"github.com/zonewise/zonewise/internal/kernel/nft"
	"github.com/zonewise/zonewise/internal/vpc"
)

// cloud is a node with two interfaces, and behind them a router that is everything else:
//
//	pod 192.168.1.11 ┐      ┌ eth0 192.168.1.10, .11 to .15 ─ port0 ┐
//	                 ├ node ┤                                       ├ router 192.168.1.1, with the addresses of
//	pod 192.168.1.21 ┘      └ eth1 192.168.1.20, .21 to .25 ─ port1 ┘ a pod elsewhere, and of the outside
//
// As a cloud does, the router delivers an address to the interface that owns it, and drops what comes
// from another. The node checks the reverse path strictly, as most distributions have it.
type cloud struct {
	*testing.T
	node, router *netns.NS
	here, there  *link.Net
	tables       *nft.Conn
	supply       vpc.Supply
	pods         map[string]*netns.NS // by address
}

const (
	elsewhere = "192.168.2.11" // a pod of another node
	outside   = "203.0.113.10" // a stranger
	podA      = "192.168.1.11" // of eth0
	podB      = "192.168.1.21" // of eth1
	nodeIP    = "192.168.1.10"
)

func newCloud(t *testing.T) *cloud {
	c := &cloud{T: t, supply: supplyOf(2), pods: map[string]*netns.NS{}}
	c.node, c.here = c.space()
	c.router, c.there = c.space()
	for _, ns := range []*netns.NS{c.node, c.router} { // nobody else can have an address: no need to wait for an answer
		c.write(ns, "/proc/sys/net/ipv6/conf/default/accept_dad", "0")
	}
	c.tables = nft.Dial(c.node.FD())
	t.Cleanup(func() { _ = c.tables.Close() })
	for _, ns := range []*netns.NS{c.node, c.router} {
		c.write(ns, "/proc/sys/net/ipv4/ip_forward", "1")
	}
	for n := range 2 {
		i := interfaceOf(n)
		mac, _ := link.ParseMAC(i.MAC)
		port := link.Device{Name: fmt.Sprint("port", n), MAC: link.MAC{2, 1, 0, 0, 0, byte(n)}}
		c.must(c.there.Pair(port, link.Device{Name: i.Device, MAC: mac}, c.node))
		port.Up = true
		for _, a := range append([]netip.Addr{i.Address}, i.Addresses...) {
			port.Neighbours = append(port.Neighbours, link.Neighbour{Address: a, MAC: mac})
			port.Routes = append(port.Routes, link.Route{To: single(a)})
		}
		c.must(c.there.Ensure(port))
	}
	c.must(c.there.Ensure(link.Device{Name: "lo", Up: true, Addresses: []netip.Prefix{
		netip.MustParsePrefix("192.168.1.1/32"), netip.MustParsePrefix(elsewhere + "/32"), netip.MustParsePrefix(outside + "/32"),
	}}))
	c.must(c.here.Ensure(link.Device{
		Name: "eth0", Up: true, Addresses: []netip.Prefix{netip.MustParsePrefix(nodeIP + "/24")},
		Routes: []link.Route{{To: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.MustParseAddr("192.168.1.1")}},
	}))
	for _, conf := range []string{"all", "default", "eth0", "eth1"} {
		c.write(c.node, "/proc/sys/net/ipv4/conf/"+conf+"/rp_filter", "1")
	}
	c.run(c.router, `
		table ip check {
			set port0 { type ipv4_addr; flags interval; elements = { 192.168.1.10-192.168.1.15, 198.51.100.1 } }
			set port1 { type ipv4_addr; flags interval; elements = { 192.168.1.20-192.168.1.25 } }
			chain check {
				type filter hook prerouting priority -300;
				iifname "port0" ip saddr != @port0 counter drop
				iifname "port1" ip saddr != @port1 counter drop
			}
		}`, "nft", "-f", "-")
	return c
}

func (c *cloud) space() (*netns.NS, *link.Net) {
	c.Helper()
	ns, err := netns.New()
	c.must(err)
	c.Cleanup(func() { _ = ns.Close() })
	n, err := link.At(ns)
	c.must(err)
	c.Cleanup(n.Close)
	c.must(n.Ensure(link.Device{Name: "lo", Up: true}))
	return ns, n
}

func (c *cloud) must(err error) {
	c.Helper()
	if err != nil {
		c.Fatal(err)
	}
}

func (c *cloud) write(ns *netns.NS, path, value string) {
	c.Helper()
	c.must(ns.Do(func() error { return os.WriteFile(path, []byte(value), 0o644) }))
}

func (c *cloud) run(ns *netns.NS, stdin string, name string, args ...string) string {
	c.Helper()
	var out bytes.Buffer
	err := ns.Do(func() error {
		cmd := exec.Command(name, args...)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &out
		return cmd.Run()
	})
	if err != nil {
		c.Fatalf("%s %v: %v: %s", name, args, err, &out)
	}
	return out.String()
}

// pod wires a pod with the address, as the plugin does.
func (c *cloud) pod(address string) {
	c.Helper()
	ns, n := c.space()
	w := Plan(c.lease(address), 1500)
	w.Rules = PodRules(c.supply, c.lease(address))
	c.must(Setup(c.here, n, ns, w))
	c.pods[address] = ns
}

func (c *cloud) lease(address string) vpc.Lease {
	a := netip.MustParseAddr(address)
	return vpc.Lease{Key: vpc.Key{Container: "pod-" + address, Interface: "eth0"}, Address: a}
}

func (c *cloud) plan() Host {
	var l vpc.Leases
	for address := range c.pods {
		l.Held = append(l.Held, c.lease(address))
	}
	return PlanHost(c.supply, l, 1500)
}

func (c *cloud) apply() {
	c.Helper()
	c.must(Apply(c.here, c.tables, c.plan()))
}

// serve answers whoever connects with the address that it sees.
func (c *cloud) serve(ns *netns.NS, address string) {
	c.Helper()
	var l net.Listener
	c.must(ns.Do(func() (err error) {
		l, err = net.Listen("tcp", address)
		return err
	}))
	c.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			peer, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(peer, peer.RemoteAddr().(*net.TCPAddr).IP.String())
			_ = peer.Close()
		}
	}()
}

// ask connects and returns the address that the server sees.
func (c *cloud) ask(ns *netns.NS, from, to string) (string, error) {
	c.Helper()
	var said []byte
	err := ns.Do(func() error {
		d := net.Dialer{Timeout: 2 * time.Second}
		if from != "" {
			d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
		}
		conn, err := d.Dial("tcp", to)
		if err != nil {
			return err
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(2 * time.Second)); err != nil {
			return err
		}
		said, err = io.ReadAll(conn)
		return err
	})
	return string(said), err
}

func (c *cloud) sees(what string, ns *netns.NS, from, to, want string) {
	c.Helper()
	if got, err := c.ask(ns, from, to); err != nil || got != want {
		c.Errorf("%s: the server sees %q, %v; want %s", what, got, err, want)
	}
}

// checked says whether the router has dropped anything for its source.
func (c *cloud) checked() {
	c.Helper()
	rules := c.run(c.router, "", "nft", "list", "chain", "ip", "check", "check")
	if strings.Count(rules, "counter packets 0 ") != 2 {
		c.Errorf("dropped by the cloud: %s", rules)
	}
}

// flow returns the connection of the node to the port, as conntrack shows it.
func (c *cloud) flow(to string) string {
	c.Helper()
	for line := range strings.Lines(c.run(c.node, "", "conntrack", "-L", "-p", "tcp")) {
		if strings.Contains(line, to) {
			return line
		}
	}
	c.Errorf("no connection %s", to)
	return ""
}

func TestPodsOfBothInterfaces(t *testing.T) {
	c := newCloud(t)
	c.pod(podA)
	c.pod(podB)
	c.apply()
	c.serve(c.router, elsewhere+":80")
	c.serve(c.router, outside+":80")
	for address, pod := range c.pods {
		c.serve(pod, address+":80")
		c.sees(address+" to a pod elsewhere", pod, "", elsewhere+":80", address)
		c.sees("a pod elsewhere to "+address, c.router, elsewhere, address+":80", elsewhere)
		c.sees(address+" to the outside", pod, "", outside+":80", nodeIP)
		flow := c.flow("src=" + address + " dst=" + outside)
		if !strings.Contains(flow, "mark=128") || !strings.Contains(flow, "dst="+nodeIP) {
			t.Errorf("connection: %s", flow)
		}
		c.sees("the node to "+address, c.node, "", address+":80", nodeIP)
	}
	c.sees("from one interface to the other", c.pods[podA], "", podB+":80", podA)
	c.sees("and back", c.pods[podB], "", podA+":80", podB)
	c.sees("the node itself", c.node, "", outside+":80", nodeIP)
	c.sees("from the other interface's own address", c.node, "192.168.1.20", elsewhere+":80", "192.168.1.20")
	c.serve(c.node, nodeIP+":90")
	c.sees("a pod to its node", c.pods[podB], "", nodeIP+":90", podB)
	c.sees("the outside to the node", c.router, outside, nodeIP+":90", outside)
	c.checked()
}

func TestNoNATWhereSomebodyElseDoesIt(t *testing.T) {
	for name, set := range map[string]func(*vpc.Supply){
		"external SNAT": func(s *vpc.Supply) { s.ExternalSNAT = true },
		"excluded":      func(s *vpc.Supply) { s.Excluded = []netip.Prefix{netip.MustParsePrefix("203.0.113.0/28")} },
		"of the VPC":    func(s *vpc.Supply) { s.VPC = append(s.VPC, netip.MustParsePrefix("203.0.113.10/32")) },
	} {
		t.Run(name, func(t *testing.T) {
			c := newCloud(t)
			c.pod(podA)
			c.pod(podB)
			c.apply()
			c.serve(c.router, outside+":80")
			c.sees("before", c.pods[podB], "", outside+":80", nodeIP)
			set(&c.supply)
			c.apply()
			for address, pod := range c.pods {
				c.sees(address, pod, "", outside+":80", address)
			}
			c.checked()
		})
	}
}

const (
	elsewhere6 = "fd00:192:168:2::11"
	nodeIP6    = "fd00:192:168:1::10"
	podA6      = "fd00:192:168:1:1:0:c0a8:10b" // of eth0
	podB6      = "fd00:192:168:1:2:0:c0a8:115" // of eth1
	second6    = "fd00:192:168:1:2:0:c0a8:114" // eth1's own
)

// ipv6 gives each interface a prefix of IPv6, and the node an address; the cloud checks the source of that, too.
func (c *cloud) ipv6() {
	all := netip.MustParsePrefix("::/0")
	for _, ns := range []*netns.NS{c.node, c.router} {
		c.write(ns, "/proc/sys/net/ipv6/conf/all/forwarding", "1")
	}
	c.must(c.there.Ensure(link.Device{Name: "lo", Addresses: []netip.Prefix{netip.MustParsePrefix(elsewhere6 + "/128")}}))
	far := netip.MustParseAddr("fe80::2") // stands for the node: nobody is asked for its hardware address
	for n := range c.supply.Interfaces {
		i := &c.supply.Interfaces[n]
		i.IPv6Prefix = netip.MustParsePrefix(fmt.Sprintf("fd00:192:168:1:%d::/80", n+1))
		mac, _ := link.ParseMAC(i.MAC)
		c.must(c.there.Ensure(link.Device{
			Name: fmt.Sprint("port", n), Addresses: []netip.Prefix{netip.PrefixFrom(router, 64)},
			Neighbours: []link.Neighbour{{Address: far, MAC: mac}}, Routes: []link.Route{{To: i.IPv6Prefix, Via: far}},
		}))
	}
	c.must(c.there.Ensure(link.Device{Name: "port0", Routes: []link.Route{{To: netip.MustParsePrefix(nodeIP6 + "/128"), Via: far}}}))
	c.must(c.here.Ensure(link.Device{
		Name: "eth0", Addresses: []netip.Prefix{netip.MustParsePrefix(nodeIP6 + "/128")}, Routes: []link.Route{{To: all, Via: router}},
	}))
	c.run(c.router, `table ip6 check { chain check { type filter hook prerouting priority -300;
		iifname "port0" ip6 saddr fd00::/16 ip6 saddr != { fd00:192:168:1:1::/80, fd00:192:168:1::10 } counter drop
		iifname "port1" ip6 saddr fd00::/16 ip6 saddr != fd00:192:168:1:2::/80 counter drop
	}; }`, "nft", "-f", "-")
	c.serve(c.router, "["+elsewhere6+"]:80")
}

// pods6 wires pods with these leases, each with a server, and makes the node's network.
func (c *cloud) pods6(leases ...vpc.Lease) {
	c.Helper()
	for _, l := range leases {
		six := l.IPv6
		if l.Address.Is6() {
			six = l.Address
		}
		ns, n := c.space()
		w := Plan(l, 1500)
		w.Rules = PodRules(c.supply, l)
		c.must(Setup(c.here, n, ns, w))
		c.pods[six.String()] = ns
		c.serve(ns, "["+six.String()+"]:80")
	}
	for range 2 {
		c.must(Apply(c.here, c.tables, PlanHost(c.supply, vpc.Leases{Held: leases}, 1500)))
	}
}

// checked6 is checked, of IPv6.
func (c *cloud) checked6() {
	c.Helper()
	if rules := c.run(c.router, "", "nft", "list", "table", "ip6", "check"); strings.Count(rules, "counter packets 0 ") != 2 {
		c.Errorf("dropped by the cloud: %s", rules)
	}
}

func TestDualStack(t *testing.T) {
	c := newCloud(t)
	c.supply.Family = vpc.Dual
	c.ipv6()
	a, b := c.lease(podA), c.lease(podB)
	a.IPv6, b.IPv6 = netip.MustParseAddr(podA6), netip.MustParseAddr(podB6)
	c.pods6(a, b)
	for six, pod := range c.pods {
		c.sees(six+" to a pod elsewhere", pod, "", "["+elsewhere6+"]:80", six)
		c.sees("a pod elsewhere to "+six, c.router, elsewhere6, "["+six+"]:80", elsewhere6)
	}
	c.sees("from one interface to the other", c.pods[podB6], "", "["+podA6+"]:80", podB6)
	c.sees("and back", c.pods[podA6], "", "["+podB6+"]:80", podA6)
	// NodePorts, as kube-proxy has them: of a pod here, of a pod elsewhere; and a Service's address.
	c.run(c.node, `table ip6 proxy {
		chain prerouting { type nat hook prerouting priority -100;
			fib daddr type local tcp dport 30080 dnat to [`+podB6+`]:80
			fib daddr type local tcp dport 30081 meta mark set mark or 0x4000 dnat to [`+elsewhere6+`]:80
			fib daddr type local tcp dport 30082 meta mark set mark or 0x4000 dnat to [`+podB6+`]:80
			ip6 daddr fd00:10:100::1 dnat to `+elsewhere6+`
		}
		chain postrouting { type nat hook postrouting priority 100;
			meta mark & 0x4000 == 0x4000 meta mark set mark xor 0x4000 masquerade fully-random; }
	}`, "nft", "-f", "-")
	c.sees("a NodePort", c.router, elsewhere6, "["+nodeIP6+"]:30080", elsewhere6)
	if flows := c.run(c.node, "", "conntrack", "-L", "-f", "ipv6"); !strings.Contains(flows, "mark=128") {
		t.Errorf("connections: %s", flows)
	}
	c.sees("a NodePort with masquerade", c.router, elsewhere6, "["+nodeIP6+"]:30082", nodeIP6)
	c.sees("a NodePort of a pod elsewhere", c.pods[podB6], "", "["+nodeIP6+"]:30081", second6)
	c.sees("the same, by the first interface", c.pods[podA6], "", "["+nodeIP6+"]:30081", nodeIP6)
	c.sees("a Service of pods", c.pods[podB6], "", "[fd00:10:100::1]:80", podB6)
	c.sees("from the other interface's own address", c.node, second6, "["+elsewhere6+"]:80", second6)
	c.checked6()
	c.must(Apply(c.here, c.tables, Host{}))
	if left := c.run(c.node, "", "ip", "-6", "rule") + c.run(c.node, "", "nft", "list", "tables"); strings.Contains(left, "proto 90") || strings.Contains(left, "zonewise") {
		t.Errorf("off: %s", left)
	}
}

// With IPv6 alone every pod has an address of the first interface's prefix, and there are no rules.
func TestIPv6Alone(t *testing.T) {
	c := newCloud(t)
	c.supply.Family, c.supply.Interfaces = vpc.IPv6, c.supply.Interfaces[:1]
	c.ipv6()
	pod := "fd00:192:168:1:1::1"
	c.pods6(c.lease(pod))
	c.sees("to a pod elsewhere", c.pods[pod], "", "["+elsewhere6+"]:80", pod)
	c.sees("from a pod elsewhere", c.router, elsewhere6, "["+pod+"]:80", elsewhere6)
	c.sees("from the node", c.node, "", "["+pod+"]:80", nodeIP6)
	if rules := c.run(c.node, "", "ip", "-6", "rule"); strings.Contains(rules, "proto 90") {
		t.Errorf("rules: %s", rules)
	}
	c.checked6()
}

// A NodePort's flow comes in by eth0 and is answered by eth0, wherever the pod's address belongs to, and
// whether or not the proxy masquerades. The rules are as kube-proxy has them.
func TestNodePort(t *testing.T) {
	const nat = `table ip proxy {
			chain prerouting { type nat hook prerouting priority -100; %s; }
			chain postrouting { type nat hook postrouting priority 100;
				meta mark & 0x4000 == 0x4000 meta mark set mark xor 0x4000 masquerade fully-random; }
		}`
	external := "ip daddr 198.51.100.1 tcp dport 30080 dnat to " + podB + ":80"
	local := "fib daddr type local tcp dport 30080 dnat to " + podB + ":80"
	cluster := "fib daddr type local tcp dport 30080 meta mark set mark or 0x4000 dnat to " + podB + ":80"
	for name, v := range map[string]struct {
		load     func(c *cloud)
		to, sees string
	}{
		"nft, local":       {func(c *cloud) { c.run(c.node, fmt.Sprintf(nat, local), "nft", "-f", "-") }, nodeIP, outside},
		"nft, masqueraded": {func(c *cloud) { c.run(c.node, fmt.Sprintf(nat, cluster), "nft", "-f", "-") }, nodeIP, nodeIP},
		"iptables, local": {func(c *cloud) {
			c.run(c.node, "", "iptables", "-t", "nat", "-A", "PREROUTING", "-p", "tcp", "--dport", "30080",
				"-m", "addrtype", "--dst-type", "LOCAL", "-j", "DNAT", "--to-destination", podB+":80")
		}, nodeIP, outside},
		"external address": {func(c *cloud) { c.run(c.node, fmt.Sprintf(nat, external), "nft", "-f", "-") }, "198.51.100.1", outside},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCloud(t)
			c.pod(podB)
			c.serve(c.pods[podB], podB+":80")
			v.load(c)
			c.apply()
			c.must(c.there.Ensure(link.Device{Name: "port0", Routes: []link.Route{{To: netip.MustParsePrefix("198.51.100.1/32"), Via: netip.MustParseAddr(nodeIP)}}}))
			c.sees("the pod", c.router, outside, v.to+":30080", v.sees)
			if flow := c.flow("dport=30080"); !strings.Contains(flow, "mark=128") {
				t.Errorf("connection: %s", flow)
			}
			c.checked()
		})
	}
}

// A pod reaches the outside, and a Service whose endpoint lies outside, by the same way; and a Service
// of pods without NAT.
func TestServices(t *testing.T) {
	c := newCloud(t)
	c.pod(podB)
	c.apply()
	c.serve(c.router, outside+":80")
	c.serve(c.router, elsewhere+":80")
	c.run(c.node, `table ip proxy { chain prerouting { type nat hook prerouting priority -100;
		ip daddr 10.100.0.1 tcp dport 80 dnat to `+outside+`
		ip daddr 10.100.0.2 tcp dport 80 dnat to `+elsewhere+`; }; }`, "nft", "-f", "-")
	c.sees("a Service outside", c.pods[podB], "", "10.100.0.1:80", nodeIP)
	c.sees("a Service of pods", c.pods[podB], "", "10.100.0.2:80", podB)
	c.checked()
}

// What people find with the commands that they know.
func TestAsDocumented(t *testing.T) {
	c := newCloud(t)
	c.pod(podA)
	c.pod(podB)
	c.apply()
	const rules = `0:	from all lookup local
512:	from all to 192.168.1.11 lookup main proto 90
512:	from all to 192.168.1.21 lookup main proto 90
1024:	from all fwmark 0x80/0x80 lookup main proto 90
1536:	from 192.168.1.21 lookup 2 proto 90
32765:	from 192.168.1.20 lookup 2 proto 90
32766:	from all lookup main
32767:	from all lookup default
`
	const routes = `default via 192.168.1.1 dev eth1
192.168.1.1 dev eth1 scope link
`
	shows := func(want string, args ...string) {
		t.Helper()
		got := ""
		for line := range strings.Lines(c.run(c.node, "", "ip", args...)) {
			got += strings.TrimRight(line, " \n") + "\n"
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("ip %v: %s", args, diff)
		}
	}
	shows(rules, "rule")
	shows(routes, "route", "show", "table", "2")
	main := fmt.Sprintf(`default via 192.168.1.1 dev eth0
192.168.1.0/24 dev eth0 proto kernel scope link src 192.168.1.10
192.168.1.11 dev %s scope link
192.168.1.21 dev %s scope link
`, HostName(c.lease(podA).Key), HostName(c.lease(podB).Key))
	shows(main, "route")
	if got := c.run(c.node, "", "ip", "-4", "-br", "address", "show", "eth1"); strings.Fields(got)[2] != "192.168.1.20/24" {
		t.Errorf("eth1: %s", got)
	}
}

// all is everything that ip and nft show of the node.
func (c *cloud) all() string {
	c.Helper()
	s := c.run(c.node, "", "nft", "list", "ruleset")
	for _, what := range []string{"-4 rule", "-4 route show table all type unicast", "-br -4 address"} {
		s += c.run(c.node, "", "ip", strings.Fields(what)...)
	}
	return s
}

func TestTwiceBackAndOff(t *testing.T) {
	c := newCloud(t)
	c.run(c.node, "", "ip", "rule", "add", "priority", "512", "to", "10.0.0.1", "lookup", "main")
	c.run(c.node, "add table ip other", "nft", "-f", "-")
	before := c.run(c.node, "", "ip", "rule") + c.run(c.node, "", "nft", "list", "ruleset")
	c.pod(podA)
	c.pod(podB)
	c.apply()
	once := c.all()
	generation, err := c.tables.Generation()
	c.must(err)
	c.apply()
	again, err := c.tables.Generation()
	if diff := cmp.Diff(once, c.all()); diff != "" || again != generation || err != nil {
		t.Errorf("twice: %d transactions, %v, %s", again-generation, err, diff)
	}
	// Another state, by us and by others, and back.
	c.supply.ExternalSNAT = true
	c.supply.Interfaces[1].Table = 9
	c.apply()
	c.run(c.node, "", "ip", "address", "flush", "dev", "eth1")
	c.run(c.node, "", "ip", "rule", "del", "priority", "1024")
	c.supply.ExternalSNAT = false
	c.supply.Interfaces[1].Table = 2
	c.apply()
	sorted := func(s string) map[string]int {
		lines := map[string]int{}
		for line := range strings.Lines(s) {
			lines[line]++
		}
		return lines
	}
	if diff := cmp.Diff(sorted(once), sorted(c.all())); diff != "" {
		t.Errorf("back: %s", diff)
	}
	for range 2 {
		c.must(Apply(c.here, c.tables, Host{}))
		if diff := cmp.Diff(before, c.run(c.node, "", "ip", "rule")+c.run(c.node, "", "nft", "list", "ruleset")); diff != "" {
			t.Errorf("off: %s", diff)
		}
		if left := c.run(c.node, "", "ip", "route", "show", "table", "all"); strings.Contains(left, "table 2") {
			t.Errorf("off: %s", left)
		}
	}
}

// Connections to the outside go on while the table changes, and new ones are never without NAT: what
// would leave with a pod's address is dropped by the cloud, and counted.
func TestTableChangesUnderTraffic(t *testing.T) {
	c := newCloud(t)
	c.pod(podB)
	c.apply()
	c.serve(c.router, outside+":80")
	stop := make(chan struct{})
	done := make(chan error)
	go func() {
		for {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			if got, err := c.ask(c.pods[podB], "", outside+":80"); err != nil || got != nodeIP {
				done <- errors.Join(err, fmt.Errorf("seen as %q", got))
				return
			}
		}
	}()
	for i := range 200 {
		c.supply.Excluded = nil
		if i%2 == 0 {
			c.supply.Excluded = []netip.Prefix{netip.MustParsePrefix("10.8.0.0/16")}
		}
		c.apply()
	}
	close(stop)
	if err := <-done; err != nil {
		t.Error(err)
	}
	c.checked()
}
