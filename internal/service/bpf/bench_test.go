//go:build kernel

package bpf

import (
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/service"
)

// many is so many Services with two endpoints each, all of them at the same few addresses.
func many(n int, v6 bool) map[model.Name][]service.Frontend {
	out := make(map[model.Name][]service.Frontend, n)
	e := endpoints(2, v6, 8080)
	for i := range n {
		f := front(netip.AddrPortFrom(serviceAddr(i, v6), 80), model.TCP, e...)
		out[f.Service] = []service.Frontend{f}
	}
	return out
}

// connectOnce returns how long connect() takes.
func connectOnce(kind int, to unix.Sockaddr, family int) (time.Duration, error) {
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
		return 0, err
	}
	start := time.Now()
	err = unix.Connect(fd, to)
	return time.Since(start), err
}

// BenchmarkConnect tells what connect() through a Service costs over a direct one.
func BenchmarkConnect(b *testing.B) {
	for _, kind := range []struct {
		name     string
		kind     int
		protocol model.Protocol
	}{{"TCP", unix.SOCK_STREAM, model.TCP}, {"UDP", unix.SOCK_DGRAM, model.UDP}} {
		for _, n := range []int{10, 1000, 10_000, 100_000} {
			b.Run(fmt.Sprintf("%s/services=%d", kind.name, n), func(b *testing.B) {
				w := newWorld(b, 2)
				e := endpoints(2, false, 8080)
				w.discard(b, e...)
				a := w.applier(b)
				want := many(n, false)
				if kind.protocol == model.UDP {
					want = map[model.Name][]service.Frontend{}
					for i := range n {
						f := front(netip.AddrPortFrom(serviceAddr(i, false), 80), model.UDP, e...)
						want[f.Service] = []service.Frontend{f}
					}
				}
				if err := a.Apply(want, true); err != nil {
					b.Fatal(err)
				}
				direct, through := w.interleave(b, kind.kind, n, e[0])
				b.ReportMetric(0, "ns/op")
				b.ReportMetric(float64(direct[0]), "direct-min-ns")
				b.ReportMetric(float64(through[0]), "through-min-ns")
				b.ReportMetric(float64(direct[len(direct)/2]), "direct-median-ns")
				b.ReportMetric(float64(through[len(through)/2]), "through-median-ns")
				b.ReportMetric(float64(through[len(through)/2]-direct[len(direct)/2]), "more-ns")
			})
		}
	}
}

// interleave connects directly and through Services in turns, and returns both times in order.
func (w *world) interleave(b *testing.B, kind, services int, to netip.AddrPort) (direct, through []time.Duration) {
	const rounds = 20_000
	w.in(b, w.ns, func() error {
		runtime.LockOSThread()
		for i := range rounds {
			d, err := connectOnce(kind, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}, unix.AF_INET)
			if err != nil {
				return fmt.Errorf("direct: %w", err)
			}
			s := serviceAddr(i*7919%services, false)
			t, err := connectOnce(kind, &unix.SockaddrInet4{Port: 80, Addr: s.As4()}, unix.AF_INET)
			if err != nil {
				return fmt.Errorf("through: %w", err)
			}
			direct, through = append(direct, d), append(through, t)
		}
		return nil
	})
	slices.Sort(direct)
	slices.Sort(through)
	return direct, through
}

// discard accepts and forgets.
func (w *world) discard(t testing.TB, endpoints ...netip.AddrPort) {
	t.Helper()
	for _, at := range endpoints {
		var l net.Listener
		w.in(t, w.ns, func() (err error) {
			l, err = net.Listen("tcp", at.String())
			return err
		})
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				c.Close()
			}
		}()
	}
}

// BenchmarkApply tells what it takes to fill empty maps, to look at them all, and to change one endpoint.
func BenchmarkApply(b *testing.B) {
	for _, n := range []int{1000, 10_000, 100_000} {
		b.Run(fmt.Sprintf("services=%d", n), func(b *testing.B) {
			want := many(n, false)
			var took time.Duration
			for b.Loop() {
				b.StopTimer()
				w := newWorld(b, 0)
				a := w.applier(b)
				before := cpu(b)
				b.StartTimer()
				if err := a.Apply(want, true); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				took += cpu(b) - before
				a.Close()
				b.StartTimer()
			}
			b.ReportMetric(float64(took)/float64(b.N), "cpu-ns/op")
		})
	}
}

// cpu is the time that the process has had processors for: what others do meanwhile does not count.
func cpu(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkAudit tells what a look at every element costs, by the kernel and by copying all out of it.
func BenchmarkAudit(b *testing.B) {
	for _, n := range []int{1000, 10_000, 100_000} {
		w := newWorld(b, 0)
		a := w.applier(b)
		if err := a.Apply(many(n, false), true); err != nil {
			b.Fatal(err)
		}
		look := func(name string, f func() error) {
			b.Run(fmt.Sprintf("services=%d/%s", n, name), func(b *testing.B) {
				before := cpu(b)
				for b.Loop() {
					if err := f(); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(cpu(b)-before)/float64(b.N), "cpu-ns/op")
			})
		}
		look("audit", func() error {
			if repaired, err := a.Audit(); err != nil || repaired {
				return fmt.Errorf("repaired %v: %w", repaired, err)
			}
			return nil
		})
		look("copied", func() error {
			_, _, err := sum(a.tables)
			return err
		})
	}
}

func BenchmarkUpdate(b *testing.B) {
	w := newWorld(b, 0)
	a := w.applier(b)
	if err := a.Apply(many(100_000, false), true); err != nil {
		b.Fatal(err)
	}
	e := endpoints(3, false, 8080)
	at := netip.AddrPortFrom(serviceAddr(7, false), 80)
	i := 0
	for b.Loop() {
		i++
		f := front(at, model.TCP, e[i%2], e[2])
		if err := a.Update(all(f)); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkMemory tells what our copy of the maps takes beside the frontends that it was given.
func BenchmarkMemory(b *testing.B) {
	const n = 100_000
	w := newWorld(b, 0)
	a := w.applier(b)
	want := many(n, false)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	if err := a.Apply(want, true); err != nil {
		b.Fatal(err)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric((float64(after.HeapAlloc)-float64(before.HeapAlloc))/n, "bytes/service")
	runtime.KeepAlive(want)
}

// BenchmarkEndUDP tells what it costs to look for sockets to end on a node with 100 pods.
func BenchmarkEndUDP(b *testing.B) {
	w := newWorld(b, 0)
	a := w.applier(b)
	for range 100 {
		w.space(b)
	}
	before := cpu(b)
	for b.Loop() {
		if err := a.host.EndUDP(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(cpu(b)-before)/float64(b.N), "cpu-ns/op")
}
