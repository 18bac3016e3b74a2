package metering

import (
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zonewise/zonewise/internal/meter/store"
	"github.com/zonewise/zonewise/internal/model"
)

// Nodes report each at a moment and in a rhythm of its own. A steady rate makes steady shares.
func TestPhasesDoNotMatter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, t.TempDir())
		defer w.end()
		rate := map[string]uint64{"a1": 30, "a2": 40, "b1": 10, "b2": 10, "c1": 7, "c2": 3} // a second: 0.7, 0.2, 0.1
		told := map[string]int{}
		worst := 0.0
		for second := range 400 {
			for i, n := range nodes {
				if every := 7 + 2*i; second%every == i {
					w.report(n, calls(n, "a1", rate[n]*uint64(second-told[n])))
					told[n] = second
				}
			}
			w.wait(time.Second)
			d := w.meter.Measured(web, false, time.Now())
			if second < 100 {
				continue
			}
			for zone, want := range map[string]float64{"a": 0.7, "b": 0.2, "c": 0.1} {
				worst = max(worst, math.Abs(d.Shares.Of(zone)-want))
			}
		}
		if worst > 0.005 {
			t.Errorf("a share is off by %.4f", worst)
		}
	})
}

// A report that comes twice, on the streams before and after one broke, is in memory once, as it is on disk.
func TestTwiceIsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, t.TempDir())
		defer w.end()
		r := store.Report{Node: "a1", Epoch: 1, Sequence: 1, At: time.Now(), Flows: []model.Flow{calls("a1", "b1", 5)}}
		must(t, w.term.Append([]store.Report{r, r}))
		must(t, w.term.Append([]store.Report{r}))
		if l, _ := w.meter.Lately(web, false); connections(l.Flows) != 5 {
			t.Errorf("%d connections", connections(l.Flows))
		}
		if n := w.term.store.Stats().Duplicates; n != 2 {
			t.Errorf("%d duplicates", n)
		}
	})
}

// Who cannot reach us does not lose its share, unless it is few; and who is gone does.
func TestSilentNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, t.TempDir())
		defer w.end()
		report := func(d time.Duration, of ...string) {
			for range int(d / (10 * time.Second)) {
				for _, n := range of {
					w.report(n, calls(n, "a1", 100))
				}
				w.wait(10 * time.Second)
			}
		}
		report(3*time.Minute, nodes...)
		if got := w.shares(web); got != "a 0.333, b 0.333, c 0.333" {
			t.Errorf("all report: %s", got)
		}
		report(90*time.Second, "a1", "a2", "b1", "b2")
		if got := w.shares(web); got != "a 0.333, b 0.333, c 0.333" {
			t.Errorf("zone c is silent: %s", got)
		}
		if w.term.tally.gaps == 0 {
			t.Error("no steps were left out")
		}
		report(5*time.Minute, "a1", "a2", "b1", "b2")
		if got := w.shares(web); !strings.HasPrefix(got, "a 0.49") && !strings.HasPrefix(got, "a 0.50") {
			t.Errorf("zone c is gone: %s", got)
		}
	})
}

// What is counted of a plan are connections of reports that began after it was in force.
func TestCountedSince(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, t.TempDir())
		defer w.end()
		report := func(d time.Duration, to string) {
			for range int(d / (10 * time.Second)) {
				for _, n := range nodes {
					w.report(n, calls(n, to, 10))
				}
				w.wait(10 * time.Second)
			}
		}
		w.wait(8 * time.Second)
		report(time.Minute, "a1")
		w.wait(2 * time.Second)
		planned := time.Now() // in the middle of what the next reports are about
		if c, ok := w.meter.Counted(web, false, planned); ok {
			t.Errorf("of the future: %s", counted(c))
		}
		w.wait(8 * time.Second)
		report(10*time.Second, "a1")
		report(time.Minute, "b1")
		if c, ok := w.meter.Counted(web, false, planned); !ok || len(c) != 3 || strings.Contains(counted(c), "-a") {
			t.Errorf("after a minute: %s", counted(c))
		}
		report(4*time.Minute, "b1")
		c, ok := w.meter.Counted(web, false, planned)
		if !ok || strings.Contains(counted(c), "-a") || len(c) != 3 || c[0].Connections < 400 || c[0].Connections > 600 {
			t.Errorf("%s", counted(c))
		}
		all, _ := w.meter.Counted(web, false, planned.Add(-time.Hour))
		if got := counted(all); !strings.Contains(got, "a-a") || !strings.Contains(got, "a-b") {
			t.Errorf("all: %s", got)
		}
		if n := len(w.term.tally.past); n > 20 {
			t.Errorf("%d intervals are kept", n)
		}
		if c, ok := w.meter.Counted(db, false, planned); !ok || len(c) != 0 {
			t.Errorf("a Service that nobody calls: %v, %v", c, ok)
		}
	})
}

// However a report is spread, no connection is lost or made up; what is of steps that are over is counted as missed.
func TestSpreadIsExact(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 7, 0, time.UTC)
	for _, length := range []time.Duration{time.Second, 9 * time.Second, 10 * time.Second, 31 * time.Second, time.Minute, 7 * time.Minute} {
		for _, n := range []uint64{0, 1, 5, 1234567} {
			y := newTally(now.Add(-25 * time.Second))
			y.add(span{now.Add(-length), now}, []model.Flow{calls("a1", "b1", n)})
			sum := cell{}
			for _, b := range y.open {
				for _, cells := range b {
					for _, c := range cells {
						sum.connections += c.connections
					}
				}
			}
			if sum.connections+y.missed != n || length <= 25*time.Second && y.missed > 0 || length == 7*time.Minute && n > 10 && y.missed < n*9/10 {
				t.Errorf("%d in %v: %d and %d missed", n, length, sum.connections, y.missed)
			}
		}
	}
}
