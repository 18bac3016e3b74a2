// Package service decides what the Services of a cluster mean on one node: which addresses the
// node answers for, which endpoints stand behind each, and how often each is chosen. Without a
// ZoneRoute in force the decision is kube-proxy's, endpoint for endpoint. It is pure; the folders
// below make the kernel obey it.
package service

import (
	"cmp"
	"net/netip"
	"time"

	"github.com/zonewise/zonewise/internal/model"
)

// Kind tells what sort of address a frontend has.
type Kind string

// The kinds of frontend.
const (
	ClusterIP    Kind = "ClusterIP"
	ExternalIP   Kind = "ExternalIP"
	LoadBalancer Kind = "LoadBalancer"
	NodePort     Kind = "NodePort"
)

// Verdict is what happens to a new connection.
type Verdict string

// The verdicts. Balance is the only one that comes with backends.
const (
	Balance Verdict = "balance" // one of the backends, each as likely as its share says
	Reject  Verdict = "reject"  // refused at once: the Service has no usable endpoint anywhere
	Drop    Verdict = "drop"    // silence: a Local policy, and no endpoint on this node
)

// Frontend is an address that the node answers for.
type Frontend struct {
	Service  model.Name
	Port     string // the Service port's name; empty when the Service has a single nameless port
	Kind     Kind
	Addr     netip.AddrPort // a virtual address and port, or one of the node's addresses and the node port
	Protocol model.Protocol

	// Choice holds for every source, save where Inside says otherwise.
	Choice
	// Inside is the choice for connections from this node and its pods. It is nil unless
	// externalTrafficPolicy is Local: only then do insiders see other endpoints than outsiders do.
	Inside *Choice
	// Masquerade tells that the source must become the node's own address, because the
	// endpoint may be on another node and its answer has to come back through this one.
	Masquerade bool
	// Group is the same for all frontends of one Service port and family: who is remembered at one
	// of them is remembered at all. It is the key of the first ClusterIP.
	Group Key
	// Affinity is how long after its last connection a client's address is sent to the same
	// backend, as long as that is among the backends; 0 is not at all.
	Affinity time.Duration
	// Sources are the addresses that may use a LoadBalancer frontend, in order; all others are dropped. Nil: everybody may.
	Sources []netip.Prefix
	// Keep lists, for UDP, every endpoint of the port that still serves, chosen or not. A flow
	// to one of these is left alone when the choice changes; flows to any other are cut.
	Keep []netip.AddrPort
}

// Choice is a verdict, the backends that it is about, and the rule that chose them.
type Choice struct {
	Verdict  Verdict
	Backends []Backend // ordered by address; not empty exactly if the verdict is Balance
	Why      string    // for people: "zone hints: ap-northeast-2a"
}

// Backend is an endpoint as a target of connections.
type Backend struct {
	Addr  netip.AddrPort
	Zone  string // where the endpoint is; empty when unknown
	Node  string
	Pod   string
	Local bool // on this node
	// Share is the part of this node's new connections that it gets; over a choice they sum to 1.
	Share float64
}

// Key identifies a frontend within a node.
type Key struct {
	Addr     netip.AddrPort
	Protocol model.Protocol
}

// Key returns what identifies the frontend within its node.
func (f Frontend) Key() Key { return Key{f.Addr, f.Protocol} }

// Pair is a frontend together with one of its backends.
type Pair struct {
	Frontend Key
	Backend  netip.AddrPort
}

// Traffic is what went through a pair since the pair came to be on this node. Bytes and packets
// count both directions, as IP packets (headers of layer 3 and above).
type Traffic struct {
	Connections uint64 // first packets: connections opened, for UDP flows
	Packets     uint64
	Bytes       uint64
}

// Fault is something wrong with one object. All other objects work in spite of it.
type Fault struct {
	Kind    string // Service, EndpointSlice or Node
	Object  model.Name
	Problem string // what is wrong and what became of it, a short sentence
}

// Compare orders faults by object, then by what is wrong.
func (f Fault) Compare(o Fault) int {
	return cmp.Or(cmp.Compare(f.Kind, o.Kind), f.Object.Compare(o.Object), cmp.Compare(f.Problem, o.Problem))
}
