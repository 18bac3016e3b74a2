package reflect

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
	"syscall"
	"testing"
	"time"

	"github.com/zonewise/zonewise/internal/reflect/apitest"
	"github.com/zonewise/zonewise/internal/state"
)

// BenchmarkFirstList measures from nothing to complete tables: both ways in which a list can come,
// decoded from protobuf, converted, and put. Memory is what is left when all is done, by Service.
func BenchmarkFirstList(b *testing.B) {
	for _, size := range []struct{ services, endpoints int }{{100_000, 2}, {5_000, 50}} {
		api, err := apitest.NewStored(b.TempDir(), apitest.Cluster(size.services, size.endpoints))
		if err != nil {
			b.Fatal(err)
		}
		for _, way := range []struct {
			name   string
			stream bool
		}{{"list", false}, {"stream", true}} {
			b.Run(fmt.Sprintf("services=%d/endpoints=%d/%s", size.services, size.endpoints, way.name), func(b *testing.B) {
				api.StreamLists = way.stream
				benchFirstList(b, api, size.services)
			})
		}
	}
}

func benchFirstList(b *testing.B, api *apitest.Stored, services int) {
	client, err := api.Client()
	if err != nil {
		b.Fatal(err)
	}
	var cpu time.Duration
	var kept, peak uint64
	for b.Loop() {
		b.StopTimer()
		before, cpuBefore := heap(), cpuTime(b)
		b.StartTimer()

		tables := state.New(Sources...)
		ctx, stop := context.WithCancel(b.Context())
		done := make(chan struct{})
		go func() { defer close(done); Run(ctx, client, tables, Options{Node: "n1"}) }()
		apitest.Until(ctx, b, tables, func(s *state.Snapshot) bool { return len(s.Missing()) == 0 })

		b.StopTimer()
		cpu += cpuTime(b) - cpuBefore
		peak += resident()
		stop()
		<-done
		kept += heap() - before
		runtime.KeepAlive(tables)
		b.StartTimer()
	}
	b.ReportMetric(float64(cpu.Milliseconds())/float64(b.N), "cpu-ms")
	b.ReportMetric(float64(peak)/float64(b.N)/1e6, "peak-MB")
	b.ReportMetric(float64(kept)/float64(b.N*services), "B/service")
}

// heap returns the bytes that are in use when all that can be is collected, and given back.
func heap() uint64 {
	debug.FreeOSMemory()
	debug.FreeOSMemory() // the first one may leave what was about to be finalised
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// resident returns the bytes that the heap has of the system. It gives back so slowly that this is
// the most that was in use since a while.
func resident() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapSys - m.HeapReleased
}

// cpuTime is what all threads of this process have used.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
