package meter_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/zonewise/zonewise/internal/golden"
	"github.com/zonewise/zonewise/internal/meter"
	"github.com/zonewise/zonewise/internal/model"
)

func pod(zone, node, namespace, workload string) model.Party {
	return model.Party{Kind: model.PodParty, Zone: zone, Node: node, Namespace: namespace, Workload: workload}
}

func node(zone, name string) model.Party {
	return model.Party{Kind: model.NodeParty, Zone: zone, Node: name}
}

func place(s string, proto model.Protocol) meter.Place {
	p := netip.MustParseAddrPort(s)
	return meter.Place{Addr: p.Addr(), Port: p.Port(), Protocol: proto}
}

func addr(s string) meter.Place { return meter.Place{Addr: netip.MustParseAddr(s)} }

// a1 is node a1's view of a cluster: a1 in zone a, b1 in zone b, c1 in zone c.
func a1() *meter.Owners {
	o := meter.NewOwners(node("a", "a1"), 2*time.Second)
	for _, n := range []string{"a", "b", "c"} {
		i := 1 + int(n[0]-'a')
		o.Own(addr(fmt.Sprintf("192.168.%d.1", i)), node(n, n+"1"), 0, 0)
		o.Own(addr(fmt.Sprintf("fd00::%d", i)), node(n, n+"1"), 0, 0)
		o.Own(addr(fmt.Sprintf("10.0.%d.1", i)), pod(n, n+"1", "shop", "deployment/web"), 0, 0)
		o.Own(addr(fmt.Sprintf("10.0.%d.2", i)), pod(n, n+"1", "shop", "deployment/db"), 0, 0)
		o.Own(addr(fmt.Sprintf("fd01:%d::1", i)), pod(n, n+"1", "shop", "deployment/web"), 0, 0)
		o.Block(netip.MustParsePrefix(fmt.Sprintf("10.0.%d.0/24", i)), model.Party{Kind: model.Unknown, Zone: n, Node: n + "1"})
		o.Own(place(fmt.Sprintf("192.168.%d.1:9100", i), model.TCP), model.Party{Kind: model.NodeParty, Zone: n, Node: n + "1", Namespace: "watch", Workload: "daemonset/exporter"}, 0, 0)
		o.Serve(place(fmt.Sprintf("192.168.%d.1:30080", i), model.TCP), meter.Target{Service: model.Name{Namespace: "shop", Name: "web"}, Via: model.ViaNodePort, Port: 80}, 0, 0)
		o.Back(place(fmt.Sprintf("10.0.%d.2:5432", i), model.TCP), meter.Target{Service: model.Name{Namespace: "shop", Name: "db-peers"}, Via: model.ViaHeadless, Port: 5432}, 0, 0)
		o.Back(place(fmt.Sprintf("10.0.%d.2:5432", i), model.TCP), meter.Target{Service: model.Name{Namespace: "shop", Name: "db-again"}, Via: model.ViaHeadless, Port: 15432}, 0, 0)
	}
	o.Block(netip.MustParsePrefix("10.0.0.0/16"), model.Party{Kind: model.Unknown})
	o.Block(netip.MustParsePrefix("52.0.0.0/8"), model.Party{Kind: model.Outside, Block: "cloud"})
	o.Block(netip.MustParsePrefix("52.219.0.0/16"), model.Party{Kind: model.Outside, Block: "object store"})
	o.Run(77, model.Party{Kind: model.NodeParty, Zone: "a", Node: "a1", Workload: "kubelet"}, 0, 0)
	for i, name := range []string{"one", "two", "three"} {
		o.Serve(place(fmt.Sprintf("10.96.0.%d:80", i+1), model.TCP), meter.Target{Service: model.Name{Namespace: "shop", Name: name}, Via: model.ViaClusterIP, Port: 80}, 0, 0)
	}
	o.Serve(place("10.96.0.9:5432", model.TCP), meter.Target{Service: model.Name{Namespace: "shop", Name: "db"}, Via: model.ViaClusterIP, Port: 5432}, 0, 0)
	o.Serve(place("203.0.113.5:443", model.TCP), meter.Target{Service: model.Name{Namespace: "shop", Name: "web"}, Via: model.ViaLoadBalancer, Port: 443}, 0, 0)
	return o
}

// Each sort of flow lands where people look for it.
func TestAttribution(t *testing.T) {
	ap := netip.MustParseAddrPort
	ad := netip.MustParseAddr
	var b strings.Builder
	for _, c := range []struct {
		name string
		key  meter.Key
	}{
		{"first Service on one pod", meter.Key{Client: ad("10.0.1.1"), Dialled: ap("10.96.0.1:80"), Server: ap("10.0.2.1:8080"), Side: meter.ClientEnd}},
		{"second Service on it", meter.Key{Client: ad("10.0.1.1"), Dialled: ap("10.96.0.2:80"), Server: ap("10.0.2.1:8080"), Side: meter.ClientEnd}},
		{"third Service on it", meter.Key{Client: ad("10.0.1.1"), Dialled: ap("10.96.0.3:80"), Server: ap("10.0.2.1:8080"), Side: meter.ClientEnd}},
		{"within the node", meter.Key{Client: ad("10.0.1.1"), Dialled: ap("10.96.0.9:5432"), Server: ap("10.0.1.2:5432"), Side: meter.BothEnds}},
		{"headless", meter.Key{Client: ad("10.0.1.1"), Server: ap("10.0.3.2:5432"), Side: meter.ClientEnd}},
		{"a pod itself", meter.Key{Client: ad("10.0.1.1"), Server: ap("10.0.3.1:8080"), Side: meter.ClientEnd}},
		{"IPv6", meter.Key{Client: ad("fd01:1::1"), Server: ap("[fd01:2::1]:8080"), Side: meter.ClientEnd}},
		{"IPv4 in IPv6", meter.Key{Client: ad("::ffff:10.0.1.1"), Server: ap("[::ffff:10.0.2.1]:8080"), Side: meter.ClientEnd}},
		{"node port of another node, from a pod here", meter.Key{Client: ad("10.0.1.1"), Server: ap("192.168.2.1:30080"), Side: meter.ClientEnd}},
		{"node port here, from another node's pod", meter.Key{Client: ad("10.0.2.1"), Dialled: ap("192.168.1.1:30080"), Server: ap("10.0.3.1:8080"), Side: meter.Passing, Masqueraded: true}},
		{"node port here, from outside", meter.Key{Client: ad("198.51.100.7"), Dialled: ap("192.168.1.1:30080"), Server: ap("10.0.3.1:8080"), Side: meter.Passing, Masqueraded: true}},
		{"node port here, from outside, pod here", meter.Key{Client: ad("198.51.100.7"), Dialled: ap("192.168.1.1:30080"), Server: ap("10.0.1.1:8080"), Side: meter.ServerEnd}},
		{"load balancer, from a pod", meter.Key{Client: ad("10.0.1.1"), Dialled: ap("203.0.113.5:443"), Server: ap("10.0.2.1:8443"), Side: meter.ClientEnd}},
		{"passed on as it is", meter.Key{Client: ad("198.51.100.7"), Server: ap("10.0.3.1:8080"), Side: meter.Passing}},
		{"from another pod", meter.Key{Client: ad("10.0.2.1"), Server: ap("10.0.1.1:8080"), Side: meter.ServerEnd}},
		{"the node itself", meter.Key{Client: ad("192.168.1.1"), Dialled: ap("10.96.0.1:80"), Server: ap("10.0.2.1:8080"), Side: meter.ClientEnd}},
		{"a process of the node", meter.Key{Client: ad("192.168.1.1"), Server: ap("10.0.1.1:8080"), Side: meter.BothEnds, Cgroup: 77}},
		{"a process that nobody knows", meter.Key{Client: ad("192.168.1.1"), Server: ap("10.0.1.1:8080"), Side: meter.BothEnds, Cgroup: 78}},
		{"host-network server", meter.Key{Client: ad("10.0.1.1"), Server: ap("192.168.3.1:9100"), Side: meter.ClientEnd}},
		{"outside", meter.Key{Client: ad("10.0.1.1"), Server: ap("198.51.100.7:443"), Side: meter.ClientEnd, Masqueraded: true}},
		{"a block outside", meter.Key{Client: ad("10.0.1.1"), Server: ap("52.1.2.3:443"), Side: meter.ClientEnd}},
		{"a longer block outside", meter.Key{Client: ad("10.0.1.1"), Server: ap("52.219.2.3:443"), Side: meter.ClientEnd}},
		{"a pod that nobody knows", meter.Key{Client: ad("10.0.1.1"), Server: ap("10.0.2.99:80"), Side: meter.ClientEnd}},
		{"an address in the cluster that nobody knows", meter.Key{Client: ad("10.0.1.1"), Server: ap("10.0.77.99:80"), Side: meter.ClientEnd}},
		{"translated by somebody else", meter.Key{Client: ad("198.51.100.7"), Dialled: ap("192.168.1.1:8088"), Server: ap("10.0.1.1:80"), Side: meter.ServerEnd}},
		{"full map, client here", meter.Key{Side: meter.ClientEnd}},
		{"full map, server here", meter.Key{Side: meter.ServerEnd}},
		{"full map, passing", meter.Key{}},
	} {
		if c.key.Client.IsValid() {
			c.key.Protocol = model.TCP
		}
		flows, lost := meter.Fold(reading(0, nil), reading(time.Minute, map[meter.Key]meter.Totals{
			c.key: {FlowCount: model.FlowCount{Connections: 1, RequestBytes: 1000, RequestPackets: 4, ResponseBytes: 5000, ResponsePackets: 5}}}), a1())
		fmt.Fprintf(&b, "%s:\n", c.name)
		for _, f := range flows {
			fmt.Fprintf(&b, "  %s\n", f)
		}
		if s := lost.String(); s != "" {
			fmt.Fprintf(&b, "  lost: %s\n", s)
		}
	}
	golden.Check(t, "attribution.golden", b.String())
}

// A pod address that another pod has within a second is told apart where a reading, or a counter's
// own times, come between; where not, nobody is blamed.
func TestAddressReused(t *testing.T) {
	const ms = time.Millisecond
	old, young := pod("a", "a1", "x", "deployment/old"), pod("a", "a1", "x", "deployment/young")
	k := key("10.0.1.7", "10.0.2.1:80")
	owners := func(never bool) *meter.Owners {
		o := a1()
		o.Grace = 500 * ms
		gone := 10400 * ms
		if never {
			gone = 0
		}
		o.Own(addr("10.0.1.7"), young, 10700*ms, 0)
		o.Own(addr("10.0.1.7"), old, 1000*ms, gone)
		return o
	}
	for _, c := range []struct {
		name       string
		from, to   time.Duration
		born, last time.Duration
		want       string
		never      string // the same if the news of the end never came
	}{
		{"before", 9000 * ms, 10300 * ms, 0, 0, "deployment/old", "deployment/old"},
		{"a reading in between, first part", 9000 * ms, 10500 * ms, 0, 0, "deployment/old", "deployment/old"},
		{"second part", 10500 * ms, 12000 * ms, 0, 0, "deployment/young", ""},
		{"no reading in between", 9000 * ms, 12000 * ms, 0, 0, "", ""},
		{"counter made afterwards", 9000 * ms, 12000 * ms, 10800 * ms, 0, "deployment/young", "deployment/young"},
		{"counter silent since", 9000 * ms, 12000 * ms, 0, 10200 * ms, "deployment/old", "deployment/old"},
		{"counter of both", 9000 * ms, 12000 * ms, 9500 * ms, 11000 * ms, "", ""},
		{"long after", 60000 * ms, 61000 * ms, 0, 0, "deployment/young", "deployment/young"},
	} {
		for i, want := range []string{c.want, c.never} {
			before := reading(c.from, nil)
			if c.born == 0 {
				before.Totals = map[meter.Key]meter.Totals{k: {FlowCount: bytes(5)}}
			}
			now := reading(c.to, map[meter.Key]meter.Totals{k: {FlowCount: bytes(6), Born: c.born, Last: c.last}})
			flows, lost := meter.Fold(before, now, owners(i == 1))
			if len(flows) != 1 || flows[0].Client.Workload != want || (lost.Ambiguous > 0) != (want == "") {
				t.Errorf("%s: %v, lost %v; want %q", c.name, flows, lost, want)
			} else if want == "" && (flows[0].Client != model.Party{Kind: model.Unknown, Zone: "a", Node: "a1"}) {
				t.Errorf("%s: %+v", c.name, flows[0].Client)
			}
		}
	}
}

// The owner's name may come a little late, or its end a little early.
func TestGrace(t *testing.T) {
	o := meter.NewOwners(node("a", "a1"), time.Second)
	who := pod("a", "a1", "x", "deployment/y")
	o.Own(addr("10.0.1.7"), who, 20*time.Second, 30*time.Second)
	for _, c := range []struct {
		from, to time.Duration
		known    bool
	}{{18, 19, false}, {18, 20, true}, {21, 22, true}, {30, 32, true}, {31, 33, false}} {
		k := key("10.0.1.7", "10.0.2.1:80")
		flows, _ := meter.Fold(reading(c.from*time.Second, nil), reading(c.to*time.Second, map[meter.Key]meter.Totals{k: {FlowCount: bytes(6)}}), o)
		if got := flows[0].Client == who; got != c.known {
			t.Errorf("%d to %d: %v", c.from, c.to, flows[0].Client)
		}
	}
	o.Forget(10 * time.Minute)
	k := key("10.0.1.7", "10.0.2.1:80")
	flows, _ := meter.Fold(reading(20*time.Second, nil), reading(21*time.Second, map[meter.Key]meter.Totals{k: {FlowCount: bytes(6)}}), o)
	if flows[0].Client.Kind != model.Outside {
		t.Error("nobody was forgotten")
	}
}

// Whoever calls a pod that has gone calls where it was, for a while.
func TestAddressOfWhoHasLeft(t *testing.T) {
	const s, min = time.Second, time.Minute
	o := meter.NewOwners(node("a", "a1"), s)
	o.Own(addr("10.0.2.7"), pod("b", "b1", "x", "deployment/old"), 0, 10*s)
	o.Own(addr("10.0.2.7"), pod("c", "c1", "x", "deployment/y"), 20*s, min)
	there := model.Party{Kind: model.Unknown, Zone: "c", Node: "c1"}
	outside := model.Party{Kind: model.Outside, Block: meter.Internet}
	for _, forget := range []time.Duration{0, 3 * min} {
		o.Forget(forget)
		for _, c := range []struct {
			from, to time.Duration
			want     model.Party
		}{
			{min + 2*s, 2 * min, there}, {5 * min, 6 * min, there}, {6*min + s, 7 * min, outside},
		} {
			k := key("10.0.1.1", "10.0.2.7:80")
			flows, lost := meter.Fold(reading(c.from, map[meter.Key]meter.Totals{k: {FlowCount: bytes(5)}}),
				reading(c.to, map[meter.Key]meter.Totals{k: {FlowCount: bytes(6)}}), o)
			if flows[0].Server != c.want || lost.Ambiguous > 0 {
				t.Errorf("forgotten until %v, from %v to %v: %+v, want %+v", forget, c.from, c.to, flows[0].Server, c.want)
			}
		}
	}
}

// hand is one owner of the address of a property.
type hand struct {
	who      model.Party
	from, to time.Duration
}

// Nobody is ever told to have sent what another one sent, all that was counted is told, and with a
// reading at every change of hands everything is told of its owner.
func TestOwnersAreNotMistaken(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		exact := rapid.Bool().Draw(t, "a reading at each change")
		var hands []hand
		at := time.Duration(0)
		for i := range rapid.IntRange(1, 5).Draw(t, "owners") {
			from := at + time.Duration(rapid.IntRange(1, 20).Draw(t, "free"))
			at = from + time.Duration(rapid.IntRange(1, 30).Draw(t, "owned"))
			hands = append(hands, hand{pod("a", "a1", "x", fmt.Sprintf("deployment/%d", i)), from, at})
		}
		o := meter.NewOwners(node("a", "a1"), 0)
		for _, h := range rapid.Permutation(hands).Draw(t, "order of news") {
			o.Own(addr("10.0.1.7"), h.who, h.from, h.to)
		}
		o.Block(netip.MustParsePrefix("10.0.0.0/8"), model.Party{Kind: model.Unknown})

		m := &machine{reading: reading(0, map[meter.Key]meter.Totals{}), truth: map[meter.Key]model.FlowCount{}, born: rapid.Bool().Draw(t, "born")}
		truth, told := map[string]uint64{}, map[string]uint64{}
		before, sent, seen := m.read(), uint64(0), uint64(0)
		tell := func() {
			now := m.read()
			flows, lost := meter.Fold(before, now, o)
			for _, f := range flows {
				seen += f.RequestBytes
				told[f.Client.Workload] += f.RequestBytes
			}
			if exact && lost.Ambiguous != 0 {
				t.Fatal(lost)
			}
			before = now
		}
		k := key("10.0.1.7", "198.51.100.7:443")
		for m.reading.At = 1; m.reading.At < at+5; m.reading.At++ {
			edge := false
			for _, h := range hands {
				edge = edge || h.from == m.reading.At || h.to == m.reading.At
				if h.from < m.reading.At && m.reading.At < h.to && rapid.IntRange(0, 2).Draw(t, "send") == 0 {
					m.count(k, bytes(7))
					truth[h.who.Workload] += 7
					sent += 7
				}
			}
			switch rapid.IntRange(0, 9).Draw(t, "act") {
			case 0:
				m.remove(k)
			case 1:
				tell()
			}
			if exact && edge {
				tell()
			}
		}
		tell()
		if seen != sent {
			t.Fatalf("%d bytes of %d are told", seen, sent)
		}
		for who, n := range told {
			if who != "" && n > truth[who] || exact && n != truth[who] {
				t.Fatalf("%d bytes of %q are told, %d were sent; all: %v, truth %v", n, who, truth[who], told, truth)
			}
		}
	})
}

// Flows have every byte of the counters, whoever is known, and the order of news does not matter.
func TestFoldKeepsTheSum(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		octet := rapid.IntRange(1, 3)
		some := func(name string) netip.Addr {
			if rapid.IntRange(0, 9).Draw(t, name+" is known") == 0 {
				return netip.Addr{}
			}
			if rapid.Bool().Draw(t, name+" v6") {
				return netip.MustParseAddr(fmt.Sprintf("fd01:%d::%d", octet.Draw(t, name), octet.Draw(t, name)))
			}
			return netip.MustParseAddr(fmt.Sprintf("10.0.%d.%d", octet.Draw(t, name), octet.Draw(t, name)))
		}
		port := func(name string) uint16 { return uint16(rapid.IntRange(80, 82).Draw(t, name)) }
		var news []func(*meter.Owners)
		for range rapid.IntRange(0, 12).Draw(t, "news") {
			a, from := some("owner"), time.Duration(rapid.IntRange(0, 100).Draw(t, "from"))
			to := time.Duration(rapid.IntRange(0, 1).Draw(t, "ends")) * (from + time.Duration(rapid.IntRange(1, 50).Draw(t, "for")))
			who := pod("a", "a1", "x", fmt.Sprint("deployment/", octet.Draw(t, "who")))
			target := meter.Target{Service: model.Name{Namespace: "x", Name: who.Workload}, Via: model.ViaClusterIP, Port: port("service")}
			p := meter.Place{Addr: a, Port: port("port"), Protocol: model.TCP}
			switch rapid.IntRange(0, 3).Draw(t, "kind") {
			case 0:
				news = append(news, func(o *meter.Owners) { o.Own(meter.Place{Addr: a}, who, from, to) })
			case 1:
				news = append(news, func(o *meter.Owners) { o.Serve(p, target, from, to) })
			case 2:
				news = append(news, func(o *meter.Owners) { o.Back(p, target, from, to) })
			case 3:
				if a.IsValid() {
					news = append(news, func(o *meter.Owners) { o.Block(netip.PrefixFrom(a, 16), who) })
				}
			}
		}
		now := map[meter.Key]meter.Totals{}
		var want model.FlowCount
		for range rapid.IntRange(0, 12).Draw(t, "keys") {
			k := meter.Key{Client: some("client"), Protocol: model.TCP, Side: meter.Side(rapid.IntRange(0, 3).Draw(t, "side")), Masqueraded: rapid.Bool().Draw(t, "masqueraded")}
			if a := some("server"); a.IsValid() {
				k.Server = netip.AddrPortFrom(a, port("server port"))
				if d := some("dialled"); d.IsValid() {
					k.Dialled = netip.AddrPortFrom(d, port("dialled port"))
				}
			}
			if _, ok := now[k]; ok {
				continue
			}
			c := model.FlowCount{Connections: 1, RequestBytes: rapid.Uint64Range(0, 1<<50).Draw(t, "request"), ResponseBytes: 2, ResponseExtra: 3}
			now[k] = meter.Totals{FlowCount: c}
			want.Add(c)
		}
		fold := func(news []func(*meter.Owners)) []meter.Observed {
			o := meter.NewOwners(node("a", "a1"), 5)
			for _, tell := range news {
				tell(o)
			}
			flows, _ := meter.Fold(reading(10, nil), reading(60, now), o)
			return flows
		}
		flows := fold(news)
		var got model.FlowCount
		for i, f := range flows {
			got.Add(f.FlowCount)
			if i > 0 && flows[i-1].Compare(f) >= 0 {
				t.Fatalf("%v before %v", flows[i-1], f)
			}
		}
		if got != want {
			t.Fatalf("flows have %+v, counters %+v", got, want)
		}
		if other := fold(rapid.Permutation(news).Draw(t, "order")); !slices.Equal(flows, other) {
			t.Fatalf("%v\n%v", flows, other)
		}
	})
}
