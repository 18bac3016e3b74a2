package bench

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/zonewise/zonewise/lab/bench/driver"
	"github.com/zonewise/zonewise/lab/rig/peer"
)

// way is one to a Service that is measured, beside the way to its endpoints from the same place on
// the same node, with all that the peer has programmed there in force.
type way struct {
	name   string
	direct string
	beyond string // how much longer the first takes than the second
	from   place
}

// The ways.
const (
	podToService  = "pod to ClusterIP"
	nodeToService = "node to ClusterIP"
	toNodePort    = "outside to NodePort"
	beyondDirect  = " − direct, same node"
	minima        = ", minima"
)

func ways() []way {
	return []way{
		{podToService, "pod to endpoint, same node", podToService + beyondDirect, inPod},
		{nodeToService, "node to endpoint, same node", nodeToService + beyondDirect, onNode},
		{toNodePort, "outside to endpoint, same node", toNodePort + beyondDirect, outside},
	}
}

func everybody(k peer.Kind) bool { return k != harness }

// connect is how long connect() takes to a random Service, from the call until the handshake is done.
func connect() benchmark {
	return benchmark{
		name: "connect", what: "one connect() to a random Service, until the handshake is done; in turn with it, one to an endpoint of a random Service, in the same loop on the same node; and how much longer the first of each two takes, the median of a round, and the difference of a round's minima",
		loads: func(e effort) []load { return pairs(e.sizes) }, peers: everybody,
		metrics: func(effort, load) (out []metric) {
			for _, w := range ways() {
				out = append(out, metric{w.name, "µs"}, metric{w.direct, "µs"}, metric{w.beyond, "µs"}, metric{w.beyond + minima, "µs"})
			}
			return out
		},
		cost: func(r *run, _ load, rounds, peers int) time.Duration {
			return time.Duration(rounds*peers*r.connects*len(ways())) * 60 * time.Microsecond
		},
		run: func(r *run, s *stage) error {
			return r.rounds(s, func(n *node) error {
				for _, w := range ways() {
					if err := r.connectBeside(s, n, w); err != nil {
						return fmt.Errorf("%s: %w", w.name, err)
					}
				}
				return nil
			})
		},
	}
}

// to are where the way leads, and the endpoints beside.
func (n *node) to(w way, random *rand.Rand, count int) (targets, beside []netip.AddrPort) {
	if w.from == outside {
		return n.nodePortTargets(random), n.endpoints(random, nodePorts, min(nodePorts, n.load.Services))
	}
	return n.targets(random, count), n.endpoints(random, count, n.load.Services)
}

func (r *run) connectBeside(s *stage, n *node, w way) error {
	targets, beside := n.to(w, r.random, r.connects)
	// The first ones find paths and caches cold, as no later one does.
	if _, err := n.do(w.from, driver.Job{Task: driver.Connect, Targets: targets, Beside: beside, Count: r.connects/10 + 1, Seed: r.random.Uint64()}); err != nil {
		return err
	}
	reply, err := n.do(w.from, driver.Job{Task: driver.Connect, Targets: targets, Beside: beside, Count: r.connects, Seed: r.random.Uint64()})
	if err != nil {
		return err
	}
	if reply.Outcomes[driver.Open] != 2*r.connects {
		return fmt.Errorf("%s: connects ended %v", n.kind, reply.Outcomes)
	}
	service, direct := micro(reply.Samples), micro(reply.Beside)
	r.record.add(s.key(n.kind, w.name), "µs", service...)
	r.record.add(s.key(n.kind, w.direct), "µs", direct...)
	r.record.add(s.key(n.kind, w.beyond), "µs", medianBeyond(service, direct))
	r.record.add(s.key(n.kind, w.beyond+minima), "µs", slices.Min(service)-slices.Min(direct))
	return nil
}

// medianBeyond is the median of how much longer each took than the one that went with it: within these
// few microseconds the machine was the same to both.
func medianBeyond(one, other []float64) float64 {
	beyond := make([]float64, len(one))
	for i := range one {
		beyond[i] = one[i] - other[i]
	}
	return median(beyond)
}

func median(values []float64) float64 { return quantile(slices.Sorted(slices.Values(values)), .5) }

// connectTimes are those of one turn, in µs. Every connect must succeed.
func (r *run) connectTimes(n *node, from place, targets []netip.AddrPort) ([]float64, error) {
	reply, err := n.do(from, driver.Job{Task: driver.Connect, Targets: targets, Count: r.connects, Seed: r.random.Uint64()})
	if err != nil {
		return nil, err
	}
	if reply.Outcomes[driver.Open] != r.connects {
		return nil, fmt.Errorf("%s: connects ended %v", n.kind, reply.Outcomes)
	}
	return micro(reply.Samples), nil
}
