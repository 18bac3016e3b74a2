package store_test

import (
	"fmt"
	"maps"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/zonewise/zonewise/internal/meter/store"
	"github.com/zonewise/zonewise/internal/meter/store/storetest"
	"github.com/zonewise/zonewise/internal/model"
)

var start = time.Date(2026, 3, 1, 22, 30, 0, 0, time.UTC)

// totals is what a store should have: by time and key.
type totals map[time.Time]map[model.FlowKey]model.FlowCount

func (t totals) add(at time.Time, flows []model.Flow) {
	if t[at] == nil && len(flows) > 0 {
		t[at] = map[model.FlowKey]model.FlowCount{}
	}
	for _, f := range flows {
		c := t[at][f.FlowKey]
		c.Add(f.FlowCount)
		t[at][f.FlowKey] = c
	}
}

// hours is the same by hour and without nodes.
func (t totals) hours() totals {
	sum := totals{}
	for at, flows := range t {
		for k, c := range flows {
			k.Client.Node, k.Server.Node = "", ""
			sum.add(at.Truncate(time.Hour), []model.Flow{{FlowKey: k, FlowCount: c}})
		}
	}
	return sum
}

func (t totals) since(at time.Time) totals {
	t = maps.Clone(t)
	maps.DeleteFunc(t, func(when time.Time, _ map[model.FlowKey]model.FlowCount) bool { return when.Before(at) })
	return t
}

func scan(s *store.Store, by store.Resolution) (totals, error) {
	found := totals{}
	last := time.Time{}
	err := s.Scan(start.AddDate(-1, 0, 0), start.AddDate(1, 0, 0), by, func(at time.Time, flows []model.Flow) error {
		if at.Before(last) {
			return fmt.Errorf("%v comes after %v", at, last)
		}
		last = at
		found.add(at, flows)
		return nil
	})
	return found, err
}

func flow(client, server int, bytes uint64) model.Flow {
	party := func(i int) model.Party {
		return model.Party{Kind: model.PodParty, Zone: fmt.Sprint("z", i%3), Node: fmt.Sprint("n", i%5), Namespace: "shop", Workload: fmt.Sprint("deployment/w", i/5)}
	}
	return model.Flow{
		FlowKey: model.FlowKey{Client: party(client), Server: party(server), Service: model.Name{Namespace: "shop", Name: fmt.Sprint("s", server/5)},
			Port: 80, Protocol: model.TCP, Via: model.ViaClusterIP, V6: bytes%2 == 1},
		FlowCount: model.FlowCount{Connections: 1, RequestBytes: bytes, ResponseBytes: bytes * 3, RequestPackets: 2, ResponsePackets: 3,
			RequestExtra: bytes / 5, ResponseExtra: bytes / 7},
	}
}

// agent is one that reports to a store under test.
type agent struct {
	epoch, sequence uint64
}

// TestEveryReportCountsOnce does anything in any order, and holds the store against maps in memory.
func TestEveryReportCountsOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp("", "store")
		must(t, err)
		defer os.RemoveAll(dir)
		opts := store.Unsynced(store.Options{Minutes: 2 * time.Hour})
		s, err := store.Open(dir, opts)
		must(t, err)
		want, now := totals{}, start
		agents := map[string]*agent{}
		var sent []store.Report
		newReport := func() store.Report {
			node := fmt.Sprint("n", rapid.IntRange(0, 3).Draw(t, "node"))
			if agents[node] == nil {
				agents[node] = &agent{epoch: 1}
			}
			a := agents[node]
			if rapid.IntRange(0, 9).Draw(t, "newEpoch") == 0 {
				a.epoch, a.sequence = a.epoch+1, 0
			}
			a.sequence++
			r := store.Report{Node: node, Epoch: a.epoch, Sequence: a.sequence, At: now.Add(-rapid.Custom(func(t *rapid.T) time.Duration {
				return time.Duration(rapid.IntRange(0, 3600).Draw(t, "age")) * time.Second
			}).Draw(t, "ago"))}
			for range rapid.IntRange(0, 4).Draw(t, "flows") {
				r.Flows = append(r.Flows, flow(rapid.IntRange(0, 14).Draw(t, "client"), rapid.IntRange(0, 14).Draw(t, "server"), rapid.Uint64Range(0, 1<<40).Draw(t, "bytes")))
			}
			return r
		}
		t.Repeat(map[string]func(*rapid.T){
			"append": func(t *rapid.T) {
				var reports []store.Report
				for range rapid.IntRange(1, 5).Draw(t, "reports") {
					r := newReport()
					reports = append(reports, r)
					want.add(r.At.Truncate(time.Minute), r.Flows)
				}
				must(t, s.Append(reports))
				sent = append(sent, reports...)
				for _, r := range reports {
					if got := s.Applied(r.Node, r.Epoch); got < r.Sequence {
						t.Fatalf("%s is applied up to %d after %d was appended", r.Node, got, r.Sequence)
					}
				}
			},
			"again": func(t *rapid.T) { // an agent did not hear that its last report was taken
				var last []store.Report
				for _, r := range sent {
					if a := agents[r.Node]; r.Epoch == a.epoch && r.Sequence+2 > a.sequence {
						last = append(last, r)
					}
				}
				must(t, s.Append(last))
			},
			"roll": func(t *rapid.T) {
				now = now.Add(time.Duration(rapid.IntRange(1, 3000).Draw(t, "seconds")) * time.Second)
				must(t, s.Roll(now))
			},
			"reopen": func(t *rapid.T) {
				must(t, s.Close())
				s, err = store.Open(dir, opts)
				must(t, err)
			},
			"": func(t *rapid.T) {
				got, err := scan(s, store.Minute)
				must(t, err)
				recent := now.Add(-2 * time.Hour)
				if diff := cmp.Diff(want.since(recent), got.since(recent)); diff != "" {
					t.Fatalf("minutes (-want +got):\n%s", diff)
				}
				got, err = scan(s, store.Hour)
				must(t, err)
				if diff := cmp.Diff(want.hours(), got); diff != "" {
					t.Fatalf("hours (-want +got):\n%s", diff)
				}
			},
		})
		must(t, s.Close())
	})
}

// TestOldMinutesGoHoursStay goes through three days and looks at what is on disk.
func TestOldMinutesGoHoursStay(t *testing.T) {
	s := open(t, t.TempDir(), store.Unsynced(store.Options{Hours: 48 * time.Hour}))
	want := totals{}
	sequence := uint64(0)
	for now := start; now.Before(start.Add(72 * time.Hour)); now = now.Add(10 * time.Minute) {
		sequence++
		r := store.Report{Node: "n", Epoch: 1, Sequence: sequence, At: now, Flows: []model.Flow{flow(1, 2, sequence)}}
		want.add(now, r.Flows)
		must(t, s.Append([]store.Report{r}))
		must(t, s.Roll(now.Add(80*time.Second)))
	}
	end := start.Add(72 * time.Hour)
	if st := s.Stats(); st.Commits > 3 || st.MinuteRows > 26*6 || st.MinuteRows < 24*6 || st.HourRows > 50 || st.HourRows < 48 {
		t.Errorf("on disk are %+v, want a day of minutes, two of hours and next to no commits", st)
	}
	got, err := scan(s, store.Hour)
	must(t, err)
	if diff := cmp.Diff(want.hours().since(end.Add(-47*time.Hour)), got.since(end.Add(-47*time.Hour))); diff != "" {
		t.Errorf("hours (-want +got):\n%s", diff)
	}

	// What comes too late is kept where it still can be.
	late := store.Report{Node: "n", Epoch: 1, Sequence: sequence + 1, At: end.Add(-40 * time.Hour), Flows: []model.Flow{flow(3, 4, 7)}}
	must(t, s.Append([]store.Report{late}))
	if moved := s.Stats().Moved; moved != 1 {
		t.Errorf("%d flows were moved out of a closed hour, want 1", moved)
	}
	after, err := scan(s, store.Hour)
	must(t, err)
	if before, now := sum(got), sum(after); now.RequestBytes != before.RequestBytes+7 {
		t.Errorf("a late flow of 7 bytes makes %d of %d", now.RequestBytes, before.RequestBytes)
	}
}

// TestClockJumps is a controller whose clock is a year ahead for a while.
func TestClockJumps(t *testing.T) {
	s := open(t, t.TempDir(), store.Unsynced(store.Options{}))
	want := totals{}
	report := func(sequence uint64, at time.Time) {
		r := store.Report{Node: "n", Epoch: 1, Sequence: sequence, At: at, Flows: []model.Flow{flow(1, 2, sequence)}}
		want.add(at, r.Flows)
		must(t, s.Append([]store.Report{r}))
	}
	for h := range 20 {
		report(uint64(h+1), start.Add(time.Duration(h)*time.Hour))
		must(t, s.Roll(start.Add(time.Duration(h)*time.Hour+30*time.Minute)))
	}
	ahead := start.AddDate(0, 6, 0)
	report(21, ahead)
	must(t, s.Roll(ahead.Add(time.Minute)))
	back := start.Add(20 * time.Hour)
	report(22, back)
	must(t, s.Roll(back.Add(2*time.Minute)))
	got, err := scan(s, store.Hour)
	must(t, err)
	if diff := cmp.Diff(want.hours(), got); diff != "" {
		t.Errorf("hours (-want +got):\n%s", diff)
	}
	got, err = scan(s, store.Minute)
	must(t, err)
	if len(got) < 20 {
		t.Errorf("%d minutes are left of 22: a clock that was wrong once cost more than two hours", len(got))
	}
}

// TestEveryFieldIsKept looks for numbers of a flow that are left out, also of those that are still to come.
func TestEveryFieldIsKept(t *testing.T) {
	s := open(t, t.TempDir(), store.Unsynced(store.Options{}))
	want := flow(1, 2, 3)
	storetest.Fill(&want)
	must(t, s.Append([]store.Report{{Node: "n", Epoch: 1, Sequence: 1, At: start, Flows: []model.Flow{want}}}))
	got, err := scan(s, store.Minute)
	must(t, err)
	if diff := cmp.Diff(totals{start: {want.FlowKey: want.FlowCount}}, got); diff != "" {
		t.Errorf("of a commit (-want +got):\n%s", diff)
	}
	must(t, s.Roll(start.Add(20*time.Minute)))
	got, err = scan(s, store.Minute)
	must(t, err)
	if diff := cmp.Diff(totals{start: {want.FlowKey: want.FlowCount}}, got); diff != "" {
		t.Errorf("of a minute (-want +got):\n%s", diff)
	}
}

func TestGapsAreCounted(t *testing.T) {
	s := open(t, t.TempDir(), store.Unsynced(store.Options{}))
	for _, sequence := range []uint64{1, 2, 5, 5, 4} {
		must(t, s.Append([]store.Report{{Node: "n", Epoch: 1, Sequence: sequence, At: start}}))
	}
	want := store.Stats{Reports: 3, Duplicates: 2, Missing: 2, Commits: 3}
	if got := s.Stats(); got != want {
		t.Errorf("stats are %+v, want %+v", got, want)
	}
}

// TestSilentAgentsAreForgotten: agents come and go with their nodes, and those that report are remembered.
func TestSilentAgentsAreForgotten(t *testing.T) {
	s := open(t, t.TempDir(), store.Unsynced(store.Options{}))
	var gone []store.Report
	for i := range 60_000 {
		gone = append(gone, store.Report{Node: fmt.Sprint("gone-", i), Epoch: 1, Sequence: 9, At: start})
	}
	must(t, s.Append(gone))
	must(t, s.Append([]store.Report{{Node: "here", Epoch: 1, Sequence: 9, At: start}}))
	must(t, s.Roll(start))
	known := 0
	for _, r := range gone {
		if s.Applied(r.Node, r.Epoch) == 9 {
			known++
		}
	}
	if known >= 50_000 || s.Applied("here", 1) != 9 {
		t.Errorf("%d silent agents are remembered, and batch %d of one that reports, want fewer than 50,000 and 9", known, s.Applied("here", 1))
	}
}

func TestOneStoreADirectory(t *testing.T) {
	dir := t.TempDir()
	open(t, dir, store.Options{})
	if s, err := store.Open(dir, store.Options{}); err == nil {
		t.Errorf("a second store opens in the same directory: %v", s.Close())
	}
}

func sum(t totals) (c model.FlowCount) {
	for _, flows := range t {
		for _, n := range flows {
			c.Add(n)
		}
	}
	return c
}

func open(tb testing.TB, dir string, opts store.Options) *store.Store {
	tb.Helper()
	s, err := store.Open(dir, opts)
	must(tb, err)
	tb.Cleanup(func() { must(tb, s.Close()) })
	return s
}

func must(tb failer, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// failer is a test, also one of rapid's.
type failer interface {
	Helper()
	Fatal(...any)
}
