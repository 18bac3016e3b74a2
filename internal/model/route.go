package model

import (
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Mode tells what Zonewise does for a Service.
type Mode string

// The modes. The empty mode means that somebody else decides: the namespace, then the cluster.
const (
	Optimal Mode = "Optimal" // plan, and make traffic obey
	Observe Mode = "Observe" // plan and report; change nothing
	Off     Mode = "Off"     // do nothing
)

// Share is a zone's part of a whole, 0 to 1.
type Share struct {
	Zone  string
	Share float64
}

// Shares are ordered by zone, each zone once. What they sum to is said where they are used.
type Shares []Share

// Of returns the zone's share, 0 if it has none.
func (s Shares) Of(zone string) float64 {
	i, ok := slices.BinarySearchFunc(s, zone, func(x Share, z string) int { return strings.Compare(x.Zone, z) })
	if !ok {
		return 0
	}
	return s[i].Share
}

// Matrix tells where connections go: a row for each client zone, ordered by zone, whose shares
// sum to 1.
type Matrix []Row

// Row is where the connections of one client zone go.
type Row struct {
	Zone string
	To   Shares
}

// Of returns a client zone's row; nil if there is none.
func (m Matrix) Of(zone string) Shares {
	for _, r := range m {
		if r.Zone == zone {
			return r.To
		}
	}
	return nil
}

// DemandSource tells how it is known which zones the connections to a Service come from.
type DemandSource string

// The sources. The empty one is Measured where there is a measurement, else NodeCPU.
const (
	Measured DemandSource = "Measured" // counted by the agents
	NodeCPU  DemandSource = "NodeCPU"  // allocatable CPU of ready nodes, as upstream assumes
	Static   DemandSource = "Static"   // given in the ZoneRoute
)

// Demand tells which zones the connections to a Service come from.
type Demand struct {
	Source         DemandSource
	Shares         Shares    // by client zone; sum 1
	BytesPerSecond float64   // both directions together; 0 when unknown
	At             time.Time // when it was measured; zero when it was not
	Connections    float64   // how many were counted for it, old ones counting less; 0 when unknown
}

// CapacitySource tells what an endpoint can carry, relative to the others of its Service.
type CapacitySource string

// The sources. The empty one is Pods.
const (
	Pods        CapacitySource = "Pods"        // every endpoint the same
	CPURequests CapacitySource = "CPURequests" // the CPU that its pod requests; an endpoint without a request counts as the mean of those with one
)

// Pod is what planning needs to know of a pod, or what the meter does: whichever is followed.
type Pod struct {
	Name
	Node       string
	MilliCPU   int64 // for planning: requested by its containers
	Terminated bool  // Succeeded or Failed

	// For the meter.
	Workload    string // "deployment/web"; "pod/one" where nobody controls it
	Addresses   []netip.Addr
	HostNetwork bool      // it is in its node's network: the addresses are the node's
	Created     time.Time // to the second: it has had no address before
	Containers  []string  // ids of those that a pod in the network of the node that follows has
}

// RouteSpec is the intent of a ZoneRoute. Zero fields mean the default.
type RouteSpec struct {
	Mode           Mode
	MaxOverload    float64 // 0.2: no endpoint gets more than 1.2 times its fair share
	Capacity       CapacitySource
	Demand         DemandSource
	Static         Shares  // demand by client zone, where Demand is Static; need not sum to 1
	BytesPerSecond float64 // what the Service exchanges with its clients, where it is not measured
	Drained        []string
}

// ZoneRoute is the intent for the Service of the same name, and what became of it.
type ZoneRoute struct {
	Name
	UID        string
	Generation int64
	Automatic  bool // made by the controller, not by a user
	// Invalid says what the object has that Spec cannot hold, "spec.maxOverload: 0 is less than
	// 0.01"; empty if Spec says it all.
	Invalid string
	Spec    RouteSpec
	Status  RouteStatus
}

// RouteStatus is what the controller last wrote.
type RouteStatus struct {
	Generation int64 // of the spec that it is about
	Mode       Mode  // in force
	Summary    Summary
	Plans      []RoutePlan
	Conditions []Condition // ordered by type
}

// Summary has figures as people read them.
type Summary struct {
	InZone       string // now: "94 %"
	Planned      string // by the plan: "94 %"
	MaxLoad      string // "1.20"
	CostPerMonth string // "$12.30", or "$8.40/TB" where the amount is not known
	Reason       string // a short phrase
}

// Condition is one answer to a question, with a reason that a person can act on.
type Condition struct {
	Type    string // Planned, Applied, Obeyed
	Status  string // True, False, Unknown
	Reason  string // CamelCase
	Message string
	Since   time.Time
}

// RoutePlan is a plan for one address family of a Service.
type RoutePlan struct {
	V6          bool
	MaxOverload float64
	Demand      Demand
	Zones       []ZonePlan // ordered by name: every zone with demand or endpoints
	InZone      Outcome
	MaxLoad     float64 // of the plan: the most that an endpoint gets, 1 being its fair share
	BeforeLoad  float64 // the same without us
	PerTB       Outcome // USD for a terabyte (10^12 bytes) that the Service exchanges with its clients
	Hints       HintOutcome
	Upstream    Verdict
	Reason      string // which bound bites, or why there is none: for people
	Fix         string // the nearest thing to do for more in zone; empty if there is nothing to gain
	// Capacities has what each endpoint can carry where they differ; ordered by address.
	Capacities []Capacity
	At         time.Time // when the weights last changed
	Measured   Realised  // what traffic did, beside the plan; not of planning
}

// Matrix returns the plan's weights.
func (p RoutePlan) Matrix() Matrix {
	out := make(Matrix, 0, len(p.Zones))
	for _, z := range p.Zones {
		if len(z.Weights) > 0 {
			out = append(out, Row{z.Name, z.Weights})
		}
	}
	return out
}

// Outcome is one figure without us, with the plan in force, and with the optimum under the same
// bound, which the plan reaches as soon as stability lets it.
type Outcome struct {
	Before, Planned, Ideal float64
}

// Realised is what the traffic of a Service did in a minute or so: bytes between known zones.
type Realised struct {
	At             time.Time // when that was; zero: nothing is known
	BytesPerSecond float64   // both directions together
	InZone         Compared  // share of the bytes
	PerMonth       Compared  // USD for 730 hours at this rate
}

// Compared is one figure as it is now, as it would be if all went by the plan in force, and without us.
type Compared struct {
	Now, Planned, Before float64
}

// PerMonth turns USD per terabyte into USD per month of 730 hours.
func (o Outcome) PerMonth(bytesPerSecond float64) Outcome {
	f := bytesPerSecond * 730 * 3600 / 1e12
	return Outcome{o.Before * f, o.Planned * f, o.Ideal * f}
}

// ZonePlan is a plan's part for one zone, which is both where clients and where endpoints are.
type ZonePlan struct {
	Name      string
	Demand    float64 // share of the connections that come from here
	Endpoints int     // ready ones
	Capacity  float64 // their part of the Service's capacity, 0 to 1
	Load      float64 // of its endpoints, 1 being the fair share; 0 without endpoints
	Drained   bool
	Weights   Shares // where the connections of clients here go; sum 1; empty if nothing can be planned
}

// Capacity is what one endpoint can carry, in the unit of its source.
type Capacity struct {
	Addr     netip.Addr
	Capacity float64
}

// HintOutcome is what standard hints make of a plan.
type HintOutcome struct {
	InZone  float64 // predicted, for consumers that know node hints
	MaxLoad float64
	Reason  string // why looser than the plan, or why there are no hints; empty if neither
	None    bool   // no hints
}

// Verdict is what upstream's own controller makes of a Service.
type Verdict struct {
	Asked      string // "topology-mode Auto", "trafficDistribution PreferSameZone", or empty: nothing was asked
	Hints      bool   // with topology-mode Auto it writes hints (whether or not that was asked)
	Reason     string // why not, in upstream's words; empty if it does
	Inequality string // the same with the numbers in it
	Culprit    string // the object that is to blame, "node n7"; empty if none is
	Fix        string // what makes it write hints
}

// ZonePair is an ordered pair of zones: client, endpoint.
type ZonePair struct{ From, To string }

// Prices is a price book.
type Prices struct {
	Name string // "aws", or the file that it came from
	// PerGB is USD for 10^9 bytes that a client and an endpoint of different zones exchange, both
	// directions' charges included.
	PerGB float64
	Pairs map[ZonePair]float64 // exceptions; what a pair lacks is PerGB
	// Receiver is the part of each price that is charged to who receives, 0 to 1; the rest is charged
	// to who sends. It does not matter to the sum.
	Receiver float64
}

// Of returns USD per GB between a client in one zone and an endpoint in another; 0 within a zone.
func (p Prices) Of(from, to string) float64 {
	if from == to {
		return 0
	}
	if v, ok := p.Pairs[ZonePair{from, to}]; ok {
		return v
	}
	return p.PerGB
}
