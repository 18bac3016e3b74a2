package bench

import (
	"fmt"
	"time"

	"github.com/zonewise/zonewise/lab/bench/driver"
)

// sticky is how many Services remember their clients.
const sticky = 8

// learning is how long a program has, after a client's first connections, to tell all of its paths of
// them: longer than the agent's period of 2 s.
const learning = 3 * time.Second

// affinity is connect() by a client that is remembered, to Services of ever more endpoints.
func affinity() benchmark {
	return benchmark{
		name: "affinity", what: "one connect() to Services with sessionAffinity ClientIP, by a client that they remember: later, and, once for each program, within its first moments, when only the path that chose may know it; and from a pod whose sockets nobody translates",
		loads: func(e effort) (out []load) {
			for _, n := range e.affinity {
				out = append(out, load{Services: sticky, Endpoints: n, Affinity: true})
			}
			return out
		},
		metrics: func(_ effort, l load) []metric { return affinityMetrics(l) },
		peers:   everybody,
		run: func(r *run, s *stage) error {
			return r.rounds(s, func(n *node) error { return r.affinity(s, n) })
		},
		cost: func(r *run, _ load, rounds, peers int) time.Duration {
			return time.Duration(peers) * (learning + time.Duration(rounds)*300*time.Millisecond)
		},
	}
}

func affinityMetrics(l load) []metric {
	suffix := fmt.Sprintf(", %d endpoints", l.Endpoints)
	return []metric{{podToService + suffix, "µs"}, {"… in the first moments" + suffix, "µs"}, {"… beyond the socket" + suffix, "µs"}}
}

func (r *run) affinity(s *stage, n *node) error {
	m := affinityMetrics(s.load)
	measure := func(m metric, from place) error {
		values, err := r.connectTimes(n, from, n.targets(r.random, r.connects))
		if err == nil {
			r.record.add(s.key(n.kind, m.name), m.unit, values...)
		}
		return err
	}
	if !n.met {
		n.met = true
		if _, err := n.do(inPod, driver.Job{Task: driver.Connect, Targets: n.targets(r.random, r.connects), Count: r.connects/10 + 1}); err != nil {
			return err
		}
		if err := measure(m[1], inPod); err != nil {
			return err
		}
		if n.kind.Services() {
			wait(learning)
		}
	}
	if err := measure(m[0], inPod); err != nil {
		return err
	}
	return measure(m[2], inBarePod)
}
