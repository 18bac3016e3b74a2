//go:build unix

package store_test

import (
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/zonewise/zonewise/internal/meter/store"
	"github.com/zonewise/zonewise/internal/meter/store/storetest"
	"github.com/zonewise/zonewise/internal/model"
)

// BenchmarkMinute stores what 5,000 nodes with 200 flows each report in a minute, in a commit a second,
// makes a minute of it, and reads that.
func BenchmarkMinute(b *testing.B) {
	const nodes, flows, commits = 5000, 200, 60
	dir := b.TempDir()
	s := open(b, dir, store.Options{})
	world := storetest.New(nodes, flows, 1)
	at, sequence := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), uint64(0)
	var appended, rolled, read time.Duration
	for b.Loop() {
		b.StopTimer()
		at, sequence = at.Add(time.Minute), sequence+1
		reports := make([]store.Report, nodes)
		for i := range reports {
			reports[i] = store.Report{Node: world.Node(i), Epoch: 1, Sequence: sequence, At: at, Flows: world.Minute(i)}
		}
		b.StartTimer()
		begin := cpu(b)
		for i := range commits {
			must(b, s.Append(reports[i*nodes/commits:(i+1)*nodes/commits]))
		}
		written := cpu(b)
		must(b, s.Roll(at.Add(90*time.Second)))
		folded := cpu(b)
		n := 0
		must(b, s.Scan(at, at.Add(time.Minute), store.Minute, func(_ time.Time, f []model.Flow) error { n += len(f); return nil }))
		if n != nodes*flows {
			b.Fatalf("%d flows are read back, want %d", n, nodes*flows)
		}
		appended, rolled, read = appended+written-begin, rolled+folded-written, read+cpu(b)-folded
	}
	for what, spent := range map[string]time.Duration{"append": appended, "roll": rolled, "read": read} {
		b.ReportMetric(spent.Seconds()/float64(b.N), "cpu-s-"+what)
	}
	b.ReportMetric(float64(size(b, dir, "minute-"))/float64(b.N)/nodes/flows, "minute-bytes/flow")
	b.ReportMetric(float64(size(b, dir, "commit-"))/float64(s.Stats().Commits)*commits/nodes/flows, "commit-bytes/flow")
}

// BenchmarkHour makes an hour of 60 minutes of 1,000,000 flows each, and tells its size and what that took.
func BenchmarkHour(b *testing.B) {
	const nodes, flows = 5000, 200
	dir := b.TempDir()
	s := open(b, dir, store.Options{})
	world := storetest.New(nodes, flows, 1)
	hour := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for m := range 60 {
		var reports []store.Report
		for i := range nodes {
			reports = append(reports, store.Report{Node: world.Node(i), Epoch: 1, Sequence: uint64(m + 1), At: hour.Add(time.Duration(m) * time.Minute), Flows: world.Minute(i)})
		}
		must(b, s.Append(reports))
		must(b, s.Roll(hour.Add(time.Duration(m+2)*time.Minute)))
	}
	begin := cpu(b)
	for b.Loop() {
		must(b, s.Roll(hour.Add(2*time.Hour)))
	}
	b.ReportMetric((cpu(b) - begin).Seconds(), "cpu-s-fold")
	b.ReportMetric(float64(size(b, dir, "hour-")), "hour-bytes")
	b.ReportMetric(float64(size(b, dir, "minute-")), "minutes-bytes")
}

// cpu is the processor time that this process took.
func cpu(tb testing.TB) time.Duration {
	var u syscall.Rusage
	must(tb, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func size(tb testing.TB, dir, prefix string) (bytes int64) {
	entries, err := os.ReadDir(dir)
	must(tb, err)
	for _, e := range entries {
		if info, err := e.Info(); err == nil && strings.HasPrefix(e.Name(), prefix) {
			bytes += info.Size()
		}
	}
	return bytes
}
