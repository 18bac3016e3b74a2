package agent

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/service"
	"github.com/zonewise/zonewise/internal/state"
)

// reporter tells what follows from what was programmed: to load balancers which Services have
// endpoints here, and to people which objects are at fault. It works behind the programmer, so that
// no connection waits for it.
type reporter struct {
	program   *programmer
	balancers *balancers
	faults    *faults
	announcer *announcer

	mu    sync.Mutex
	all   bool                // every Service may be another
	stale map[model.Name]bool // these may be

	// of the Services as last looked at; only pass uses them
	wrong    map[model.Name][]service.Fault
	asked    map[model.Name]wanted
	lonesome map[model.Name][2]bool // no endpoint here, by internal and external policy Local
}

func newReporter(p *programmer, b *balancers, a *announcer) *reporter {
	return &reporter{program: p, balancers: b, faults: &faults{log: p.log}, announcer: a,
		stale: map[model.Name]bool{}, wrong: map[model.Name][]service.Fault{},
		asked: map[model.Name]wanted{}, lonesome: map[model.Name][2]bool{}}
}

// note says which Services may be others than they were.
func (r *reporter) note(all bool, changed []state.Change[model.Name]) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = r.all || all
	for _, c := range changed {
		r.stale[c.Of] = true
	}
}

func (r *reporter) take() (all bool, stale map[model.Name]bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	all, stale = r.all, r.stale
	r.all, r.stale = false, map[model.Name]bool{}
	return all, stale
}

// rest is the least time between two reports: what is told can be so much younger than what is in
// force, and a burst of changes does not make a burst of reports.
const rest = 50 * time.Millisecond

func (r *reporter) pass(ctx context.Context) error {
	r.report(ctx)
	select {
	case <-time.After(rest):
	case <-ctx.Done():
	}
	return nil
}

func (r *reporter) report(ctx context.Context) {
	all, stale := r.take()
	now := r.program.programmed.Load() // after take, so that it is no older than what was noted
	if now == nil {
		return
	}
	if all {
		clear(r.wrong)
		clear(r.asked)
		clear(r.lonesome)
		for _, s := range now.snapshot.Served() {
			r.look(now, *s.Service, s.Slices())
		}
	} else {
		for name := range stale {
			r.forget(name)
			if svc, ok := now.snapshot.Service(name); ok {
				r.look(now, svc, now.snapshot.Slices(name))
			}
		}
	}
	r.balancers.sync(ctx, r.asked, answering(now.node))
	r.program.metrics.withoutLocal(r.lonesome)

	var ofObjects []service.Fault
	for _, name := range slices.SortedFunc(maps.Keys(r.wrong), model.Name.Compare) {
		ofObjects = append(ofObjects, r.wrong[name]...)
	}
	ofNode := append(slices.Clone(r.program.paths.faults()), r.balancers.problems()...)
	r.announcer.announce(r.faults.set(ofObjects, ofNode, time.Now()))
	r.program.metrics.countFaults(r.faults.list())
}

func (r *reporter) forget(name model.Name) {
	delete(r.wrong, name)
	delete(r.asked, name)
	delete(r.lonesome, name)
}

func (r *reporter) look(now *programmed, svc model.Service, list []model.Slice) {
	if found := service.Faults(svc, list); len(found) > 0 {
		r.wrong[svc.Name] = found
	}
	if svc.Type == model.LoadBalancer && svc.ExternalLocal && svc.HealthCheckNodePort != 0 {
		r.asked[svc.Name] = wanted{svc.HealthCheckNodePort, service.Health(now.node, svc, list)}
	}
	if svc.InternalLocal || svc.ExternalLocal {
		r.lonesome[svc.Name] = dropped(plan(now.node, now.snapshot, svc.Name))
	}
}

// dropped tells whether the frontends for insiders, and those for outsiders, are silent for want of
// an endpoint on this node.
func dropped(plan []service.Frontend) (out [2]bool) {
	for _, f := range plan {
		if f.Verdict == service.Drop {
			if f.Kind == service.ClusterIP {
				out[0] = true
			} else {
				out[1] = true
			}
		}
	}
	return out
}

// answering returns the addresses at which a node answers for node ports.
func answering(n model.Node) []netip.Addr {
	var out []netip.Addr
	for _, v6 := range []bool{false, true} {
		had := len(out)
		for _, a := range n.NodePorts {
			if a.Is6() == v6 {
				out = append(out, a)
			}
		}
		if a := n.Primary(v6); len(out) == had && a.IsValid() {
			out = append(out, a)
		}
	}
	return out
}
