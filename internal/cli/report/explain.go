package report

import (
	"cmp"
	"fmt"
	"io"
	"strings"

	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/outlook"
	"github.com/zonewise/zonewise/internal/route"
)

// ExplainSchema names the form of Explain. Fields are only ever added to it.
const ExplainSchema = "zonewise.explain/v1"

// Explain is all that can be said of one Service.
type Explain struct {
	Schema    string        `json:"schema"`
	Namespace string        `json:"namespace"`
	Name      string        `json:"name"`
	Plans     []ExplainPlan `json:"plans"` // by family; one without a family if a problem keeps the Service from being planned
}

// ExplainPlan is a plan, and what surrounds it.
type ExplainPlan struct {
	PlanService
	OlderHints PlanHints `json:"olderHints"` // for consumers that know zone hints alone
	Loss       []Loss    `json:"loss"`
}

// MakeExplain turns the outlook on one Service into a report; advice has one entry for each family.
func MakeExplain(s outlook.Service, quiet bool, advice []route.Advice) Explain {
	out := Explain{Schema: ExplainSchema, Namespace: s.Name.Namespace, Name: s.Name.Name}
	for i, p := range planServices(s, quiet) {
		e := ExplainPlan{PlanService: p, Loss: []Loss{}}
		if i < len(s.Families) {
			set := s.Families[i].HintSet
			e.OlderHints = PlanHints{Given: len(set.Of) > 0, InZone: round(set.Older.InZone), MaxLoad: round(set.Older.MaxLoad)}
		}
		if i < len(advice) {
			for _, l := range advice[i].Loss {
				e.Loss = append(e.Loss, makeLoss(l, p.MaxOverload))
			}
		}
		out.Plans = append(out.Plans, e)
	}
	return out
}

// ExplainText writes the form for people.
func ExplainText(w io.Writer, e Explain) error {
	for i, p := range e.Plans {
		if i > 0 {
			fmt.Fprintln(w)
		}
		if err := explainPlan(w, p); err != nil {
			return err
		}
	}
	return nil
}

func explainPlan(w io.Writer, p ExplainPlan) error {
	title := "Service " + p.Namespace + "/" + p.Name
	if p.Family != "" {
		title += ", " + p.Family
	}
	if err := paragraph(w, "", title); err != nil {
		return err
	}
	if err := said(w, "Mode", modeText(p.Mode, p.ModeFrom)); err != nil {
		return err
	}
	if p.Problem != "" {
		return said(w, "Problem", p.Problem)
	}
	for _, s := range [][2]string{
		{"Now", nowText(p)}, {"Plan", planText(p)}, {"Why", sentence(p.Reason)}, {"Fix", sentence(p.Fix)},
	} {
		if err := said(w, s[0], s[1]); err != nil {
			return err
		}
	}
	fmt.Fprintln(w)
	if err := zoneTable(w, p.PlanService); err != nil {
		return err
	}
	fmt.Fprintln(w)
	for _, s := range [][2]string{
		{"Upstream", upstreamText(p.Upstream)}, {"", sentence(p.Upstream.Inequality)}, {"", blame(p.Upstream)}, {"", mend(p.Upstream)},
		{"Hints", hintsText(p)}, {"Cost", costText(p.PlanService)},
	} {
		if err := said(w, s[0], s[1]); err != nil {
			return err
		}
	}
	return lossTable(w, p)
}

// said writes a sentence beside the word that it is about.
func said(w io.Writer, about, text string) error {
	return paragraph(w, fmt.Sprintf("  %-10s", about), text)
}

func modeText(mode, from string) string {
	does := map[model.Mode]string{
		model.Optimal: "Zonewise plans, and makes traffic obey",
		model.Observe: "Zonewise plans and reports; it changes nothing",
		model.Off:     "Zonewise does nothing; this is what it could do",
	}[model.Mode(mode)]
	switch from {
	case "cluster":
		from = "the default of a fresh installation"
	case "namespace":
		from = "the namespace's label"
	case "ZoneRoute":
		from = "its ZoneRoute"
	default:
		from = "because the Service asks for " + from + " itself"
	}
	return fmt.Sprintf("%s (%s): %s.", mode, from, does)
}

func nowText(p ExplainPlan) string {
	if !p.planned() {
		return ""
	}
	return fmt.Sprintf("%s of the connections stay in their zone; the most loaded endpoint gets %s times its fair share%s.",
		percent(p.InZone.Before), load(p.BeforeLoad), above(p.BeforeLoad, p.MaxOverload))
}

// above says how a load stands to the bound, if it breaks it.
func above(l, maxOverload float64) string {
	if l > 1+maxOverload+1e-9 {
		return ", above the bound of " + load(1+maxOverload)
	}
	return ""
}

func planText(p ExplainPlan) string {
	if !p.planned() {
		return ""
	}
	text := fmt.Sprintf("%s stay, with a load of at most %s (bound %s)", percent(p.InZone.Planned), load(p.MaxLoad), load(1+p.MaxOverload))
	if p.InZone.Ideal > p.InZone.Planned+1e-6 {
		text += fmt.Sprintf("; %s once load has moved step by step", percent(p.InZone.Ideal))
	}
	return text + fmt.Sprintf(". Clients are known by %s.", map[string]string{
		string(model.Measured): "measurement", string(model.Static): "the ZoneRoute's shares",
		string(model.NodeCPU): "the CPU of ready nodes, as upstream assumes",
	}[p.Demand.Source])
}

func upstreamText(u PlanUpstream) string {
	asked := "The Service asks for no zone routing, so kube-proxy sends connections anywhere."
	if u.Asked != "" {
		asked = "The Service asks for " + u.Asked + "."
	}
	if strings.HasPrefix(u.Asked, "topology-mode") {
		if u.Hints {
			return asked + " Kubernetes writes hints."
		}
		return asked + " Kubernetes writes no hints: " + sentence(u.Reason)
	}
	if u.Hints {
		return asked + " With topology-mode Auto Kubernetes writes hints."
	}
	return asked + " With topology-mode Auto Kubernetes writes none: " + sentence(u.Reason)
}

func blame(u PlanUpstream) string {
	if u.Culprit == "" {
		return ""
	}
	return "To blame: " + u.Culprit + "."
}

func mend(u PlanUpstream) string {
	if u.Fix == "" {
		return ""
	}
	return "What makes it write them: " + strings.TrimSuffix(u.Fix, ".") + "."
}

func hintsText(p ExplainPlan) string {
	if !p.planned() {
		return ""
	}
	if !p.Hints.Given {
		return "No set of standard hints serves: " + cmp.Or(p.Hints.Reason, "none is needed") + "."
	}
	text := fmt.Sprintf("Standard hints alone reach %s at a load of %s", percent(p.Hints.InZone), load(p.Hints.MaxLoad))
	text += fmt.Sprintf("; where node hints are not known (kube-proxy before 1.34, Cilium) %s at %s.", percent(p.OlderHints.InZone), load(p.OlderHints.MaxLoad)+above(p.OlderHints.MaxLoad, p.MaxOverload))
	if p.Hints.Reason != "" {
		text += " " + sentence(p.Hints.Reason)
	}
	return text
}

// lossTable tells what the loss of each zone does.
func lossTable(w io.Writer, p ExplainPlan) error {
	if len(p.Loss) == 0 {
		return nil
	}
	rows := [][]string{{"ZONE LOST", "MAX-LOAD", "IF ITS CLIENTS STAY", "IN", ""}}
	for _, l := range p.Loss {
		if l.Down {
			rows = append(rows, []string{orNone(l.Zone), "-", "-", "-", "nothing is left to serve"})
			continue
		}
		note := ""
		if l.Above {
			note = "above the bound of " + load(1+p.MaxOverload)
		}
		rows = append(rows, []string{orNone(l.Zone), load(l.MaxLoad), load(l.AllLoad), orNone(l.In), note})
	}
	fmt.Fprintln(w)
	return fit(w, rows)
}

func costText(s PlanService) string {
	if !s.planned() {
		return ""
	}
	text := fmt.Sprintf("%s for each TB exchanged now, %s by the plan, %s at best", money(s.CostPerTB.Before), money(s.CostPerTB.Planned), money(s.CostPerTB.Ideal))
	if c := s.CostPerMonth; c != nil {
		text += fmt.Sprintf("; at %s/s that is %s, %s and %s a month", size(uint64(s.Demand.BytesPerSecond)), money(c.Before), money(c.Planned), money(c.Ideal))
	}
	return text + "."
}
