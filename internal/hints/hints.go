// Package hints says a plan in the words of an EndpointSlice: zone hints, with node hints as
// overrides. Hints have no weights, so a zone that must send a part of its connections elsewhere does
// so by a few named nodes that get another set of endpoints than the rest of the zone. The package
// also tells what each kind of consumer makes of hints. It is pure.
package hints

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/zonewise/zonewise/internal/model"
)

// Names that no zone and no node has. Hints of a kind are obeyed only if every ready endpoint has
// one of that kind, so an endpoint that none of that kind should use carries these.
const (
	NoZone = "none.zonewise.io"
	NoNode = "none.zonewise.io"
)

// What the API takes for one endpoint.
const (
	maxZones = 8
	maxNodes = 8
)

// Hint is what one endpoint carries: names, each list sorted.
type Hint struct{ Zones, Nodes []string }

// Equal tells whether two hints say the same.
func (h Hint) Equal(o Hint) bool {
	return slices.Equal(h.Zones, o.Zones) && slices.Equal(h.Nodes, o.Nodes)
}

// Set is the hints of one Service in one address family, and what they lead to.
type Set struct {
	Of       map[netip.Addr]Hint // of every endpoint, ready or not; empty: no hints
	Forecast Forecast            // with consumers that know node hints
	Older    Forecast            // with consumers that know zone hints alone
	Reason   string              // why looser than the plan, or why there are none; empty if neither
}

// Outcome returns the set's figures as a plan reports them.
func (s Set) Outcome() model.HintOutcome {
	return model.HintOutcome{
		InZone: s.Forecast.InZone, MaxLoad: s.Forecast.MaxLoad, Reason: s.Reason, None: len(s.Of) == 0,
	}
}

// Unplanned is the hint for an endpoint that a set does not know yet: its own zone's, and no node's.
// Without any it would make every consumer ignore the hints of all others.
func Unplanned(e model.Endpoint) Hint {
	h := Hint{Zones: []string{NoZone}, Nodes: []string{NoNode}}
	if validZone(e.Zone) {
		h.Zones = []string{e.Zone}
	}
	return h
}

// Text prints the set for people, an endpoint a line, in order of zone and address.
func (s Set) Text(endpoints []model.Endpoint) string {
	var b strings.Builder
	if len(s.Of) == 0 {
		fmt.Fprintf(&b, "no hints: %s\n", s.Reason)
	}
	for _, e := range slices.SortedFunc(slices.Values(endpoints), byZone) {
		h, ok := s.Of[e.Addr]
		if !ok {
			continue
		}
		fmt.Fprintf(&b, "%-6s %-15s zones %s", cmp.Or(e.Zone, "-"), e.Addr, strings.Join(h.Zones, ","))
		if len(h.Nodes) > 0 {
			fmt.Fprintf(&b, " nodes %s", strings.Join(h.Nodes, ","))
		}
		b.WriteByte('\n')
	}
	fmt.Fprintf(&b, "in zone %.1f%%, most loaded %.3f; by zone hints alone %.1f%%, %.3f\n",
		100*s.Forecast.InZone, s.Forecast.MaxLoad, 100*s.Older.InZone, s.Older.MaxLoad)
	if len(s.Of) > 0 && s.Reason != "" {
		fmt.Fprintf(&b, "%s\n", s.Reason)
	}
	return b.String()
}

func byZone(a, b model.Endpoint) int {
	return cmp.Or(cmp.Compare(a.Zone, b.Zone), a.Addr.Compare(b.Addr))
}

// validZone tells whether a hint can name the zone: the API wants a label's value.
func validZone(s string) bool {
	return s != "" && len(s) <= 63 && edge(s[0]) && edge(s[len(s)-1]) &&
		strings.IndexFunc(s, func(r rune) bool {
			return r > 127 || !edge(byte(r)) && r != '-' && r != '_' && r != '.'
		}) < 0
}

// validNode tells whether a hint can name the node: the API wants a DNS subdomain.
func validNode(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	for part := range strings.SplitSeq(s, ".") {
		if part == "" || !edge(part[0]) || !edge(part[len(part)-1]) ||
			strings.IndexFunc(part, func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' }) >= 0 {
			return false
		}
	}
	return true
}

func edge(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}
