package routes

import (
	"math"
	"net/netip"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/zonewise/zonewise/api/v1alpha1"
	"github.com/zonewise/zonewise/internal/hints"
	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/outlook"
	"github.com/zonewise/zonewise/internal/reflect"
	"github.com/zonewise/zonewise/internal/route"
)

var moment = time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.UTC)

func share(a, b float64) model.Shares {
	return model.Shares{{Zone: "a", Share: a}, {Zone: "b", Share: b}}
}

// optimal is a plan in force: half of b's connections go to a.
func optimal() verdict {
	p := model.RoutePlan{
		MaxOverload: 0.2, Demand: model.Demand{Source: model.NodeCPU, Shares: share(0.5, 0.5)},
		Zones: []model.ZonePlan{
			{Name: "a", Demand: 0.5, Endpoints: 3, Capacity: 0.75, Load: 1, Weights: share(1, 0)},
			{Name: "b", Demand: 0.5, Endpoints: 1, Capacity: 0.25, Load: 1, Weights: share(0.5, 0.5)},
		},
		InZone: model.Outcome{Before: 0.5, Planned: 0.75, Ideal: 0.75}, MaxLoad: 1, BeforeLoad: 1,
		PerTB: model.Outcome{Before: 10, Planned: 5, Ideal: 5}, Hints: model.HintOutcome{InZone: 0.7, MaxLoad: 1.1},
		Upstream:   model.Verdict{Reason: "too few endpoints", Inequality: "1 < 2", Fix: "one more pod"},
		Capacities: []model.Capacity{{Addr: netip.MustParseAddr("192.168.1.1"), Capacity: 0.1 + 0.2}},
		Reason:     "zone b is at its bound", Fix: "one more pod in zone b", At: moment,
	}
	set := hints.Set{Forecast: hints.Forecast{Matrix: model.Matrix{{Zone: "a", To: share(1, 0)}, {Zone: "b", To: share(0.66, 0.34)}}}}
	return verdict{Service: outlook.Service{Name: model.Name{Namespace: "default", Name: "web"}, Mode: model.Optimal, ModeFrom: "ZoneRoute",
		Families: []outlook.Family{{RoutePlan: p, HintSet: set}}}}
}

func inMode(m model.Mode, from string) verdict {
	v := optimal()
	v.Mode, v.ModeFrom = m, from
	return v
}

func TestAppliedSaysHow(t *testing.T) {
	refused, held := optimal(), optimal()
	refused.Families[0].Hints = model.HintOutcome{None: true, Reason: "too few nodes"}
	held.Families[0].InZone.Ideal = 0.9
	for _, c := range []struct {
		what string
		v    verdict
		e    evidence
		was  string // reason
		want string
	}{
		{"observed", inMode(model.Observe, "namespace"), evidence{agents: 5}, "", "False Observing the mode is Observe by the namespace's label: traffic is left as it is"},
		{"asked of upstream", inMode(model.Observe, "topology-mode Auto"), evidence{}, "",
			"False Observing the mode is Observe, since the Service asks for topology-mode Auto: traffic is left as it is"},
		{"off", inMode(model.Off, "cluster"), evidence{agents: 5}, "", "False Off the mode is Off by the cluster's default"},
		{"agents", optimal(), evidence{agents: 5}, "", "True WeightsPublished agents choose by the weights of this plan"},
		{"a plan that is held applies, too", held, evidence{agents: 5}, "", "True WeightsPublished agents choose by the weights of this plan"},
		{"hints", optimal(), evidence{standing: Delivering, carried: true}, "", "True HintsDelivered the hints of the EndpointSlices follow this plan"},
		{"hints on their way", optimal(), evidence{standing: Delivering}, "", "False HintsPending hints are on their way"},
		{"hints on their way again", optimal(), evidence{standing: Delivering}, "HintsDelivered", "True HintsDelivered as before"},
		{"a new leader tries", optimal(), evidence{standing: Trying}, "HintsDelivered", "True HintsDelivered as before"},
		{"no hints possible, agents", refused, evidence{agents: 5, standing: Delivering, carried: true}, "HintsDelivered",
			"True WeightsPublished agents choose by the weights of this plan; no hints: too few nodes"},
		{"no hints possible", refused, evidence{standing: Delivering, carried: true}, "", "False NoHints no hints: too few nodes; no agent runs"},
		{"withdrawn, agents", optimal(), evidence{agents: 1, standing: Withdrawn, why: "WebhookLags"}, "HintsDelivered",
			"True HintsWithdrawn agents choose by the weights of this plan; hints are withdrawn: WebhookLags"},
		{"nobody", optimal(), evidence{}, "", "False NobodyListens no agent runs, and hints are not delivered"},
		{"nobody looked", optimal(), evidence{agents: -1}, "", "Unknown Starting it is not known yet whether agents run"},
		{"nobody looked since", optimal(), evidence{agents: -1}, "WeightsPublished", "True WeightsPublished as before"},
		{"nobody looked, and it was observed", optimal(), evidence{agents: -1}, "Observing", "Unknown Starting it is not known yet whether agents run"},
	} {
		var before model.RouteStatus
		if c.was != "" {
			before.Conditions = []model.Condition{{Type: Applied, Status: yes, Reason: c.was, Message: "as before", Since: moment.Add(-time.Hour)}}
		}
		got := condition(status(c.v, before, 1, c.e, moment), Applied)
		if text := got.Status + " " + got.Reason + " " + got.Message; text != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.what, text, c.want)
		}
		if since := got.Since.Equal(moment); since == (c.was != "" && got.Status == yes) {
			t.Errorf("%s: since %v", c.what, got.Since)
		}
	}
}

func TestPlannedSaysWhetherItIsTheOptimum(t *testing.T) {
	held := optimal()
	held.Families[0].InZone.Ideal, held.Families[0].Next = 0.9, moment
	c := condition(status(held, model.RouteStatus{}, 1, evidence{}, moment), Planned)
	if c.Reason != "Held" || c.Message != "75.0% of the connections stay in their zone by the plan, 90.0% at best as soon as it may change again; zone b is at its bound; one more pod in zone b" {
		t.Errorf("%+v", c)
	}
	dual := optimal()
	dual.Families = append(dual.Families, dual.Families[0])
	dual.Families[1].V6 = true
	c = condition(status(dual, model.RouteStatus{}, 1, evidence{}, moment), Planned)
	if c.Reason != "Optimum" || !strings.HasPrefix(c.Message, "IPv4: 75.0%") || !strings.Contains(c.Message, ". IPv6: 75.0%") {
		t.Errorf("%+v", c)
	}
}

func TestObeyedLooksAtTheWorstFamily(t *testing.T) {
	as := func(v6 bool, fromB uint64) seen {
		return seen{v6, []route.Counted{{From: "b", To: "a", Connections: 10000 - fromB}, {From: "b", To: "b", Connections: fromB}}}
	}
	dual := optimal()
	dual.Families = append(dual.Families, dual.Families[0])
	dual.Families[1].V6 = true
	hinted := optimal()
	hinted.carried = true
	for _, c := range []struct {
		what    string
		v       verdict
		counted []seen
		want    string
	}{
		{"by plan", optimal(), []seen{as(false, 5000)}, "True AsPlanned"},
		{"not by plan", optimal(), []seen{as(false, 3400)}, "False OffPlan"},
		{"by hints", hinted, []seen{as(false, 3400)}, "True AsHinted"},
		{"by neither", hinted, []seen{as(false, 1000)}, "False OffPlan"},
		{"one family", dual, []seen{as(false, 5000), as(true, 1000)}, "False OffPlan"},
		{"a family without traffic", dual, []seen{as(false, 5000), {v6: true}}, "True AsPlanned"},
		{"no traffic", optimal(), []seen{{}}, "Unknown TooFewConnections"},
		{"nobody looked", optimal(), nil, "Unknown NoCounters"},
	} {
		got := condition(status(c.v, model.RouteStatus{}, 1, evidence{agents: 1, counted: c.counted}, moment), Obeyed)
		if text := got.Status + " " + got.Reason; text != c.want {
			t.Errorf("%s: %s (%s), want %s", c.what, text, got.Message, c.want)
		}
	}
	// a cluster that keeps its proxy
	if got := condition(status(optimal(), model.RouteStatus{}, 1, evidence{agents: 0, counted: []seen{{}}}, moment), Obeyed); got.Status+" "+got.Reason != "Unknown NoCounters" {
		t.Errorf("no agents: %+v", got)
	}
}

func TestSummary(t *testing.T) {
	rated := optimal()
	rated.Families[0].Demand.BytesPerSecond = 1e6 // 2.628 TB a month
	got := status(rated, model.RouteStatus{}, 1, evidence{agents: 1}, moment).Summary
	if want := (model.Summary{InZone: "75%", Planned: "75%", MaxLoad: "1.00", CostPerMonth: "$13.14", Reason: "zone b is at its bound"}); got != want {
		t.Errorf("%+v", got)
	}
	if got := status(optimal(), model.RouteStatus{}, 1, evidence{standing: Delivering}, moment).Summary; got.InZone != "70%" || got.CostPerMonth != "$5.00/TB" {
		t.Errorf("by hints: %+v", got)
	}
	if got := status(inMode(model.Observe, ""), model.RouteStatus{}, 1, evidence{agents: 1}, moment).Summary; got.InZone != "50%" || got.Planned != "75%" {
		t.Errorf("observed: %+v", got)
	}
	if got := status(inMode(model.Off, ""), model.RouteStatus{}, 1, evidence{}, moment).Summary; got != (model.Summary{Reason: "off"}) {
		t.Errorf("off: %+v", got)
	}
	long := short(strings.Repeat("zone ähnlich, ", 20))
	if utf8.RuneCountInString(long) > reasonLength || !strings.HasSuffix(long, "ähnlich…") && !strings.HasSuffix(long, "zone…") {
		t.Errorf("%q", long)
	}
}

// What is written and read again is what was written: else each pass would write.
func TestAStatusSurvivesTheAPI(t *testing.T) {
	seen := evidence{agents: 2, traffic: []gauge{{judged: true, told: model.Realised{At: moment, BytesPerSecond: 1e6,
		InZone: model.Compared{Now: 0.7, Planned: 0.75, Before: 0.5}, PerMonth: model.Compared{Now: 15, Planned: 13, Before: 26}}}}}
	wrote := status(optimal(), model.RouteStatus{}, 3, seen, moment)
	read := reflect.Route(&v1alpha1.ZoneRoute{Status: reflect.Status(wrote)}).Status
	if differs(read, wrote) {
		t.Errorf("%+v\nis read as\n%+v", wrote, read)
	}
	if again := status(optimal(), read, 3, seen, moment.Add(time.Hour)); differs(read, again) {
		t.Errorf("%+v\nbecomes\n%+v", read, again)
	}
	for what, change := range map[string]func(*model.RouteStatus){
		"mode":       func(s *model.RouteStatus) { s.Mode = model.Observe },
		"generation": func(s *model.RouteStatus) { s.Generation++ },
		"summary":    func(s *model.RouteStatus) { s.Summary.Reason += "!" },
		"a weight":   func(s *model.RouteStatus) { s.Plans[0].Zones[1].Weights[0].Share += 1e-6 },
		"no number":  func(s *model.RouteStatus) { s.Plans[0].MaxLoad = math.NaN() },
		"an address": func(s *model.RouteStatus) { s.Plans[0].Capacities[0].Addr = netip.MustParseAddr("192.168.1.2") },
		"a zone":     func(s *model.RouteStatus) { s.Plans[0].Zones = s.Plans[0].Zones[:1] },
		"a message":  func(s *model.RouteStatus) { s.Conditions[0].Message += "!" },
		"a verdict":  func(s *model.RouteStatus) { s.Plans[0].Upstream.Hints = true },
		"traffic":    func(s *model.RouteStatus) { s.Plans[0].Measured.InZone.Now += 1e-6 },
		"its end":    func(s *model.RouteStatus) { s.Plans[0].Measured = model.Realised{} },
	} {
		other := reflect.Route(&v1alpha1.ZoneRoute{Status: reflect.Status(wrote)}).Status
		change(&other)
		if !differs(read, other) {
			t.Errorf("%s may change unseen", what)
		}
	}
	for what, change := range map[string]func(*model.RouteStatus){
		"rounding": func(s *model.RouteStatus) { s.Plans[0].Zones[1].Weights[0].Share += 1e-12 },
		"times":    func(s *model.RouteStatus) { s.Plans[0].At, s.Conditions[0].Since = moment, moment },
	} {
		other := reflect.Route(&v1alpha1.ZoneRoute{Status: reflect.Status(wrote)}).Status
		change(&other)
		if differs(read, other) {
			t.Errorf("%s is worth a write", what)
		}
	}
}
