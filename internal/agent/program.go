package agent

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
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
	paths   *paths
	ranges  Ranges // nil: nothing is done about ranges
	log     *slog.Logger
	health  *health
	metrics *metrics
	done    func(whole bool, changed []state.Change[model.Name]) // hears of every successful pass

	nodePorts  atomic.Pointer[[]netip.Addr] // where node ports answer; nil is the primary addresses
	programmed atomic.Pointer[programmed]
	first      chan struct{} // closed when the first sync is done
	lastSync   atomic.Pointer[time.Time]
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
	if own := p.nodePorts.Load(); own != nil {
		node.NodePorts = *own
	}

	begin := time.Now()
	done := p.health.begin(begin)
	defer done()
	var changes state.Changes
	var err error
	whole := last == nil || !same(last.node, node)
	if whole {
		err = p.whole(node, snap)
	} else if changes = snap.Changes(last.snapshot.Revision()); len(changes.Services) > 0 {
		err = p.some(node, snap, changes.Services)
	}
	// Ranges come after the Services in them: what has an owner must never be dropped for want of one.
	if err == nil && p.ranges != nil && (whole || changes.CIDRs) {
		err = p.ranges.ServiceCIDRs(snap.ServiceCIDRs())
	}
	if err != nil {
		return err
	}
	p.finished(&programmed{node, snap}, last, changes.Services, begin)
	p.done(whole, changes.Services)
	return nil
}

// optional are the inputs that Services can do without. A cluster may not know them, or not give
// them to us.
var optional = []state.Source{state.Routes, state.ServiceCIDRs}

// doWithout ends the wait for optional inputs after a while in which nothing else was missing. When
// they come after all they are news like any other.
func (p *programmer) doWithout(ctx context.Context, patience time.Duration) {
	var enough <-chan time.Time
	for {
		snap := p.tables.Snapshot()
		missing := snap.Missing()
		if len(missing) == 0 {
			return
		}
		if enough == nil && !slices.ContainsFunc(missing, func(s state.Source) bool { return !slices.Contains(optional, s) }) {
			enough = time.After(patience)
		}
		select {
		case <-snap.Changed():
		case <-enough:
			p.log.Warn("the API server does not list all; Services do without meanwhile", "missing", missing, "waited", patience)
			p.tables.Update(time.Now(), func(tx *state.Tx) {
				for _, s := range missing {
					tx.Initialised(s)
				}
			})
			return
		case <-ctx.Done():
			return
		}
	}
}

func (p *programmer) whole(node model.Node, snap *state.Snapshot) error {
	if err := p.paths.apply(planAll(node, snap)); err != nil {
		return fmt.Errorf("whole sync: %w", err)
	}
	return nil
}

func (p *programmer) some(node model.Node, snap *state.Snapshot, changed []state.Change[model.Name]) error {
	want := make(map[model.Name][]service.Frontend, len(changed))
	for _, c := range changed {
		want[c.Of] = plan(node, snap, c.Of)
	}
	if err := p.paths.update(want); err != nil {
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
	if last == nil || !same(last.node, now.node) {
		p.metrics.passes.WithLabelValues("whole").Observe(end.Sub(begin).Seconds())
	} else if len(changed) > 0 {
		p.metrics.passes.WithLabelValues("changes").Observe(end.Sub(begin).Seconds())
	}
	p.lastSync.Store(&end)
	p.metrics.synced.Set(float64(end.UnixNano()) / 1e9)
	p.health.synced()
	switch {
	case last == nil:
		close(p.first)
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
	return a.Name == b.Name && a.Zone == b.Zone && slices.Equal(a.Addresses, b.Addresses) && slices.Equal(a.NodePorts, b.NodePorts)
}

// served is what the kernel is known to obey; nil before the first sync.
func (p *programmer) served() *state.Snapshot {
	if now := p.programmed.Load(); now != nil {
		return now.snapshot
	}
	return nil
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

// pending returns how many Services have changed since the kernel was last brought to what is wanted.
func (p *programmer) pending() int {
	snap, now := p.tables.Snapshot(), p.programmed.Load()
	if now == nil {
		return 0
	}
	return len(snap.Changes(now.snapshot.Revision()).Services)
}
