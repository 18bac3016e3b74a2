package routes

import (
	"time"

	"github.com/zonewise/zonewise/internal/meter"
	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/route"
)

// Metered tells what the meter knows. It is safe for concurrent use, and quick.
type Metered interface {
	// Measured returns the demand for a Service as planning takes it; nil where nothing is known.
	Measured(svc model.Name, v6 bool, now time.Time) *model.Demand
	// Counted returns the connections that went from which zone to which since an instant, of nodes that
	// report; false if there has been no report since.
	Counted(svc model.Name, v6 bool, since time.Time) ([]route.Counted, bool)
	// Lately returns what went to a Service in the last minute or so, and what went to the workloads that
	// served it by any other way: by a headless Service, by their own addresses, as another Service. It is
	// false if nothing is known.
	Lately(svc model.Name, v6 bool) (Lately, bool)
	// Nodes returns how many nodes report.
	Nodes() int
}

// Lately is what went to a Service in an interval that has just ended.
type Lately struct {
	Flows  []model.Flow
	For    time.Duration
	Tariff meter.Tariff
}

// Known is what a keeper knows of a Service in one family. Nobody changes it.
type Known struct {
	Mode    model.Mode       // in force
	Plan    *model.RoutePlan // nil: nothing can be planned; whether it is followed is for Mode to say
	Before  model.Matrix     // where connections would go without us; nil: not known
	Applied time.Time        // since when the plan's connections go by it; zero: they do not
}

// Known tells what is known of a Service in one family; false if nothing is, or another replica leads.
func (k *Keeper) Known(svc model.Name, v6 bool) (Known, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	all, ok := k.known[svc]
	if !ok {
		return Known{}, false
	}
	for _, f := range all.families {
		if f.Plan.V6 == v6 {
			return f, true
		}
	}
	return Known{Mode: all.mode}, true
}

// known is what is told of a Service.
type known struct {
	mode     model.Mode
	families []Known
}

// tell makes known what has come of a look at a Service.
func (k *Keeper) tell(v verdict, s model.RouteStatus) {
	out := known{mode: v.Mode}
	var since time.Time
	if applied := condition(s, Applied); v.Mode == model.Optimal && applied.Status == yes {
		since = applied.Since
	}
	for i := range v.Families {
		f := &v.Families[i]
		out.families = append(out.families, Known{Mode: v.Mode, Plan: &f.RoutePlan, Before: f.Before, Applied: since})
	}
	k.mu.Lock()
	k.known[v.Name] = out
	k.mu.Unlock()
}

// know begins anew with what is told; nil: nothing is.
func (k *Keeper) know(all map[model.Name]known) {
	k.mu.Lock()
	k.known = all
	k.mu.Unlock()
}

func (k *Keeper) untell(svc model.Name) {
	k.mu.Lock()
	delete(k.known, svc)
	k.mu.Unlock()
}
