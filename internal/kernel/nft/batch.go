// Package nft is a thin door to the kernel's nf_tables: one transaction in, tables and elements
// out. It decides nothing. Fake stands in for the kernel in tests.
//
// It writes and reads netlink messages itself, on a socket of mdlayher/netlink, and takes of
// google/nftables the instructions of rules alone. That library's transactions cannot carry an
// instruction that it does not know (and the one for addresses of flows, as it has it, makes nft
// abort when someone lists the table); they ask for an answer to every message and tell neither
// which one was refused; and they make some ten small allocations for an element, of which a
// cold start writes hundreds of thousands. The messages in use are few and never change.
package nft

import (
	"time"

	"golang.org/x/sys/unix"
)

// Table is a table of one address family. Names of two families have nothing to do with each other.
type Table struct {
	Family Family
	Name   string
}

// String returns the table as nft has it: "ip zonewise".
func (t Table) String() string {
	if t.Family == IPv6 {
		return "ip6 " + t.Name
	}
	return "ip " + t.Name
}

// Family is an address family, by netfilter's number.
type Family uint8

// The families of tables.
const (
	IPv4 Family = unix.NFPROTO_IPV4
	IPv6 Family = unix.NFPROTO_IPV6
)

// Chain is a place for rules. Without a hook it is reached by jumps alone.
type Chain struct {
	Name string
	Hook *Hook
}

// Hook attaches a chain to a point of the packet's way.
type Hook struct {
	Type     Type
	Point    Point
	Priority int32
}

// Type tells what a base chain may do.
type Type string

// The types of base chain in use.
const (
	Filter Type = "filter"
	NAT    Type = "nat"
)

// Point is a netfilter hook number.
type Point uint32

// The points of the packet's way.
const (
	Prerouting Point = iota
	Input
	Forward
	Output
	Postrouting
)

// The priorities at which destination NAT, filters and source NAT are customary.
const (
	PriorityDNAT   int32 = -100
	PriorityFilter int32 = 0
	PrioritySNAT   int32 = 100
)

// Rule is a program and the comment that tells people what it does. The comment (at most 120
// bytes) is kept by the kernel and is what a reader can compare rules by.
type Rule struct {
	Comment string
	Exprs   []Expr
}

// Field is a part of a key or a value. Every field takes a multiple of four bytes: an address four
// or sixteen, by the table's family, a label sixteen, every other field four.
type Field uint8

// The fields in use. Mark is a number in host byte order, Label means nothing to the kernel (nft
// shows it as an IPv6 address), the rest are as on the wire.
const (
	Addr Field = iota
	Protocol
	Port
	Mark
	Label
)

// Set is a set (no Data, no Verdicts), a map (Data) or a verdict map (Verdicts). The comment (at
// most 127 bytes) is for people.
type Set struct {
	Name     string
	Key      []Field
	Data     []Field
	Verdicts bool
	Dynamic  bool   // rules add elements
	Timeouts bool   // elements can expire: the rules that add them say when
	Size     uint32 // most elements; 0 for no limit
	Comment  string
}

// Element of a set or map. Key and Data are raw bytes with every field padded to four.
type Element struct {
	Key     string
	Data    string
	Verdict Verdict
	// Counter is what the kernel counted on the element; it is read, never written.
	Counter Counter
	// Expires is how long the element still has, 0 if it has no end.
	Expires time.Duration
}

// Verdict is Drop, or the name of a chain to go to.
type Verdict string

// Drop ends the packet's way silently. No chain has this name.
const Drop Verdict = "*drop"

// Counter is packets and bytes of layer 3 and above.
type Counter struct{ Packets, Bytes uint64 }

// Contents is what a table holds: the comments of each chain's rules in order, and the sets.
type Contents struct {
	Chains map[string][]string
	Sets   map[string]bool
}

// Batch is a list of changes to one table that take effect together or not at all, in order.
type Batch struct {
	table Table
	ops   []op
	size  int
}

// NewBatch returns an empty list of changes to the table.
func NewBatch(table Table) *Batch { return &Batch{table: table} }

// Len returns the number of changes; each element counts.
func (b *Batch) Len() int { return b.size }

type verb uint8

const (
	addTable verb = iota
	delTable
	addChain
	flushChain
	delChain
	addRule
	addSet
	addElements
	delElements
)

type op struct {
	verb     verb
	chain    Chain
	rule     Rule
	set      Set
	elements []Element
}

// String names the change in errors.
func (o op) String() string {
	switch o.verb {
	case addTable:
		return "add table"
	case delTable:
		return "delete table"
	case addChain:
		return "add chain " + o.chain.Name
	case flushChain:
		return "flush chain " + o.chain.Name
	case delChain:
		return "delete chain " + o.chain.Name
	case addRule:
		return "add rule to chain " + o.chain.Name + ": " + o.rule.Comment
	case addSet:
		return "add set " + o.set.Name
	case addElements:
		return "add to set " + o.set.Name
	default:
		return "delete from set " + o.set.Name
	}
}

func (b *Batch) push(o op, size int) {
	b.ops = append(b.ops, o)
	b.size += size
}

// AddTable creates the table unless it is there.
func (b *Batch) AddTable() { b.push(op{verb: addTable}, 1) }

// DelTable deletes the table and all in it.
func (b *Batch) DelTable() { b.push(op{verb: delTable}, 1) }

// AddChain creates a chain unless it is there.
func (b *Batch) AddChain(c Chain) { b.push(op{verb: addChain, chain: c}, 1) }

// FlushChain deletes the chain's rules.
func (b *Batch) FlushChain(name string) { b.push(op{verb: flushChain, chain: Chain{Name: name}}, 1) }

// DelChain deletes the chain, which must not be the target of a verdict.
func (b *Batch) DelChain(name string) { b.push(op{verb: delChain, chain: Chain{Name: name}}, 1) }

// AddRule appends a rule to a chain.
func (b *Batch) AddRule(chain string, r Rule) {
	b.push(op{verb: addRule, chain: Chain{Name: chain}, rule: r}, 1)
}

// AddSet creates a set or map unless it is there.
func (b *Batch) AddSet(s Set) { b.push(op{verb: addSet, set: s}, 1) }

// Add adds elements. One that is there with another value fails the batch.
func (b *Batch) Add(s Set, e ...Element) {
	if len(e) > 0 {
		b.push(op{verb: addElements, set: s, elements: e}, len(e))
	}
}

// Delete deletes elements by key. One that is not there fails the batch.
func (b *Batch) Delete(s Set, e ...Element) {
	if len(e) > 0 {
		b.push(op{verb: delElements, set: s, elements: e}, len(e))
	}
}
