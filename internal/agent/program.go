package agent

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/service"
	"github.com/zonewise/zonewise/internal/state"
)

// programmed is the last state of the tables that the kernel is known to obey, and this node as
// it was then.
type programmed struct {
	node     model.Node
	snapshot *state.Snapshot
}

// programmer brings the kernel to what the tables say, by one pass after another.
type programmer struct {
	node    string
	tables  *state.Tables
	applier Applier
	log     *slog.Logger
	health  *health
	metrics *metrics

	programmed atomic.Pointer[programmed]
}

// pass programs what has changed since the last successful pass, or everything if this is the
// first one or the node itself is another now. Nothing happens before every input is complete:
// until then a predecessor's state is better than ours.
func (p *programmer) pass(context.Context) error {
	snap := p.tables.Snapshot()
	if missing := snap.Missing(); len(missing) > 0 {
		p.health.waiting(fmt.Sprintf("waiting for the API server to list %v", missing))
		return nil
	}
	last := p.programmed.Load()
	node, ok := snap.Node(p.node)
	switch {
	case !ok && last == nil:
		p.health.waiting("waiting for node " + p.node + " to register")
		return nil
	case !ok:
		node = last.node // deregistered while its pods still run: they keep their Services
	}

	begin := time.Now()
	done := p.health.begin(begin)
	defer done()
	var changed []state.Change[model.Name]
	var err error
	if last == nil || !same(last.node, node) {
		err = p.whole(node, snap)
	} else if changed = snap.Changes(last.snapshot.Revision()).Services; len(changed) > 0 {
		err = p.some(node, snap, changed)
	}
	if err != nil {
		return err
	}
	p.finished(&programmed{node, snap}, last, changed, begin)
	return nil
}

// doWithout ends the wait for ZoneRoutes after a while in which nothing else was missing. When they
// come after all they are news like any other.
func (p *programmer) doWithout(ctx context.Context, patience time.Duration) {
	var enough <-chan time.Time
	for {
		snap := p.tables.Snapshot()
		missing := snap.Missing()
		if len(missing) == 0 {
			return
		}
		if enough == nil && slices.Equal(missing, []state.Source{state.Routes}) {
			enough = time.After(patience)
		}
		select {
		case <-snap.Changed():
		case <-enough:
			p.log.Warn("no ZoneRoutes from the API server; Services go by hints meanwhile", "waited", patience)
			p.tables.Update(time.Now(), func(tx *state.Tx) { tx.Initialised(state.Routes) })
			return
		case <-ctx.Done():
			return
		}
	}
}

func (p *programmer) whole(node model.Node, snap *state.Snapshot) error {
	want := map[model.Name][]service.Frontend{}
	for svc := range snap.Services() {
		want[svc.Name] = plan(node, snap, svc.Name)
	}
	if err := p.applier.Apply(want, true); err != nil {
		return fmt.Errorf("whole sync: %w", err)
	}
	return nil
}

func (p *programmer) some(node model.Node, snap *state.Snapshot, changed []state.Change[model.Name]) error {
	want := make(map[model.Name][]service.Frontend, len(changed))
	for _, c := range changed {
		want[c.Of] = plan(node, snap, c.Of)
	}
	if err := p.applier.Update(want); err != nil {
		return fmt.Errorf("update: %w", err)
	}
	return nil
}

func (p *programmer) finished(now, last *programmed, changed []state.Change[model.Name], begin time.Time) {
	end := time.Now()
	p.programmed.Store(now)
	p.tables.Forget(now.snapshot.Revision())
	for _, c := range changed {
		p.metrics.programming.Observe(end.Sub(c.Since).Seconds())
	}
	p.metrics.synced.Set(float64(end.UnixNano()) / 1e9)
	p.health.synced()
	switch {
	case last == nil:
		p.log.Info("synced", "node", now.node.Name, "zone", now.node.Zone, "services", p.services(), "took", end.Sub(begin))
	case !same(last.node, now.node):
		p.log.Info("node changed; synced", "node", now.node.Name, "zone", now.node.Zone, "took", end.Sub(begin))
	case len(changed) == 1:
		p.log.Debug("programmed", "service", changed[0].Of, "took", end.Sub(begin), "waited", begin.Sub(changed[0].Since))
	case len(changed) > 1:
		p.log.Debug("programmed", "services", len(changed), "took", end.Sub(begin))
	}
}

// plan returns nothing for a Service that is not there.
func plan(node model.Node, snap *state.Snapshot, name model.Name) []service.Frontend {
	svc, ok := snap.Service(name)
	if !ok {
		return nil
	}
	var weights *model.ZoneRoute
	if zr, ok := snap.Route(name); ok {
		weights = &zr
	}
	return service.Plan(node, svc, snap.Slices(name), weights)
}

// same tells whether two states of a node make the same plans. What else changes about a node,
// such as its readiness, is nothing to its own dataplane.
func same(a, b model.Node) bool {
	return a.Name == b.Name && a.Zone == b.Zone && slices.Equal(a.Addresses, b.Addresses)
}

// services returns how many Services the node serves.
func (p *programmer) services() int {
	now := p.programmed.Load()
	if now == nil {
		return 0
	}
	n := 0
	for range now.snapshot.Services() {
		n++
	}
	return n
}
