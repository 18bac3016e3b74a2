package bench

import (
	"fmt"

	"github.com/zonewise/zonewise/lab/bench/driver"
)

// rate is how many connections, and how many short requests on a connection each, a client can make.
func rate() benchmark {
	return benchmark{
		name: "rate", what: "connections, and short HTTP requests on a connection each, in a closed loop from a pod; CPU time is the whole machine's, client and server included",
		loads: func(e effort) []load { return pairs(e.rateSizes) }, peers: everybody,
		metrics: func(e effort, _ load) (out []metric) {
			for _, t := range []driver.Task{driver.Rate, driver.Request} {
				for _, workers := range e.workers {
					out = append(out, rateMetrics(t, workers)...)
				}
			}
			return out
		},
		run: func(r *run, s *stage) error {
			return r.rounds(s, func(n *node) error {
				targets := n.targets(r.random, r.connects)
				for _, t := range []driver.Task{driver.Rate, driver.Request} {
					for _, workers := range r.workers {
						before, err := busy()
						if err != nil {
							return err
						}
						reply, err := n.do(inPod, driver.Job{Task: t, Targets: targets, Workers: workers, Length: r.length, Seed: r.random.Uint64()})
						if err != nil {
							return err
						}
						after, err := busy()
						if err != nil {
							return err
						}
						if bad := reply.Outcomes[driver.Refused] + reply.Outcomes[driver.Failed]; bad > 0 || reply.Done == 0 {
							return fmt.Errorf("%s: connections ended %v", n.kind, reply.Outcomes)
						}
						m := rateMetrics(t, workers)
						r.record.add(s.key(n.kind, m[0].name), m[0].unit, float64(reply.Done)/reply.Took.Seconds())
						r.record.add(s.key(n.kind, m[1].name), m[1].unit, (after-before)*1e6/float64(reply.Done))
					}
				}
				return nil
			})
		},
	}
}

func rateMetrics(t driver.Task, workers int) []metric {
	what := map[driver.Task]string{driver.Rate: "connections", driver.Request: "requests"}[t]
	return []metric{{fmt.Sprintf("%s, %d at a time", what, workers), "1/s"}, {fmt.Sprintf("CPU for each of %s, %d at a time", what, workers), "µs"}}
}
