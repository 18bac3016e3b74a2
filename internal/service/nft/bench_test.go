//go:build kernel

package nft_test

import (
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/service"
)

// many returns n Services of two endpoints each.
func many(n int) map[model.Name][]service.Frontend { return manyOf(n, even) }

func manyOf(n int, plan func(svc) []service.Frontend) map[model.Name][]service.Frontend {
	out := make(map[model.Name][]service.Frontend, n)
	for i := range n {
		s := bench(i, 0)
		out[s.id()] = plan(s)
	}
	return out
}

func even(s svc) []service.Frontend { return s.plan() }

// spilling gives the first endpoint more than the second, in every Service another part.
func spilling(s svc) []service.Frontend {
	plan := s.plan()
	ip := plan[0].Addr.Addr().As4()
	own := .55 + .4*float64(int(ip[2])<<8+int(ip[3]))/65536
	plan[0].Backends[0].Share, plan[0].Backends[1].Share = own, 1-own
	return plan
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
		b.Run(fmt.Sprintf("services=%d", n), func(b *testing.B) { benchProgram(b, n, even) })
		b.Run(fmt.Sprintf("weighted/services=%d", n), func(b *testing.B) { benchProgram(b, n, spilling) })
	}
}

// BenchmarkProgramCount measures the same where an endpoint comes or goes.
func BenchmarkProgramCount(b *testing.B) {
	for name, plan := range map[string]func(svc) []service.Frontend{"even": even, "weighted": spilling} {
		for _, n := range []int{10_000, 100_000} {
			b.Run(fmt.Sprintf("%s/services=%d", name, n), func(b *testing.B) {
				benchChange(b, n, plan, func(i int) (model.Name, []service.Frontend) { return oneMore(n, i, plan) })
			})
		}
	}
}

// oneMore gives a Service a third endpoint, and takes it away the next time.
func oneMore(n, i int, plan func(svc) []service.Frontend) (model.Name, []service.Frontend) {
	s := bench(i/2%n, 0)
	p := plan(s)
	if i%2 == 0 {
		third := p[0].Backends[1]
		third.Addr = netip.MustParseAddrPort("10.60.0.1:8080")
		p[0].Backends[1].Share /= 2
		third.Share /= 2
		p[0].Backends = append(p[0].Backends, third)
	}
	return s.id(), p
}

func benchProgram(b *testing.B, n int, plan func(svc) []service.Frontend) {
	benchChange(b, n, plan, func(i int) (model.Name, []service.Frontend) {
		s := bench(i%n, 1+i/n)
		return s.id(), plan(s)
	})
}

func benchChange(b *testing.B, n int, plan func(svc) []service.Frontend, next func(i int) (model.Name, []service.Frontend)) {
	w := world{node: space(b)}
	d := newDataplane(b, w)
	d.apply(manyOf(n, plan))
	var took []time.Duration
	w.in(b, w.node, func() error {
		for i := 0; b.Loop(); i++ {
			name, frontends := next(i)
			change := map[model.Name][]service.Frontend{name: frontends}
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
}

// BenchmarkColdStart measures filling an empty kernel with Services of two endpoints each.
func BenchmarkColdStart(b *testing.B) {
	for _, n := range []int{1_000, 10_000, 100_000} {
		for name, plan := range map[string]func(svc) []service.Frontend{"": even, "weighted/": spilling} {
			b.Run(fmt.Sprintf("%sservices=%d", name, n), func(b *testing.B) {
				want := manyOf(n, plan)
				var used usage
				for b.Loop() {
					b.StopTimer()
					w := world{node: space(b)}
					d := newDataplane(b, w)
					runtime.GC()
					before := usageNow(b)
					b.StartTimer()
					d.apply(want)
					used = used.plus(usageNow(b).minus(before))
				}
				used.report(b)
			})
		}
	}
}

// BenchmarkMemory measures what the applier keeps for Services of two endpoints each, beside the
// frontends that it was given.
func BenchmarkMemory(b *testing.B) {
	const n = 100_000
	want := many(n)
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	for b.Loop() {
		w := world{node: space(b)}
		d := newDataplane(b, w)
		before := heap()
		d.apply(want)
		b.ReportMetric(float64(heap()-before)/n, "bytes/service")
		runtime.KeepAlive(d)
	}
	runtime.KeepAlive(want)
}

// usage is processor time of this process, for machines that have other things to do as well: in the
// program, and in the kernel.
type usage struct{ user, system time.Duration }

func usageNow(b *testing.B) usage {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		b.Fatal(err)
	}
	return usage{time.Duration(r.Utime.Nano()), time.Duration(r.Stime.Nano())}
}

func (u usage) plus(o usage) usage  { return usage{u.user + o.user, u.system + o.system} }
func (u usage) minus(o usage) usage { return usage{u.user - o.user, u.system - o.system} }

func (u usage) report(b *testing.B) {
	b.ReportMetric(u.user.Seconds()*1e3/float64(b.N), "user-ms/op")
	b.ReportMetric(u.system.Seconds()*1e3/float64(b.N), "system-ms/op")
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
	w.serve(b, w.podB, fmt.Sprintf("%s:%d", podBIP, targetPort+1))
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
		// Two tiers whose every endpoint is the same pod, by two ports.
		remembering := s
		remembering.change = func(m *model.Service) { m.Affinity = time.Hour }
		d.update(s.name, remembering.plan())
		b.Run(fmt.Sprintf("affinity/services=%d", n), func(b *testing.B) { connect(b, "10.99.0.1:80") })
		want[s.id()][0].Backends = slices.Repeat(want[s.id()][0].Backends, 2)
		want[s.id()][0].Backends[0].Share, want[s.id()][0].Backends[1].Share = .9, .1
		want[s.id()][0].Backends[1].Addr = netip.AddrPortFrom(want[s.id()][0].Backends[1].Addr.Addr(), targetPort+1)
		d.apply(want)
		b.Run(fmt.Sprintf("weighted/services=%d", n), func(b *testing.B) { connect(b, "10.99.0.1:80") })
	}
}
