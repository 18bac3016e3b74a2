package controller

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/state"
)

// settle is how long a verdict must stand before it is said. A rollout passes through many.
const settle = time.Second

// watcher keeps a verdict on every Service that asks for zone routing, and speaks up when one
// has become another.
type watcher struct {
	tables *state.Tables
	log    *slog.Logger
	settle time.Duration
	wake   func() // asks for a pass
	forget func(revision uint64)

	// Of the pass alone.
	seen *state.Snapshot // nil before the first pass
	said map[model.Name]verdict
	due  map[model.Name]time.Time // when what is not said yet may be

	mu       sync.Mutex // the rest is read by the metrics
	verdicts map[model.Name]verdict
	zoneless []string // nodes without a zone label
}

// pass judges what has changed, or everything if it is the first pass or a node came to be another.
func (w *watcher) pass(context.Context) error {
	snap := w.tables.Snapshot()
	if len(snap.Missing()) > 0 {
		return nil
	}
	nodes := slices.Collect(snap.Nodes())
	if w.seen == nil || (len(snap.Changes(w.seen.Revision()).Nodes) > 0 && !slices.EqualFunc(nodes, slices.Collect(w.seen.Nodes()), sameZone)) {
		w.lookAtNodes(nodes)
		for svc := range snap.Services() {
			w.judge(nodes, snap, svc.Name)
		}
	}
	if w.seen != nil {
		for _, c := range snap.Changes(w.seen.Revision()).Services {
			w.judge(nodes, snap, c.Of)
		}
	}
	w.seen = snap
	w.forget(snap.Revision())
	w.speak(time.Now())
	return nil
}

// rest forgets everything: another replica leads from here on.
func (w *watcher) rest() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen, w.said, w.due, w.verdicts, w.zoneless = nil, nil, nil, nil, nil
}

// judge brings one Service's verdict up to date, and puts on the list what is to be said about it.
func (w *watcher) judge(nodes []model.Node, snap *state.Snapshot, name model.Name) {
	var now verdict
	svc, asks := snap.Service(name)
	if asks {
		now, asks = judge(nodes, svc, snap.Slices(name))
	}
	w.mu.Lock()
	before, had := w.verdicts[name]
	if asks {
		w.verdicts[name] = now
	} else {
		delete(w.verdicts, name)
	}
	w.mu.Unlock()
	said, spoken := w.said[name]
	switch {
	case asks == spoken && !differs(said, now):
		delete(w.due, name)
	case had != asks || differs(before, now):
		w.due[name] = time.Now().Add(w.settle)
	}
}

// speak says what has stood long enough, and asks for a pass when the next will have.
func (w *watcher) speak(now time.Time) {
	var next time.Time
	for name, at := range w.due {
		if at.After(now) {
			if next.IsZero() || at.Before(next) {
				next = at
			}
			continue
		}
		delete(w.due, name)
		w.say(name)
	}
	if !next.IsZero() {
		time.AfterFunc(next.Sub(now), w.wake)
	}
}

func (w *watcher) say(name model.Name) {
	v, asks := w.verdicts[name] // nobody else writes it
	level, text := slog.LevelInfo, "asks for no zone routing any more"
	if asks {
		w.said[name], text = v, v.String()
		if !v.Obeyed() {
			level = slog.LevelWarn
		}
	} else {
		delete(w.said, name)
	}
	w.log.Log(context.Background(), level, name.String()+": "+text, "namespace", name.Namespace, "service", name.Name)
}

// differs tells whether people want to hear of it. One node more or less is nothing new.
func differs(a, b verdict) bool {
	return a.Asked != b.Asked || a.Why != b.Why || a.Obeyed() != b.Obeyed() || a.Refused() != b.Refused()
}

func (w *watcher) lookAtNodes(nodes []model.Node) {
	var zoneless []string
	for _, n := range nodes {
		if n.Zone == "" {
			zoneless = append(zoneless, n.Name)
		}
	}
	w.mu.Lock()
	before := w.zoneless
	w.zoneless = zoneless
	if w.verdicts == nil {
		w.verdicts = map[model.Name]verdict{}
		w.said, w.due = map[model.Name]verdict{}, map[model.Name]time.Time{}
	}
	w.mu.Unlock()
	for _, n := range zoneless {
		if !slices.Contains(before, n) {
			w.log.Warn("node has no zone label (topology.kubernetes.io/zone); zone hints are ignored on it", "node", n)
		}
	}
}

func sameZone(a, b model.Node) bool { return a.Name == b.Name && a.Zone == b.Zone }
