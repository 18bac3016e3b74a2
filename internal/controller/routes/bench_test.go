package routes

import (
	"fmt"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/runtime"

	"github.com/zonewise/zonewise/internal/reflect/apitest"
)

// quiet tells whether a leader has planned so many Services, and has nothing left to do.
func (w *world) quiet(services int) bool {
	m := w.keeper.metrics
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for _, in := range m.modes {
		n += in
	}
	return m.leads && n == services && m.waiting == 0
}

func (w *world) untilQuiet(services int) time.Duration {
	begin := time.Now()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !w.quiet(services) {
		select {
		case <-tick.C:
		case <-w.t.Context().Done():
			w.t.Fatal("never quiet")
		}
	}
	return time.Since(begin)
}

// A controller that restarts over 2,000 Services: how long until it rests, and what it writes.
func BenchmarkRestart(b *testing.B) {
	for _, nodes := range []int{6, 500} {
		b.Run(fmt.Sprintf("%dnodes", nodes), func(b *testing.B) { restart(b, nodes) })
	}
}

func restart(b *testing.B, nodes int) {
	const services = 2000
	var objects []runtime.Object
	for i := range nodes {
		zone := string(rune('a' + i%3))
		objects = append(objects, nodeObject(fmt.Sprintf("%s%d", zone, i/3+1), zone))
	}
	for i := range services {
		name := fmt.Sprintf("s%d", i)
		spec := "{}"
		if i%10 == 0 {
			spec = "{mode: Optimal}"
		}
		objects = append(objects, serviceObject(name, i), sliceObject(name, 1+i%5, 1+i%7, 1+i%3), routeObject(name, spec))
	}
	w := &world{t: b, api: apitest.New(objects...), settings: settings(""), rate: 1e6}
	w.begin()
	first := w.untilQuiet(services)
	w.stop()
	w.rate = 0
	w.writes()
	var took time.Duration
	for b.Loop() {
		w.begin()
		took += w.untilQuiet(services)
		w.stop()
	}
	n := 0
	for _, count := range w.api.ZoneRoutes.Writes() {
		n += count
	}
	b.ReportMetric(float64(first.Milliseconds()), "ms-first") // with its writes, unlimited
	b.ReportMetric(float64(took.Milliseconds())/float64(b.N), "ms-to-quiet")
	b.ReportMetric(float64(n)/float64(b.N), "writes")
	if n > 0 {
		b.Errorf("a restart wrote %v", w.writes())
	}
}
