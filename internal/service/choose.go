package service

import (
	"fmt"
	"slices"

	"github.com/zonewise/zonewise/internal/model"
)

// cluster returns the endpoints that policy Cluster uses on the node, and the rule that chose
// them. Hints are obeyed only if every ready endpoint carries one and one at least names the
// node (else its zone): a set of hints that is being written, or that forgot this zone, must
// not cut the node off. The result is empty only if no endpoint is ready or still serves.
func (e endpoints) cluster(node model.Node) (endpoints, string) {
	ready := e.filter(func(ep endpoint) bool { return ep.Ready })
	if len(ready) == 0 {
		return e.filter(endpoint.leaving), "terminating: no endpoint is ready"
	}

	byNode := census(ready, node.Name, func(ep endpoint) []string { return ep.NodeHints })
	if byNode.obey() {
		return byNode.named, "node hints"
	}
	byZone := census(ready, node.Zone, func(ep endpoint) []string { return ep.ZoneHints })
	if byZone.obey() {
		return byZone.named, "zone hints: " + node.Zone
	}
	return ready, "all endpoints: " + whyAll(node, ready, byNode, byZone)
}

// local returns the endpoints that policy Local uses, and whether these are terminating ones.
// Hints play no part in it.
func (e endpoints) local() (endpoints, bool) {
	ready := e.filter(func(ep endpoint) bool { return ep.local && ep.Ready })
	if len(ready) > 0 {
		return ready, false
	}
	leaving := e.filter(func(ep endpoint) bool { return ep.local && ep.leaving() })
	return leaving, len(leaving) > 0
}

// tally is what one kind of hint says, over all ready endpoints.
type tally struct {
	hinted int       // endpoints with a hint of this kind
	bare   *endpoint // the first without one
	named  endpoints // those whose hint names us
}

func census(ready endpoints, us string, hints func(endpoint) []string) tally {
	var t tally
	for i, ep := range ready {
		names := hints(ep)
		if len(names) == 0 {
			if t.bare == nil {
				t.bare = &ready[i]
			}
			continue
		}
		t.hinted++
		if slices.Contains(names, us) {
			t.named = append(t.named, ep)
		}
	}
	return t
}

func (t tally) obey() bool { return t.bare == nil && len(t.named) > 0 }

// whyAll names the reason why no hint is obeyed, in words for the one who wrote the hints.
func whyAll(node model.Node, ready endpoints, byNode, byZone tally) string {
	switch {
	case byZone.hinted == 0 && byNode.hinted == 0:
		return "no hints"
	case byZone.hinted == 0 && byNode.bare != nil:
		return byNode.bare.label() + " has no node hint"
	case byZone.hinted == 0:
		return "no hint names node " + node.Name
	case byZone.bare != nil:
		return byZone.bare.label() + " has no zone hint"
	case node.Zone == "":
		return "this node has no zone"
	}
	return fmt.Sprintf("no hint names zone %s", node.Zone)
}
