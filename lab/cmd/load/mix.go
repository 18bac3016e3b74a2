package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"
)

// tick is how often each kind of traffic looks what is due.
const tick = 100 * time.Millisecond

// mix is traffic of many kinds, of about so many bytes, evenly over a time. Bytes are those that the
// programs read and write.
type mix struct {
	tcp, udp, names []string // addresses of echo servers, or of Services in front of some; names for the resolver
	bytes           int64
	length          time.Duration
}

// kind is one sort of traffic: do moves so many bytes or a few less, and returns how many.
type kind struct {
	name  string
	share float64 // of all bytes; 0: one at each tick
	most  int64   // bytes at a time
	do    func(ctx context.Context, n int64) (int64, error)
	end   func()
}

// moved is what became of a kind.
type moved struct {
	Done   int   `json:"done"`
	Failed int   `json:"failed"`
	Bytes  int64 `json:"bytes"`
}

// runMix is `load mix`.
func runMix(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet(args[0], flag.ContinueOnError)
	var m mix
	list := func(name, usage string, into *[]string) {
		flags.Func(name, usage, func(s string) error { *into = strings.Split(s, ","); return nil })
	}
	list("tcp", "`address:port,…` of echo servers, or of Services in front of some", &m.tcp)
	list("udp", "the same by UDP", &m.udp)
	list("names", "`name,…` to look up", &m.names)
	flags.Int64Var(&m.bytes, "bytes", 10e6, "about how many in all")
	flags.DurationVar(&m.length, "for", 10*time.Second, "how long")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	if len(m.tcp)+len(m.udp)+len(m.names) == 0 || m.bytes < 0 || m.length <= 0 {
		return errors.New("mix: want -tcp, -udp or -names, and numbers that are not negative")
	}
	result := m.run(ctx)
	if err := json.NewEncoder(os.Stdout).Encode(result); err != nil {
		return err
	}
	for name, r := range result {
		if r.Done == 0 {
			return fmt.Errorf("mix: nothing came of %s, %d failed", name, r.Failed)
		}
	}
	return nil
}

// kinds are those for which there are targets. Their shares are of what there usually is: most bytes
// are in few transfers, most connections are short.
func (m mix) kinds() []kind {
	var out []kind
	if len(m.tcp) > 0 {
		short, long := newWeb(m.tcp, false), newWeb(m.tcp, true)
		out = append(out,
			kind{"requests", 0.05, 2000, short.page, nil},
			kind{"downloads", 0.35, 4 << 20, short.download, nil},
			kind{"uploads", 0.15, 1 << 20, short.upload, nil},
			kind{"streams", 0.30, 64 << 10, long.both, long.client.CloseIdleConnections})
	}
	if len(m.udp) > 0 {
		c, u := &connected{targets: m.udp}, &unconnected{targets: m.udp}
		out = append(out, kind{"connected datagrams", 0.08, 20000, c.do, c.close}, kind{"datagrams", 0.07, 20000, u.do, u.close})
	}
	if len(m.names) > 0 {
		out = append(out, kind{"lookups", 0, 0, (&lookup{names: m.names}).do, nil})
	}
	return out
}

// run makes the traffic, and returns what became of each kind. It ends early with ctx.
func (m mix) run(ctx context.Context) map[string]moved {
	ctx, cancel := context.WithTimeout(ctx, m.length)
	defer cancel()
	var (
		all    sync.WaitGroup
		mu     sync.Mutex
		result = map[string]moved{}
	)
	for _, k := range m.kinds() {
		all.Go(func() {
			r := m.pace(ctx, k)
			mu.Lock()
			defer mu.Unlock()
			result[k.name] = r
		})
	}
	all.Wait()
	return result
}

// pace does what is due of a kind until the time is over.
func (m mix) pace(ctx context.Context, k kind) moved {
	if k.end != nil {
		defer k.end()
	}
	begin, r := time.Now(), moved{}
	ticks := time.NewTicker(tick)
	defer ticks.Stop()
	once := func(n int64) (ok bool) {
		// What is under way when the time is over is still to end well.
		within, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
		defer cancel()
		bytes, err := k.do(within, n)
		r.Bytes += bytes
		if err != nil {
			r.Failed++
			tell(r.Failed, k.name, err)
			return false
		}
		r.Done++
		return true
	}
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-ticks.C:
		}
		if k.share == 0 {
			once(0)
			continue
		}
		share := min(1, time.Since(begin).Seconds()/m.length.Seconds())
		due := func() int64 { return int64(k.share*share*float64(m.bytes)) - r.Bytes }
		// Smaller than most: what is due of a kind that waits for full size would come in bursts.
		for n := due(); n >= k.most/8 && ctx.Err() == nil; n = due() {
			if !once(min(n, k.most)) {
				break // who cannot be reached is asked again with the next tick
			}
		}
	}
	return r
}
