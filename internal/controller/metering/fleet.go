package metering

import (
	"strings"
	"time"

	"github.com/zonewise/zonewise/internal/meter"
	"github.com/zonewise/zonewise/internal/state"
)

// agentPrefix is what names of the agents' pods begin with.
const agentPrefix = "zonewise-agent-"

const (
	// silence is after how long a node that said nothing is no longer waited for.
	silence = 2 * time.Minute
	// absence is after how long it counts as one without a meter, so that the other ends of its connections are believed.
	absence = 10 * time.Minute
	// novelty is how long an agent that has never reported may take to do so first.
	novelty = 2 * time.Minute
	// agentsAgain is the time between two looks at where agents are.
	agentsAgain = 10 * time.Second
)

// span is what a report is about.
type span struct{ from, to time.Time }

// member is a node that has reported.
type member struct {
	covers span
	heard  time.Time
}

// fleet is what is known of the agents.
type fleet struct {
	members map[string]*member
	agents  map[string]time.Time // nodes with an agent's pod, since when we know
	nodes   []string             // of the cluster
	streams map[string]bool      // nodes whose agent has a stream open
	looked  time.Time            // at pods
	now     time.Time
}

func newFleet(now time.Time) *fleet {
	return &fleet{members: map[string]*member{}, agents: map[string]time.Time{}, now: now}
}

// remember takes over who reported to a leader before.
func (f *fleet) remember(nodes []string, now time.Time) {
	for _, n := range nodes {
		if f.members[n] == nil {
			f.members[n] = &member{heard: now.Add(-silence)} // not waited for, and believed to have a meter
		}
	}
}

// hear notes a report and tells what time it is about: since the node's last one. Of two parts of one report both
// are about all of it.
func (f *fleet) hear(node string, at time.Time, interval time.Duration, now time.Time) span {
	m := f.members[node]
	if m == nil {
		m = &member{}
		f.members[node] = m
	}
	m.heard = now
	switch {
	case at.Sub(m.covers.to).Abs() < time.Second:
	case m.covers.to.IsZero() || at.Before(m.covers.to) || at.Sub(m.covers.to) > time.Hour: // the first, or the clock was set
		m.covers = span{at.Add(-interval), at}
	default:
		m.covers = span{m.covers.to, at}
	}
	return m.covers
}

// look takes in which nodes and agents there are.
func (f *fleet) look(snap *state.Snapshot, namespace string, streams map[string]bool, now time.Time) {
	f.now, f.streams = now, streams
	if len(snap.Missing()) > 0 || now.Sub(f.looked) < agentsAgain {
		return
	}
	f.looked = now
	f.nodes = f.nodes[:0]
	there := map[string]bool{}
	for n := range snap.Nodes() {
		f.nodes = append(f.nodes, n.Name)
		there[n.Name] = true
	}
	agents := map[string]time.Time{}
	for p := range snap.Pods() {
		if p.Namespace == namespace && p.Node != "" && strings.HasPrefix(p.Name.Name, agentPrefix) {
			if agents[p.Node] = f.agents[p.Node]; agents[p.Node].IsZero() {
				agents[p.Node] = now
			}
		}
	}
	f.agents = agents
	for n, m := range f.members {
		if !there[n] && now.Sub(m.heard) > absence {
			delete(f.members, n)
		}
	}
}

// metered tells which nodes have a meter: those that report, and those where one is about to begin.
func (f *fleet) metered() meter.Metered {
	out := meter.Metered{Nodes: map[string]bool{}}
	for n := range f.streams {
		out.Nodes[n] = true
	}
	for n, m := range f.members {
		if f.now.Sub(m.heard) < absence {
			out.Nodes[n] = true
		}
	}
	for n, since := range f.agents {
		if f.now.Sub(since) < novelty {
			out.Nodes[n] = true
		}
	}
	out.All = len(f.nodes) > 0
	for _, n := range f.nodes {
		out.All = out.All && out.Nodes[n]
	}
	return out
}

// reporting are the nodes that have reported lately.
func (f *fleet) reporting(now time.Time) map[string]bool {
	out := map[string]bool{}
	for n, m := range f.members {
		if now.Sub(m.heard) < silence {
			out[n] = true
		}
	}
	return out
}

// silent are the nodes of the cluster that have not, in no order.
func (f *fleet) silent(now time.Time) (out []string) {
	reporting := f.reporting(now)
	for _, n := range f.nodes {
		if !reporting[n] {
			out = append(out, n)
		}
	}
	return out
}

// waiting tells how many nodes may still tell of the time before an instant, of how many that report.
func (f *fleet) waiting(before, now time.Time) (missing, of int) {
	for _, m := range f.members {
		if now.Sub(m.heard) >= silence || m.covers.to.IsZero() {
			continue
		}
		of++
		if m.covers.to.Before(before) {
			missing++
		}
	}
	return missing, of
}

// weighted tells whether a node follows plans' weights itself; without a name, whether some do.
func (f *fleet) weighted(node string) bool {
	if node == "" {
		return len(f.agents) > 0
	}
	_, ok := f.agents[node]
	return ok
}
