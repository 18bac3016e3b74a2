//go:build kernel

package nft_test

import (
	"net"
	"slices"
	"testing"
	"time"
)

// BenchmarkDirect measures connect() from a pod to another of the same node, without any Service: with
// no table, with ours, and with flows that get by conntrack. It takes them in turn, so that what else the
// machine does meets all alike.
func BenchmarkDirect(b *testing.B) {
	const turn = 100
	type arm struct {
		name string
		w    world
		took []time.Duration
	}
	arms := []*arm{{name: "no-table"}, {name: "tracked"}, {name: "untracked"}}
	for i, plane := range []func(world) dataplane{
		nil, func(w world) dataplane { return newDataplane(b, w) }, func(w world) dataplane { return newUntracked(b, w) },
	} {
		w := newWorld(b)
		w.serve(b, w.podB, target(podBIP))
		if arms[i].w = w; plane != nil {
			plane(w).apply(many(1000))
		}
	}
	for i := 0; b.Loop(); i++ {
		a := arms[i/turn%len(arms)]
		a.w.in(b, a.w.podA, func() error {
			start := time.Now()
			c, err := net.Dial("tcp4", target(podBIP))
			if err != nil {
				return err
			}
			a.took = append(a.took, time.Since(start))
			if err := c.(*net.TCPConn).SetLinger(0); err != nil {
				return err
			}
			return c.Close()
		})
	}
	for _, a := range arms {
		if len(a.took) == 0 {
			continue
		}
		slices.Sort(a.took)
		b.ReportMetric(float64(a.took[0].Nanoseconds())/1e3, a.name+"-min-µs")
		b.ReportMetric(float64(a.took[len(a.took)/2].Nanoseconds())/1e3, a.name+"-p50-µs")
	}
}
