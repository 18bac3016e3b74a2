package vpc

import (
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"strings"
)

// MaxPool is the largest number of addresses that one pool may hold. It is the size of a whole
// VPC; more than that is a slip of the pen in a prefix length.
const MaxPool = 1 << 16

// MaxIPv6Bits is the longest prefix that leaves room for an IPv4 address behind it.
const MaxIPv6Bits = 96

// Range is a run of IPv4 addresses, both ends included.
type Range struct {
	First, Last netip.Addr
}

// Size is the number of addresses in the range.
func (r Range) Size() int { return int(ordinal(r.Last)-ordinal(r.First)) + 1 }

// String returns "first-last".
func (r Range) String() string { return r.First.String() + "-" + r.Last.String() }

// Pool is the addresses that pods of one node may have. The zero Pool is empty.
type Pool struct {
	ranges []Range // sorted, no two of them overlap
	ipv6   netip.Prefix
}

// NewPool reads ranges such as "192.168.1.11-192.168.1.27", "192.168.1.11" and
// "192.168.1.16/28". Of a prefix every address is meant, the first and the last too: inside a
// routed VPC they are addresses like any other. The error names the offending range.
func NewPool(specs []string) (Pool, error) {
	var p Pool
	size := 0
	for i, spec := range specs {
		r, err := parseRange(spec)
		if err != nil {
			return Pool{}, fmt.Errorf("ranges[%d] %q: %w", i, spec, err)
		}
		if size += r.Size(); size > MaxPool {
			return Pool{}, fmt.Errorf("ranges[%d] %q: pool of more than %d addresses", i, spec, MaxPool)
		}
		for _, other := range p.ranges {
			if !r.Last.Less(other.First) && !other.Last.Less(r.First) {
				return Pool{}, fmt.Errorf("ranges[%d] %q: overlaps %s", i, spec, other)
			}
		}
		p.ranges = append(p.ranges, r)
	}
	slices.SortFunc(p.ranges, func(a, b Range) int { return a.First.Compare(b.First) })
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
	p.ipv6 = prefix
	return p, nil
}

// IPv6 is the second address that goes with one of the pool: its four bytes behind the prefix. It is
// the zero address where the pool has no prefix.
func (p Pool) IPv6(a netip.Addr) netip.Addr {
	if !p.ipv6.IsValid() {
		return netip.Addr{}
	}
	both, low := p.ipv6.Addr().As16(), a.As4()
	copy(both[12:], low[:])
	return netip.AddrFrom16(both)
}

// Size is the number of addresses in the pool.
func (p Pool) Size() int {
	n := 0
	for _, r := range p.ranges {
		n += r.Size()
	}
	return n
}

// Contains tells whether the address belongs to the pool.
func (p Pool) Contains(a netip.Addr) bool {
	return slices.ContainsFunc(p.ranges, func(r Range) bool {
		return !a.Less(r.First) && !r.Last.Less(a)
	})
}

// All yields every address, lowest first.
func (p Pool) All() iter.Seq[netip.Addr] {
	return func(yield func(netip.Addr) bool) {
		for _, r := range p.ranges {
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

// String returns the ranges, lowest first, separated by commas.
func (p Pool) String() string {
	parts := make([]string, len(p.ranges))
	for i, r := range p.ranges {
		parts[i] = r.String()
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
	first := ordinal(p.Addr())
	r := Range{First: p.Addr(), Last: address(first + 1<<(32-p.Bits()) - 1)}
	return r, usable(r.First)
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

func ordinal(a netip.Addr) uint32 {
	b := a.As4()
	return uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
}

func address(n uint32) netip.Addr {
	return netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
}
