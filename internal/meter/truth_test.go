package meter_test

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/zonewise/zonewise/internal/meter"
	"github.com/zonewise/zonewise/internal/model"
)

// cluster is four nodes in three zones, each with a kernel that counts and an agent that reads, and
// the network between them, which counts in its own way.
type cluster struct {
	nodes   []string
	kernels map[string]*machine
	network map[model.ZonePair]uint64 // bytes of IP packets
}

func newCluster() *cluster {
	c := &cluster{nodes: []string{"a1", "a2", "b1", "c1"}, kernels: map[string]*machine{}, network: map[model.ZonePair]uint64{}}
	for _, n := range c.nodes {
		c.kernels[n] = &machine{reading: reading(0, map[meter.Key]meter.Totals{}), truth: map[meter.Key]model.FlowCount{}, born: true}
	}
	return c
}

// ip is the address of a pod of a node, or, for number 0, of the node.
func (c *cluster) ip(node string, pod int) netip.Addr {
	for i, n := range c.nodes {
		if n == node {
			return netip.AddrFrom4([4]byte{10, 0, byte(i), byte(pod)})
		}
	}
	panic(node)
}

// owners is what every agent knows of the cluster.
func (c *cluster) owners(self string) *meter.Owners {
	o := meter.NewOwners(node(self[:1], self), time.Second)
	for _, n := range c.nodes {
		o.Own(meter.Place{Addr: c.ip(n, 0)}, node(n[:1], n), 0, 0)
		o.Own(meter.Place{Addr: c.ip(n, 1)}, pod(n[:1], n, "shop", "deployment/web"), 0, 0)
		o.Own(meter.Place{Addr: c.ip(n, 2)}, pod(n[:1], n, "shop", "deployment/db"), 0, 0)
		o.Serve(meter.Place{Addr: c.ip(n, 0), Port: 30080, Protocol: model.TCP}, meter.Target{Service: web, Via: model.ViaNodePort, Port: 80}, 0, 0)
	}
	o.Serve(place("10.96.0.1:80", model.TCP), meter.Target{Service: web, Via: model.ViaClusterIP, Port: 80}, 0, 0)
	return o
}

// cross is n bytes there and 2n back on the network between two nodes; "" is outside.
func (c *cluster) cross(from, to string, n uint64) {
	zone := func(node string) string {
		if node == "" {
			return meter.ZoneOutside
		}
		return node[:1]
	}
	c.network[model.ZonePair{From: zone(from), To: zone(to)}] += n
	c.network[model.ZonePair{From: zone(to), To: zone(from)}] += 2 * n
}

// counts is one node's kernel counting them.
func (c *cluster) counts(node string, k meter.Key, n uint64) {
	k.Protocol = model.TCP
	c.kernels[node].count(k, model.FlowCount{RequestBytes: n, ResponseBytes: 2 * n, RequestPackets: 1, ResponsePackets: 1})
}

// both counts a connection at its ends as they see it: dialled is what the client's node translated.
func (c *cluster) both(from, to string, client, seen netip.Addr, dialled, server netip.AddrPort, n uint64) {
	c.cross(from, to, n)
	if from == to {
		c.counts(from, meter.Key{Client: client, Dialled: dialled, Server: server, Side: meter.BothEnds}, n)
		return
	}
	c.counts(from, meter.Key{Client: client, Dialled: dialled, Server: server, Side: meter.ClientEnd}, n)
	c.counts(to, meter.Key{Client: seen, Server: server, Side: meter.ServerEnd}, n)
}

// send is some traffic of n bytes.
func (c *cluster) send(t *rapid.T, n uint64) {
	some := func(name string) string { return rapid.SampledFrom(c.nodes).Draw(t, name) }
	from, by, to := some("from"), some("by"), some("to")
	client, server := c.ip(from, rapid.IntRange(0, 1).Draw(t, "client")), netip.AddrPortFrom(c.ip(to, 2), 8080)
	outside, port := netip.MustParseAddr("198.51.100.7"), netip.AddrPortFrom(c.ip(by, 0), 30080)
	switch rapid.SampledFrom([]string{"direct", "ClusterIP", "masqueraded", "node port", "node port from outside", "outside"}).Draw(t, "kind") {
	case "direct":
		c.both(from, to, client, client, netip.AddrPort{}, server, n)
	case "ClusterIP":
		c.both(from, to, client, client, netip.MustParseAddrPort("10.96.0.1:80"), server, n)
	case "masqueraded": // --masquerade-all
		c.both(from, to, client, c.ip(from, 0), netip.MustParseAddrPort("10.96.0.1:80"), server, n)
	case "node port":
		if from == by {
			c.both(from, to, client, c.ip(from, 0), port, server, n)
			return
		}
		c.cross(from, by, n)
		c.counts(from, meter.Key{Client: client, Server: port, Side: meter.ClientEnd}, n)
		c.forwarded(client, by, to, port, server, n)
	case "node port from outside":
		if by == to {
			c.cross("", by, n)
		}
		c.forwarded(outside, by, to, port, server, n)
	case "outside":
		c.cross(from, "", n)
		c.counts(from, meter.Key{Client: client, Server: netip.AddrPortFrom(outside, 443), Side: meter.ClientEnd, Masqueraded: true}, n)
	}
}

// forwarded is the way from a node, whose port was dialled, to a pod.
func (c *cluster) forwarded(client netip.Addr, by, to string, port, server netip.AddrPort, n uint64) {
	if by == to {
		c.counts(by, meter.Key{Client: client, Dialled: port, Server: server, Side: meter.ServerEnd, Masqueraded: true}, n)
		return
	}
	c.cross(by, to, n)
	c.counts(by, meter.Key{Client: client, Dialled: port, Server: server, Side: meter.Passing, Masqueraded: true}, n)
	c.counts(to, meter.Key{Client: c.ip(by, 0), Server: server, Side: meter.ServerEnd}, n)
}

// What agents tell comes to exactly what the network carried between zones, whatever was dialled, whoever
// reads when, and whatever becomes of idle counters meanwhile.
func TestTheNetworkAgrees(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := newCluster()
		before, owners, reports := map[string]meter.Reading{}, map[string]*meter.Owners{}, []meter.Report{}
		read := func(n string) {
			now := c.kernels[n].read()
			flows, lost := meter.Fold(before[n], now, owners[n])
			if lost != (meter.Lost{}) {
				t.Fatal(lost)
			}
			before[n], reports = now, append(reports, meter.Report{Node: n, Flows: flows})
		}
		for _, n := range c.nodes {
			before[n], owners[n] = c.kernels[n].read(), c.owners(n)
		}
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			for _, k := range c.kernels {
				k.reading.At += time.Second
				k.reading.Wall = k.reading.Wall.Add(time.Second)
			}
			n := rapid.SampledFrom(c.nodes).Draw(t, "node")
			switch rapid.IntRange(0, 5).Draw(t, "act") {
			case 0:
				read(n)
			case 1:
				if keys := slices.SortedFunc(maps.Keys(c.kernels[n].reading.Totals), meter.Key.Compare); len(keys) > 0 {
					c.kernels[n].remove(rapid.SampledFrom(keys).Draw(t, "idle"))
				}
			default:
				c.send(t, rapid.Uint64Range(1, 1e9).Draw(t, "bytes"))
			}
		}
		for _, n := range c.nodes {
			read(n)
		}
		told := map[model.ZonePair]uint64{}
		for _, z := range meter.Zones(meter.Merge(reports, meter.Metered{All: true}).Flows, meter.Tariff{}) {
			told[model.ZonePair{From: z.From, To: z.To}] = z.Bytes
		}
		if !maps.Equal(told, c.network) {
			t.Fatalf("told %v, the network carried %v", fmt.Sprint(told), fmt.Sprint(c.network))
		}
	})
}
