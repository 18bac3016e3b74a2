//go:build kernel

package nft_test

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/service"
)

// many returns n Services of two endpoints each.
func many(n int) map[model.Name][]service.Frontend {
	out := make(map[model.Name][]service.Frontend, n)
	for i := range n {
		s := bench(i, 0)
		out[s.id()] = s.plan()
	}
	return out
}

func (s svc) id() model.Name { return model.Name{Namespace: "t", Name: s.name} }

func bench(i, round int) svc {
	addr := func(a, b, n int) string {
		return netip.AddrFrom4([4]byte{byte(a), byte(b), byte(n >> 8), byte(n)}).String()
	}
	return svc{
		name: fmt.Sprintf("s%d", i), ip: addr(10, 100+i>>16, i),
		endpoints: []model.Endpoint{
			endpoint(addr(10, 0+i>>16, i), "n2"), endpoint(addr(10, 50+round%2, i), "n3"),
		},
	}
}

// BenchmarkProgram measures from a changed Service at the applier to the kernel that obeys it:
// one of two endpoints is replaced. It reports the median and the 99th percentile too.
func BenchmarkProgram(b *testing.B) {
	for _, n := range []int{10, 1_000, 10_000} {
		b.Run(fmt.Sprintf("services=%d", n), func(b *testing.B) {
			w := world{node: space(b)}
			d := newDataplane(b, w)
			d.apply(many(n))
			var took []time.Duration
			w.in(b, w.node, func() error {
				for i := 0; b.Loop(); i++ {
					s := bench(i%n, 1+i/n)
					change := map[model.Name][]service.Frontend{s.id(): s.plan()}
					start := time.Now()
					if err := d.applier.Update(change); err != nil {
						return err
					}
					took = append(took, time.Since(start))
				}
				return nil
			})
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
		})
	}
}

// BenchmarkColdStart measures filling an empty kernel with Services of two endpoints each.
func BenchmarkColdStart(b *testing.B) {
	for _, n := range []int{1_000, 10_000, 100_000} {
		b.Run(fmt.Sprintf("services=%d", n), func(b *testing.B) {
			want := many(n)
			for b.Loop() {
				b.StopTimer()
				w := world{node: space(b)}
				d := newDataplane(b, w)
				b.StartTimer()
				d.apply(want)
			}
		})
	}
}

// BenchmarkResync measures Apply over a kernel that has everything already.
func BenchmarkResync(b *testing.B) {
	want := many(10_000)
	w := world{node: space(b)}
	newDataplane(b, w).apply(want)
	for b.Loop() {
		newDataplane(b, w).apply(want)
	}
}

// BenchmarkConnect measures connect() from a pod to a pod of the same node: directly, and through
// the last of many Services.
func BenchmarkConnect(b *testing.B) {
	w := newWorld(b)
	w.serve(b, w.podB, target(podBIP))
	connect := func(b *testing.B, addr string) {
		var took []time.Duration
		w.in(b, w.podA, func() error {
			for b.Loop() {
				start := time.Now()
				c, err := net.Dial("tcp4", addr)
				if err != nil {
					return err
				}
				took = append(took, time.Since(start))
				if err := c.(*net.TCPConn).SetLinger(0); err != nil {
					return err
				}
				c.Close()
			}
			return nil
		})
		slices.Sort(took)
		b.ReportMetric(float64(took[0].Nanoseconds())/1e3, "min-µs")
		b.ReportMetric(float64(took[len(took)/2].Nanoseconds())/1e3, "p50-µs")
	}
	b.Run("direct", func(b *testing.B) { connect(b, target(podBIP)) })
	d := newDataplane(b, w)
	for _, n := range []int{10, 1_000, 10_000} {
		want := many(n)
		s := svc{name: "last", ip: "10.99.0.1", endpoints: []model.Endpoint{endpoint(podBIP, "n1")}}
		want[s.id()] = s.plan()
		d.apply(want)
		b.Run(fmt.Sprintf("services=%d", n), func(b *testing.B) { connect(b, "10.99.0.1:80") })
	}
}
