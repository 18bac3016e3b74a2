//go:build kernel

package nft_test

import (
	"net"
	"slices"
	"testing"
	"time"
)

// BenchmarkDirect measures connect() from a pod to another of the same node, without any Service: with
// no table, and with ours. It takes them in turn, so that what else the machine does meets both alike.
func BenchmarkDirect(b *testing.B) {
	const turn = 100
	type arm struct {
		name string
		w    world
		took []time.Duration
	}
	arms := []*arm{{name: "no-table"}, {name: "table"}}
	for _, a := range arms {
		a.w = newWorld(b)
		a.w.serve(b, a.w.podB, target(podBIP))
	}
	newDataplane(b, arms[1].w).apply(many(1000))
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
