// Package meter tells of every byte whose it was, which Service it went to, from which zone to
// which, why, and what it costs; and it makes the demand of it that plans are made from. It is
// pure: what the kernel counted, who had which address and the time come in.
package meter

import (
	"cmp"
	"net/netip"
	"time"

	"github.com/zonewise/zonewise/internal/model"
)

// Side tells which ends of a connection are on the node that counts.
type Side uint8

// The sides.
const (
	Passing   Side = iota // neither: the node passes packets on
	ClientEnd             // the client alone
	ServerEnd             // the server alone
	BothEnds
)

// String returns "passing", "client", "server" or "both".
func (s Side) String() string {
	switch s {
	case ClientEnd:
		return "client"
	case ServerEnd:
		return "server"
	case BothEnds:
		return "both"
	}
	return "passing"
}

// Key is what the kernel counts by. An address that the kernel does not know is the zero one: such
// keys catch what finds no place in a full map, one for each side.
type Key struct {
	Client      netip.Addr     // the original source
	Dialled     netip.AddrPort // the original destination, if it was translated; zero: it was the server
	Server      netip.AddrPort // the source of what comes back
	Protocol    model.Protocol
	Side        Side
	Masqueraded bool   // the source was translated, too
	Cgroup      uint64 // of the process at the local end (the client's, if both are), where the kernel knows it; else 0
}

// Compare orders keys by client, server, what was dialled, and the rest.
func (k Key) Compare(o Key) int {
	return cmp.Or(k.Client.Compare(o.Client), k.Server.Compare(o.Server), k.Dialled.Compare(o.Dialled),
		cmp.Compare(k.Protocol, o.Protocol), cmp.Compare(k.Side, o.Side), compareBool(k.Masqueraded, o.Masqueraded),
		cmp.Compare(k.Cgroup, o.Cgroup))
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// Totals is what one counter of the kernel holds: it only grows.
type Totals struct {
	model.FlowCount
	Born time.Duration // since boot: when the counter was made; 0: not known. It tells a counter from its predecessor of the same key
	Last time.Duration // since boot: when it was counted last; 0: not known
}

// Counter is a key with its totals.
type Counter struct {
	Key
	Totals
}

// Uncounted is what the kernel saw and had no counter for at all, not even those that catch the rest.
type Uncounted struct{ Packets, Bytes uint64 }

// Reading is what an agent read at an instant.
type Reading struct {
	Boot      string        // the machine's boot id: counters and times of two boots have nothing in common
	Epoch     uint64        // of the counters: another one if they were made anew
	At        time.Duration // since boot, on a clock that nobody sets
	Wall      time.Time     // the same instant as people call it: a label, no duration is made of it
	Totals    map[Key]Totals
	Gone      []Counter // counters that were taken away since the reading before, one after another, with what they held at the end; one whose Born is known may be told of again
	Uncounted Uncounted // only grows
}

// Observer tells what a node is to a flow that it reports.
type Observer string

// The observers.
const (
	AtClient Observer = "client"  // the client's node, or the one that masquerades: it is believed
	AtServer Observer = "server"  // the server's node: believed where the client's has no meter
	Between  Observer = "between" // neither: never believed, one of the ends has it, or none of ours
)

// Observed is a flow and who saw it.
type Observed struct {
	model.Flow
	Observer Observer
}

// Compare orders by flow, then by observer; counts do not matter.
func (o Observed) Compare(p Observed) int {
	return cmp.Or(o.FlowKey.Compare(p.FlowKey), cmp.Compare(o.Observer, p.Observer))
}
