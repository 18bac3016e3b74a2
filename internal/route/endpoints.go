package route

import (
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
	if !slices.IsSortedFunc(found, model.Livelier) {
		slices.SortFunc(found, model.Livelier)
	}
	return slices.CompactFunc(found, func(a, b model.Endpoint) bool { return a.Addr == b.Addr })
}
