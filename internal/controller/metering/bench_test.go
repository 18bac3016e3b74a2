//go:build unix

package metering

import (
	"log/slog"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/zonewise/zonewise/internal/meter"
	"github.com/zonewise/zonewise/internal/meter/store"
	"github.com/zonewise/zonewise/internal/meter/store/storetest"
	"github.com/zonewise/zonewise/internal/meter/stream"
	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/route"
	"github.com/zonewise/zonewise/internal/state"
)

// BenchmarkMinute is what a controller does with a minute's reports of 5,000 nodes, 200 flows each, beside taking and storing
// them (which stream and store measure): demand, memory of the last minute, metrics. One iteration is a minute; what the
// memory holds is told after some.
func BenchmarkMinute(b *testing.B) {
	const count, flows = 5000, 200
	world := storetest.New(count, flows, 1)
	tables := state.New(state.Nodes)
	tables.Update(time.Now(), func(tx *state.Tx) {
		for i := range count {
			tx.PutNode(model.Node{Name: world.Node(i), Ready: true})
		}
		tx.Initialised(state.Nodes)
	})
	aws, _ := route.Book("aws")
	m, err := New(Config{Tables: tables, PodIP: "127.0.0.1", Prices: &book{series: meter.Series{{Prices: aws}}},
		PerService: true, Log: slog.New(slog.DiscardHandler)})
	must(b, err)
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	before := heap()
	t := newTerm(m, now)
	t.server = stream.NewServer(nil, stream.ServerOptions{})
	var service model.Name
	minute := func() (spent time.Duration) {
		reports := make([]store.Report, count)
		for i := range reports {
			reports[i] = store.Report{Node: world.Node(i), Flows: world.Minute(i)}
			service = reports[i].Flows[0].Service
		}
		begin := cpu(b)
		for second := range 60 {
			now = now.Add(time.Second)
			for i := second * count / 60; i < (second+1)*count/60; i++ {
				reports[i].At = now
				t.take(&reports[i], t.interval(), now)
			}
			t.look(now)
		}
		return cpu(b) - begin
	}
	for range 3 {
		minute()
	}
	var spent time.Duration
	for b.Loop() {
		spent += minute()
	}
	b.ReportMetric(spent.Seconds()/float64(b.N), "cpu-s/minute")
	b.ReportMetric(heap()-before, "MB")
	runtime.KeepAlive(world)
	if d := t.tally.demand.Measured(service, false, now); d == nil || len(d.Shares) != 3 || t.tally.gaps > 10 {
		b.Errorf("demand is %+v, with %d gaps", d, t.tally.gaps)
	}
	if _, _, ok := t.recent.since(now.Add(-window)); !ok || t.recent.rows < 50_000 {
		b.Errorf("%d flows are remembered", t.recent.rows)
	}
	begin := time.Now()
	_, _, _ = t.recent.service(asked{service, false}, now.Add(-window))
	t.tally.counted(asked{service, false}, now.Add(-time.Hour))
	b.ReportMetric(float64(time.Since(begin).Microseconds()), "µs-to-ask")
	b.ReportMetric(float64(t.recent.rows), "rows")
}

func cpu(tb testing.TB) time.Duration {
	var u syscall.Rusage
	must(tb, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// heap is what is in use, in MB.
func heap() float64 {
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return float64(s.HeapAlloc) / 1e6
}
