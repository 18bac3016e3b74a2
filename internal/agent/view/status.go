package view

import "time"

// StatusSchema names the form of Status.
const StatusSchema = "zonewise.node-status/v1"

// Status is how an agent and its node are.
type Status struct {
	Schema   string    `json:"schema"`
	Node     string    `json:"node"`
	Zone     string    `json:"zone"`
	Version  string    `json:"version"`
	Ready    bool      `json:"ready"`            // the node was synced once
	Reason   string    `json:"reason,omitempty"` // why not ready, or what fails now
	LastSync time.Time `json:"lastSync,omitzero"`
	Services int       `json:"services"` // that the node serves
	Pending  int       `json:"pending"`  // that have changed since
	Faults   int       `json:"faults"`
	Paths    []Path    `json:"paths"`
	// NodePorts are the addresses at which node ports answer.
	NodePorts []string `json:"nodePorts"`
	// Others are the proxies that left rules on the node.
	Others []Other `json:"others"`
	// Meter is how it counts traffic; nil: the agent is older than that.
	Meter *Meter `json:"meter,omitempty"`
}

// Meter is how a node counts its traffic.
type Meter struct {
	On  bool   `json:"on"`            // the kernel counts
	Why string `json:"why,omitempty"` // why it does not, or why nothing is told of it; empty also while it starts
	// Unwanted: it is off because nobody asked for it.
	Unwanted bool   `json:"unwanted,omitempty"`
	Reports  string `json:"reports,omitempty"` // why reports have not arrived for a while
	Waiting  int    `json:"waiting"`           // flows that were not sent yet
}

// Path is one way in which the node's Services are made to work.
type Path struct {
	Name string `json:"name"` // nft or socket
	On   bool   `json:"on"`
	Why  string `json:"why,omitempty"` // why it is off
	// Unwanted: it is off because nobody asked for it.
	Unwanted bool `json:"unwanted,omitempty"`
}

// Other is what another proxy left on the node.
type Other struct {
	Who  string `json:"who"`  // kube-proxy, mode nftables
	What string `json:"what"` // table ip kube-proxy
	Mend string `json:"mend"` // how to take it away
}

// FaultsSchema names the form of Faults.
const FaultsSchema = "zonewise.node-faults/v1"

// Faults is what is wrong with objects, as one node sees it.
type Faults struct {
	Schema string  `json:"schema"`
	Node   string  `json:"node"`
	Faults []Fault `json:"faults"` // in order of kind, object and problem
}

// Fault is something wrong with one object. All others work in spite of it.
type Fault struct {
	Kind      string    `json:"kind"`
	Namespace string    `json:"namespace"`
	Name      string    `json:"name"`
	Problem   string    `json:"problem"`
	Since     time.Time `json:"since"`
	Here      bool      `json:"here"` // it is of this node; otherwise every node sees it
}
