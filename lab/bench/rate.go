package bench

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/zonewise/zonewise/lab/bench/driver"
)

// batch is how long connections go to Services, and then to endpoints, in turn. Those under way at its
// end are not counted.
const batch = 100 * time.Millisecond

// rate is how many connections, and how many short requests on a connection each, a client can make.
func rate() benchmark {
	return benchmark{
		name: "rate", what: "connections, and short HTTP requests on a connection each, in a closed loop from a pod; in turn with it, every 0.1 s, the same to endpoints on the same node; CPU time is the whole machine's, client and server included",
		loads: func(e effort) []load { return pairs(e.rateSizes) }, peers: everybody,
		metrics: func(e effort, _ load) (out []metric) {
			for _, t := range []driver.Task{driver.Rate, driver.Request} {
				for _, workers := range e.workers {
					out = append(out, rateMetrics(t, workers)...)
				}
			}
			return out
		},
		cost: func(r *run, _ load, rounds, peers int) time.Duration {
			return time.Duration(rounds*peers*2*len(r.workers)*2*r.rateBatches) * (batch + 10*time.Millisecond)
		},
		run: func(r *run, s *stage) error {
			return r.rounds(s, func(n *node) error {
				for _, t := range []driver.Task{driver.Rate, driver.Request} {
					for _, workers := range r.workers {
						if err := r.rateBeside(s, n, t, workers); err != nil {
							return err
						}
					}
				}
				return nil
			})
		},
	}
}

func rateMetrics(t driver.Task, workers int) []metric {
	what := map[driver.Task]string{driver.Rate: "connections", driver.Request: "requests"}[t]
	return []metric{
		{fmt.Sprintf("%s, %d at a time", what, workers), "1/s"},
		{fmt.Sprintf("%s to endpoints, same node, %d at a time", what, workers), "1/s"},
		{fmt.Sprintf("%s, %d at a time, of those to endpoints", what, workers), "%"},
		{fmt.Sprintf("CPU for each of %s, %d at a time", what, workers), "µs"},
	}
}

// rateBeside makes half of the batches' connections to Services and half to endpoints.
func (r *run) rateBeside(s *stage, n *node, t driver.Task, workers int) error {
	job := driver.Job{Task: t, Workers: workers, Length: batch}
	service, direct, err := n.inTurn(job, r.rateBatches, r.random, n.targets(r.random, r.connects), n.endpoints(r.random, r.connects, n.load.Services))
	if err != nil {
		return err
	}
	m := rateMetrics(t, workers)
	for i, v := range []float64{service.rate(), direct.rate(), 100 * service.rate() / direct.rate(), service.cpu * 1e6 / service.done} {
		r.record.add(s.key(n.kind, m[i].name), m[i].unit, v)
	}
	return nil
}

// inTurn has a job done so many times with Services and as often with endpoints.
func (n *node) inTurn(j driver.Job, times int, random *rand.Rand, services, endpoints []netip.AddrPort) (service, direct tally, err error) {
	for range times {
		for _, to := range []struct {
			targets []netip.AddrPort
			sum     *tally
		}{{services, &service}, {endpoints, &direct}} {
			j.Targets, j.Seed = to.targets, random.Uint64()
			before, err := busy()
			if err != nil {
				return service, direct, err
			}
			reply, err := n.do(inPod, j)
			if err != nil {
				return service, direct, err
			}
			after, err := busy()
			if err != nil {
				return service, direct, err
			}
			if bad := reply.Outcomes[driver.Refused] + reply.Outcomes[driver.Failed]; bad > 0 || reply.Done == 0 {
				return service, direct, fmt.Errorf("%s: %s to %v and others: %d done, outcomes %v", n.kind, j.Task, j.Targets[0], reply.Done, reply.Outcomes)
			}
			to.sum.add(reply, after-before)
		}
	}
	return service, direct, nil
}

// tally is what several jobs did.
type tally struct{ done, seconds, cpu float64 }

func (t *tally) add(r driver.Reply, cpu float64) {
	t.done += float64(r.Done)
	t.seconds += r.Took.Seconds()
	t.cpu += cpu
}

func (t tally) rate() float64 { return t.done / t.seconds }
