package routes

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/outlook"
	"github.com/zonewise/zonewise/internal/route"
)

// The types of conditions.
const (
	Planned = "Planned"
	Applied = "Applied"
	Obeyed  = "Obeyed"
)

// The values of a condition.
const (
	yes     = "True"
	no      = "False"
	unknown = "Unknown"
)

// Standing tells how the delivery of hints stands, for all Services together.
type Standing string

// The standings. The empty one means that hints are not delivered at all.
const (
	Trying     Standing = "Trying"
	Delivering Standing = "Delivering"
	Withdrawn  Standing = "Withdrawn" // they would do harm, or do not get through
)

// evidence is what is known of a Service besides its plan.
type evidence struct {
	agents   int // how many run; -1: nobody has looked yet
	standing Standing
	why      string  // hints were withdrawn
	carried  bool    // the Service's slices carry its hints
	counted  []seen  // by family, as the Service has them; nil: nobody has looked long enough
	traffic  []gauge // likewise; none where there is no meter
}

// measured is what the traffic of the family at an index did; zero where it is not known.
func (e evidence) measured(i int) model.Realised {
	if i < len(e.traffic) {
		return e.traffic[i].told
	}
	return model.Realised{}
}

// seen is what agents counted of one family.
type seen struct {
	v6    bool
	pairs []route.Counted
}

// verdict is what can be said about a ZoneRoute: an outlook, or why there is none.
type verdict struct {
	outlook.Service
	reason  string // CamelCase: why nothing can be planned; empty if all is well
	carried bool   // its slices carry its hints
}

// status is the status that a ZoneRoute should have, the one before being given.
func status(v verdict, before model.RouteStatus, generation int64, e evidence, now time.Time) model.RouteStatus {
	out := model.RouteStatus{Generation: generation, Mode: v.Mode}
	if v.Mode != model.Off {
		for i, f := range v.Families {
			f.Measured = e.measured(i)
			out.Plans = append(out.Plans, f.RoutePlan)
		}
	}
	was := func(kind string) model.Condition { return condition(before, kind) }
	planned := plannedCondition(v)
	applied := appliedCondition(v, planned, e, was(Applied))
	obeyed := obeyedCondition(v, planned, e, was(Obeyed))
	out.Summary = summary(v, planned, before, e)
	if obeyed.Status == was(Obeyed).Status && obeyed.Reason == was(Obeyed).Reason && out.Summary.InZone == before.Summary.InZone {
		obeyed.Message = was(Obeyed).Message // the same in other figures is no news
	}
	out.Conditions = []model.Condition{applied, obeyed, planned}
	slices.SortFunc(out.Conditions, func(a, b model.Condition) int { return strings.Compare(a.Type, b.Type) })
	for i := range out.Conditions {
		c := &out.Conditions[i]
		c.Since = now
		if old := was(c.Type); old.Status == c.Status && !old.Since.IsZero() {
			c.Since = old.Since
		}
	}
	return out
}

// condition returns the condition of a type; a zero one if there is none.
func condition(s model.RouteStatus, kind string) model.Condition {
	for _, c := range s.Conditions {
		if c.Type == kind {
			return c
		}
	}
	return model.Condition{}
}

func plannedCondition(v verdict) model.Condition {
	is := func(status, reason, message string) model.Condition {
		return model.Condition{Type: Planned, Status: status, Reason: reason, Message: message}
	}
	if v.reason != "" {
		return is(no, v.reason, v.Problem)
	}
	if v.Mode == model.Off {
		return is(no, "Off", "the mode is Off"+said(v.ModeFrom)+": nothing is planned")
	}
	if endpoints(v.Service) == 0 {
		return is(no, "NoEndpoints", fmt.Sprintf("Service %s has no ready endpoint", v.Name))
	}
	var parts []string
	reason := "Optimum"
	for _, f := range v.Families {
		part := fmt.Sprintf("%s of the connections stay in their zone by the plan", percent(f.InZone.Planned))
		if f.InZone.Ideal > f.InZone.Planned+0.0005 { // what a figure with one decimal shows
			reason = "Held"
			part += fmt.Sprintf(", %s at best", percent(f.InZone.Ideal))
			if !f.Next.IsZero() {
				part += " as soon as it may change again"
			}
		}
		if len(v.Families) > 1 {
			part = family(f.V6) + ": " + part
		}
		for _, more := range []string{f.Reason, f.Fix} {
			if more != "" {
				part += "; " + more
			}
		}
		parts = append(parts, part)
	}
	return is(yes, reason, strings.Join(parts, ". "))
}

// appliedCondition says by what means a plan reaches traffic. What a Service has that changes all
// the time, such as hints on their way, is no news as long as it had them before.
func appliedCondition(v verdict, planned model.Condition, e evidence, was model.Condition) model.Condition {
	is := func(status, reason, message string) model.Condition {
		return model.Condition{Type: Applied, Status: status, Reason: reason, Message: message}
	}
	const weights, withdrawn = "agents choose by the weights of this plan", "hints are withdrawn: "
	refused := refusal(v)
	switch {
	case v.Mode == model.Off:
		return is(no, "Off", "the mode is Off"+said(v.ModeFrom))
	case v.Mode == model.Observe:
		return is(no, "Observing", "the mode is Observe"+said(v.ModeFrom)+": traffic is left as it is")
	case planned.Status != yes:
		return is(no, "NothingPlanned", "there is no plan to apply")
	case e.standing == Delivering && refused == "" && e.carried:
		return is(yes, "HintsDelivered", "the hints of the EndpointSlices follow this plan")
	case (e.standing == Delivering || e.standing == Trying) && refused == "" && was.Reason == "HintsDelivered":
		return was
	case e.agents < 0 && was.Type != "" && was.Reason != "Off" && was.Reason != "Observing" && was.Reason != "NothingPlanned":
		return was
	case e.agents < 0:
		return is(unknown, "Starting", "it is not known yet whether agents run")
	case e.standing == Withdrawn && e.agents > 0:
		return is(yes, "HintsWithdrawn", join(weights, withdrawn+e.why))
	case e.standing == Withdrawn:
		return is(no, "HintsWithdrawn", join(withdrawn+e.why, "no agent runs"))
	case e.agents > 0:
		return is(yes, "WeightsPublished", join(weights, refused))
	case e.standing == "":
		return is(no, "NobodyListens", "no agent runs, and hints are not delivered")
	case refused != "":
		return is(no, "NoHints", join(refused, "no agent runs"))
	}
	return is(no, "HintsPending", "hints are on their way")
}

// refusal says why no family gets hints; empty if one does.
func refusal(v verdict) string {
	why := ""
	for _, f := range v.Families {
		if !f.Hints.None {
			return ""
		}
		why = "no hints: " + f.Hints.Reason
	}
	return why
}

// obeyedCondition judges by the connections that were counted, and by the bytes that go beside the plan:
// connections that are older than it, and those that never asked the Service, are in no count.
func obeyedCondition(v verdict, planned model.Condition, e evidence, was model.Condition) model.Condition {
	counted := was
	if beside(was) {
		counted = model.Condition{}
	}
	out := countedCondition(v, planned, e, counted)
	if out.Status == no && out == was {
		return was // as it was said, names and all
	}
	if v.Mode != model.Optimal || planned.Status != yes {
		return out
	}
	if beside(was) && slices.ContainsFunc(e.traffic, func(g gauge) bool { return !g.judged }) {
		return was // nobody has looked since
	}
	for i, g := range e.traffic {
		text := g.blame.text(out.Status == no)
		if text == "" {
			continue
		}
		if len(v.Families) > 1 {
			text = family(v.Families[i].V6) + ": " + text
		}
		if out.Status == no {
			out.Message = join(out.Message, text)
		} else if reason, grave := g.blame.graveness(was); grave {
			out = model.Condition{Type: Obeyed, Status: no, Reason: reason, Message: text}
		}
	}
	return out
}

// countedCondition judges by counts. Where they are too few, what was found before holds on, unless
// the plan is another now.
func countedCondition(v verdict, planned model.Condition, e evidence, was model.Condition) model.Condition {
	is := func(status, reason, message string) model.Condition {
		return model.Condition{Type: Obeyed, Status: status, Reason: reason, Message: message}
	}
	switch {
	case v.Mode != model.Optimal:
		return is(unknown, "NotApplied", "no plan is applied")
	case planned.Status != yes:
		return is(unknown, "NothingPlanned", "there is no plan to obey")
	case e.agents == 0:
		return is(unknown, "NoCounters", "no agent runs, so nobody counts")
	case e.counted == nil && was.Type != "" && was.Reason != "NotApplied" && was.Reason != "NothingPlanned":
		return was
	case e.counted == nil:
		return is(unknown, "NoCounters", "no agent has counted connections yet")
	}
	worst := model.Condition{}
	for _, f := range v.Families {
		for _, s := range e.counted {
			if s.v6 != f.V6 {
				continue
			}
			c := is(route.Obeyed(f.RoutePlan, s.pairs))
			if c.Status == no && v.carried {
				if hinted := is(route.Obeyed(byHints(f), s.pairs)); hinted.Status == yes {
					c = is(yes, "AsHinted", hinted.Message+", by hints")
				}
			}
			if len(v.Families) > 1 {
				c.Message = family(f.V6) + ": " + c.Message
			}
			if worst.Type == "" || graver(c.Status, worst.Status) {
				worst = c
			}
		}
	}
	if worst.Type == "" {
		return is(unknown, "NoCounters", "no agent has counted connections yet")
	}
	if worst.Status == unknown && (was.Status == yes || was.Status == no) {
		return was
	}
	return worst
}

// byHints is a plan as consumers make it out from hints, which come as close to it as they can.
func byHints(f outlook.Family) model.RoutePlan {
	p := f.RoutePlan
	p.Zones = slices.Clone(p.Zones)
	for i := range p.Zones {
		p.Zones[i].Weights = f.HintSet.Forecast.Matrix.Of(p.Zones[i].Name)
	}
	return p
}

// graver puts False before True before Unknown: a family without traffic does not hide the other.
func graver(a, b string) bool {
	rank := map[string]int{no: 2, yes: 1, unknown: 0}
	return rank[a] > rank[b]
}

func endpoints(s outlook.Service) int {
	n := 0
	for _, f := range s.Families {
		for _, z := range f.Zones {
			n += z.Endpoints
		}
	}
	return n
}

func family(v6 bool) string {
	if v6 {
		return "IPv6"
	}
	return "IPv4"
}

// said tells where a mode comes from, unless it is the ZoneRoute itself, which readers have before them.
func said(from string) string {
	switch from {
	case "", "ZoneRoute":
		return ""
	case "namespace":
		return " by the namespace's label"
	case "cluster":
		return " by the cluster's default"
	}
	return ", since the Service asks for " + from
}

func join(parts ...string) string {
	return strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), "; ")
}
