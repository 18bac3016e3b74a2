package controller

import (
	"context"
	"log/slog"
	"slices"
	"sync"

	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/state"
)

// watcher keeps a verdict on every Service that asks for zone routing, and speaks up when one
// becomes another.
type watcher struct {
	tables *state.Tables
	log    *slog.Logger

	seen *state.Snapshot // of the last pass; nil before the first

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
	w.tables.Forget(snap.Revision())
	return nil
}

// rest forgets everything: another replica leads from here on.
func (w *watcher) rest() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen, w.verdicts, w.zoneless = nil, nil, nil
}

func (w *watcher) judge(nodes []model.Node, snap *state.Snapshot, name model.Name) {
	var now verdict
	svc, ok := snap.Service(name)
	if ok {
		now, ok = judge(nodes, svc, snap.Slices(name))
	}
	w.mu.Lock()
	before, had := w.verdicts[name]
	if ok {
		w.verdicts[name] = now
	} else {
		delete(w.verdicts, name)
	}
	w.mu.Unlock()
	switch {
	case !ok && had:
		w.log.Info(name.String()+": asks for no zone routing any more", "namespace", name.Namespace, "service", name.Name)
	case ok && (!had || differs(before, now)):
		level := slog.LevelInfo
		if !now.Obeyed() {
			level = slog.LevelWarn
		}
		w.log.Log(context.Background(), level, name.String()+": "+now.String(), "namespace", name.Namespace, "service", name.Name)
	}
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
	}
	w.mu.Unlock()
	for _, n := range zoneless {
		if !slices.Contains(before, n) {
			w.log.Warn("node has no zone label (topology.kubernetes.io/zone); zone hints are ignored on it", "node", n)
		}
	}
}

func sameZone(a, b model.Node) bool { return a.Name == b.Name && a.Zone == b.Zone }
