// Package view is what the controller tells of traffic: the answers of its local API, and what
// `-o json` prints. Bytes are those of IP packets as in model.FlowCount, in both directions together
// unless a field says otherwise; USD are for the interval, of both ends' bills.
package view

import "time"

// Port is that of the controller's local API, on its pod's loopback: one has to be allowed to forward
// ports of that pod to see what goes where. The leader answers; who else is asked says 503.
const Port = 9474

// The forms of answers.
const (
	TrafficSchema = "zonewise.traffic/v1"
	FlowSchema    = "zonewise.flow/v1"
	CostSchema    = "zonewise.cost/v1"
)

// Interval is what an answer is about.
type Interval struct {
	From time.Time `json:"from"`
	To   time.Time `json:"to"`
}

// Traffic answers GET /v1/traffic?by=BY&since=1m[&until=0s][&namespace=][&service=][&zone=][&workload=][&node=][&order=][&limit=].
// BY is zones, services, namespaces, workloads, flows or label:KEY. since and until are ages.
type Traffic struct {
	Schema string `json:"schema"`
	Interval
	By    string   `json:"by"`
	Lines []Line   `json:"lines"`           // none by zones
	Zones []Zones  `json:"zones,omitempty"` // by zones alone
	Total Line     `json:"total"`
	Notes []string `json:"notes,omitempty"` // what qualifies the figures: "2 of 6 nodes have not reported"
}

// Line is a sum of flows under one name.
type Line struct {
	Name           string   `json:"name"`
	Connections    uint64   `json:"connections"` // opened
	Bytes          uint64   `json:"bytes"`
	InZoneBytes    uint64   `json:"inZoneBytes"`
	CrossZoneBytes uint64   `json:"crossZoneBytes"`
	OutsideBytes   uint64   `json:"outsideBytes"` // with parties outside the cluster
	UnknownBytes   uint64   `json:"unknownBytes"` // with parties whose zone is not known
	Packets        uint64   `json:"packets"`
	InZoneShare    *float64 `json:"inZoneShare,omitempty"` // of bytes between known zones; nil if there are none
	USD            float64  `json:"usd"`
	USDPerMonth    float64  `json:"usdPerMonth"`       // at this rate, 730 hours
	Reasons        []Reason `json:"reasons,omitempty"` // why bytes crossed zones, most bytes first
	Flow           *Flow    `json:"flow,omitempty"`    // by flows
}

// Reason is why bytes crossed zones.
type Reason struct {
	Cause  string `json:"cause"` // as meter.Cause
	Detail string `json:"detail,omitempty"`
	Bytes  uint64 `json:"bytes"`
}

// Zones is what went from one zone to another, that way only.
type Zones struct {
	From        string  `json:"from"` // "(outside)" and "(unknown)" stand for no zone
	To          string  `json:"to"`
	Bytes       uint64  `json:"bytes"`
	ExtraBytes  uint64  `json:"extraBytes"` // headers that segmentation adds on the wire, not in Bytes
	Packets     uint64  `json:"packets"`
	USD         float64 `json:"usd"`
	USDPerMonth float64 `json:"usdPerMonth"`
}

// Flow is a line of GET /v1/flows?[since=][&namespace=]…[&follow=true]: JSON, one object a line. With
// follow it goes on with what comes in, until the caller leaves.
type Flow struct {
	Schema        string    `json:"schema,omitempty"`
	At            time.Time `json:"at"`           // the end of what it counts
	Seconds       float64   `json:"seconds"`      // how long that was
	Client        Party     `json:"client"`       // who opened the connection
	Server        Party     `json:"server"`       // who answered
	Namespace     string    `json:"namespace"`    // of the Service; empty: none was dialled
	Service       string    `json:"service"`      // likewise
	Port          uint16    `json:"port"`         // of the Service, else of the server
	Protocol      string    `json:"protocol"`     // TCP, UDP, SCTP, …
	Via           string    `json:"via"`          // as model.Via
	Family        string    `json:"family"`       // IPv4 or IPv6
	Connections   uint64    `json:"connections"`  // opened
	RequestBytes  uint64    `json:"requestBytes"` // client to server
	ResponseBytes uint64    `json:"responseBytes"`
	RequestExtra  uint64    `json:"requestExtraBytes"`
	ResponseExtra uint64    `json:"responseExtraBytes"`
	RequestPkts   uint64    `json:"requestPackets"`
	ResponsePkts  uint64    `json:"responsePackets"`
	USD           float64   `json:"usd"`
	Reason        *Reason   `json:"reason,omitempty"` // where it crossed zones
	Missed        uint64    `json:"missed,omitempty"` // flows left out before this one, for a caller that follows and is too slow
}

// Party is one end of a flow; see model.Party.
type Party struct {
	Kind      string `json:"kind"`
	Zone      string `json:"zone,omitempty"`
	Node      string `json:"node,omitempty"`
	Namespace string `json:"namespace,omitempty"`
	Workload  string `json:"workload,omitempty"`
	Block     string `json:"block,omitempty"`
}

// Cost answers GET /v1/cost?since=7d&by=services|namespaces|label:KEY[&namespace=].
type Cost struct {
	Schema string `json:"schema"`
	Interval
	By     string     `json:"by"`
	Prices []string   `json:"prices"` // names of the books in force in the interval
	Lines  []CostLine `json:"lines"`  // dearest first
	Total  CostLine   `json:"total"`
	Notes  []string   `json:"notes,omitempty"`
}

// CostLine is what one Service, namespace or team costs.
type CostLine struct {
	Name           string   `json:"name"`
	Bytes          uint64   `json:"bytes"`
	CrossZoneBytes uint64   `json:"crossZoneBytes"`
	InZoneShare    *float64 `json:"inZoneShare,omitempty"`
	USD            float64  `json:"usd"`
	USDPerMonth    float64  `json:"usdPerMonth"`
	// Saved is what the same bytes would have cost more without the plan, from the instant that a ZoneRoute
	// was applied; nil where none is applied.
	SavedUSD *float64   `json:"savedUSD,omitempty"`
	Since    *time.Time `json:"appliedSince,omitempty"`
	// ForecastUSD is what a plan that is only observed would have saved of it; nil where there is none.
	ForecastUSD *float64 `json:"forecastUSD,omitempty"`
}
