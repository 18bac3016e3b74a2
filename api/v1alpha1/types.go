// Package v1alpha1 is Zonewise's one public object: the ZoneRoute.
//
// +kubebuilder:object:generate=true
// +groupName=zonewise.io
package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ZoneRoute says how the connections to the Service of the same name and namespace choose among
// zones, and reports what comes of it.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=zr,categories=zonewise
// +kubebuilder:printcolumn:name="Mode",type=string,JSONPath=`.status.mode`
// +kubebuilder:printcolumn:name="In-Zone",type=string,JSONPath=`.status.summary.inZone`,description="share that stays in its zone now: of bytes where they are measured, else of connections"
// +kubebuilder:printcolumn:name="Planned",type=string,JSONPath=`.status.summary.planned`,description="the same share if all goes by the plan"
// +kubebuilder:printcolumn:name="Max-Load",type=string,JSONPath=`.status.summary.maxLoad`,description="of the plan; 1 is an endpoint's fair share"
// +kubebuilder:printcolumn:name="USD/Month",type=string,JSONPath=`.status.summary.costPerMonth`,description="what crossing zones costs now at the measured rate; by the plan where nothing is measured"
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.summary.reason`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type ZoneRoute struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// +optional
	Spec ZoneRouteSpec `json:"spec,omitempty"`
	// +optional
	Status ZoneRouteStatus `json:"status,omitempty"`
}

// ZoneRouteList is a list of ZoneRoutes.
//
// +kubebuilder:object:root=true
type ZoneRouteList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []ZoneRoute `json:"items"`
}

// ZoneRouteSpec is the intent. Everything has a default.
type ZoneRouteSpec struct {
	// Mode is Optimal (plan, and make traffic obey), Observe (plan and report, change nothing) or
	// Off. Without it the namespace's label zonewise.io/mode holds, then the cluster's default.
	// +optional
	// +kubebuilder:validation:Enum=Optimal;Observe;Off
	Mode string `json:"mode,omitempty"`

	// MaxOverload bounds the load of any endpoint: with 0.2, the default, none gets more than 1.2
	// times its fair share.
	// +optional
	// +kubebuilder:validation:Minimum=0.01
	// +kubebuilder:validation:Maximum=4
	// +kubebuilder:validation:XValidation:rule="self >= 0.01",message="should be greater than or equal to 0.01"
	MaxOverload *float64 `json:"maxOverload,omitempty"`

	// Capacity is what an endpoint can carry: Pods (the default: all the same) or CPURequests.
	// +optional
	// +kubebuilder:validation:Enum=Pods;CPURequests
	Capacity string `json:"capacity,omitempty"`

	// +optional
	Demand DemandSpec `json:"demand,omitempty"`

	// DrainedZones get no connections, as long as there is an endpoint in another zone.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=63
	DrainedZones []string `json:"drainedZones,omitempty"`
}

// DemandSpec tells which zones the connections come from.
//
// +kubebuilder:validation:XValidation:rule="has(self.shares) == (has(self.source) && self.source == 'Static')",message="shares are needed with source Static, and only there"
type DemandSpec struct {
	// Source is Measured (by the agents), NodeCPU (allocatable CPU of ready nodes) or Static
	// (shares). Without it: Measured where there is a measurement, else NodeCPU.
	// +optional
	// +kubebuilder:validation:Enum=Measured;NodeCPU;Static
	Source string `json:"source,omitempty"`

	// Shares are the zones' parts of the demand, in any unit: only their proportions count.
	// +optional
	// +listType=map
	// +listMapKey=zone
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:XValidation:rule="self.exists(s, s.share > 0.0)",message="one share at least must be more than 0"
	Shares []DemandShare `json:"shares,omitempty"`

	// BytesPerSecond is what the Service exchanges with its clients, both directions together. It is
	// needed for a cost per month where nothing measures.
	// +optional
	// +kubebuilder:validation:Minimum=0
	BytesPerSecond *float64 `json:"bytesPerSecond,omitempty"`
}

// DemandShare is one zone's part of the demand.
type DemandShare struct {
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Zone string `json:"zone"`
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=1000000000
	Share float64 `json:"share"`
}

// ZoneRouteStatus is the plan, and how it fares.
type ZoneRouteStatus struct {
	// ObservedGeneration is the generation of the spec that this status is about.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// Mode in force.
	// +optional
	Mode string `json:"mode,omitempty"`
	// Summary has the figures as people read them, for the columns of kubectl.
	// +optional
	Summary Summary `json:"summary,omitempty"`
	// Plans has one plan for each address family.
	// +optional
	// +listType=map
	// +listMapKey=family
	Plans []Plan `json:"plans,omitempty"`
	// Conditions are Planned, Applied and Obeyed.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// Summary is the first plan's figures as text.
type Summary struct {
	InZone       string `json:"inZone,omitempty"`
	Planned      string `json:"planned,omitempty"`
	MaxLoad      string `json:"maxLoad,omitempty"`
	CostPerMonth string `json:"costPerMonth,omitempty"`
	Reason       string `json:"reason,omitempty"`
}

// Plan is the plan for one address family. Shares and loads are fractions; load 1 is the fair
// share; money is USD.
type Plan struct {
	// Family is IPv4 or IPv6.
	Family      string  `json:"family"`
	MaxOverload float64 `json:"maxOverload"`
	Demand      Demand  `json:"demand"`
	// +optional
	// +listType=map
	// +listMapKey=name
	Zones []Zone `json:"zones,omitempty"`
	// InZone is the share of connections that stay in their zone.
	InZone Outcome `json:"inZone"`
	// MaxLoad is the most that an endpoint gets by the plan, BeforeLoad the same without it.
	MaxLoad    float64 `json:"maxLoad"`
	BeforeLoad float64 `json:"beforeLoad"`
	// CostPerTB is for 10^12 bytes that the Service exchanges with its clients.
	CostPerTB Outcome `json:"costPerTB"`
	// +optional
	CostPerMonth *Outcome `json:"costPerMonth,omitempty"`
	Hints        Hints    `json:"hints"`
	Upstream     Upstream `json:"upstream"`
	// +optional
	Reason string `json:"reason,omitempty"`
	// +optional
	Fix string `json:"fix,omitempty"`
	// Capacities has what each endpoint can carry, where they differ.
	// +optional
	// +listType=atomic
	Capacities []Capacity `json:"capacities,omitempty"`
	// ChangedAt is when the weights last changed.
	// +optional
	ChangedAt *metav1.Time `json:"changedAt,omitempty"`
	// Measured is what traffic did, where the agents' meters tell.
	// +optional
	Measured *Measured `json:"measured,omitempty"`
}

// Measured is what the traffic of a Service did in a minute or so: bytes between known zones.
type Measured struct {
	// At is when that was. It is written anew when the figures have changed.
	At metav1.Time `json:"at"`
	// BytesPerSecond is what the Service exchanged with its clients, both directions together.
	BytesPerSecond float64 `json:"bytesPerSecond"`
	// InZone is the share of the bytes that stayed in their zone.
	InZone Compared `json:"inZone"`
	// CostPerMonth is USD for 730 hours at this rate.
	CostPerMonth Compared `json:"costPerMonth"`
}

// Compared is one figure as it is now, as it would be if all went by the plan, and without Zonewise.
type Compared struct {
	Now     float64 `json:"now"`
	Planned float64 `json:"planned"`
	Before  float64 `json:"before"`
}

// Demand is where connections come from: how that is known, and how much it is.
type Demand struct {
	Source string `json:"source,omitempty"`
	// +optional
	BytesPerSecond *float64 `json:"bytesPerSecond,omitempty"`
	// +optional
	MeasuredAt *metav1.Time `json:"measuredAt,omitempty"`
}

// Zone is the plan's part for one zone, which is both where clients and where endpoints are.
type Zone struct {
	Name      string  `json:"name"`
	Demand    float64 `json:"demand"`
	Endpoints int     `json:"endpoints"`
	Capacity  float64 `json:"capacity"`
	Load      float64 `json:"load"`
	// +optional
	Drained bool `json:"drained,omitempty"`
	// Weights are where the connections of clients in this zone go; they sum to 1.
	// +optional
	Weights map[string]float64 `json:"weights,omitempty"`
}

// Outcome is one figure without the plan, with it, and with the best plan under the same bound.
type Outcome struct {
	Before  float64 `json:"before"`
	Planned float64 `json:"planned"`
	Ideal   float64 `json:"ideal"`
}

// Hints is what standard hints make of the plan.
type Hints struct {
	// Given tells whether there is a set of hints that keeps the bound.
	Given   bool    `json:"given"`
	InZone  float64 `json:"inZone"`
	MaxLoad float64 `json:"maxLoad"`
	// +optional
	Reason string `json:"reason,omitempty"`
}

// Upstream is what Kubernetes' own controller makes of the Service.
type Upstream struct {
	// +optional
	Asked string `json:"asked,omitempty"`
	// Hints tells whether it would write hints with topology-mode Auto.
	Hints bool `json:"hints"`
	// +optional
	Reason string `json:"reason,omitempty"`
	// +optional
	Inequality string `json:"inequality,omitempty"`
	// +optional
	Culprit string `json:"culprit,omitempty"`
	// +optional
	Fix string `json:"fix,omitempty"`
}

// Capacity is what one endpoint can carry, in the unit of spec.capacity.
type Capacity struct {
	Address  string  `json:"address"`
	Capacity float64 `json:"capacity"`
}
