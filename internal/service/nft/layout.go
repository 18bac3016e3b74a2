package nft

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/zonewise/zonewise/internal/kernel/nft"
)

// tableName is the one table of each family in a node's network namespace.
const tableName = "zonewise"

// interimName is there for the moment in which a table of another layout is replaced.
const interimName = "zonewise-interim"

// layoutChain is an empty chain whose name carries the version of everything in this file, in
// sets.go and in rules.go. A table without it was written by another version: it is replaced whole
// as soon as all inputs are known. It is a variable so that the linker can make an agent of another
// version, to try an upgrade.
var layoutChain = "layout-8"

const (
	// insideSlots is more than any Service has endpoints.
	insideSlots = 1 << 20
	// masqueradeMark is the packet mark bit that Kubernetes reserves for "masquerade this".
	masqueradeMark = 0x4000
)

// layout is the program of one family's table.
type layout struct {
	family nft.Family
	// podInterface is the prefix that names of interfaces to this node's pods have.
	podInterface  string
	masqueradeAll bool
	countBytes    bool
	// cidrs are where cluster IPs come from: an address in one that nobody has is dropped.
	cidrs []netip.Prefix
}

// table and interim are the family's tables.
func (l layout) table() nft.Table   { return nft.Table{Family: l.family, Name: tableName} }
func (l layout) interim() nft.Table { return nft.Table{Family: l.family, Name: interimName} }

// chains returns every chain that is always there, in the order of creation: what is a target
// comes before what goes to it.
func (l layout) chains() []chain {
	hook := func(t nft.Type, p nft.Point, priority int32) *nft.Hook {
		return &nft.Hook{Type: t, Point: p, Priority: priority}
	}
	// Most packets are of connections that are under way: they are let through before all else.
	each := func(count nft.Rule, rules ...nft.Rule) []nft.Rule {
		rules = append([]nft.Rule{l.passEstablished(), l.goFirst()}, rules...)
		if l.countBytes {
			rules = append([]nft.Rule{count}, rules...)
		}
		return rules
	}
	return []chain{
		{nft.Chain{Name: layoutChain}, nil},
		{nft.Chain{Name: rejectChain}, []nft.Rule{l.reset(), l.portUnreachable()}},
		{nft.Chain{Name: unallocatedChain}, l.dropUnallocated()},
		{nft.Chain{Name: openedChain}, []nft.Rule{l.countOpened(), l.goRemember()}},
		{nft.Chain{Name: firstChain}, []nft.Rule{l.goOpened(), l.refuseFrontend(), l.refuseUndefined(), l.goUnallocated()}},
		{nft.Chain{Name: keptChain}, []nft.Rule{l.useRemembered(eligible), l.forget()}},
		{nft.Chain{Name: keptInsideChain}, []nft.Rule{l.useRemembered(eligibleInside), l.forget()}},
		{nft.Chain{Name: insideChain}, []nft.Rule{l.chooseInside()}},
		{nft.Chain{Name: servicesChain}, []nft.Rule{l.chooseService()}},
		{nft.Chain{Name: "prerouting", Hook: hook(nft.NAT, nft.Prerouting, nft.PriorityDNAT)}, []nft.Rule{l.goServices()}},
		{nft.Chain{Name: "output", Hook: hook(nft.NAT, nft.Output, nft.PriorityDNAT)}, []nft.Rule{l.goServices()}},
		{nft.Chain{Name: "postrouting", Hook: hook(nft.NAT, nft.Postrouting, nft.PrioritySNAT)}, []nft.Rule{l.masqueradeMarked(), l.masqueradeHairpin()}},
		{nft.Chain{Name: "forward", Hook: hook(nft.Filter, nft.Forward, nft.PriorityFilter)},
			each(l.countTraffic(), l.dropInvalidFrom(), l.dropInvalidTo())},
		{nft.Chain{Name: "filter-input", Hook: hook(nft.Filter, nft.Input, nft.PriorityFilter)}, each(l.countArriving(), l.dropInvalidFrom())},
		{nft.Chain{Name: "filter-output", Hook: hook(nft.Filter, nft.Output, nft.PriorityFilter)}, each(l.countTraffic())},
	}
}

// The chains that others go to.
const (
	rejectChain      = "reject"
	unallocatedChain = "unallocated"
	firstChain       = "first"
	openedChain      = "opened"
	keptChain        = "kept"
	keptInsideChain  = "kept-inside"
	insideChain      = "inside"
	servicesChain    = "services"
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

// counted is a chain that exists once per list of numbers: lb-3 draws one of three; lb-3-11
// tosses for one of three and else draws one of eleven.
type counted string

const (
	balance      counted = "lb-"       // draw a slot
	cluster      counted = "cip-"      // masquerade who is no pod of ours, and draw a slot
	external     counted = "ext-"      // masquerade and draw a slot
	local        counted = "local-"    // insiders to inside, others draw a slot; local-0 lets them pass
	balanceInner counted = "in-"       // draw a slot of those for insiders
	from         counted = "from-"     // go on, to another of these, if a source of one of these prefix lengths may
	remember     counted = "remember-" // note for so many seconds who was sent where

	// keeping is before the numbers of lb-, cip-, ext-, local- and in- where clients are remembered.
	keeping = "keep-"
	// nobody stands for no number.
	nobody = "none"
	// goingTo is behind the numbers of from-, before where it goes.
	goingTo = "-to-"
)

var counteds = []counted{balance, cluster, external, local, balanceInner, from, remember}

func (c counted) of(s ...int) nft.Verdict { return nft.Verdict(string(c) + sizes(s).String()) }

// where returns the chain that remembers clients, or the plain one.
func (c counted) where(keeps bool, s sizes) nft.Verdict {
	if keeps {
		c += keeping
	}
	if len(s) == 1 { // as a rule
		return nft.Verdict(string(c) + strconv.Itoa(s[0]))
	}
	return c.of(s...)
}

func rememberFor(d time.Duration) nft.Verdict { return remember.of(int(d / time.Second)) }

// fromLengths is the chain for prefixes of the lengths, which goes to another, or nowhere if that has no
// name: such a frontend has no endpoints.
func fromLengths(lengths []int, to nft.Verdict) nft.Verdict {
	switch {
	case len(lengths) == 0:
		return nft.Verdict(from + nobody)
	case to == "":
		return from.of(lengths...)
	}
	return from.of(lengths...) + goingTo + to
}

// build returns the chain that the verdict goes to and what that chain itself goes to,
// targets first.
func (l layout) build(v nft.Verdict) []chain {
	for _, kind := range counteds {
		number, ok := strings.CutPrefix(string(v), string(kind))
		if !ok {
			continue
		}
		own := chain{nft.Chain{Name: string(v)}, nil}
		if kind == from {
			return l.buildFrom(own, number)
		}
		number, keeps := strings.CutPrefix(number, keeping)
		s, ok := parseSizes(number)
		if !ok || keeps && kind == remember {
			continue
		}
		targets, rules := l.program(kind, keeps, s)
		own.rules = rules
		return append(targets, own)
	}
	return nil
}

// buildFrom is build for a chain that asks where a client comes from.
func (l layout) buildFrom(own chain, number string) []chain {
	if number == nobody {
		own.rules = l.admit(nil, "")
		return []chain{own}
	}
	number, to, goes := strings.Cut(number, goingTo)
	lengths, ok := parseSizes(number)
	if !ok {
		return nil
	}
	targets := l.build(nft.Verdict(to))
	if goes && len(targets) == 0 {
		return nil
	}
	own.rules = l.admit(lengths, nft.Verdict(to))
	return append(targets, own)
}

// program returns the rules of a counted chain and the chains that they go to.
func (l layout) program(kind counted, keeps bool, s sizes) (targets []chain, rules []nft.Rule) {
	via := func(to nft.Verdict, rules ...nft.Rule) ([]chain, []nft.Rule) {
		return l.build(to), append(rules, l.goTo(to))
	}
	switch {
	case kind == remember:
		return nil, []nft.Rule{l.remember(time.Duration(s[0]) * time.Second)}
	case kind == cluster:
		return via(balance.where(keeps, s), l.markOffCluster())
	case kind == external:
		return via(balance.where(keeps, s), l.mark())
	case kind == local && slices.Equal(s, sizes{0}):
		return nil, []nft.Rule{l.podsInside(), l.markOwn(), l.ownInside()}
	case kind == local:
		return via(balance.where(keeps, s), l.podsInside(), l.markOwn(), l.ownInside())
	case kind == balance && keeps:
		return via(balance.of(s...), l.askMemory(keptChain))
	case kind == balanceInner && keeps:
		return via(balanceInner.of(s...), l.askMemory(keptInsideChain))
	case kind == balanceInner:
		return l.drawFrom(s, balanceInner, insideSlots, insideWeights)
	}
	return l.drawFrom(s, balance, 0, 0)
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

// sizes are the numbers of a counted chain: for a draw, from how many slots, in the order in which
// the draws are tried.
type sizes []int

func (s sizes) String() string {
	out := make([]string, len(s))
	for i, n := range s {
		out[i] = strconv.Itoa(n)
	}
	return strings.Join(out, "-")
}

func parseSizes(text string) (sizes, bool) {
	var out sizes
	for part := range strings.SplitSeq(text, "-") {
		n, err := strconv.Atoi(part)
		if err != nil {
			return nil, false
		}
		out = append(out, n)
	}
	return out, true
}
