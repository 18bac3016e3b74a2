// Package route decides which zones the connections to a Service should go to: as many as
// possible to their own, as long as no endpoint gets more than its bound. It is pure: facts, the
// previous plan and the time come in, a plan comes out.
package route

import (
	"time"

	"github.com/zonewise/zonewise/internal/model"
)

// Input is one Service in one address family, and what is known about its clients.
type Input struct {
	Service   model.Name
	V6        bool
	Endpoints []model.Endpoint // of this family, all slices together: see Endpoints
	Spec      model.RouteSpec  // zero fields mean the default
	Cluster   *Cluster
	Measured  *model.Demand              // nil: nothing measured
	CPU       func(pod model.Name) int64 // milli-CPU that a pod requests, 0 when unknown; used if Spec.Capacity is CPURequests
	Without   model.Matrix               // where connections go without us; nil: evenly to every endpoint
	Previous  *model.RoutePlan           // nil: none
	Now       time.Time
	Stability Stability // zero: every plan is the optimum at once
}

// Stability keeps plans from flapping. Where endpoints or a whole zone vanished none of it holds:
// then the bound goes first.
type Stability struct {
	// Gain is by how much a new plan must raise the in-zone share to be worth a change; a plan
	// that breaks the bound is changed once it does so by more than Slack.
	Gain  float64
	Slack float64
	Dwell time.Duration // the least time between two changes
	Move  float64       // the share of all connections that may move in a minute; 0: no limit
}

// Cluster is what the plans of all Services share. It is made once for a snapshot.
type Cluster struct {
	zones  []string     // sorted: of every node
	demand model.Shares // by allocatable CPU; nil if no node counts
	prices model.Prices
}
