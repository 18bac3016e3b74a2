package bench

import (
	"fmt"
)

// sticky is how many Services remember their clients.
const sticky = 8

// affinity is connect() by a client that is remembered, to Services of ever more endpoints.
func affinity() benchmark {
	return benchmark{
		name: "affinity", what: "one connect() to Services with sessionAffinity ClientIP, by a client that they remember",
		loads: func(e effort) (out []load) {
			for _, n := range e.affinity {
				out = append(out, load{Services: sticky, Endpoints: n, Affinity: true})
			}
			return out
		},
		metrics: func(_ effort, l load) []metric {
			return []metric{{fmt.Sprintf("pod to ClusterIP, %d endpoints", l.Endpoints), "µs"}}
		},
		peers: everybody,
		run: func(r *run, s *stage) error {
			return r.rounds(s, func(n *node) error {
				values, err := r.connectTimes(n, inPod, n.targets(r.random, r.connects))
				if err != nil {
					return err
				}
				r.record.add(s.key(n.kind, s.benchmark.metrics(r.effort, s.load)[0].name), "µs", values...)
				return nil
			})
		},
	}
}
