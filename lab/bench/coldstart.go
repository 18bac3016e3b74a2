package bench

import (
	"errors"
	"fmt"
	"time"

	"github.com/zonewise/zonewise/lab/rig/peer"
)

func programs(k peer.Kind) bool { return k != harness && k.Services() }

// enough is how long one peer is started again and again at one load, or has others' changes: then it
// has no more rounds.
const enough = 90 * time.Second

// coldStart is how long a program takes, on a node on which nothing is programmed, from its start
// until the last Service answers, and what it takes for that.
func coldStart() benchmark {
	return benchmark{
		name: "cold-start", what: "from the start of the program on an empty node until the last Service, and 32 others, answer a connect; all CPUs",
		loads: func(e effort) []load { return e.cold }, alone: true, peers: programs,
		cost: func(r *run, l load, rounds, peers int) time.Duration {
			return time.Duration(rounds*peers) * (2*time.Second + time.Duration(l.Services*l.Endpoints)*25*time.Microsecond)
		},
		metrics: func(_ effort, l load) []metric {
			suffix := ""
			if l.Endpoints != 2 {
				suffix = fmt.Sprintf(", %d endpoints each", l.Endpoints)
			}
			return []metric{{"until all answer" + suffix, "s"}, {"CPU" + suffix, "s"}, {"peak memory (RSS)" + suffix, "MB"}}
		},
		run: func(r *run, s *stage) error {
			spent := map[peer.Kind]time.Duration{}
			for range s.benchmark.roundsOf(r.Rounds) {
				for _, i := range r.random.Perm(len(r.Peers)) {
					k := r.Peers[i]
					if err := r.ctx.Err(); err != nil {
						return err
					}
					if !programs(k) || r.done(s.benchmark, s.load, k) || spent[k] > enough {
						continue
					}
					if why := r.tooSlow(k, s.load); why != "" {
						r.without(s, k, why)
						continue
					}
					begin := time.Now()
					err := r.coldStart(s, k)
					if ended := r.ctx.Err(); ended != nil {
						return ended
					}
					if err != nil {
						r.fail(s.benchmark.name, s.load, k, err)
						r.without(s, k, err.Error())
					}
					spent[k] += time.Since(begin)
				}
			}
			return nil
		},
	}
}

func (r *run) coldStart(s *stage, k peer.Kind) (err error) {
	r.tidy()
	n, err := newNode(k, s.load, s.snapshot, cpus{-1, -1})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.close()) }()
	for _, at := range []place{inPod, inBarePod} { // their start is no part of it
		if _, err := n.driver(at); err != nil {
			return err
		}
	}
	begin, err := n.start(r.Bin, -1)
	if err != nil {
		return err
	}
	stop := n.peer.WatchMemory()
	end, err := n.ready(r.ctx, r.random, r.Limit)
	peak := stop()
	if errors.Is(err, errNotReady) {
		r.slow[k] = slowness{s.load, err.Error()}
		r.without(s, k, err.Error())
		return nil
	}
	if err != nil {
		return err
	}
	cpu, err := n.peer.CPU()
	if err != nil {
		return err
	}
	m := s.benchmark.metrics(r.effort, s.load)
	for i, v := range []float64{end.Sub(begin).Seconds(), cpu.Seconds(), float64(peak) / 1e6} {
		r.record.add(s.key(k, m[i].name), m[i].unit, v)
	}
	return nil
}
