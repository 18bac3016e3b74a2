package reflect

import (
	"hash/maphash"
	"slices"
	"unique"

	"github.com/zonewise/zonewise/internal/model"
)

// Rows stay in the tables for long, and there can be 100,000 Services. What every row brings anew
// although few values exist, is made one here: namespaces, nodes, zones and names of ports.

// service saves about 60 bytes for a Service with one port.
func (k known) service(s *model.Service) {
	k.one(&s.Namespace)
	k.one((*string)(&s.Type))
	k.one(&s.TopologyMode)
	k.one(&s.TrafficDistribution)
	for i := range s.Ports {
		k.one(&s.Ports[i].Name)
	}
	s.Ports = exact(s.Ports)
}

// slice saves about 30 bytes for a slice, and 40 or more for each endpoint.
func (k known) slice(s *model.Slice) {
	k.one(&s.Namespace)
	for i := range s.Ports {
		k.one(&s.Ports[i].Name)
	}
	for i := range s.Endpoints {
		e := &s.Endpoints[i]
		k.one(&e.Node)
		k.one(&e.Zone)
		for j := range e.ZoneHints {
			k.one(&e.ZoneHints[j])
		}
		for j := range e.NodeHints {
			k.one(&e.NodeHints[j])
		}
	}
}

// pod saves some 60 bytes for each pod that follows others of its workload.
func (k known) pod(p *model.Pod) {
	k.one(&p.Namespace)
	k.one(&p.Node)
	k.one(&p.Workload)
}

// known are the strings that were seen last. Rows that follow each other mostly say the same, and to
// look here is several times faster than among all strings. One goroutine uses it.
type known struct {
	seed maphash.Seed
	last []string
}

const knownRoom = 1024 // strings: the nodes of a cluster of usual size

func newKnown() known { return known{maphash.MakeSeed(), make([]string, knownRoom)} }

// one replaces a string by the one that all equal ones share.
func (k known) one(s *string) {
	if *s == "" {
		return
	}
	last := &k.last[maphash.String(k.seed, *s)%knownRoom]
	if *last != *s {
		*last = unique.Make(*s).Value()
	}
	*s = *last
}

// text returns the string that all equal ones share.
func (k known) text(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	last := &k.last[maphash.Bytes(k.seed, b)%knownRoom]
	if *last != string(b) {
		*last = unique.Make(string(b)).Value()
	}
	return *last
}

// exact returns rows without room for more, and nil for none.
func exact[T any](rows []T) []T {
	switch {
	case len(rows) == 0:
		return nil
	case cap(rows) > len(rows):
		return slices.Clone(rows)
	}
	return rows
}
