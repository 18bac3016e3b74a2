package bench

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"time"

	"github.com/zonewise/zonewise/internal/meter/bpf"
	"github.com/zonewise/zonewise/lab/bench/driver"
	"github.com/zonewise/zonewise/lab/rig/peer"
)

// counting is who counts on the node while something is measured.
type counting string

// The states. The second is the least that the kernel can do: bytes and packets of each conntrack entry.
const (
	nobodyCounts    counting = "nobody counts"
	conntrackCounts counting = "nf_conntrack_acct alone"
	meterCounts     counting = "the meter"
)

func countings() []counting { return []counting{nobodyCounts, conntrackCounts, meterCounts} }

// meterTurns is how often each state has its turn in a round.
const meterTurns = 4

// meterWorkers is how many connections at a time the agent's load is made of.
const meterWorkers = 64

// metering is what counting costs: the same work on one node while nobody counts, conntrack alone does, and
// the meter; and what it costs the agent.
func metering() benchmark {
	return benchmark{
		name: "meter", what: "the same from a pod to Services on one node, by turns while nobody counts, while conntrack alone does, and while the meter does; then new connections as fast as they go, and what the agent takes meanwhile. Tenths are of a round's connects: what else the machine does can only add to those",
		loads: func(e effort) []load { return pairs(e.streamSizes) }, alone: true,
		peers: func(k peer.Kind) bool { return k == peer.Zonewise },
		cost: func(r *run, _ load, rounds, _ int) time.Duration {
			turn := time.Duration(r.connects/meterTurns)*60*time.Microsecond + batch + streamBatch + 50*time.Millisecond
			return time.Duration(rounds*meterTurns*len(countings()))*turn + 2*r.meterLength + 4*time.Second
		},
		metrics: func(effort, load) (out []metric) {
			for _, c := range countings() {
				out = append(out, meterMetrics(c)...)
			}
			for _, c := range []counting{nobodyCounts, meterCounts} {
				out = append(out, agentMetrics(c)...)
			}
			return out
		},
		run: func(r *run, s *stage) error {
			if !slices.Contains(r.Peers, peer.Zonewise) || r.done(s.benchmark, s.load, peer.Zonewise) {
				return nil
			}
			if why := r.tooSlow(peer.Zonewise, s.load); why != "" {
				r.without(s, peer.Zonewise, why)
				return nil
			}
			err := r.metered(s)
			if ended := r.ctx.Err(); ended != nil {
				return ended
			}
			if err != nil {
				r.fail(s.benchmark.name, s.load, peer.Zonewise, err)
				r.without(s, peer.Zonewise, err.Error())
			}
			return nil
		},
	}
}

func meterMetrics(c counting) []metric {
	name := ", " + string(c)
	out := []metric{{"connect to ClusterIP" + name, "µs"}, {"requests" + name, "1/s"}, {"TCP, 1 stream" + name, "Gb/s"}}
	if c == nobodyCounts {
		return out
	}
	return append(out, metric{"connect" + name + ": beyond nobody, tenths", "µs"}, metric{"connect" + name + ": beyond nobody, medians", "µs"},
		metric{"requests" + name + ", of those with nobody", "%"}, metric{"TCP" + name + ", of that with nobody", "%"})
}

func agentMetrics(c counting) []metric {
	name := ", " + string(c)
	return []metric{{"new connections" + name, "1/s"}, {"agent's CPU with these" + name, "%"}, {"agent's RSS with these" + name, "MB"}}
}

// metered does it all in worlds of its own.
func (r *run) metered(s *stage) error {
	return errors.Join(r.meteredTraffic(s), r.meteredAgent(s, nobodyCounts, "off"), r.meteredAgent(s, meterCounts, "require"))
}

// withAgent gives a node with an agent that has programmed everything.
func (r *run) withAgent(s *stage, meter string, do func(n *node) error) (err error) {
	n, err := newNode(peer.Zonewise, s.load, s.snapshot, r.cpus)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.close()) }()
	n.meter = meter
	if _, err := n.start(r.Bin, -1); err != nil {
		return err
	}
	if _, err := n.ready(r.ctx, r.random, r.Limit); err != nil {
		return err
	}
	return do(n)
}

// counts makes the node's a state, one after another.
type counts struct {
	node    *node
	counter *bpf.Counter
}

func newCounts(n *node) (*counts, error) {
	c := &counts{node: n}
	return c, n.world.Node.Do(func() (err error) {
		c.counter, err = bpf.New(bpf.Options{
			Pins: filepath.Join(n.world.BPF, "bench-meter"), Sockets: filepath.Join(n.world.BPF, "zonewise", bpf.SocketLayout),
			Namespaces: n.world.Namespaces, PodInterface: "eni",
		})
		return err
	})
}

func (c *counts) become(state counting) error {
	return c.node.world.Node.Do(func() error {
		acct, meter := "0", c.counter.Detach
		switch state {
		case conntrackCounts:
			acct = "1"
		case meterCounts:
			meter = c.counter.Attach
		}
		return errors.Join(sysctl("net/netfilter/nf_conntrack_acct", acct), meter())
	})
}

// measures is what came of one state in a round.
type measures struct {
	connects         []float64
	requests, stream tally
}

func (r *run) meteredTraffic(s *stage) error {
	return r.withAgent(s, "off", func(n *node) error {
		if err := errors.Join(n.settle(r.cpus.rest), r.pinAll(true)); err != nil {
			return err
		}
		counts, err := newCounts(n)
		if err != nil {
			return err
		}
		defer counts.counter.Close()
		// Whoever is dialled has a counter by then, as he has on a node that has been up for a while.
		warm := &measures{}
		targets := n.targets(r.random, r.connects)
		for range meterTurns {
			if err := r.meteredTurn(counts, meterCounts, targets, warm); err != nil {
				return err
			}
		}
		for range s.benchmark.roundsOf(r.Rounds) {
			found := map[counting]*measures{}
			for range meterTurns {
				for _, i := range r.random.Perm(len(countings())) {
					c := countings()[i]
					if found[c] == nil {
						found[c] = &measures{}
					}
					if err := errors.Join(r.ctx.Err(), r.meteredTurn(counts, c, targets, found[c])); err != nil {
						return fmt.Errorf("%s: %w", c, err)
					}
				}
			}
			r.noteMeasures(s, found)
		}
		return errors.Join(r.pinAll(false), n.peer.Resume())
	})
}

func (r *run) meteredTurn(counts *counts, c counting, targets []netip.AddrPort, into *measures) error {
	r.tidy()
	n := counts.node
	if err := counts.become(c); err != nil {
		return err
	}
	count := r.connects/meterTurns + 1
	for _, times := range []int{count/10 + 1, count} { // the first ones find caches cold
		reply, err := n.do(inPod, driver.Job{Task: driver.Connect, Targets: targets, Count: times, Seed: r.random.Uint64()})
		if err != nil {
			return err
		}
		if reply.Outcomes[driver.Open] != times {
			return fmt.Errorf("connects ended %v", reply.Outcomes)
		}
		if times == count {
			into.connects = append(into.connects, micro(reply.Samples)...)
		}
	}
	for _, x := range []struct {
		job driver.Job
		sum *tally
	}{
		{driver.Job{Task: driver.Request, Workers: 16, Length: batch, Targets: targets, Seed: r.random.Uint64()}, &into.requests},
		{driver.Job{Task: driver.Stream, Workers: 1, Length: streamBatch, Targets: behindSpecial(sink())}, &into.stream},
	} {
		reply, err := n.do(inPod, x.job)
		if err != nil {
			return err
		}
		x.sum.add(reply, 0)
	}
	return nil
}

func (r *run) noteMeasures(s *stage, found map[counting]*measures) {
	without := found[nobodyCounts]
	tenth := func(m *measures) float64 { return quantile(slices.Sorted(slices.Values(m.connects)), .1) }
	for _, c := range countings() {
		f, m := found[c], meterMetrics(c)
		r.record.add(s.key(peer.Zonewise, m[0].name), m[0].unit, f.connects...)
		values := []float64{f.requests.rate(), f.stream.rate() * 8 / 1e9}
		if c != nobodyCounts {
			values = append(values, tenth(f)-tenth(without), median(f.connects)-median(without.connects),
				100*f.requests.rate()/without.requests.rate(), 100*f.stream.rate()/without.stream.rate())
		}
		for i, v := range values {
			r.record.add(s.key(peer.Zonewise, m[i+1].name), m[i+1].unit, v)
		}
	}
}

// meteredAgent is what the agent takes while connections come as fast as they can be made.
func (r *run) meteredAgent(s *stage, c counting, meter string) error {
	return r.withAgent(s, meter, func(n *node) error {
		before, err := n.peer.CPU()
		if err != nil {
			return err
		}
		most := n.peer.WatchMemory()
		reply, err := n.do(inPod, driver.Job{Task: driver.Rate, Workers: meterWorkers, Length: r.meterLength, Targets: n.targets(r.random, r.connects), Seed: r.random.Uint64()})
		rss := most()
		if err != nil {
			return err
		}
		after, err := n.peer.CPU()
		if err != nil {
			return err
		}
		m := agentMetrics(c)
		for i, v := range []float64{float64(reply.Done) / reply.Took.Seconds(), 100 * (after - before).Seconds() / reply.Took.Seconds(), float64(rss) / 1e6} {
			r.record.add(s.key(peer.Zonewise, m[i].name), m[i].unit, v)
		}
		return nil
	})
}
