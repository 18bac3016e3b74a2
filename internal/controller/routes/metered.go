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
	// Lately returns what went to a Service in the last minute or so; false if nothing is known.
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

// Known is what a keeper knows of a Service in one family.
type Known struct {
	Mode    model.Mode       // in force
	Plan    *model.RoutePlan // nil: none
	Before  model.Matrix     // where connections would go without us; nil: not known
	Applied time.Time        // since when the plan's connections go by it; zero: they do not
}
