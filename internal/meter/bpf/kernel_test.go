//go:build kernel

package bpf

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/zonewise/zonewise/internal/kernel/netns"
	"github.com/zonewise/zonewise/internal/meter"
	"github.com/zonewise/zonewise/internal/model"
)

// services are ClusterIPs 1 (pod 1), 2 (outside) and 3 (the node itself), and a node port of pod 1.
func services() string {
	out := ""
	for hook, when := range map[string]string{"prerouting": "-100", "output": "-100"} {
		out += fmt.Sprintf("chain nat_%s { type nat hook %s priority %s\n", hook, hook, when)
		for _, v6 := range []bool{false, true} {
			ip, b := "ip", func(a netip.Addr) string { return netip.AddrPortFrom(a, 8080).String() }
			if v6 {
				ip = "ip6"
			}
			for _, l4 := range []string{"tcp", "udp"} {
				for i, to := range []netip.Addr{podAddr(1, v6), outsideAddr(v6), nodeAddr(v6)} {
					out += fmt.Sprintf("%s daddr %v %s dport 80 dnat %s to %s\n", ip, serviceAddr(i+1, v6), l4, ip, b(to))
				}
				out += fmt.Sprintf("%s daddr %v %s dport 30080 dnat %s to %s\n", ip, nodeAddr(v6), l4, ip, b(podAddr(1, v6)))
			}
		}
		out += "}\n"
	}
	return out
}

// rules turn connection tracking on, translate, and count what the meter should count.
func (w *world) rules(t testing.TB) {
	w.nft(t, `table inet world {
		counter seen { }
`+services()+`
		chain hide { type nat hook postrouting priority 100
			ct status dnat ip saddr 10.2.0.1 masquerade
			ct status dnat ip6 saddr fd02::1 masquerade
			ip saddr 10.1.0.11 ip daddr 10.1.0.11 masquerade
			ip6 saddr fd01::b ip6 daddr fd01::b masquerade
		}
		chain after { type filter hook postrouting priority 1000
			meta l4proto { tcp, udp } counter name seen
		}
		chain inside { type filter hook input priority 1000
			iif != lo meta l4proto { tcp, udp } counter name seen
		}
	}`)
}

// total adds up a reading, zero keys and all.
func total(r meter.Reading) (sum model.FlowCount) {
	for _, v := range r.Totals {
		sum.Add(v.FlowCount)
	}
	for _, c := range r.Gone {
		sum.Add(c.FlowCount)
	}
	return sum
}

// settled reads until the meter and nftables have counted the same, which they do when nothing is under way.
func (w *world) settled(t testing.TB, c *Counter, before uint64) meter.Reading {
	t.Helper()
	for deadline := time.Now().Add(timeout); ; {
		r, err := c.Read()
		if err != nil {
			t.Fatal(err)
		}
		want, got := w.counters(t)["seen"], before+total(r).Bytes()
		if got == want {
			return r
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d bytes, nftables counted %d: %+v", got, want, r)
		}
	}
}

type path struct {
	name   string
	from   *netns.NS
	dial   func(v6 bool) netip.AddrPort
	want   func(v6 bool) meter.Key
	inNode bool // the client is the node's own process
}

func at(f func(v6 bool) netip.Addr, port uint16) func(bool) netip.AddrPort {
	return func(v6 bool) netip.AddrPort { return netip.AddrPortFrom(f(v6), port) }
}

func pod(i int) func(bool) netip.Addr { return func(v6 bool) netip.Addr { return podAddr(i, v6) } }
func cluster(i int) func(bool) netip.Addr {
	return func(v6 bool) netip.Addr { return serviceAddr(i, v6) }
}

func keyOf(client func(bool) netip.Addr, dialled, server func(bool) netip.AddrPort, side meter.Side, masqueraded bool) func(bool) meter.Key {
	return func(v6 bool) meter.Key {
		k := meter.Key{Client: client(v6), Server: server(v6), Side: side, Masqueraded: masqueraded}
		if dialled != nil {
			k.Dialled = dialled(v6)
		}
		return k
	}
}

func (w *world) paths() []path {
	web, away, host := at(pod(1), 8080), at(outsideAddr, 8080), at(nodeAddr, 8080)
	one, two, three, port := at(cluster(1), 80), at(cluster(2), 80), at(cluster(3), 80), at(nodeAddr, 30080)
	return []path{
		{name: "pod to pod", from: w.pods[0], dial: web, want: keyOf(pod(0), nil, web, meter.BothEnds, false)},
		{name: "pod to pod by ClusterIP", from: w.pods[0], dial: one, want: keyOf(pod(0), one, web, meter.BothEnds, false)},
		{name: "pod to another node by ClusterIP", from: w.pods[0], dial: two, want: keyOf(pod(0), two, away, meter.ClientEnd, false)},
		{name: "pod to outside", from: w.pods[0], dial: away, want: keyOf(pod(0), nil, away, meter.ClientEnd, false)},
		{name: "outside to node port, masqueraded", from: w.outside, dial: port, want: keyOf(outsideAddr, port, web, meter.ServerEnd, true)},
		{name: "outside to pod", from: w.outside, dial: web, want: keyOf(outsideAddr, nil, web, meter.ServerEnd, false)},
		{name: "hairpin", from: w.pods[1], dial: one, want: keyOf(pod(1), one, web, meter.BothEnds, true)},
		{name: "node to pod", from: w.node, dial: web, inNode: true, want: keyOf(nodeAddr, nil, web, meter.BothEnds, false)},
		{name: "node to pod by ClusterIP", from: w.node, dial: one, inNode: true, want: keyOf(nodeAddr, one, web, meter.BothEnds, false)},
		{name: "pod to node", from: w.pods[0], dial: host, want: keyOf(pod(0), nil, host, meter.BothEnds, false)},
		{name: "pod to node by ClusterIP", from: w.pods[0], dial: three, want: keyOf(pod(0), three, host, meter.BothEnds, false)},
		{name: "node to itself", from: w.node, dial: host, inNode: true, want: keyOf(nodeAddr, nil, host, meter.BothEnds, false)},
		{name: "node to outside", from: w.node, dial: away, inNode: true, want: keyOf(nodeAddr, nil, away, meter.ClientEnd, false)},
	}
}

func (w *world) servers(t testing.TB) {
	for _, v6 := range []bool{false, true} {
		echo(t, w.pods[1], netip.AddrPortFrom(podAddr(1, v6), 8080))
		echo(t, w.outside, netip.AddrPortFrom(outsideAddr(v6), 8080))
		echo(t, w.node, netip.AddrPortFrom(nodeAddr(v6), 8080))
	}
}

// Each way through the node, with its key, is counted to the byte as nftables counts it.
func TestEveryByteHasItsKey(t *testing.T) {
	w := newWorld(t)
	w.rules(t)
	w.servers(t)
	c := w.start(t)
	for _, p := range w.paths() {
		for _, v6 := range []bool{false, true} {
			for _, x := range []struct {
				network  string
				protocol model.Protocol
				size     int
			}{{"tcp", model.TCP, 100}, {"udp", model.UDP, 1000}, {"tcp", model.TCP, 1 << 20}} {
				t.Run(fmt.Sprintf("%s/v6=%v/%s/%d", p.name, v6, x.network, x.size), func(t *testing.T) {
					before := w.settled(t, c, 0)
					ask(t, p.from, x.network, p.dial(v6), x.size)
					now := w.settled(t, c, 0)
					deltas, lost := meter.Deltas(before, now)
					want := p.want(v6)
					want.Protocol = x.protocol
					if lost.Uncounted.Bytes = 0; len(deltas) != 1 { // uncounted are neighbours' messages
						t.Fatalf("%v: %+v, want one of %+v", lost, deltas, want)
					}
					d := deltas[0]
					if p.inNode != (d.Cgroup != 0) {
						t.Errorf("cgroup %d", d.Cgroup)
					}
					if d.Key.Cgroup = 0; d.Key != want {
						t.Errorf("%+v, want %+v", d.Key, want)
					}
					if d.Connections != 1 || d.RequestBytes < uint64(x.size) || d.ResponseBytes < uint64(x.size) {
						t.Errorf("%+v", d)
					}
					if x.size > 1<<16 && d.RequestPackets < uint64(x.size/65536) {
						t.Errorf("so few packets: %+v", d)
					}
				})
			}
		}
	}
}

// Packets are counted as the wire would have them, whatever the kernel puts together.
func TestPacketsOfTheWire(t *testing.T) {
	w := newWorld(t)
	w.rules(t)
	w.servers(t)
	c := w.start(t)
	const size = 8 << 20
	for v6, header := range map[bool]uint64{false: 20 + 32, true: 40 + 32} {
		before := w.settled(t, c, 0)
		ask(t, w.pods[0], "tcp", netip.AddrPortFrom(outsideAddr(v6), 8080), size)
		deltas, _ := meter.Deltas(before, w.settled(t, c, 0))
		if len(deltas) != 1 {
			t.Fatal(deltas)
		}
		d := deltas[0]
		wire, want := d.RequestBytes+d.RequestExtra, size+d.RequestPackets*header
		if d.RequestExtra == 0 || wire < want || wire > want+want*3/100 { // some is sent twice
			t.Errorf("v6 %v: %d bytes on the wire, %d packets' worth is %d: %+v", v6, wire, d.RequestPackets, want, d)
		}
		if least := uint64(size / 1500); d.RequestPackets < least {
			t.Errorf("%d packets, at least %d", d.RequestPackets, least)
		}
	}
}

// Programs come and go while bytes flow, and none is lost or counted twice.
func TestAgentsComeAndGo(t *testing.T) {
	w := newWorld(t)
	w.rules(t)
	w.servers(t)
	c := w.start(t)
	stop := w.traffic(t)
	epoch := w.read(t, c).Epoch
	for range 6 {
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		c = w.start(t)
	}
	stop()
	if r := w.settled(t, c, 0); r.Epoch != epoch || r.Epoch == 0 {
		t.Errorf("epoch %d, was %d", r.Epoch, epoch)
	}
}

func (w *world) read(t testing.TB, c *Counter) meter.Reading {
	t.Helper()
	r, err := c.Read()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// traffic flows until stopped: connections that stay, and short ones.
func (w *world) traffic(t testing.TB) (stop func()) {
	end, ended := make(chan struct{}), make(chan struct{})
	var conns []net.Conn
	for _, p := range w.paths()[:6] {
		conns = append(conns, dial(t, p.from, "tcp", p.dial(false)), dial(t, p.from, "udp", p.dial(true)))
	}
	for _, c := range conns {
		if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
	}
	go func() {
		defer close(ended)
		for {
			select {
			case <-end:
				return
			default:
			}
			for _, c := range conns {
				talk(t, c, 1000)
			}
			ask(t, w.pods[0], "tcp", netip.AddrPortFrom(serviceAddr(1, false), 80), 1000)
		}
	}()
	return func() {
		close(end)
		<-ended
		for _, c := range conns {
			c.Close()
		}
	}
}

// A counter that is taken away tells what it held at the end, once, and its key gets another.
func TestRetireLosesNothing(t *testing.T) {
	w := newWorld(t)
	w.rules(t)
	w.servers(t)
	c := w.start(t)
	stop := w.traffic(t)
	before := meter.Reading{Boot: "none", Totals: map[meter.Key]meter.Totals{}}
	var sum, gone uint64
	step := func(now meter.Reading) {
		deltas, _ := meter.Deltas(before, now)
		for _, d := range deltas {
			sum += d.Bytes()
		}
		for _, g := range now.Gone {
			gone += g.Bytes()
		}
		before = now
	}
	for range 50 {
		step(w.read(t, c))
		var keys []meter.Key
		for k := range before.Totals {
			keys = append(keys, k)
		}
		if err := c.Retire(keys); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	step(w.read(t, c))
	last := w.settled(t, c, gone) // equal to what nftables counted; more may come yet, of connections that are being closed
	step(last)
	if all := gone + total(last).Bytes(); sum != all || gone == 0 {
		t.Errorf("deltas of %d bytes, nftables counted %d; %d were gone", sum, all, gone)
	}
	if n := len(before.Totals); n == 0 || n > 20 || len(before.Gone) != 0 {
		t.Errorf("%d keys, gone %+v", n, before.Gone)
	}
}

// What finds no counter is counted all the same, as nobody's.
func TestFull(t *testing.T) {
	w := newWorld(t)
	w.options.Room = 2
	w.rules(t)
	w.servers(t)
	c := w.start(t)
	for _, p := range w.paths() {
		ask(t, p.from, "tcp", p.dial(false), 1000)
	}
	r := w.settled(t, c, 0)
	if len(r.Totals) != 2+3 { // and three sides
		t.Fatalf("%+v", r.Totals)
	}
	for _, side := range []meter.Side{meter.ClientEnd, meter.ServerEnd, meter.BothEnds} {
		if r.Totals[meter.Key{Side: side}].Bytes() == 0 {
			t.Errorf("nothing for %v", side)
		}
	}
	// Room is made: the next key has a counter again.
	for k := range r.Totals {
		if k.Client.IsValid() {
			if err := c.Retire([]meter.Key{k}); err != nil {
				t.Fatal(err)
			}
		}
	}
	gone := uint64(0)
	for _, g := range w.read(t, c).Gone {
		gone += g.Bytes()
	}
	w.settled(t, c, gone)
	ask(t, w.outside, "udp", netip.AddrPortFrom(podAddr(1, true), 8080), 1000)
	if r := w.settled(t, c, gone); r.Totals[meter.Key{Client: outsideAddr(true), Server: netip.AddrPortFrom(podAddr(1, true), 8080), Protocol: model.UDP, Side: meter.ServerEnd}].Connections != 1 {
		t.Errorf("no counter: %+v", r.Totals)
	}
}

// An agent is killed while it takes counters away: the next one tells what they held, and hands them out again.
func TestKilledWhileRetiring(t *testing.T) {
	w := newWorld(t)
	w.options.Room = 2
	w.rules(t)
	w.servers(t)
	c := w.start(t)
	web, away := netip.AddrPortFrom(podAddr(1, false), 8080), netip.AddrPortFrom(outsideAddr(false), 8080)
	ask(t, w.pods[0], "tcp", web, 1000)
	ask(t, w.pods[0], "tcp", away, 1000)
	r := w.settled(t, c, 0)
	if len(r.Totals) != 2 {
		t.Fatalf("%+v", r.Totals)
	}
	// One is retired, and of the other only the key is gone.
	if err := c.Retire([]meter.Key{{Client: podAddr(0, false), Server: web, Protocol: model.TCP, Side: meter.BothEnds}}); err != nil {
		t.Fatal(err)
	}
	numbers := c.objects.Maps[objectMapNumbers]
	var k key
	if err := numbers.NextKey(nil, &k); err != nil {
		t.Fatal(err)
	}
	if err := numbers.Delete(&k); err != nil {
		t.Fatal(err)
	}
	c.Close()

	c = w.start(t)
	r = w.read(t, c)
	gone := total(r).Bytes()
	if len(r.Gone) != 2 || len(r.Totals) != 0 {
		t.Fatalf("%+v", r)
	}
	w.settled(t, c, gone) // and so given back
	c.Close()
	c = w.start(t)
	ask(t, w.pods[0], "tcp", web, 1000)
	ask(t, w.pods[0], "tcp", away, 1000)
	if r := w.settled(t, c, gone); len(r.Totals) != 2 || len(r.Gone) != 0 {
		t.Errorf("counters are lost: %+v", r)
	}
}

// What is detached counts nothing, and counts on afterwards.
func TestDetach(t *testing.T) {
	w := newWorld(t)
	w.rules(t)
	w.servers(t)
	c := w.start(t)
	web := netip.AddrPortFrom(podAddr(1, false), 8080)
	ask(t, w.pods[0], "tcp", web, 1000)
	counted := total(w.settled(t, c, 0)).Bytes()
	if err := c.Detach(); err != nil {
		t.Fatal(err)
	}
	ask(t, w.pods[0], "tcp", web, 1000)
	if r := w.read(t, c); total(r).Bytes() != counted {
		t.Errorf("%+v", r)
	}
	in(t, w.node, c.Attach)
	ask(t, w.pods[0], "tcp", web, 1000)
	if r := w.read(t, c); len(r.Totals) != 1 || total(r).Bytes() < 2*counted-1000 || total(r).Connections != 2 {
		t.Errorf("%+v", r)
	}
}
