package reflect

import (
	"slices"
	"unique"

	"github.com/zonewise/zonewise/internal/model"
)

// Rows stay in the tables for long, and there can be 100,000 Services. What every row brings anew
// although few values exist, is made one here: namespaces, nodes, zones and names of ports.

// compactService saves about 60 bytes for a Service with one port.
func compactService(s *model.Service) {
	one(&s.Namespace)
	one((*string)(&s.Type))
	one(&s.TopologyMode)
	one(&s.TrafficDistribution)
	for i := range s.Ports {
		one(&s.Ports[i].Name)
	}
	s.Ports = exact(s.Ports)
}

// compactSlice saves about 30 bytes for a slice, and 40 or more for each endpoint.
func compactSlice(s *model.Slice) {
	one(&s.Namespace)
	for i := range s.Ports {
		one(&s.Ports[i].Name)
	}
	s.Ports, s.Endpoints = exact(s.Ports), exact(s.Endpoints)
	for i := range s.Endpoints {
		e := &s.Endpoints[i]
		one(&e.Node)
		one(&e.Zone)
		for j := range e.ZoneHints {
			one(&e.ZoneHints[j])
		}
		for j := range e.NodeHints {
			one(&e.NodeHints[j])
		}
	}
}

// one replaces a string by the one that all equal ones share.
func one(s *string) {
	if *s != "" {
		*s = unique.Make(*s).Value()
	}
}

// exact returns rows without room for more.
func exact[T any](rows []T) []T {
	if cap(rows) > len(rows) {
		return slices.Clone(rows)
	}
	return rows
}
