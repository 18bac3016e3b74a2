package model

import (
	"cmp"
	"slices"
)

// Livelier orders endpoints by address and, where an address occurs twice, the one to prefer first:
// an endpoint may be on its way from one slice to another, or a new pod have the address of a dying
// one. What follows the conditions only makes the order total, so that the order of slices cannot
// matter.
func Livelier(a, b Endpoint) int {
	if c := a.Addr.Compare(b.Addr); c != 0 {
		return c
	}
	return cmp.Or(
		falseFirst(a.Terminating, b.Terminating),
		falseFirst(b.Ready, a.Ready),
		falseFirst(b.Serving, a.Serving),
		cmp.Compare(a.Node, b.Node),
		cmp.Compare(a.Pod, b.Pod),
		cmp.Compare(a.Zone, b.Zone),
		slices.Compare(a.ZoneHints, b.ZoneHints),
		slices.Compare(a.NodeHints, b.NodeHints),
	)
}

func falseFirst(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}
