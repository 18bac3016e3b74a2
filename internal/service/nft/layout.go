package nft

import (
	"slices"
	"strings"

	"github.com/zonewise/zonewise/internal/kernel/nft"
)

// tableName is the one table, family ip, of a node's network namespace.
const tableName = "zonewise"

// interimTable is there for the moment in which a table of another layout is replaced.
const interimTable = "zonewise-interim"

// layoutChain is an empty chain whose name carries the version of everything in this file and
// in rules.go. A table without it was written by another version: it is replaced whole as soon
// as all inputs are known.
const layoutChain = "layout-3"

// elderChain marks a table which is the same but for the set weights, and is adopted like ours.
const elderChain = "layout-2"

// The sets of the table. Nothing in it is named after a Service: a Service is elements only, so
// that a packet's way is the same however many Services there are.
//
// Frontend keys are address . protocol . port. A frontend with N backends has N elements in
// backends, slots 0 to N-1, and one in services that goes to the chain which draws a slot of N.
// Where shares differ, that chain tosses first whether to draw from fewer slots: see mixture.go.
var (
	frontendKey = []nft.Field{nft.Addr, nft.Protocol, nft.Port}

	// To lb-N, ext-N (masquerade, then lb-N) or local-N, where N may be several sizes.
	services = nft.Set{
		Name: "services", Key: frontendKey, Verdicts: true,
		Comment: "what answers at an address, protocol and port",
	}
	// To in-N.
	inside = nft.Set{
		Name: "inside", Key: frontendKey, Verdicts: true,
		Comment: "the same for this node and its pods, where that differs",
	}
	backends = nft.Set{
		Name:    "backends",
		Key:     []nft.Field{nft.Addr, nft.Protocol, nft.Port, nft.Mark},
		Data:    []nft.Field{nft.Addr, nft.Port},
		Comment: "endpoints, numbered from 0, those of inside from 0x00100000",
	}
	weights = nft.Set{
		Name: "weights", Key: []nft.Field{nft.Addr, nft.Protocol, nft.Port, nft.Mark},
		Comment: "numbers that win a toss, those of inside from 0x40000000",
	}
	unreachable = nft.Set{
		Name: "unreachable", Key: frontendKey, Verdicts: true,
		Comment: "Services without endpoints: refused or dropped",
	}
	clusterIPs = nft.Set{
		Name: "cluster-ips", Key: []nft.Field{nft.Addr},
		Comment: "every port that is not in services is refused",
	}
	// One that reaches itself through a Service must be answered by the node, not by itself.
	hairpin = nft.Set{
		Name: "hairpin", Key: []nft.Field{nft.Addr, nft.Addr},
		Comment: "endpoints of this node, as source and destination",
	}

	// Counters by frontend and backend, made by packets as they come. Beyond pairLimit pairs
	// nothing more is counted, and traffic goes on as before.
	pairKey     = []nft.Field{nft.Addr, nft.Protocol, nft.Port, nft.Addr, nft.Port}
	connections = nft.Set{
		Name: "connections", Key: pairKey, Dynamic: true, Size: pairLimit,
		Comment: "first packets by Service and endpoint",
	}
	traffic = nft.Set{
		Name: "traffic", Key: pairKey, Dynamic: true, Size: pairLimit,
		Comment: "packets by Service and endpoint, both ways",
	}
)

const (
	// pairLimit bounds the kernel's memory for counters: about 200 bytes a pair and processor.
	pairLimit = 131072
	// insideSlots is more than any Service has endpoints.
	insideSlots = 1 << 20
	// masqueradeMark is the packet mark bit that Kubernetes reserves for "masquerade this".
	masqueradeMark = 0x4000
)

// programmed are the sets whose elements are ours alone; the others are filled by packets.
var programmed = []nft.Set{services, inside, backends, weights, unreachable, clusterIPs, hairpin}

// chains returns every chain that is always there, in the order of creation: what is a target
// comes before what goes to it.
func (l layout) chains() []chain {
	hook := func(t nft.Type, p nft.Point, priority int32) *nft.Hook {
		return &nft.Hook{Type: t, Point: p, Priority: priority}
	}
	count := []nft.Rule{l.countTraffic()}
	first := []nft.Rule{l.goFirst()}
	return []chain{
		{nft.Chain{Name: layoutChain}, nil},
		{nft.Chain{Name: rejectChain}, []nft.Rule{l.reset(), l.portUnreachable()}},
		{nft.Chain{Name: firstChain}, []nft.Rule{l.countOpened(), l.refuseFrontend(), l.refuseUndefined()}},
		{nft.Chain{Name: insideChain}, []nft.Rule{l.chooseInside()}},
		{nft.Chain{Name: servicesChain}, []nft.Rule{l.markOffCluster(), l.chooseService()}},
		{nft.Chain{Name: "prerouting", Hook: hook(nft.NAT, nft.Prerouting, nft.PriorityDNAT)}, []nft.Rule{l.goServices()}},
		{nft.Chain{Name: "output", Hook: hook(nft.NAT, nft.Output, nft.PriorityDNAT)}, []nft.Rule{l.goServices()}},
		{nft.Chain{Name: "postrouting", Hook: hook(nft.NAT, nft.Postrouting, nft.PrioritySNAT)}, []nft.Rule{l.masqueradeMarked(), l.masqueradeHairpin()}},
		{nft.Chain{Name: "forward", Hook: hook(nft.Filter, nft.Forward, nft.PriorityFilter)}, append(count, first...)},
		{nft.Chain{Name: "filter-input", Hook: hook(nft.Filter, nft.Input, nft.PriorityFilter)}, append([]nft.Rule{l.countArriving()}, first...)},
		{nft.Chain{Name: "filter-output", Hook: hook(nft.Filter, nft.Output, nft.PriorityFilter)}, append(count, first...)},
	}
}

// The chains that others go to.
const (
	rejectChain   = "reject"
	firstChain    = "first"
	insideChain   = "inside"
	servicesChain = "services"
)

// chain is a chain with the rules that belong into it.
type chain struct {
	nft.Chain
	rules []nft.Rule
}

// comments returns what a reader of the kernel sees of the rules.
func (c chain) comments() []string {
	out := make([]string, len(c.rules))
	for i, r := range c.rules {
		out[i] = r.Comment
	}
	return out
}

// counted is a chain that exists once per number of backends: lb-3 draws one of three; lb-3-11
// tosses for one of three and else draws one of eleven.
type counted string

const (
	balance      counted = "lb-"    // draw a slot
	external     counted = "ext-"   // masquerade and draw a slot
	local        counted = "local-" // insiders to inside, others draw a slot; local-0 lets them pass
	balanceInner counted = "in-"    // draw a slot of those for insiders
)

func (c counted) of(s ...int) nft.Verdict { return nft.Verdict(string(c) + sizes(s).String()) }

// build returns the chain that the verdict goes to and what that chain itself goes to,
// targets first.
func (l layout) build(v nft.Verdict) []chain {
	for _, kind := range []counted{balance, external, local, balanceInner} {
		number, ok := strings.CutPrefix(string(v), string(kind))
		if !ok {
			continue
		}
		s, ok := parseSizes(number)
		if !ok {
			continue
		}
		own := chain{nft.Chain{Name: string(v)}, nil}
		var targets []chain
		switch kind {
		case balance:
			targets, own.rules = l.drawFrom(s, balance, 0, 0)
		case balanceInner:
			targets, own.rules = l.drawFrom(s, balanceInner, insideSlots, insideWeights)
		case external:
			targets, own.rules = l.build(balance.of(s...)), []nft.Rule{l.mark(), l.goTo(balance.of(s...))}
		case local:
			own.rules = []nft.Rule{l.podsInside(), l.markOwn(), l.ownInside()}
			if !slices.Equal(s, sizes{0}) {
				targets, own.rules = l.build(balance.of(s...)), append(own.rules, l.goTo(balance.of(s...)))
			}
		}
		return append(targets, own)
	}
	return nil
}

// drawFrom returns the rules that try the draws of the sizes in turn, and the chains that those
// go to.
func (l layout) drawFrom(s sizes, kind counted, slots, numbers uint32) (targets []chain, rules []nft.Rule) {
	last := len(s) - 1
	for d, n := range s[:last] {
		to := kind.of(n)
		targets = append(targets, l.build(to)...)
		for i := range tosses {
			rules = append(rules, l.toss(i, uint32(toss(int(numbers), d, i)), to))
		}
	}
	return targets, append(rules, l.draw(s[last], slots)...)
}
