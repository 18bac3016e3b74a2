package kube

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/zonewise/zonewise/internal/hints"
	"github.com/zonewise/zonewise/internal/model"
)

// Source is what the controller knows. Its methods are called from several goroutines at once.
type Source interface {
	// Any tells whether there is a Service whose hints are to be delivered at all; known is false
	// while the tables are not complete.
	Any() (wanted, known bool)
	// Services returns the names of all that have slices.
	Services() []model.Name
	// Slices returns all slices of a Service, of both families.
	Slices(svc model.Name) []model.Slice
	// Target returns what a Service's slices of one family should come to carry. The slices are those
	// of the family, the one that is being written among them as it will be. False if hints are none
	// of our business: another mode, or nothing can be planned. An error is a reason to leave a slice
	// alone for now: the tables are not complete.
	Target(svc model.Name, v6 bool, slices []model.Slice) (t Target, ours bool, err error)
}

// Target is hints, and what they were planned for.
type Target struct {
	Set     hints.Set
	Clients []hints.Client
	Plan    model.RoutePlan
}

// NewPlanner returns the planner that answers from what the controller knows. While a Service's
// slices are on their way from one set of hints to another it answers what the next safe step is,
// however the slices come to be written.
func NewPlanner(s Source) Planner { return planner{s} }

type planner struct{ source Source }

// Hints is part of Planner.
func (p planner) Hints(svc model.Name, v6 bool, incoming model.Slice) (map[netip.Addr]hints.Hint, error) {
	if svc.Name == "" {
		return nil, nil // a slice of no Service
	}
	current := []model.Slice{incoming}
	for _, s := range p.source.Slices(svc) {
		switch {
		case s.V6 != v6:
		case s.Name == incoming.Name:
			current[0] = restore(incoming, s)
		default:
			current = append(current, s)
		}
	}
	incoming = current[0]
	slices.SortFunc(current, func(a, b model.Slice) int { return a.Name.Compare(b.Name) })
	target, ours, err := p.source.Target(svc, v6, current)
	if err != nil {
		return nil, fmt.Errorf("plan: %w", err)
	}
	if !ours || len(target.Set.Of) == 0 {
		return nil, nil
	}
	return answer(current, incoming, target), nil
}

// restore puts back onto a slice the hints that its endpoints have now and that its writer took off.
func restore(incoming, stored model.Slice) model.Slice {
	had := map[netip.Addr]model.Endpoint{}
	for _, e := range stored.Endpoints {
		had[e.Addr] = e
	}
	incoming.Endpoints = slices.Clone(incoming.Endpoints)
	for i := range incoming.Endpoints {
		e := &incoming.Endpoints[i]
		if h, ok := had[e.Addr]; ok {
			e.ZoneHints, e.NodeHints = h.ZoneHints, h.NodeHints
		}
	}
	return incoming
}

// answer returns what a slice should carry now. The only slice of a Service goes straight to the
// target. One of several takes its next step, if it is the one to take it; otherwise its
// endpoints keep what they have, and those that have nothing get at once what they will have.
func answer(current []model.Slice, incoming model.Slice, target Target) map[netip.Addr]hints.Hint {
	final := finals(incoming, target.Set)
	if len(current) == 1 || there(current, incoming, target.Set) {
		return final
	}
	steps := hints.Steps(current, target.Set, target.Clients, target.Plan)
	switch {
	case len(steps) == 0:
		return final
	case steps[0].Slice == incoming.Name:
		return steps[0].Hints
	}
	for _, e := range incoming.Endpoints {
		if len(e.ZoneHints)+len(e.NodeHints) > 0 {
			final[e.Addr] = hints.Hint{Zones: e.ZoneHints, Nodes: e.NodeHints}
		}
	}
	return final
}

// there tells whether all slices carry the target already, but for endpoints that are new to the one
// that is being written: most writes are of that kind, and need no thought about steps.
func there(current []model.Slice, incoming model.Slice, target hints.Set) bool {
	for _, s := range current {
		final := finals(s, target)
		for _, e := range s.Endpoints {
			has := hints.Hint{Zones: e.ZoneHints, Nodes: e.NodeHints}
			fresh := s.Name == incoming.Name && has.Equal(hints.Hint{})
			if !fresh && !has.Equal(final[e.Addr]) {
				return false
			}
		}
	}
	return true
}

// finals are the hints that the endpoints of a slice should have in the end. Those that the plan does
// not know yet get hints too, or all others' would be ignored.
func finals(s model.Slice, target hints.Set) map[netip.Addr]hints.Hint {
	byNode := false
	for _, h := range target.Of {
		byNode = byNode || len(h.Nodes) > 0
	}
	out := make(map[netip.Addr]hints.Hint, len(s.Endpoints))
	for _, e := range s.Endpoints {
		h, planned := target.Of[e.Addr]
		if !planned {
			if h = hints.Unplanned(e); !byNode {
				h.Nodes = nil
			}
		}
		out[e.Addr] = h
	}
	return out
}
