package vpc

import (
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// MaxPool is the largest number of addresses that one pool may hold. It is the size of a whole
// VPC; more than that is a slip of the pen in a prefix length.
const MaxPool = 1 << 16

// MaxIPv6Bits is the longest prefix that leaves room for an IPv4 address behind it.
const MaxIPv6Bits = 96

// Range is a run of addresses of one family, both ends included.
type Range struct {
	First, Last netip.Addr
}

// Size is the number of addresses in the range.
func (r Range) Size() int { return int(ordinal(r.Last)-ordinal(r.First)) + 1 }

func (r Range) contains(a netip.Addr) bool { return !a.Less(r.First) && !r.Last.Less(a) }

// String returns "first-last".
func (r Range) String() string { return r.First.String() + "-" + r.Last.String() }

// Pool is the addresses that pods of one node may have, in the parts that its interfaces have. One of
// the configuration has one part. The zero Pool is empty.
type Pool struct {
	parts    []part
	cooldown time.Duration
	grows    bool
	why      string // what is said to who gets nothing
}

// part is what one interface has.
type part struct {
	stays    bool         // it cannot be given back, so it may as well be full
	prefixes []Range      // each comes and goes as a whole
	singles  block        // each address comes and goes by itself
	ipv6     netip.Prefix // each address has a second one behind it
}

// block is ranges, sorted, no two of which overlap.
type block []Range

// NewPool reads ranges such as "192.168.1.11-192.168.1.27", "192.168.1.11" and
// "192.168.1.16/28". Of a prefix every address is meant, the first and the last too: inside a
// routed VPC they are addresses like any other. The error names the offending range.
func NewPool(specs []string) (Pool, error) {
	var b block
	size := 0
	for i, spec := range specs {
		r, err := parseRange(spec)
		if err != nil {
			return Pool{}, fmt.Errorf("ranges[%d] %q: %w", i, spec, err)
		}
		if size += r.Size(); size > MaxPool {
			return Pool{}, fmt.Errorf("ranges[%d] %q: pool of more than %d addresses", i, spec, MaxPool)
		}
		for _, other := range b {
			if !r.Last.Less(other.First) && !other.Last.Less(r.First) {
				return Pool{}, fmt.Errorf("ranges[%d] %q: overlaps %s", i, spec, other)
			}
		}
		b = append(b, r)
	}
	slices.SortFunc(b, func(x, y Range) int { return x.First.Compare(y.First) })
	p := Pool{parts: []part{{singles: b}}}
	p.why = fmt.Sprintf("all %d addresses of the pool %s are leased; remove a pod from this node, or add a range to pool.ranges", size, p)
	return p, nil
}

// WithIPv6 gives each address of the pool a second one, behind a prefix that is this node's alone, such
// as the /80 that AWS delegates to an interface. The two go together, so one lease is for both.
func (p Pool) WithIPv6(prefix netip.Prefix) (Pool, error) {
	switch {
	case !prefix.Addr().Is6() || prefix.Addr().Is4In6() || !prefix.Addr().IsGlobalUnicast():
		return p, fmt.Errorf("%s: not a prefix of IPv6 unicast addresses such as fd00:192:168:1:1::/80", prefix)
	case prefix != prefix.Masked():
		return p, fmt.Errorf("%s: has bits set after its length; did you mean %s?", prefix, prefix.Masked())
	case prefix.Bits() > MaxIPv6Bits:
		return p, fmt.Errorf("%s: leaves no room for an address; use at most /%d", prefix, MaxIPv6Bits)
	}
	p.parts = slices.Clone(p.parts)
	for i := range p.parts {
		p.parts[i].ipv6 = prefix
	}
	return p, nil
}

// Pool makes of the supply what Assign gives addresses from. An interface that is not in the node yet,
// or is to leave it, gives none.
func (s Supply) Pool() Pool {
	p := Pool{cooldown: s.Cooldown, grows: s.Grows, why: s.Why}
	for _, i := range s.Interfaces {
		if i.ready() {
			p.parts = append(p.parts, i.part(s.Family))
		}
	}
	return p
}

func (i Interface) part(family Family) part {
	out := part{stays: i.Primary}
	if family == IPv6 {
		if i.IPv6Prefix.IsValid() { // its first address means any router there
			first := i.IPv6Prefix.Masked().Addr().Next()
			out.singles = block{{First: first, Last: plus(first, MaxPool-2)}}
		}
		return out
	}
	if family == Dual {
		out.ipv6 = i.IPv6Prefix
	}
	for _, p := range i.Prefixes {
		out.prefixes = append(out.prefixes, rangeOf(p))
	}
	for _, a := range i.Addresses {
		out.singles = append(out.singles, Range{First: a, Last: a})
	}
	slices.SortFunc(out.singles, func(x, y Range) int { return x.First.Compare(y.First) })
	return out
}

// IPv6 is the second address that goes with one of the pool: its four bytes behind the prefix. It is
// the zero address where the pool has no prefix.
func (p Pool) IPv6(a netip.Addr) netip.Addr {
	i := slices.IndexFunc(p.parts, func(part part) bool { return part.ipv6.IsValid() && part.contains(a) })
	if i < 0 {
		return netip.Addr{}
	}
	return Behind(p.parts[i].ipv6, a)
}

// Behind is the address of a prefix of IPv6 that ends in the four bytes of one of IPv4.
func Behind(prefix netip.Prefix, a netip.Addr) netip.Addr {
	both, low := prefix.Addr().As16(), a.As4()
	copy(both[12:], low[:])
	return netip.AddrFrom16(both)
}

// pick chooses the address that Assign gives. What was released goes by the order of releases, not by
// their times: a clock that is set back changes nothing.
func (p Pool) pick(l Leases, now time.Time) (netip.Addr, error) {
	held := make(map[netip.Addr]bool, len(l.Held))
	for _, h := range l.Held {
		held[h.Address] = true
	}
	var until time.Time
	rested := make(map[netip.Addr]bool, len(l.Resting))
	var free []netip.Addr // of those that have rested, longest ago first
	for _, r := range l.Resting {
		rested[r.Address] = true
		switch {
		case held[r.Address]:
		case !r.cools(now, p.cooldown):
			free = append(free, r.Address)
		case p.Contains(r.Address):
			if end := r.At.Add(p.cooldown); until.IsZero() || end.Before(until) {
				until = end
			}
		}
	}
	for _, part := range p.fullestFirst(l) {
		for b := range part.blocks() {
			if a, ok := b.pick(held, rested, free); ok {
				return a, nil
			}
		}
	}
	if p.grows || !until.IsZero() {
		return netip.Addr{}, &Waiting{Until: until, Why: p.why}
	}
	return netip.Addr{}, fmt.Errorf("%w: %s", ErrExhausted, p.why)
}

func (b block) pick(held, rested map[netip.Addr]bool, free []netip.Addr) (netip.Addr, bool) {
	for a := range b.all() {
		if !held[a] && !rested[a] {
			return a, true
		}
	}
	i := slices.IndexFunc(free, b.contains)
	if i < 0 {
		return netip.Addr{}, false
	}
	return free[i], true
}

// fullestFirst sorts parts, and the prefixes of each, by what is held of them, so that pods gather and
// what is empty stays so.
func (p Pool) fullestFirst(l Leases) []part {
	parts := slices.Clone(p.parts)
	held := make([]int, len(parts))
	for i, part := range parts {
		if len(parts) == 1 && len(part.prefixes) == 0 {
			continue // nothing to choose between
		}
		inside := make(map[Range]int, len(part.prefixes))
		for _, h := range l.Held {
			if k := slices.IndexFunc(part.prefixes, func(r Range) bool { return r.contains(h.Address) }); k >= 0 {
				inside[part.prefixes[k]]++
				held[i]++
			} else if part.singles.contains(h.Address) {
				held[i]++
			}
		}
		parts[i].prefixes = slices.SortedStableFunc(slices.Values(part.prefixes), func(a, b Range) int { return inside[b] - inside[a] })
	}
	order := make([]int, len(parts))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		switch {
		case parts[a].stays && !parts[b].stays:
			return -1
		case parts[b].stays && !parts[a].stays:
			return 1
		}
		return held[b] - held[a]
	})
	sorted := make([]part, len(parts))
	for i, k := range order {
		sorted[i] = parts[k]
	}
	return sorted
}

// blocks are what is looked through one after the other: single addresses come last, since each of
// them leaves by itself, and a prefix only whole.
func (p part) blocks() iter.Seq[block] {
	return func(yield func(block) bool) {
		for i := range p.prefixes {
			if !yield(p.prefixes[i : i+1]) {
				return
			}
		}
		yield(p.singles)
	}
}

// Size is the number of addresses in the pool.
func (p Pool) Size() int {
	n := 0
	for b := range p.blocks() {
		for _, r := range b {
			n += r.Size()
		}
	}
	return n
}

// Contains tells whether the address belongs to the pool.
func (p Pool) Contains(a netip.Addr) bool {
	return slices.ContainsFunc(p.parts, func(part part) bool { return part.contains(a) })
}

func (p part) contains(a netip.Addr) bool {
	return p.singles.contains(a) || slices.ContainsFunc(p.prefixes, func(r Range) bool { return r.contains(a) })
}

func (b block) contains(a netip.Addr) bool {
	i, _ := slices.BinarySearchFunc(b, a, func(r Range, a netip.Addr) int { return r.Last.Compare(a) })
	return i < len(b) && !a.Less(b[i].First)
}

// All yields every address: of one part after the other, of each the lowest first.
func (p Pool) All() iter.Seq[netip.Addr] {
	return func(yield func(netip.Addr) bool) {
		for b := range p.blocks() {
			for a := range b.all() {
				if !yield(a) {
					return
				}
			}
		}
	}
}

func (p Pool) blocks() iter.Seq[block] {
	return func(yield func(block) bool) {
		for _, part := range p.parts {
			for b := range part.blocks() {
				if !yield(b) {
					return
				}
			}
		}
	}
}

func (b block) all() iter.Seq[netip.Addr] {
	return func(yield func(netip.Addr) bool) {
		for _, r := range b {
			for a := r.First; ; a = a.Next() {
				if !yield(a) {
					return
				}
				if a == r.Last {
					break
				}
			}
		}
	}
}

// String returns the ranges, in the order of All, separated by commas.
func (p Pool) String() string {
	var parts []string
	for b := range p.blocks() {
		for _, r := range b {
			parts = append(parts, r.String())
		}
	}
	return strings.Join(parts, ",")
}

func parseRange(spec string) (Range, error) {
	if strings.Contains(spec, "/") {
		return parsePrefix(spec)
	}
	first, last, both := strings.Cut(spec, "-")
	if !both {
		last = first
	}
	a, err := parseAddress(first)
	if err != nil {
		return Range{}, err
	}
	b, err := parseAddress(last)
	if err != nil {
		return Range{}, err
	}
	if b.Less(a) {
		return Range{}, errors.New("ends before it begins")
	}
	return Range{First: a, Last: b}, nil
}

func parsePrefix(spec string) (Range, error) {
	p, err := netip.ParsePrefix(spec)
	if err != nil {
		return Range{}, errors.New("not a prefix such as 192.168.1.16/28")
	}
	if !p.Addr().Is4() {
		return Range{}, errors.New("only IPv4 addresses are given to pods")
	}
	if p != p.Masked() {
		return Range{}, fmt.Errorf("has bits set after its length; did you mean %s?", p.Masked())
	}
	if p.Bits() < 16 {
		return Range{}, fmt.Errorf("pool of more than %d addresses", MaxPool)
	}
	r := rangeOf(p)
	return r, usable(r.First)
}

// rangeOf is every address of a prefix of IPv4.
func rangeOf(p netip.Prefix) Range {
	first := p.Masked().Addr()
	return Range{First: first, Last: plus(first, 1<<(32-p.Bits())-1)}
}

func parseAddress(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(strings.TrimSpace(s))
	if err != nil {
		return a, fmt.Errorf("%q is not an address such as 192.168.1.11", s)
	}
	return a, usable(a)
}

// usable refuses what no pod can have as its address.
func usable(a netip.Addr) error {
	switch {
	case !a.Is4():
		return errors.New("only IPv4 addresses are given to pods")
	case !a.IsGlobalUnicast():
		return fmt.Errorf("%s is not a unicast address that can be routed", a)
	}
	return nil
}

// ordinal tells apart the addresses of one pool, of either family: they differ in their last bytes.
func ordinal(a netip.Addr) uint32 {
	b := a.As16()
	return uint32(b[12])<<24 | uint32(b[13])<<16 | uint32(b[14])<<8 | uint32(b[15])
}

// plus is the n-th address after a. All of them share what is before the last four bytes.
func plus(a netip.Addr, n uint32) netip.Addr {
	b := a.As16()
	low := ordinal(a) + n
	b[12], b[13], b[14], b[15] = byte(low>>24), byte(low>>16), byte(low>>8), byte(low)
	out := netip.AddrFrom16(b)
	if a.Is4() {
		return out.Unmap()
	}
	return out
}
