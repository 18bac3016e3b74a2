package nft

import "github.com/zonewise/zonewise/internal/kernel/nft"

// set is one of the sets of a table. Nothing in it is named after a Service: a Service is elements
// only, so that a packet's way is the same however many Services there are.
//
// Frontend keys are address . protocol . port. A frontend with N backends has N elements in
// backends, slots 0 to N-1, and one in services with the number of the chain which draws a slot of N.
// Where shares differ, that chain tosses first whether to draw from fewer slots: see mixture.go.
//
// Which chain has which number, ways, ways-inside and outcomes tell: see numbers.go.
type set int

// The sets whose elements are ours alone come first; after those, the ones that packets fill.
const (
	services set = iota
	inside
	backends
	weights
	unreachable
	clusterIPs
	hairpin
	sources
	groups
	affinity
	eligible
	eligibleInside
	ways
	waysInside
	outcomes

	connections
	traffic
	sticky

	programmed = connections // so many sets are programmed
	allSets    = sticky + 1
)

const (
	// pairLimit bounds the kernel's memory for counters: about 200 bytes a pair and processor.
	pairLimit = 131072
	// stickyLimit bounds the memory of clients, 150 bytes each. Beyond it clients are not remembered.
	stickyLimit = 262144
)

var (
	frontendKey = []nft.Field{nft.Addr, nft.Protocol, nft.Port}
	slotKey     = []nft.Field{nft.Addr, nft.Protocol, nft.Port, nft.Mark}
	pairKey     = []nft.Field{nft.Addr, nft.Protocol, nft.Port, nft.Addr, nft.Port}
	numberData  = []nft.Field{nft.Mark, nft.Mark} // see numbers.go
	eligibleKey = []nft.Field{nft.Addr, nft.Port, nft.Addr, nft.Protocol, nft.Port}

	// sets are as in the table of either family.
	sets = [allSets]nft.Set{
		services: { // to lb-N, cip-N or ext-N (masquerade, then lb-N) or local-N, where N may be several sizes; or to from-N
			Name: "services", Key: frontendKey, Data: numberData,
			Comment: "what answers at an address, protocol and port: by the numbers in ways",
		},
		inside: { // to in-N
			Name: "inside", Key: frontendKey, Data: numberData,
			Comment: "the same for this node and its pods, where that differs, by those in ways-inside",
		},
		backends: {
			Name: "backends", Key: slotKey, Data: []nft.Field{nft.Addr, nft.Port},
			Comment: "endpoints, numbered from 0, those of inside from 0x00100000",
		},
		weights: {
			Name: "weights", Key: slotKey,
			Comment: "numbers that win a toss, those of inside from 0x40000000",
		},
		unreachable: {
			Name: "unreachable", Key: frontendKey, Data: numberData,
			Comment: "Services without endpoints: refused or dropped, by the numbers in outcomes",
		},
		clusterIPs: {
			Name: "cluster-ips", Key: []nft.Field{nft.Addr},
			Comment: "every port that is not in services is refused",
		},
		hairpin: { // one that reaches itself through a Service must be answered by the node, not by itself
			Name: "hairpin", Key: []nft.Field{nft.Addr, nft.Addr},
			Comment: "endpoints of this node, as source and destination",
		},
		sources: {
			Name: "sources", Key: []nft.Field{nft.Addr, nft.Protocol, nft.Port, nft.Mark, nft.Addr},
			Comment: "who may use it: prefix length and prefix",
		},
		// The protocol, which is the frontend's, is there for a reason: see rules_memory.go.
		groups: {
			Name: "groups", Key: frontendKey, Data: []nft.Field{nft.Protocol, nft.Addr, nft.Port},
			Comment: "where clients are remembered: with whom in common",
		},
		affinity: { // to remember-N
			Name: "affinity", Key: frontendKey, Data: numberData,
			Comment: "where clients are remembered: for how long, by the numbers in outcomes",
		},
		eligible: {
			Name: "eligible", Key: eligibleKey,
			Comment: "where clients are remembered: endpoint and frontend",
		},
		eligibleInside: {
			Name: "eligible-inside", Key: eligibleKey,
			Comment: "the same for this node and its pods, where that differs",
		},
		ways: {
			Name: "ways", Key: []nft.Field{nft.Mark}, Verdicts: true,
			Comment: "what the numbers in services mean",
		},
		waysInside: {
			Name: "ways-inside", Key: []nft.Field{nft.Mark}, Verdicts: true,
			Comment: "what the numbers in inside mean",
		},
		outcomes: {
			Name: "outcomes", Key: []nft.Field{nft.Mark}, Verdicts: true,
			Comment: "what the numbers in unreachable and affinity mean",
		},
		// Counters by frontend and backend, made by packets as they come. Beyond pairLimit pairs
		// nothing more is counted, and traffic goes on as before.
		connections: {
			Name: "connections", Key: pairKey, Dynamic: true, Size: pairLimit,
			Comment: "first packets by Service and endpoint",
		},
		traffic: {
			Name: "traffic", Key: pairKey, Dynamic: true, Size: pairLimit,
			Comment: "packets by Service and endpoint, both ways",
		},
		sticky: {
			Name: "sticky", Key: []nft.Field{nft.Addr, nft.Port, nft.Addr, nft.Protocol},
			Data: []nft.Field{nft.Protocol, nft.Addr, nft.Port}, Dynamic: true, Timeouts: true, Size: stickyLimit,
			Comment: "clients by group, and the endpoint that each was sent to",
		},
	}
)

// meanings are the sets that tell what numbers mean.
var meanings = []set{ways, waysInside, outcomes}

// verdicts tells that the set's values are chains.
func (s set) verdicts() bool { return sets[s].Verdicts }

// shared tells that frontends have the set's elements in common, and that these outlast their use until
// they are swept.
func (s set) shared() bool { return s == hairpin || s.verdicts() }

// meaning returns the set that tells what the numbers in this one mean.
func (s set) meaning() (set, bool) {
	switch s {
	case services:
		return ways, true
	case inside:
		return waysInside, true
	case unreachable, affinity:
		return outcomes, true
	}
	return 0, false
}

// element returns an element of the set.
func (s set) element(key, value string) nft.Element {
	if s.verdicts() {
		return nft.Element{Key: key, Verdict: nft.Verdict(value)}
	}
	return nft.Element{Key: key, Data: value}
}

// value is the inverse of element.
func (s set) value(e nft.Element) string {
	if s.verdicts() {
		return string(e.Verdict)
	}
	return e.Data
}
