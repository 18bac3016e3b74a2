package meter

import (
	"github.com/zonewise/zonewise/internal/model"
)

// Cause is why bytes crossed zones, in a word or two.
type Cause string

// The causes.
const (
	NotAService  Cause = "not a Service"       // no Service was dialled: nobody chose among endpoints
	Headless     Cause = "headless"            // the client chose among a headless Service's endpoints itself
	NodeDialled  Cause = "node dialled"        // the client went to a node of another zone for a node port
	NoPlan       Cause = "no plan"             // nothing is known of the Service's endpoints
	NoEndpoint   Cause = "no endpoint in zone" // nowhere nearer to go
	Drained      Cause = "drained"             // the client's zone is: its endpoints are spared
	Bound        Cause = "bound"               // the plan sends a part there, or endpoints would be overloaded
	NoHints      Cause = "no hints"            // nobody told the client's node which endpoints are near
	AskedAway    Cause = "upstream's hints"    // those that are there send it elsewhere, or nobody heeds them
	LongLived    Cause = "long-lived"          // the connections were there before, and stay where they are
	AgainstPlan  Cause = "off plan"            // new connections go where the plan sends none
	UnknownCause Cause = "unknown"             // it is not known what was dialled
)

// Reason is a cause and what more there is to say.
type Reason struct {
	Cause  Cause
	Detail string // empty if there is nothing to add
}

// String prints "no hints: nothing was asked for".
func (r Reason) String() string {
	if r.Detail == "" {
		return string(r.Cause)
	}
	return string(r.Cause) + ": " + r.Detail
}

// Routing is what is known of how the connections to a Service are led, in one family.
type Routing struct {
	Mode     model.Mode       // in force
	Plan     *model.RoutePlan // nil: none
	Weighted bool             // the client's node follows the plan's weights itself; else it depends on hints
}

// Why tells why a flow crossed zones; it is meant for flows that do.
func Why(f model.Flow, r Routing) Reason {
	switch {
	case f.Via == model.ViaHeadless:
		return Reason{Cause: Headless}
	case f.Via == model.ViaUnknown:
		return Reason{Cause: UnknownCause}
	case f.Service == (model.Name{}):
		return Reason{Cause: NotAService}
	case f.Via != model.ViaClusterIP && toNode(f.FlowKey):
		return Reason{Cause: NodeDialled}
	case r.Plan == nil:
		return Reason{Cause: NoPlan}
	}
	home := zonePlan(r.Plan, f.Client.Zone)
	if home.Endpoints == 0 {
		return Reason{Cause: NoEndpoint}
	}
	if r.Mode != model.Optimal {
		return unled(f, r.Plan.Upstream)
	}
	switch {
	case !r.Weighted && r.Plan.Hints.None:
		return Reason{NoHints, r.Plan.Hints.Reason}
	case home.Drained:
		return Reason{Cause: Drained}
	case home.Weights.Of(f.Server.Zone) > 0:
		return Reason{Cause: Bound}
	case f.Connections == 0:
		return Reason{Cause: LongLived}
	}
	return Reason{Cause: AgainstPlan}
}

// unled is the reason where no plan of ours is in force.
func unled(f model.Flow, v model.Verdict) Reason {
	switch {
	case v.Asked == "":
		return Reason{NoHints, "nothing was asked for"}
	case !v.Hints && v.Inequality != "":
		return Reason{NoHints, v.Inequality}
	case !v.Hints:
		return Reason{NoHints, v.Reason}
	case f.Connections == 0:
		return Reason{Cause: LongLived}
	}
	return Reason{Cause: AskedAway}
}

func zonePlan(p *model.RoutePlan, zone string) model.ZonePlan {
	for _, z := range p.Zones {
		if z.Name == zone {
			return z
		}
	}
	return model.ZonePlan{}
}
