package bench

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/zonewise/zonewise/lab/bench/driver"
)

const changeToConnect = "change to connect"

// idle is how long nothing changes before a change is measured: longer than kube-proxy's period, so
// that what is measured is its work and not its waiting.
const idle = 1200 * time.Millisecond

// jitter is added to it, so that no change meets the same moment of somebody's period; and calm is what
// a program has before and after its turn, to begin and to finish what belongs to it.
const (
	jitter = idle / 4
	calm   = 100 * time.Millisecond
)

// sufficient is how long a peer may be at its changes in one round: then it begins no more of them.
const sufficient = 15 * time.Second

// programming is how long it takes until a changed endpoint is connected to, where nothing else changes.
func programming() benchmark {
	return benchmark{
		name: "programming", what: "a Service's endpoint is replaced, 1.2 s or more after the change before: from the moment that the API server writes the event until a connect from a pod lands on the new endpoint",
		loads: func(e effort) []load { return pairs(e.changeSizes) }, peers: programs,
		metrics: func(effort, load) []metric { return []metric{{changeToConnect, "ms"}} },
		run: func(r *run, s *stage) error {
			return r.rotate(s, r.flips, func(n *node) (float64, error) {
				took, _, err := n.flip(r.Limit)
				n.changed = time.Now()
				return milli(took), err
			}, func(n *node, values []float64) { r.record.add(s.key(n.kind, changeToConnect), "ms", values...) })
		},
		cost: func(r *run, _ load, rounds, _ int) time.Duration {
			return time.Duration(rounds*(r.flips+1)) * (idle + jitter)
		},
	}
}

// rotate has every peer do one thing in turn, again and again within a round: what one has to wait
// for between two of its own, others use. The values of a round come together.
func (r *run) rotate(s *stage, times int, once func(n *node) (float64, error), done func(n *node, values []float64)) error {
	values, spent := map[*node][]float64{}, map[*node]time.Duration{}
	return r.eachRound(s, func(nodes []*node) error {
		clear(values)
		clear(spent)
		// What their clocks told them to do while they were stopped, they do now.
		for _, n := range nodes {
			if err := r.turn(s, n, func() error { wait(idle / time.Duration(len(nodes))); return nil }); err != nil {
				return err
			}
			n.changed = time.Now()
		}
		for range times {
			for _, n := range nodes {
				if n.out != "" || spent[n] > sufficient {
					continue
				}
				err := r.turn(s, n, func() error {
					wait(max(calm, idle-time.Since(n.changed)+time.Duration(r.random.Int64N(int64(jitter)))))
					begin := time.Now()
					v, err := once(n)
					spent[n] += time.Since(begin)
					if err == nil {
						values[n] = append(values[n], v)
					}
					wait(calm)
					return err
				})
				if err != nil {
					return err
				}
			}
		}
		for _, n := range nodes {
			done(n, values[n])
		}
		return nil
	})
}

// flip moves the probe's endpoint from where nobody listens to where somebody does, or back, while a
// client connects all the time, and returns how long the client saw the old one.
func (n *node) flip(limit time.Duration) (took time.Duration, failed int, err error) {
	n.live = !n.live
	want, addr := driver.Refused, dead(1)
	if n.live {
		want, addr = driver.Open, live(2)[0]
	}
	type seen struct {
		driver.Reply
		err error
	}
	done := make(chan seen, 1)
	go func() {
		reply, err := n.do(inPod, driver.Job{Task: driver.Await, Targets: []netip.AddrPort{probe().target()}, Want: want, Length: limit, Pause: 100 * time.Microsecond})
		done <- seen{reply, err}
	}()
	written, err := n.set(probe().at(addr))
	s := <-done
	if err == nil && s.err != nil {
		if err = s.err; s.Took > limit {
			err = fmt.Errorf("%w: a change is not seen after %v", errTooSlow, limit)
		}
	}
	return s.At - written, s.Outcomes[driver.Failed], err
}

// wait lets time pass in which nothing shall happen.
func wait(d time.Duration) { <-time.After(d) }
