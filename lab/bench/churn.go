package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// churn is the same as programming while other Services' endpoints change all the time.
func churn() benchmark {
	return benchmark{
		name: "churn", what: "the same while endpoints of other Services, picked at random, change so many times a second; CPU is the program's, as part of one; failed connects are those that neither endpoint answered",
		loads: func(e effort) []load { return pairs(e.churnSizes) }, peers: programs, most: 3,
		metrics: func(e effort, _ load) (out []metric) {
			for _, rate := range e.churn {
				out = append(out, churnMetrics(rate)...)
			}
			return out
		},
		run: func(r *run, s *stage) error {
			spent := map[*node]time.Duration{}
			return r.rounds(s, func(n *node) error {
				if spent[n] > enough {
					return nil
				}
				begin := time.Now()
				defer func() { spent[n] += time.Since(begin) }()
				for _, rate := range r.churn {
					if err := r.churnAt(s, n, rate); err != nil {
						return err
					}
				}
				return nil
			})
		},
		cost: func(r *run, _ load, rounds, peers int) time.Duration {
			return time.Duration(rounds*peers*len(r.churn)) * (r.churnLength + idle)
		},
	}
}

func churnMetrics(rate int) []metric {
	at := fmt.Sprintf(", %d changes/s", rate)
	return []metric{{changeToConnect + at, "ms"}, {"CPU" + at, "%"}, {"failed connects" + at, ""}}
}

func (r *run) churnAt(s *stage, n *node, rate int) error {
	ctx, stop := context.WithTimeout(context.Background(), r.churnLength)
	defer stop()
	changed := make(chan error, 1)
	random := rand.New(rand.NewPCG(r.random.Uint64(), 0))
	go func() { changed <- n.change(ctx, rate, random) }()
	before, err := n.peer.CPU()
	if err != nil {
		return err
	}
	begin := time.Now()
	var values []float64
	failures := 0
	for ctx.Err() == nil || len(values) == 0 {
		wait(time.Duration(r.random.Int64N(int64(20 * time.Millisecond))))
		took, failed, e := n.flip(r.Limit)
		if e != nil {
			err = e
			break
		}
		values = append(values, milli(took))
		failures += failed
	}
	length := time.Since(begin)
	stop()
	err = errors.Join(err, <-changed)
	after, e := n.peer.CPU()
	if err = errors.Join(err, e); err != nil {
		return err
	}
	m := churnMetrics(rate)
	r.record.add(s.key(n.kind, m[0].name), m[0].unit, values...)
	r.record.add(s.key(n.kind, m[1].name), m[1].unit, 100*(after-before).Seconds()/length.Seconds())
	r.record.add(s.key(n.kind, m[2].name), m[2].unit, float64(failures))
	return nil
}

// change gives random Services another endpoint, so many times a second.
func (n *node) change(ctx context.Context, rate int, random *rand.Rand) error {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	begin, done := time.Now(), 0
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			for due := int(now.Sub(begin).Seconds() * float64(rate)); done < due; done++ {
				i := random.IntN(n.load.Services)
				n.versions[i]++
				if _, err := n.api.Set(triggered(n.load.slices(i, n.versions[i])[0], now)); err != nil {
					return err
				}
			}
		}
	}
}
