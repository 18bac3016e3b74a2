package bench

import (
	"fmt"
	"net/netip"

	"github.com/zonewise/zonewise/lab/bench/driver"
	"github.com/zonewise/zonewise/lab/rig/peer"
)

// The ways to a Service that are measured.
const (
	podToService  = "pod to ClusterIP"
	nodeToService = "node to ClusterIP"
	toNodePort    = "outside to NodePort"
)

func everybody(k peer.Kind) bool { return k != harness }

// connect is how long connect() takes to a random Service, from the call until the handshake is done.
func connect() benchmark {
	return benchmark{
		name: "connect", what: "one connect() to a random Service, until the handshake is done",
		loads: func(e effort) []load { return pairs(e.sizes) }, peers: everybody,
		metrics: func(effort, load) []metric {
			return []metric{{podToService, "µs"}, {nodeToService, "µs"}, {toNodePort, "µs"}}
		},
		run: func(r *run, s *stage) error {
			return r.rounds(s, func(n *node) error {
				for _, way := range []struct {
					name    string
					from    place
					targets []netip.AddrPort
				}{
					{podToService, inPod, n.targets(r.random, r.connects)},
					{nodeToService, onNode, n.targets(r.random, r.connects)},
					{toNodePort, outside, n.nodePortTargets(r.random)},
				} {
					// The first ones find paths and caches cold, as no later one does.
					warm := driver.Job{Task: driver.Connect, Targets: way.targets, Count: r.connects/10 + 1, Seed: r.random.Uint64()}
					if _, err := n.do(way.from, warm); err != nil {
						return err
					}
					values, err := r.connectTimes(n, way.from, way.targets)
					if err != nil {
						return fmt.Errorf("%s: %w", way.name, err)
					}
					r.record.add(s.key(n.kind, way.name), "µs", values...)
				}
				return nil
			})
		},
	}
}

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
