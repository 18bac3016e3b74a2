package agent

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// primary is the word for the node's first address of each family.
const primary = "primary"

// NodePortAddresses choose at which of a node's addresses node ports answer. The zero value is the
// node's primary address of each family.
type NodePortAddresses struct {
	ranges []netip.Prefix
}

// ParseNodePortAddresses reads "primary", or ranges of addresses. As with kube-proxy, a family of
// which no range is named answers at all its addresses.
func ParseNodePortAddresses(words []string) (NodePortAddresses, error) {
	var out NodePortAddresses
	for _, w := range words {
		switch w = strings.TrimSpace(w); {
		case w == "" || w == primary && len(words) == 1:
			continue
		case w == primary:
			return out, fmt.Errorf("node port addresses: %s goes with nothing else", primary)
		}
		p, err := netip.ParsePrefix(w)
		if err != nil {
			return out, fmt.Errorf("node port addresses: %q is neither %s nor a range", w, primary)
		}
		if p.Addr().IsLoopback() {
			return out, fmt.Errorf("node port addresses: %s: the loopback has none", w)
		}
		out.ranges = append(out.ranges, p.Masked())
	}
	if len(out.ranges) == 0 {
		return out, nil
	}
	for _, all := range []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)} {
		if !slices.ContainsFunc(out.ranges, func(p netip.Prefix) bool { return p.Addr().Is4() == all.Addr().Is4() }) {
			out.ranges = append(out.ranges, all)
		}
	}
	return out, nil
}

// Primary tells whether it is the primary addresses alone.
func (n NodePortAddresses) Primary() bool { return len(n.ranges) == 0 }

// of chooses among all addresses of a node. The loopback never answers, nor do addresses that mean
// something on one link alone.
func (n NodePortAddresses) of(all []netip.Addr) []netip.Addr {
	var out []netip.Addr
	for _, a := range all {
		if a.IsLoopback() || a.IsMulticast() || a.Is6() && a.IsLinkLocalUnicast() {
			continue
		}
		if slices.ContainsFunc(n.ranges, func(p netip.Prefix) bool { return p.Contains(a) }) {
			out = append(out, a)
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}
