//go:build kernel

package region

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"

	"github.com/zonewise/zonewise/internal/kernel/link/linktest"
	"github.com/zonewise/zonewise/lab/region/ec2"
	"github.com/zonewise/zonewise/lab/topology"
)

// newCloud is a fabric that delivers what a test says, and at first each node's primary address.
func newCloud(t *testing.T, c topology.Config) (*Fabric, ec2.Delivery) {
	t.Helper()
	c.CNI = topology.CNIZonewise
	f := newFabric(t, c)
	d := fixed(f.topo)
	apply(t, f, d)
	return f, d
}

func apply(t *testing.T, f *Fabric, d ec2.Delivery) {
	t.Helper()
	if err := f.Apply(d); err != nil {
		t.Fatal(err)
	}
}

// with is a copy of a delivery in which the interfaces of one node are these, after its first one.
func with(d ec2.Delivery, node string, more ...ec2.InterfaceDelivery) ec2.Delivery {
	d.Instances = slices.Clone(d.Instances)
	for i := range d.Instances {
		if v := &d.Instances[i]; v.Node == node {
			v.Interfaces = append(slices.Clone(v.Interfaces[:1]), more...)
		}
	}
	return d
}

// eni is an interface in a subnet, with its primary address first.
func eni(id string, index int, subnet string, addresses ...string) ec2.InterfaceDelivery {
	v := ec2.InterfaceDelivery{ID: id, DeviceIndex: index, CIDR: netip.MustParsePrefix(subnet), SourceCheck: true}
	for _, a := range addresses {
		v.Addresses = append(v.Addresses, netip.MustParseAddr(a))
	}
	v.Primary = v.Addresses[0]
	v.MAC = append(net.HardwareAddr{0x02, 1}, v.Primary.AsSlice()...)
	return v
}

// have makes addresses a node's own, as its pods would.
func have(t *testing.T, n testNode, addresses ...netip.Addr) {
	t.Helper()
	if err := In(n.ns, func() error {
		lo, err := netlink.LinkByName("lo")
		for _, a := range addresses {
			err = errors.Join(err, netlink.AddrReplace(lo, own(a)))
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

// setUp does what a CNI does with a secondary interface: what is sent from its addresses leaves by it.
func setUp(t *testing.T, f *Fabric, n testNode, v ec2.InterfaceDelivery) {
	t.Helper()
	have(t, n, v.Addresses...)
	device, table := fmt.Sprintf("eth%d", v.DeviceIndex), v.DeviceIndex+1
	if err := In(n.ns, func() error {
		link, err := netlink.LinkByName(device)
		if err != nil {
			return err
		}
		if err := errors.Join(netlink.LinkSetUp(link), carries(device)); err != nil {
			return err
		}
		index, gw := link.Attrs().Index, gateway(v.CIDR)
		for _, a := range v.Addresses {
			rule := netlink.NewRule()
			rule.Priority, rule.Src, rule.Table = 1536, host(a), table
			if err := netlink.RuleAdd(rule); err != nil {
				return err
			}
		}
		return errors.Join(
			netlink.RouteReplace(&netlink.Route{LinkIndex: index, Dst: host(gw), Scope: netlink.SCOPE_LINK, Table: table}),
			netlink.RouteReplace(&netlink.Route{LinkIndex: index, Gw: gw.AsSlice(), Table: table}))
	}); err != nil {
		t.Fatal(err)
	}
	if err := In(f.Thread.NS(), func() error { return carries(linkName(n.Alias, v.DeviceIndex)) }); err != nil {
		t.Fatal(err)
	}
}

// An interface comes as on EC2, down and bare, and goes without a trace. The same again changes nothing.
func TestInterfacesComeAndGo(t *testing.T) {
	f, d := newCloud(t, topology.Config{Zones: topology.Spread(2, 1)})
	a1 := attach(t, f, "a1")
	bare := dump(t, f)
	one := eni("eni-1", 1, "192.168.1.0/24", "192.168.1.100", "192.168.1.101")
	apply(t, f, with(d, "a1", one))
	if err := In(a1.ns, func() error {
		link, err := netlink.LinkByName("eth1")
		if err != nil {
			return err
		}
		addresses, err := netlink.AddrList(link, netlink.FAMILY_ALL)
		if at := link.Attrs(); at.HardwareAddr.String() != one.MAC.String() || at.MTU != MTU || at.Flags&net.FlagUp != 0 || len(addresses) != 0 {
			return fmt.Errorf("eth1 is %+v with %v, %v", at, addresses, err)
		}
		return err
	}); err != nil {
		t.Error(err)
	}
	before, index := dump(t, f), indexes(t, f)
	apply(t, f, with(d, "a1", one))
	if dump(t, f) != before || indexes(t, f) != index {
		t.Errorf("the same again:\n%s\nbefore:\n%s", dump(t, f), before)
	}
	if _, gone := netlink.LinkByName("eth1"); gone == nil {
		t.Error("eth1 in the test's own namespace")
	}
	apply(t, f, d)
	if after := dump(t, f); after != bare {
		t.Errorf("after it went:\n%s\nbefore it came:\n%s", after, bare)
	}
	if err := In(a1.ns, func() error {
		if _, err := netlink.LinkByName("eth1"); err == nil {
			return errors.New("eth1 is still there")
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	// Another one in the same place is another device.
	apply(t, f, with(d, "a1", one))
	apply(t, f, with(d, "a1", eni("eni-2", 1, "192.168.1.0/24", "192.168.1.102")))
	if now := dump(t, f); !strings.Contains(now, "eni-2") || strings.Contains(now, "eni-1") || strings.Contains(now, "192.168.1.101") {
		t.Errorf("after an exchange:\n%s", now)
	}
}

// The fabric answers for the gateways of its subnets, as long as these are there, and lets alone what a user
// gave the region.
func TestAnswersForItsOwn(t *testing.T) {
	f, d := newCloud(t, topology.Config{Zones: topology.Spread(2, 1)})
	has := func(address string) (found bool) {
		t.Helper()
		if err := f.Thread.Do(func() error {
			lo, err := netlink.LinkByName("lo")
			if err != nil {
				return err
			}
			all, err := netlink.AddrList(lo, netlink.FAMILY_V4)
			found = slices.ContainsFunc(all, func(a netlink.Addr) bool { return a.IP.String() == address })
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return found
	}
	if err := f.Thread.Do(func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return netlink.AddrAdd(lo, own(netip.MustParseAddr("10.20.200.200")))
	}); err != nil {
		t.Fatal(err)
	}
	more := d
	more.Subnets = append(slices.Clone(d.Subnets), ec2.SubnetDelivery{ID: "subnet-x", Zone: d.Subnets[0].Zone, CIDR: netip.MustParsePrefix("192.168.77.0/24")})
	apply(t, f, more)
	if !has("192.168.77.1") || !has("10.20.200.200") {
		t.Errorf("gateway of a new subnet %t, address of a user %t", has("192.168.77.1"), has("10.20.200.200"))
	}
	apply(t, f, d)
	if has("192.168.77.1") || !has("192.168.1.1") || !has("10.20.200.200") {
		t.Errorf("gateway of a subnet that went %t, of one that is there %t, address of a user %t", has("192.168.77.1"), has("192.168.1.1"), has("10.20.200.200"))
	}
}

// What is sent to an address goes to the interface that owns it, from the moment on at which it does.
func TestAddressesMove(t *testing.T) {
	f, d := newCloud(t, topology.Config{Zones: topology.Spread(2, 2)})
	a1, a2, b1 := attach(t, f, "a1"), attach(t, f, "a2"), attach(t, f, "b1")
	moving := netip.MustParseAddr("192.168.1.150")
	at1, at2 := eni("eni-1", 1, "192.168.1.0/24", "192.168.1.100", moving.String()), eni("eni-2", 1, "192.168.1.0/24", "192.168.1.200", moving.String())
	bare1, bare2 := at1, at2
	bare1.Addresses, bare2.Addresses = at1.Addresses[:1], at2.Addresses[:1]
	for _, n := range []testNode{a1, a2} {
		have(t, n, moving)
	}
	for i := range 3 {
		apply(t, f, with(with(d, "a1", at1), "a2", bare2))
		if i == 0 {
			setUp(t, f, a1, at1)
			setUp(t, f, a2, at2)
		}
		send(t, b1, b1.Address, a1, moving, 1, 100)
		apply(t, f, with(with(d, "a1", bare1), "a2", at2))
		send(t, b1, b1.Address, a2, moving, 1, 100)
		send(t, a2, moving, b1, b1.Address, 1, 100) // and its new owner may send from it
	}
	if dropped, err := f.Dropped(); err != nil || len(dropped) != 0 {
		t.Errorf("dropped %+v, %v", dropped, err)
	}
}

// Prefixes are delivered whole, of both families.
func TestPrefixesAreDelivered(t *testing.T) {
	f, d := newCloud(t, topology.Config{IPFamily: topology.IPFamilyDual, Zones: topology.Spread(2, 1)})
	a1, b1 := attach(t, f, "a1"), attach(t, f, "b1")
	one := eni("eni-1", 1, "192.168.1.0/24", "192.168.1.100")
	one.Prefixes = []netip.Prefix{netip.MustParsePrefix("192.168.1.208/28")}
	one.IPv6Prefixes = []netip.Prefix{netip.MustParsePrefix("fd00:192:168:1:77::/80")}
	apply(t, f, with(d, "a1", one))
	setUp(t, f, a1, one)
	for _, text := range []string{"192.168.1.208", "192.168.1.223", "fd00:192:168:1:77::1", "fd00:192:168:1:77:ffff:ffff:ffff"} {
		a := netip.MustParseAddr(text)
		have(t, a1, a)
		from := b1.Address
		if a.Is6() {
			from = b1.AddressIPv6
		}
		send(t, b1, from, a1, a, 1, 1000)
	}
	apply(t, f, with(d, "a1", eni("eni-1", 1, "192.168.1.0/24", "192.168.1.100")))
	for _, text := range []string{"192.168.1.208:80", "[fd00:192:168:1:77::1]:80"} {
		if err := In(b1.ns, func() error {
			conn, err := net.DialTimeout("tcp", text, 5*time.Second)
			if err == nil {
				_ = conn.Close()
				return errors.New("still delivered")
			}
			if strings.Contains(err.Error(), "timeout") || strings.Contains(err.Error(), "refused") {
				return err
			}
			return nil
		}); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// The next hop of IPv6 is the same by every interface, and answers who asks for it.
func TestRouterOfIPv6(t *testing.T) {
	f, d := newCloud(t, topology.Config{IPFamily: topology.IPFamilyDual, Zones: topology.Spread(2, 1)})
	a1, b1 := attach(t, f, "a1"), attach(t, f, "b1")
	one, pod := eni("eni-1", 1, "192.168.1.0/24", "192.168.1.100"), netip.MustParseAddr("fd00:192:168:1:77::1")
	one.IPv6Prefixes = []netip.Prefix{netip.PrefixFrom(pod, 80).Masked()}
	apply(t, f, with(d, "a1", one))
	if err := In(a1.ns, func() error {
		link, err := netlink.LinkByName("eth1")
		if err != nil {
			return err
		}
		rule := netlink.NewRule()
		rule.Priority, rule.Src, rule.Table = 1536, host(pod), 2
		return errors.Join(netlink.LinkSetUp(link), linktest.Add(link, netip.PrefixFrom(pod, 128)), netlink.RuleAdd(rule),
			netlink.RouteReplace(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: network(netip.MustParsePrefix("::/0")), Gw: net.ParseIP("fe80:ec2::1"), Table: 2}))
	}); err != nil {
		t.Fatal(err)
	}
	send(t, a1, pod, b1, b1.AddressIPv6, 3, 100)
	send(t, a1, a1.AddressIPv6, b1, b1.AddressIPv6, 3, 100)
	if dropped, err := f.Dropped(); err != nil || len(dropped) != 0 {
		t.Errorf("dropped %+v, %v", dropped, err)
	}
}

// What comes by an interface from an address of another one is dropped and counted: so wrong policy routing
// shows. Switched off at one interface, the check lets that one's packets pass.
func TestSourceCheck(t *testing.T) {
	f, d := newCloud(t, topology.Config{IPFamily: topology.IPFamilyDual, Zones: topology.Spread(2, 1)})
	a1, b1 := attach(t, f, "a1"), attach(t, f, "b1")
	one := eni("eni-1", 1, "192.168.1.0/24", "192.168.1.100", "192.168.1.101")
	d = with(d, "a1", one)
	apply(t, f, d)
	foreign6 := netip.MustParseAddr("fd00:192:168:1::99")
	have(t, a1, one.Addresses[1], foreign6) // without a rule: what is sent from it leaves by eth0
	var server net.PacketConn
	if err := In(b1.ns, func() (err error) { server, err = net.ListenPacket("udp", ":7"); return err }); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = server.Close() }()
	say := func(source, target netip.Addr, text string) {
		t.Helper()
		if err := In(a1.ns, func() error {
			client, err := net.ListenPacket("udp", netip.AddrPortFrom(source, 0).String())
			if err != nil {
				return err
			}
			defer func() { _ = client.Close() }()
			_, err = client.WriteTo([]byte(text), net.UDPAddrFromAddrPort(netip.AddrPortFrom(target, 7)))
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	heard := func() string {
		t.Helper()
		buffer := make([]byte, 100)
		if err := server.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		n, _, err := server.ReadFrom(buffer)
		if err != nil {
			t.Fatal(err)
		}
		return string(buffer[:n])
	}
	if err := errors.Join(
		In(a1.ns, func() error { return errors.Join(local(a1.AddressIPv6), local(foreign6)) }),
		In(b1.ns, func() error { return local(b1.AddressIPv6) }),
	); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		say(one.Addresses[1], b1.Address, "wrong")
	}
	say(foreign6, b1.AddressIPv6, "wrong")
	say(a1.Address, b1.Address, "right")
	say(a1.AddressIPv6, b1.AddressIPv6, "right")
	if first, second := heard(), heard(); first != "right" || second != "right" {
		t.Errorf("heard %s and %s", first, second)
	}
	dropped, err := f.Dropped()
	want := []Dropped{{"a1", "eth0", "192.168.1.101", 3 * (28 + 5), 3}, {"a1", "eth0", foreign6.String(), 48 + 5, 1}}
	if err != nil || !slices.Equal(dropped, want) {
		t.Errorf("dropped %+v, %v; want %+v", dropped, err, want)
	}
	d.Instances = slices.Clone(d.Instances)
	d.Instances[0].Interfaces[0].SourceCheck = false
	apply(t, f, d)
	say(one.Addresses[1], b1.Address, "trusted")
	if text := heard(); text != "trusted" {
		t.Errorf("heard %s", text)
	}
}

// Traffic of any interface counts to its node's zone, also where the subnet is none of the blueprint's.
func TestCountsByZoneForEveryInterface(t *testing.T) {
	f, d := newCloud(t, topology.Config{Zones: topology.Spread(2, 2)})
	a1, a2, b1 := attach(t, f, "a1"), attach(t, f, "a2"), attach(t, f, "b1")
	custom := eni("eni-1", 1, "100.64.1.0/24", "100.64.1.10", "100.64.1.11")
	d.Subnets = append(d.Subnets, ec2.SubnetDelivery{ID: "subnet-custom", Zone: "ap-northeast-2a", CIDR: custom.CIDR})
	apply(t, f, with(d, "a1", custom))
	setUp(t, f, a1, custom)
	if err := In(a1.ns, func() error { return local(custom.Addresses[1]) }); err != nil {
		t.Fatal(err)
	}
	send(t, a1, custom.Addresses[1], b1, b1.Address, 3, 100)
	send(t, b1, b1.Address, a1, custom.Addresses[1], 2, 1000)
	send(t, a2, a2.Address, a1, custom.Addresses[0], 4, 10)
	got, err := f.Crossings()
	want := []Crossing{
		{"ap-northeast-2a", "ap-northeast-2a", 4 * 38, 4},
		{"ap-northeast-2a", "ap-northeast-2b", 3 * 128, 3},
		{"ap-northeast-2b", "ap-northeast-2a", 2 * 1028, 2},
		{From: "ap-northeast-2b", To: "ap-northeast-2b"},
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
}

// An interface that goes under traffic takes that traffic with it and nothing else; back again, it has it at
// once.
func TestDetachUnderTraffic(t *testing.T) {
	f, d := newCloud(t, topology.Config{Zones: topology.Spread(2, 1)})
	a1, b1 := attach(t, f, "a1"), attach(t, f, "b1")
	one := eni("eni-1", 1, "192.168.1.0/24", "192.168.1.100")
	apply(t, f, with(d, "a1", one))
	setUp(t, f, a1, one)
	var server net.PacketConn
	var client net.Conn
	if err := errors.Join(
		In(a1.ns, func() (err error) { server, err = net.ListenPacket("udp", at(one.Primary)); return }),
		In(b1.ns, func() (err error) { client, err = net.Dial("udp", at(one.Primary)); return }),
	); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = server.Close() }()
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				_, _ = client.Write([]byte("x")) // an error is an ICMP message from before
			}
		}
	}()
	arrives := func() {
		t.Helper()
		if err := server.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, _, err := server.ReadFrom(make([]byte, 10)); err != nil {
			t.Fatal(err)
		}
	}
	arrives()
	apply(t, f, d)
	send(t, b1, b1.Address, a1, a1.Address, 2, 10)
	apply(t, f, with(d, "a1", one))
	if err := In(a1.ns, func() error {
		link, err := netlink.LinkByName("eth1")
		return errors.Join(err, netlink.LinkSetUp(link))
	}); err != nil {
		t.Fatal(err)
	}
	drain(t, server)
	arrives()
	close(stop)
	<-done
	_ = client.Close()
}

// drain reads what has been received until there is nothing more at hand.
func drain(t *testing.T, server net.PacketConn) {
	t.Helper()
	for {
		if err := server.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if _, _, err := server.ReadFrom(make([]byte, 10)); err != nil {
			return
		}
	}
}

// A node that died loses its devices, and does not keep others from theirs. When it is back, it has all its
// interfaces again, as after a reboot.
func TestNodeDies(t *testing.T) {
	f, d := newCloud(t, topology.Config{Zones: topology.Spread(2, 1)})
	a1, b1 := attach(t, f, "a1"), attach(t, f, "b1")
	d = with(d, "a1", eni("eni-1", 1, "192.168.1.0/24", "192.168.1.100"), eni("eni-2", 2, "192.168.1.0/24", "192.168.1.101"))
	apply(t, f, d)
	before := dump(t, f)
	if err := errors.Join(a1.cmd.Process.Kill(), a1.ns.Close()); err != nil {
		t.Fatal(err)
	}
	_ = a1.cmd.Wait()
	if err := In(f.Thread.NS(), func() error {
		return await("the links are gone with the node", func() (bool, error) {
			links, err := nodeLinks()
			return len(links) == 1, err
		})
	}); err != nil {
		t.Fatal(err)
	}
	d = with(d, "b1", eni("eni-3", 1, "192.168.2.0/24", "192.168.2.100"))
	apply(t, f, d)
	if now := dump(t, f); !strings.Contains(now, "192.168.2.100") || strings.Contains(now, "192.168.1.100") {
		t.Errorf("while it is down:\n%s", now)
	}
	again := attach(t, f, "a1")
	apply(t, f, with(d, "b1"))
	if now := dump(t, f); now != before {
		t.Errorf("when it is back:\n%s\nbefore:\n%s", now, before)
	}
	send(t, b1, b1.Address, again, again.Address, 1, 10)
}

// A device that somebody deleted by hand comes back with the next look, and a node without an instance is
// refused.
func TestRepairAndRefuse(t *testing.T) {
	f, d := newCloud(t, topology.Config{Zones: topology.Spread(2, 1)})
	a1 := attach(t, f, "a1")
	d = with(d, "a1", eni("eni-1", 1, "192.168.1.0/24", "192.168.1.100"))
	apply(t, f, d)
	before := dump(t, f)
	if err := In(a1.ns, func() error {
		link, err := netlink.LinkByName("eth1")
		return errors.Join(err, netlink.LinkDel(link))
	}); err != nil {
		t.Fatal(err)
	}
	apply(t, f, d)
	if now := dump(t, f); now != before {
		t.Errorf("after it was deleted:\n%s\nbefore:\n%s", now, before)
	}
	d.Instances = d.Instances[:1]
	apply(t, f, d)
	b1, _ := f.topo.Node("b1")
	if err := f.Attach(b1, a1.cmd.Process.Pid); err == nil || !strings.Contains(err.Error(), "attach b1: the cloud has no running instance") {
		t.Errorf("error %v", err)
	}
	d.Instances = append(d.Instances, d.Instances[0])
	if err := f.Apply(d); err == nil || dump(t, f) != before {
		t.Errorf("error %v, and then:\n%s", err, dump(t, f))
	}
}

// Whatever came and went before, the network is the one that a fresh fabric makes of the last delivery.
func TestAnyHistoryEndsTheSame(t *testing.T) {
	config := topology.Config{IPFamily: topology.IPFamilyDual, Zones: topology.Spread(2, 2)}
	for seed := range uint64(6) {
		random := rand.New(rand.NewPCG(seed, 1))
		f, base := newCloud(t, config)
		fresh, _ := newCloud(t, config)
		aliases := []string{"a1", "a2", "b1"}
		for _, n := range aliases {
			attach(t, f, n)
			attach(t, fresh, n)
		}
		var d ec2.Delivery
		for range 20 {
			d = wander(random, base, aliases)
			apply(t, f, d)
			if random.IntN(6) == 0 {
				attach(t, f, aliases[random.IntN(len(aliases))])
			}
		}
		apply(t, f, d)
		apply(t, fresh, d)
		if got, want := dump(t, f), dump(t, fresh); got != want {
			t.Fatalf("seed %d:\n%s\nfresh:\n%s", seed, got, want)
		}
	}
}

// wander draws a delivery: a few addresses and prefixes, each with some interface or none.
func wander(random *rand.Rand, d ec2.Delivery, nodes []string) ec2.Delivery {
	all := map[string][]*ec2.InterfaceDelivery{}
	var flat []*ec2.InterfaceDelivery
	for i := range 5 {
		node := nodes[random.IntN(len(nodes))]
		v := eni(fmt.Sprintf("eni-%d", i), len(all[node])+1, "192.168.1.0/24", fmt.Sprintf("192.168.1.%d", 100+i))
		v.SourceCheck = random.IntN(4) > 0
		all[node] = append(all[node], &v)
		flat = append(flat, &v)
	}
	for i := range 12 {
		if v := flat[random.IntN(len(flat))]; random.IntN(3) > 0 {
			v.Addresses = append(v.Addresses, netip.AddrFrom4([4]byte{192, 168, 1, byte(150 + i)}))
			v.IPv6 = append(v.IPv6, netip.MustParseAddr(fmt.Sprintf("fd00:192:168:1::%d", 150+i)))
		}
	}
	for i := range 3 {
		if v := flat[random.IntN(len(flat))]; random.IntN(3) > 0 {
			v.Prefixes = append(v.Prefixes, netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 168, 1, byte(192 + 16*i)}), 28))
			v.IPv6Prefixes = append(v.IPv6Prefixes, netip.MustParsePrefix(fmt.Sprintf("fd00:192:168:1:%d::/80", 90+i)))
		}
	}
	if random.IntN(2) == 0 {
		d.Subnets = append(slices.Clone(d.Subnets), ec2.SubnetDelivery{ID: "custom", CIDR: netip.MustParsePrefix("100.64.0.0/24")})
	}
	for node, list := range all {
		var more []ec2.InterfaceDelivery
		for _, v := range list {
			more = append(more, *v)
		}
		d = with(d, node, more...)
	}
	return d
}

// dump is all that a fabric has been told, as text.
func dump(t *testing.T, f *Fabric) string {
	t.Helper()
	var lines []string
	add := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	if err := f.Thread.Do(func() error {
		links, err := netlink.LinkList()
		if err != nil {
			return err
		}
		for _, l := range links {
			at := l.Attrs()
			add("link %s alias %q group %d mtu %d up %v", at.Name, at.Alias, at.Group, at.MTU, at.Flags&net.FlagUp != 0)
			addresses, err := netlink.AddrList(l, netlink.FAMILY_ALL)
			if err != nil {
				return err
			}
			for _, a := range addresses {
				if !a.IP.IsLinkLocalUnicast() {
					add("address %s of %s", a.IPNet, at.Name)
				}
			}
			for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
				neighbours, err := netlink.NeighList(at.Index, family)
				if err != nil {
					return err
				}
				for _, n := range neighbours {
					if n.State == netlink.NUD_PERMANENT && !n.IP.IsMulticast() {
						add("neighbour %s of %s is %s", n.IP, at.Name, n.HardwareAddr)
					}
				}
				routes, err := netlink.RouteList(l, family)
				if err != nil {
					return err
				}
				for _, r := range routes {
					if !r.Dst.IP.IsLinkLocalUnicast() {
						add("route %s of %s by %s from %s", r.Dst, at.Name, r.Gw, r.Src)
					}
				}
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for _, name := range trusted(t, f) {
		add("trusted %s", name)
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// indexes tell links apart that were made anew.
func indexes(t *testing.T, f *Fabric) string {
	t.Helper()
	var out []string
	if err := f.Thread.Do(func() error {
		links, err := nodeLinks()
		for name, l := range links {
			out = append(out, fmt.Sprint(name, l.Attrs().Index))
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

// The world outside answers with the address that it saw: a node's own, and without translation a pod's.
func TestOutside(t *testing.T) {
	f := newFabric(t, topology.Config{IPFamily: topology.IPFamilyDual, Zones: topology.Spread(2, 1)})
	a1 := attach(t, f, "a1")
	for _, c := range []struct{ source, server netip.Addr }{
		{a1.Address, topology.OutsideServer}, {a1.Pool[3], topology.OutsideServer},
		{a1.AddressIPv6, topology.OutsideServerIPv6}, {podIPv6(a1.Node), topology.OutsideServerIPv6},
	} {
		var conn net.Conn
		if err := In(a1.ns, func() (err error) {
			dial := net.Dialer{Timeout: 5 * time.Second, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(c.source, 0))}
			conn, err = dial.Dial("tcp", netip.AddrPortFrom(c.server, 80).String())
			return err
		}); err != nil {
			t.Fatal(err)
		}
		client := http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return conn, nil }}}
		answer, err := client.Get("http://ipinfo.io/ip")
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(answer.Body)
		_ = answer.Body.Close()
		client.CloseIdleConnections()
		if err != nil || string(body) != c.source.String() {
			t.Errorf("from %s: seen as %q, %v", c.source, body, err)
		}
	}
	got, err := f.Crossings()
	if err != nil || slices.ContainsFunc(got, func(c Crossing) bool { return c.Packets > 0 }) {
		t.Errorf("what left the VPC is counted between zones: %+v, %v", got, err)
	}
}

// trusted are the links that the source check lets pass.
func trusted(t *testing.T, f *Fabric) (names []string) {
	t.Helper()
	if err := f.Thread.Do(func() error {
		conn, err := nftables.New()
		if err != nil {
			return err
		}
		for _, v := range f.families() {
			elements, err := conn.GetSetElements(&nftables.Set{Table: &nftables.Table{Family: v.table, Name: tableName}, Name: trustedSet, KeyType: nftables.TypeIFName})
			if err != nil {
				return err
			}
			for _, e := range elements {
				names = append(names, strings.TrimRight(string(e.Key), "\x00"))
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return names
}
