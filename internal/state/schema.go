package state

import (
	"cmp"
	"net/netip"
	"strings"
	"time"

	"github.com/zonewise/zonewise/internal/model"
)

// contents is every table at one moment.
type contents struct {
	nodes      table[string, model.Node]
	services   table[model.Name, model.Service]
	unserved   table[model.Name, string] // Services that no dataplane has anything to do for, and why
	slices     table[model.Name, model.Slice]
	byService  table[owned, model.Slice] // the same slices
	routes     table[model.Name, model.ZoneRoute]
	pods       table[model.Name, model.Pod]
	namespaces table[string, namespace]
	cidrs      table[string, []netip.Prefix] // by the object that says them
	changes    table[subject, change]
	news       table[uint64, change] // the same changes, by their revision
}

func empty() contents {
	return contents{
		nodes:      newTable[string, model.Node](strings.Compare),
		services:   newTable[model.Name, model.Service](model.Name.Compare),
		unserved:   newTable[model.Name, string](model.Name.Compare),
		slices:     newTable[model.Name, model.Slice](model.Name.Compare),
		byService:  newTable[owned, model.Slice](owned.compare),
		routes:     newTable[model.Name, model.ZoneRoute](model.Name.Compare),
		pods:       newTable[model.Name, model.Pod](model.Name.Compare),
		namespaces: newTable[string, namespace](strings.Compare),
		cidrs:      newTable[string, []netip.Prefix](strings.Compare),
		changes:    newTable[subject, change](subject.compare),
		news:       newTable[uint64, change](cmp.Compare[uint64]),
	}
}

// owned is a slice as one of its Service.
type owned struct {
	service model.Name
	slice   string // in the Service's namespace
}

func ownedBy(s *model.Slice) owned { return owned{s.ServiceName(), s.Name.Name} }

func (o owned) compare(p owned) int {
	if c := o.service.Compare(p.service); c != 0 {
		return c
	}
	return strings.Compare(o.slice, p.slice)
}

// namespace is what a namespace says about its Services.
type namespace struct {
	mode    model.Mode
	invalid string // what it says instead of a mode
}

// subject is what a change is about: the ranges of Services' addresses, a node, a pod or, if it is none of
// these, a service.
type subject struct {
	cidrs   bool
	node    string
	pod     model.Name
	service model.Name
}

func (s subject) compare(o subject) int {
	if s.cidrs != o.cidrs {
		if s.cidrs {
			return -1
		}
		return 1
	}
	if c := strings.Compare(s.node, o.node); c != 0 {
		return c
	}
	if c := s.pod.Compare(o.pod); c != 0 {
		return c
	}
	return s.service.Compare(o.service)
}

// change is the news about one subject that some reader may not have seen yet. It outlives
// what it is about: for a deleted service it is the tombstone.
type change struct {
	subject  subject
	revision uint64    // of the latest news
	first    uint64    // of the earliest news not yet forgotten
	since    time.Time // when that reached us
	last     time.Time // when the latest reached us
}
