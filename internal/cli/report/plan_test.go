package report

import (
	"bytes"
	"encoding/json"
	"io"
	"net/netip"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/zonewise/zonewise/internal/golden"
	"github.com/zonewise/zonewise/internal/hints"
	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/outlook"
	"github.com/zonewise/zonewise/internal/route"
)

func zone(name string, demand float64, endpoints int, capacity, load float64, weights ...model.Share) model.ZonePlan {
	return model.ZonePlan{Name: name, Demand: demand, Endpoints: endpoints, Capacity: capacity, Load: load, Weights: weights}
}

const za, zb, zc = "ap-northeast-2a", "ap-northeast-2b", "ap-northeast-2c"

// web is a Service with endpoints in the proportion 4:4:3, which upstream refuses.
func web() model.RoutePlan {
	return model.RoutePlan{
		MaxOverload: .2, Demand: model.Demand{Source: model.NodeCPU, BytesPerSecond: 1e7},
		Zones: []model.ZonePlan{
			zone(za, 1./3, 4, 4./11, .92, model.Share{Zone: za, Share: 1}),
			zone(zb, 1./3, 4, 4./11, .92, model.Share{Zone: zb, Share: 1}),
			zone(zc, 1./3, 3, 3./11, 1.2, model.Share{Zone: za, Share: .009}, model.Share{Zone: zb, Share: .009}, model.Share{Zone: zc, Share: .982}),
		},
		InZone: model.Outcome{Before: 1. / 3, Planned: .994, Ideal: .994}, MaxLoad: 1.2, BeforeLoad: 1,
		PerTB: model.Outcome{Before: 40. / 3, Planned: .12, Ideal: .12},
		Hints: model.HintOutcome{InZone: .944, MaxLoad: 1.19, Reason: "two nodes a zone are coarse"},
		Upstream: model.Verdict{Reason: "Unable to allocate minimum required endpoints to each zone", Inequality: "zone c: 3 endpoints, needs ceil(11 × 0.333 / 1.2) = 4",
			Culprit: "node n7", Fix: "12 endpoints (1 more)"},
		Reason: "zone ap-northeast-2c is at its bound 1.2", Fix: "one more pod in zone ap-northeast-2c",
	}
}

// hot is above its bound without us, moves step by step, and lacks a zone.
func hot() model.RoutePlan {
	return model.RoutePlan{
		V6: true, MaxOverload: .2, Demand: model.Demand{Source: model.Measured},
		Zones: []model.ZonePlan{
			zone("", .1, 0, 0, 0, model.Share{Zone: za, Share: 1}),
			zone(za, .5, 2, 1, 1, model.Share{Zone: za, Share: 1}),
			zone(zb, .4, 0, 0, 0, model.Share{Zone: za, Share: 1}),
			{Name: zc, Endpoints: 1, Drained: true},
		},
		InZone: model.Outcome{Before: 1, Planned: .4, Ideal: .5}, MaxLoad: 1.1, BeforeLoad: 2.5, Reason: "moving",
		Hints:    model.HintOutcome{None: true, Reason: "no set keeps the bound"},
		Upstream: model.Verdict{Asked: "trafficDistribution PreferClose", Hints: true},
	}
}

func lookouts() []outlook.Service {
	set := hints.Set{Of: map[netip.Addr]hints.Hint{netip.MustParseAddr("10.0.0.1"): {}}, Older: hints.Forecast{InZone: .7, MaxLoad: 1.3}}
	empty := model.RoutePlan{MaxOverload: .2, Upstream: model.Verdict{Reason: "Insufficient number of endpoints (0 endpoints, 3 zones)"}, Reason: "no endpoint is ready", Zones: []model.ZonePlan{zone(za, 1, 0, 0, 0)}}
	return []outlook.Service{
		{Name: model.Name{Namespace: "shop", Name: "web"}, Mode: model.Optimal, ModeFrom: "ZoneRoute", Families: []outlook.Family{{RoutePlan: web(), HintSet: set}, {RoutePlan: hot()}}},
		{Name: model.Name{Namespace: "shop", Name: "broken"}, Mode: model.Observe, ModeFrom: "cluster", Problem: "ZoneRoute shop/broken: spec.maxOverload: 10 is more than 4"},
		{Name: model.Name{Namespace: "kube-system", Name: "a-name-that-is-longer-than-the-column-for-names"}, Mode: model.Off, ModeFrom: "namespace", Families: []outlook.Family{{RoutePlan: empty}}},
		{Name: model.Name{Namespace: "shop", Name: "local"}, Mode: model.Observe, ModeFrom: "trafficDistribution PreferClose", Problem: "Service shop/local: nothing to plan"},
	}
}

func quiet(n model.Name) bool { return n.Name == "local" }

func text(t *testing.T, write func(io.Writer) error) string {
	t.Helper()
	var b bytes.Buffer
	if err := write(&b); err != nil {
		t.Fatal(err)
	}
	for _, l := range strings.Split(b.String(), "\n") {
		if n := utf8.RuneCountInString(l); n > width {
			t.Errorf("%d columns: %s", n, l)
		}
		if strings.TrimRight(l, " ") != l {
			t.Errorf("ends in spaces: %q", l)
		}
	}
	return b.String()
}

func TestPlanTable(t *testing.T) {
	p := MakePlan(lookouts(), quiet)
	p.WhatIf = []string{"zone ap-northeast-2c lost"}
	golden.Check(t, "plan.txt", text(t, func(w io.Writer) error { return PlanTable(w, p) }))
}

func TestPlanOfOneService(t *testing.T) {
	p := MakePlan(lookouts()[:1], quiet)
	p.Advise(func(_ model.Name, v6 bool) (route.Advice, bool) {
		if v6 {
			return route.Advice{Wish: .99, InZone: 1}, true
		}
		return route.Advice{Wish: .99, InZone: .9, Adds: []route.Add{{Zone: zc, Pods: 2}, {Zone: zb, Pods: 1}}, Added: .995,
			Moves: []route.Move{{From: za, To: zc, Pods: 1}}, Moved: .991}, true
	})
	golden.Check(t, "plan_one.txt", text(t, func(w io.Writer) error {
		if err := PlanTable(w, p); err != nil {
			return err
		}
		if err := PlanZones(w, p); err != nil {
			return err
		}
		return PlanAdvice(w, p)
	}))
}

func TestPlanJSON(t *testing.T) {
	b, err := json.MarshalIndent(MakePlan(lookouts()[:2], quiet), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden.Check(t, "plan.json", string(b)+"\n")
}

func TestNoServices(t *testing.T) {
	p := MakePlan(nil, quiet)
	if got := text(t, func(w io.Writer) error { return PlanTable(w, p) }); got != "No Services.\n" {
		t.Errorf("%q", got)
	}
	b, err := json.Marshal(p)
	if err != nil || !strings.Contains(string(b), `"services":[]`) {
		t.Errorf("%s, %v", b, err)
	}
}

// Totals go by bytes only where the bytes of all are known.
func TestTotals(t *testing.T) {
	plan := func(name string, before, planned, rate float64) outlook.Service {
		p := web()
		p.InZone, p.Demand.BytesPerSecond = model.Outcome{Before: before, Planned: planned, Ideal: planned}, rate
		p.PerTB = model.Outcome{Before: 1e9 / (730 * 3.6)}
		return outlook.Service{Name: model.Name{Name: name}, Families: []outlook.Family{{RoutePlan: p}}}
	}
	both := MakePlan([]outlook.Service{plan("a", .1, .5, 1), plan("b", .5, .9, 3)}, quiet).Totals
	if both.InZone != (Outcome{.4, .8, .8}) || !both.ByBytes || both.CostKnown != 2 || both.CostPerMonth.Before != 4 {
		t.Errorf("%+v", both)
	}
	one := MakePlan([]outlook.Service{plan("a", .1, .5, 1), plan("b", .5, .9, 0)}, quiet).Totals
	if one.InZone != (Outcome{.3, .7, .7}) || one.ByBytes || one.CostKnown != 1 || one.CostPerMonth.Before != 1 {
		t.Errorf("%+v", one)
	}
}

func TestExplain(t *testing.T) {
	advice := []route.Advice{{Loss: []route.Loss{{Zone: za, MaxLoad: 1, AllLoad: 1.57, In: zc}, {Zone: zb, MaxLoad: .9, AllLoad: 1.1, In: za}}}, {Loss: []route.Loss{{Zone: za, Down: true}}}}
	var b strings.Builder
	for i, s := range lookouts() {
		e := MakeExplain(s, quiet(s.Name), advice[:min(len(s.Families), 2-i%2)])
		b.WriteString(text(t, func(w io.Writer) error { return ExplainText(w, e) }) + "\n")
	}
	golden.Check(t, "explain.txt", b.String())
	j, err := json.MarshalIndent(MakeExplain(lookouts()[0], false, advice), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden.Check(t, "explain.json", string(j)+"\n")
}

func TestMoney(t *testing.T) {
	for f, want := range map[float64]string{0: "$0", .004: "$0.00", .5: "$0.50", 13.333: "$13.33", 99.994: "$99.99", 133.3: "$133", 9999: "$9999",
		12345: "$12.35k", 420_000: "$420k", 1_234_567: "$1.23M", 999_600: "$1.00M"} {
		if got := money(f); got != want {
			t.Errorf("%v: %q, want %q", f, got, want)
		}
	}
}

func TestShortReasons(t *testing.T) {
	for want, change := range map[string]func(*PlanService){
		"ap-northeast-2c full": func(*PlanService) {},
		"all in zone": func(s *PlanService) {
			s.InZone, s.Zones[2].Weights = Outcome{1, 1, 1}, map[string]float64{zc: 1}
		},
		"moving step by step": func(s *PlanService) { s.MaxOverload, s.InZone.Ideal = 1, .999 },
		"ap-northeast-2c full; ap-northeast-2a empty; ap-northeast-2b drained": func(s *PlanService) {
			s.Zones[0].Endpoints, s.Zones[1].Drained = 0, true
		},
		"dear pairs": func(s *PlanService) { s.MaxOverload, s.Reason = 1, "dear pairs" },
	} {
		s := planFamily(PlanService{}, web())
		change(&s)
		if got := short(s); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
