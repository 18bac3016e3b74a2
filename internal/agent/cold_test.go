package agent

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"syscall"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes"

	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/service"
	"github.com/zonewise/zonewise/internal/state"
)

// sink is an applier whose kernel obeys at once.
type sink struct {
	asked    time.Time
	services int
}

func (s *sink) Apply(want map[model.Name][]service.Frontend, _ bool) error {
	s.asked, s.services = time.Now(), len(want)
	return nil
}
func (*sink) Update(map[model.Name][]service.Frontend) error      { return nil }
func (*sink) Audit() (bool, error)                                { return false, nil }
func (*sink) Counters() (map[service.Pair]service.Traffic, error) { return nil, nil }
func (*sink) Remove() error                                       { return nil }
func (*sink) Faults() []service.Fault                             { return nil }

// BenchmarkColdStart measures an agent from its start to the first whole that an applier is asked
// for, with an API server that takes no time: lists are decoded, converted and put into tables
// (tables-ms), then planned (plan-ms). What an applier needs comes on top. Memory is
// what the agent holds then, by Service.
func BenchmarkColdStart(b *testing.B) {
	for _, size := range []struct{ services, endpoints int }{{10_000, 2}, {100_000, 2}, {5_000, 50}} {
		b.Run(fmt.Sprintf("services=%d/endpoints=%d", size.services, size.endpoints), func(b *testing.B) {
			client := stored(b, size.services, size.endpoints)
			benchColdStart(b, client, size.services)
		})
	}
}

func benchColdStart(b *testing.B, client kubernetes.Interface, services int) {
	var tables, plan, cpu time.Duration
	var kept uint64
	for b.Loop() {
		b.StopTimer()
		before, cpuBefore := inUse(), cpuTime(b)
		kernel := &sink{}
		agent, err := New(Config{Node: "n1", Client: client, Applier: kernel, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			b.Fatal(err)
		}
		ctx, stop := context.WithCancel(b.Context())
		done := make(chan struct{})
		b.StartTimer()

		begin := time.Now()
		go func() { defer close(done); agent.Run(ctx) }()
		full := whenFull(agent.program.tables)
		<-agent.program.first

		b.StopTimer()
		tables, plan, cpu = tables+full.Sub(begin), plan+kernel.asked.Sub(full), cpu+cpuTime(b)-cpuBefore
		if kernel.services != services {
			b.Fatalf("%d services, want %d", kernel.services, services)
		}
		stop()
		<-done
		kept += inUse() - before
		runtime.KeepAlive(agent)
		b.StartTimer()
	}
	n := float64(b.N)
	b.ReportMetric(float64(tables.Milliseconds())/n, "tables-ms")
	b.ReportMetric(float64(plan.Milliseconds())/n, "plan-ms")
	b.ReportMetric(float64(cpu.Milliseconds())/n, "cpu-ms")
	b.ReportMetric(float64(kept)/n/float64(services), "B/service")
}

// whenFull returns when nothing was missing from tables any more.
func whenFull(tables *state.Tables) time.Time {
	for {
		s := tables.Snapshot()
		if len(s.Missing()) == 0 {
			return time.Now()
		}
		<-s.Changed()
	}
}

// inUse returns the bytes of heap that cannot be collected.
func inUse() uint64 {
	runtime.GC()
	runtime.GC() // the first one may leave what was about to be finalised
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// cpuTime is what all threads of this process have used.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
