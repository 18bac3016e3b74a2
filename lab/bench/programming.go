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

// programming is how long it takes until a changed endpoint is connected to, where nothing else changes.
func programming() benchmark {
	return benchmark{
		name: "programming", what: "a Service's endpoint is replaced, 1.2 s or more after the change before: from the moment that the API server writes the event until a connect from a pod lands on the new endpoint",
		loads: func(e effort) []load { return pairs(e.changeSizes) }, peers: programs,
		metrics: func(effort, load) []metric { return []metric{{changeToConnect, "ms"}} },
		run: func(r *run, s *stage) error {
			return r.rounds(s, func(n *node) error {
				var values []float64
				for range r.flips {
					wait(idle + time.Duration(r.random.Int64N(int64(idle/4))))
					took, _, err := n.flip(r.Limit)
					if err != nil {
						return err
					}
					values = append(values, milli(took))
				}
				r.record.add(s.key(n.kind, changeToConnect), "ms", values...)
				return nil
			})
		},
	}
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
