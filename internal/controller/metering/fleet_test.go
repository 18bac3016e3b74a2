package metering

import (
	"fmt"
	"testing"
	"time"

	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/state"
)

// A node has a meter if it reports, or is about to.
func TestWhoHasAMeter(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	tables := state.New(state.Nodes)
	change := func(do func(*state.Tx)) { tables.Update(now, do) }
	agent := func(tx *state.Tx, node string) {
		tx.PutPod(model.Pod{Name: model.Name{Namespace: "ns", Name: agentPrefix + node}, Node: node})
	}
	change(func(tx *state.Tx) {
		for _, n := range []string{"a1", "a2", "b1"} {
			tx.PutNode(model.Node{Name: n})
		}
		agent(tx, "a1")
		agent(tx, "a2")
		tx.PutPod(model.Pod{Name: model.Name{Namespace: "other", Name: agentPrefix + "b1"}, Node: "b1"})
		tx.Initialised(state.Nodes)
	})
	f := newFleet(now)
	f.remember([]string{"b1"}, now)
	look := func(after time.Duration, streams ...string) string {
		now = now.Add(after)
		open := map[string]bool{}
		for _, n := range streams {
			open[n] = true
		}
		f.look(tables.Snapshot(), "ns", open, now)
		m := f.metered()
		return fmt.Sprint(m.Nodes, m.All)
	}
	for i, c := range []struct{ got, want string }{
		{look(0), "map[a1:true a2:true b1:true] true"}, // agents are about to begin, b1 has reported to a leader before
		{look(30*time.Second, "a1"), "map[a1:true a2:true b1:true] true"},
		{look(3*time.Minute, "a1"), "map[a1:true b1:true] false"}, // a2's kernel cannot
		{look(10*time.Minute, "a1"), "map[a1:true] false"},        // b1 has no agent any more
	} {
		if c.got != c.want {
			t.Errorf("%d: %s, want %s", i, c.got, c.want)
		}
	}
	f.hear("a2", now, time.Minute, now)
	if got := look(time.Minute); got != "map[a2:true] false" {
		t.Error(got)
	}
	change(func(tx *state.Tx) {
		tx.DeleteNode("a2")
		tx.DeleteNode("b1")
		tx.DeletePod(model.Name{Namespace: "ns", Name: agentPrefix + "a2"})
	})
	look(time.Hour)
	if len(f.members) != 0 || len(f.agents) != 1 || f.weighted("a2") || !f.weighted("a1") || !f.weighted("") {
		t.Errorf("%v %v", f.members, f.agents)
	}
}

func TestWhatAReportIsAbout(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	f := newFleet(now)
	for i, c := range []struct {
		at   time.Duration // since noon
		want time.Duration
	}{
		{0, 10 * time.Second}, // the first
		{12 * time.Second, 12 * time.Second},
		{12*time.Second + 3*time.Millisecond, 12 * time.Second}, // a second part of it
		{5 * time.Minute, 288 * time.Second},
		{-time.Hour, 10 * time.Second}, // the clock was set
		{-50 * time.Minute, 10 * time.Minute},
		{4 * time.Hour, 10 * time.Second},
	} {
		s := f.hear("a1", now.Add(c.at), 10*time.Second, now)
		if got := s.to.Sub(s.from); got != c.want {
			t.Errorf("%d: %v, want %v", i, got, c.want)
		}
	}
}

func TestInterval(t *testing.T) {
	for nodes, want := range map[int]time.Duration{0: 10 * time.Second, 6: 10 * time.Second, 800: 10 * time.Second, 1000: 12 * time.Second, 1001: 13 * time.Second, 5000: time.Minute, 20000: time.Minute} {
		if got := intervalFor(nodes); got != want {
			t.Errorf("%d nodes: %v", nodes, got)
		}
	}
}
