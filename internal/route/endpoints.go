package route

import (
	"cmp"
	"slices"

	"github.com/zonewise/zonewise/internal/model"
)

// Endpoints gathers one family's endpoints from all slices of a Service, ordered by address. An
// address that occurs twice (an endpoint on its way from one slice to another, or a new pod with
// the address of a dying one) is taken once, at its liveliest.
func Endpoints(all []model.Slice, v6 bool) []model.Endpoint {
	n := 0
	for _, s := range all {
		n += len(s.Endpoints)
	}
	found := make([]model.Endpoint, 0, n)
	for _, s := range all {
		if s.V6 == v6 {
			found = append(found, s.Endpoints...)
		}
	}
	// Slices are mostly in order already, one after another.
	if !slices.IsSortedFunc(found, livelier) {
		slices.SortFunc(found, livelier)
	}
	return slices.CompactFunc(found, func(a, b model.Endpoint) bool { return a.Addr == b.Addr })
}

// livelier orders by address, then the one to prefer first. What follows the conditions only makes
// the order total, so that the order of slices cannot matter.
func livelier(a, b model.Endpoint) int {
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
