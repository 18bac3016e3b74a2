package bench

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/zonewise/zonewise/lab/bench/driver"
)

// after is how many connects follow from a place once the program says that an endpoint is removed.
const after = 200

// The figures of removals.
const (
	stillThere   = "connects to what is removed"
	saidToBeDone = "change to the program's word"
)

// look is between two looks at what a program says.
const look = 5 * time.Millisecond

// removals is how many connects land on a removed endpoint once the program says that it is done.
func removals() benchmark {
	return benchmark{
		name: "removal", what: "one of a Service's two endpoints is taken away: connects that still land on it, of 200 from a pod and 200 from one whose sockets nobody translates, once the program's own metric (network_programming_duration_seconds) counts the change; and how long that takes",
		loads: func(e effort) []load { return pairs(e.changeSizes) }, peers: programs, most: 3,
		metrics: func(effort, load) []metric { return []metric{{stillThere, ""}, {saidToBeDone, "ms"}} },
		run: func(r *run, s *stage) error {
			return r.rounds(s, func(n *node) error {
				if err := n.quiet(r.Limit); err != nil {
					return err
				}
				for begin, i := time.Now(), 0; i < r.removals && (i == 0 || time.Since(begin) < sufficient); i++ {
					bad, said, err := n.remove(r.Limit)
					if err != nil {
						return err
					}
					r.record.add(s.key(n.kind, stillThere), "", float64(bad))
					r.record.add(s.key(n.kind, saidToBeDone), "ms", milli(said))
				}
				return nil
			})
		},
		cost: func(r *run, _ load, rounds, peers int) time.Duration {
			return time.Duration(rounds*peers) * (2*idle + time.Duration(r.removals)*idle/2)
		},
	}
}

// remove takes the dead endpoint away, counts connects to it, and puts it back.
func (n *node) remove(limit time.Duration) (bad int, said time.Duration, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	all := removal()
	before, err := n.peer.Programmed(ctx)
	if err != nil {
		return 0, 0, err
	}
	written, err := n.set(all.at(all.addrs[0]))
	if err != nil {
		return 0, 0, err
	}
	if err := n.counts(ctx, before+1); err != nil {
		return 0, 0, err
	}
	said = driver.Now() - written
	for _, from := range []place{inPod, inBarePod} {
		reply, err := n.do(from, driver.Job{Task: driver.Connect, Targets: []netip.AddrPort{all.target()}, Count: after})
		if err != nil {
			return 0, 0, err
		}
		bad += after - reply.Outcomes[driver.Open]
	}
	if _, err := n.set(all); err != nil {
		return 0, 0, err
	}
	return bad, said, n.counts(ctx, before+2)
}

// counts waits until the program says that it has programmed so many changes.
func (n *node) counts(ctx context.Context, want uint64) error {
	tick := time.NewTicker(look)
	defer tick.Stop()
	for {
		have, err := n.peer.Programmed(ctx)
		if err != nil {
			return err
		}
		if have >= want {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%w: it counts %d changes, want %d", errTooSlow, have, want)
		}
	}
}

// quiet waits until the program has done all that it was told before, which its period may put off:
// until its count has not changed for longer than that.
func (n *node) quiet(limit time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	for last, same := uint64(0), 0; same < 3; {
		now, err := n.peer.Programmed(ctx)
		if err != nil {
			return err
		}
		if now == last {
			same++
		} else {
			last, same = now, 0
		}
		wait(idle / 2)
	}
	return nil
}
