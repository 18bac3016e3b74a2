package report

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/outlook"
)

// PlanSchema names the form of Plan. Fields are only ever added to it.
const PlanSchema = "zonewise.plan/v1"

// Plan is the plans of many Services. Shares and loads are fractions, load 1 being an endpoint's
// fair share; money is USD.
type Plan struct {
	Schema   string        `json:"schema"`
	WhatIf   []string      `json:"whatIf,omitempty"` // what is otherwise than it is
	Services []PlanService `json:"services"`         // by namespace, name and family
	Totals   Totals        `json:"totals"`
}

// PlanService is the plan for one Service in one address family. Family is empty where a problem
// keeps the Service from being planned at all.
type PlanService struct {
	Namespace    string       `json:"namespace"`
	Name         string       `json:"name"`
	Family       string       `json:"family"`
	Mode         string       `json:"mode"`
	ModeFrom     string       `json:"modeFrom"`
	InZone       Outcome      `json:"inZone"`
	MaxLoad      float64      `json:"maxLoad"`
	BeforeLoad   float64      `json:"beforeLoad"`
	MaxOverload  float64      `json:"maxOverload"`
	CostPerMonth *Outcome     `json:"costPerMonth"` // null: nobody knows how much is exchanged
	CostPerTB    Outcome      `json:"costPerTB"`
	Demand       PlanDemand   `json:"demand"`
	Zones        []PlanZone   `json:"zones"`
	Hints        PlanHints    `json:"hints"`
	Upstream     PlanUpstream `json:"upstream"`
	Reason       string       `json:"reason"`
	Fix          string       `json:"fix"`
	Problem      string       `json:"problem,omitempty"`
	Finding      string       `json:"finding,omitempty"` // what deserves a look: the command's exit code is 3
	Advice       *Advice      `json:"advice,omitempty"`  // only where it was asked for
}

// Outcome is one figure without us, with the plan, and with the best plan under the same bound.
type Outcome struct {
	Before  float64 `json:"before"`
	Planned float64 `json:"planned"`
	Ideal   float64 `json:"ideal"`
}

// PlanDemand tells how it is known where connections come from.
type PlanDemand struct {
	Source         string  `json:"source"`
	BytesPerSecond float64 `json:"bytesPerSecond"` // 0: unknown
}

// PlanZone is one zone, where clients are and where endpoints are.
type PlanZone struct {
	Name      string             `json:"name"` // empty: of endpoints or clients without a zone
	Demand    float64            `json:"demand"`
	Endpoints int                `json:"endpoints"`
	Capacity  float64            `json:"capacity"`
	Load      float64            `json:"load"`
	Drained   bool               `json:"drained,omitempty"`
	Weights   map[string]float64 `json:"weights"`
}

// PlanHints is what standard hints make of the plan.
type PlanHints struct {
	Given   bool    `json:"given"`
	InZone  float64 `json:"inZone"`
	MaxLoad float64 `json:"maxLoad"`
	Reason  string  `json:"reason,omitempty"`
}

// PlanUpstream is what Kubernetes' own controller makes of the Service with topology-mode Auto.
type PlanUpstream struct {
	Asked      string `json:"asked,omitempty"` // how the Service asks for zone routing
	Hints      bool   `json:"hints"`
	Reason     string `json:"reason"`
	Inequality string `json:"inequality"`
	Culprit    string `json:"culprit,omitempty"`
	Fix        string `json:"fix,omitempty"`
}

// Totals are over all plans of the list.
type Totals struct {
	Services     int      `json:"services"`
	Planned      int      `json:"planned"`      // of them: those with a plan in each family
	InZone       Outcome  `json:"inZone"`       // mean over plans: by bytes if all are known, else each the same
	ByBytes      bool     `json:"byBytes"`      // which of the two it is
	CostPerMonth *Outcome `json:"costPerMonth"` // of the plans whose bytes are known; null if none are
	CostKnown    int      `json:"costKnown"`    // number of these plans
	Findings     int      `json:"findings"`
}

// MakePlan turns what the outlook says of Services, in any order, into a report. The Services of
// quiet have nothing to plan by their own wish: that is no finding.
func MakePlan(services []outlook.Service, quiet func(model.Name) bool) Plan {
	p := Plan{Schema: PlanSchema, Services: []PlanService{}}
	for _, s := range services {
		p.Services = append(p.Services, planServices(s, quiet(s.Name))...)
	}
	slices.SortFunc(p.Services, func(a, b PlanService) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Family, b.Family))
	})
	p.Totals = totals(p.Services)
	return p
}

func planServices(s outlook.Service, quiet bool) []PlanService {
	head := PlanService{Namespace: s.Name.Namespace, Name: s.Name.Name, Mode: string(s.Mode), ModeFrom: s.ModeFrom,
		Zones: []PlanZone{}, Problem: s.Problem}
	if s.Problem != "" && !quiet {
		head.Finding = s.Problem
	}
	if len(s.Families) == 0 {
		return []PlanService{head}
	}
	var out []PlanService
	for _, f := range s.Families {
		out = append(out, planFamily(head, f.RoutePlan))
	}
	return out
}

func planFamily(out PlanService, p model.RoutePlan) PlanService {
	out.Family = familyName(p.V6)
	out.InZone, out.CostPerTB = outcome(p.InZone), outcome(p.PerTB)
	out.MaxLoad, out.BeforeLoad, out.MaxOverload = round(p.MaxLoad), round(p.BeforeLoad), round(p.MaxOverload)
	if rate := p.Demand.BytesPerSecond; rate > 0 {
		o := outcome(p.PerTB.PerMonth(rate))
		out.CostPerMonth = &o
	}
	out.Demand = PlanDemand{string(p.Demand.Source), p.Demand.BytesPerSecond}
	out.Zones = make([]PlanZone, len(p.Zones))
	for i, z := range p.Zones {
		weights := make(map[string]float64, len(z.Weights))
		for _, w := range z.Weights {
			weights[w.Zone] = round(w.Share)
		}
		out.Zones[i] = PlanZone{z.Name, round(z.Demand), z.Endpoints, round(z.Capacity), round(z.Load), z.Drained, weights}
	}
	out.Hints = PlanHints{!p.Hints.None, round(p.Hints.InZone), round(p.Hints.MaxLoad), p.Hints.Reason}
	u := p.Upstream
	out.Upstream = PlanUpstream{u.Asked, u.Hints, u.Reason, u.Inequality, u.Culprit, u.Fix}
	out.Reason, out.Fix = p.Reason, p.Fix
	if out.planned() && p.BeforeLoad > 1+p.MaxOverload+1e-9 {
		out.Finding = fmt.Sprintf("above its bound today: load %s, bound %s", load(p.BeforeLoad), load(1+p.MaxOverload))
	}
	return out
}

// planned tells whether connections have somewhere to go.
func (s PlanService) planned() bool {
	return slices.ContainsFunc(s.Zones, func(z PlanZone) bool { return len(z.Weights) > 0 })
}

func totals(services []PlanService) Totals {
	var t Totals
	all, known := sum{}, sum{}
	var cost Outcome
	var last model.Name
	whole := false // of the Service at hand, so far
	for _, s := range services {
		if name := (model.Name{Namespace: s.Namespace, Name: s.Name}); name != last || t.Services == 0 {
			t.Planned += one(whole)
			t.Services++
			last, whole = name, true
		}
		whole = whole && s.planned()
		t.Findings += one(s.Finding != "")
		if !s.planned() {
			continue
		}
		all.add(s.InZone, 1)
		if s.CostPerMonth != nil {
			known.add(s.InZone, s.Demand.BytesPerSecond)
			cost = Outcome{cost.Before + s.CostPerMonth.Before, cost.Planned + s.CostPerMonth.Planned, cost.Ideal + s.CostPerMonth.Ideal}
		}
	}
	t.Planned += one(whole)
	t.InZone = all.mean()
	if t.CostKnown = known.n; known.n > 0 {
		cost = Outcome{round(cost.Before), round(cost.Planned), round(cost.Ideal)}
		t.CostPerMonth = &cost
		if t.ByBytes = known.n == all.n; t.ByBytes {
			t.InZone = known.mean()
		}
	}
	return t
}

// sum makes a weighted mean of outcomes.
type sum struct {
	Outcome
	weight float64
	n      int
}

func (s *sum) add(o Outcome, weight float64) {
	s.Before += o.Before * weight
	s.Planned += o.Planned * weight
	s.Ideal += o.Ideal * weight
	s.weight += weight
	s.n++
}

func (s *sum) mean() Outcome {
	if s.weight == 0 {
		return Outcome{}
	}
	return Outcome{round(s.Before / s.weight), round(s.Planned / s.weight), round(s.Ideal / s.weight)}
}

func one(yes bool) int {
	if yes {
		return 1
	}
	return 0
}

func familyName(v6 bool) string {
	if v6 {
		return "IPv6"
	}
	return "IPv4"
}

func outcome(o model.Outcome) Outcome {
	return Outcome{round(o.Before), round(o.Planned), round(o.Ideal)}
}

// round keeps nine decimals: what is beyond them is the arithmetic's, and differs by processor.
func round(f float64) float64 { return math.Round(f*1e9) / 1e9 }
