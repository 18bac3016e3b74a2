// Package route decides which zones the connections to a Service should go to: as many as
// possible to their own, as long as no endpoint gets more than its bound. It is pure: facts, the
// previous plan and the time come in, a plan comes out.
package route

import (
	"time"

	"github.com/zonewise/zonewise/internal/model"
)

// DefaultMaxOverload is the bound of a Service that names none: no endpoint gets more than 1.2
// times its fair share. It is the threshold that upstream's own heuristic has.
const DefaultMaxOverload = 0.2

// Input is one Service in one address family, and what is known about its clients.
type Input struct {
	Service   model.Name
	V6        bool
	Endpoints []model.Endpoint // of this family, all slices together: see Endpoints
	Spec      model.RouteSpec  // zero fields mean the default; it must have passed Validate
	Cluster   *Cluster
	Measured  *model.Demand              // nil: nothing measured
	CPU       func(pod model.Name) int64 // milli-CPU that a pod requests, 0 when unknown; used if Spec.Capacity is CPURequests
	Without   model.Matrix               // where connections go without us; nil: evenly to every endpoint
	Previous  *model.RoutePlan           // nil: none
	Now       time.Time
	Stability Stability // zero: every plan is the optimum at once; nobody follows it
}

// Plan returns the plan, and when to plan again though nothing changes: a change that waits for
// its time, or that is made in steps. The zero time means that there is no need.
//
// What is measured counts once it is news: see Moved.
//
// The plan's At is Now if the weights are others than those of Previous, else Previous.At; zones
// that are new, or from which nothing comes, do not count. Without Previous, and where something
// vanished, the plan is the optimum at once.
func Plan(in Input) (model.RoutePlan, time.Time) {
	f := gather(in)
	if old := in.Previous; old != nil && old.Demand.Source == model.Measured && f.known.Source == model.Measured &&
		!Moved(*old, *in.Measured, in.Stability != Stability{}) {
		held := old.Demand
		held.BytesPerSecond, held.Connections = in.Measured.BytesPerSecond, in.Measured.Connections
		in.Measured = &held
		f = gather(in)
	}
	p := model.RoutePlan{V6: in.V6, MaxOverload: f.theta, Demand: f.known, Capacities: f.capacities(), At: in.Now}
	if f.ready == 0 {
		p.Zones = f.zonePlans(nil)
		p.Reason = "no endpoint is ready"
		if len(in.Endpoints) == 0 {
			p.Reason = "the Service has no endpoints"
		}
		if in.Previous != nil && len(in.Previous.Matrix()) == 0 {
			p.At = in.Previous.At
		}
		return p, time.Time{}
	}
	before := f.without(in)
	previous := f.previous(in.Previous)
	ideal := f.optimum(previous)
	s := f.settle(in, previous, ideal)
	if f.equal(s.weights, ideal) {
		ideal = s.weights // so that figures are the same to the last bit
	}

	p.At = s.at
	p.Zones = f.zonePlans(s.weights)
	p.InZone = model.Outcome{Before: f.inZone(before), Planned: f.inZone(s.weights), Ideal: f.inZone(ideal)}
	p.PerTB = model.Outcome{Before: f.perTB(before), Planned: f.perTB(s.weights), Ideal: f.perTB(ideal)}
	p.MaxLoad = maximum(f.loads(s.weights))
	p.BeforeLoad = f.evenLoad(before)
	p.Reason = f.reason(ideal, p.InZone, s)
	p.Fix = f.fix(p.InZone.Ideal)
	return p, s.next
}
