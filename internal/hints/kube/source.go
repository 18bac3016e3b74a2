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
	// Any tells whether there is a Service whose hints are to be delivered at all.
	Any() bool
	// Services returns the names of all that have slices.
	Services() []model.Name
	// Slices returns all slices of a Service, of both families.
	Slices(svc model.Name) []model.Slice
	// Target returns the hints that a Service's endpoints of one family should carry in the end. The
	// slices are those of the family, the one that is being written among them as it will be. False
	// if hints are none of our business: another mode, or nothing can be planned. An error is
	// a reason to leave a slice alone for now: the tables are not complete.
	Target(svc model.Name, v6 bool, slices []model.Slice) (hints.Set, bool, error)
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
	if !ours || len(target.Of) == 0 {
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

// answer returns what a slice should carry now: its next step, if it is the one to take it. Otherwise
// its endpoints keep what they have, and those that have nothing get at once what they will have.
func answer(current []model.Slice, incoming model.Slice, target hints.Set) map[netip.Addr]hints.Hint {
	var step map[netip.Addr]hints.Hint
	steps := hints.Steps(current, target)
	settled := len(steps) == 0
	if !settled && steps[0].Slice == incoming.Name {
		step = steps[0].Hints
	}
	out := map[netip.Addr]hints.Hint{}
	for _, e := range incoming.Endpoints {
		has := hints.Hint{Zones: e.ZoneHints, Nodes: e.NodeHints}
		final, planned := target.Of[e.Addr]
		if !planned {
			final = hints.Unplanned(e)
		}
		if h, ok := step[e.Addr]; ok {
			out[e.Addr] = h
		} else if settled || has.Equal(hints.Hint{}) {
			out[e.Addr] = final
		} else {
			out[e.Addr] = has
		}
	}
	return out
}
