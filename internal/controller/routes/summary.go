package routes

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/zonewise/zonewise/internal/model"
)

const (
	// reasonLength is how many characters of a reason fit beside kubectl's other columns.
	reasonLength = 60
	// enough connections say something about a share: with 100 its standard error is 5 points at most.
	enough = 100
	// news is by how many points a counted share must differ from the one shown to be shown. Counts
	// waver, and a write for every waver of every Service would be thousands.
	news = 2.0
)

// summary is the first plan as people read it: with the shares and the price of the bytes that go,
// where they are measured.
func summary(v verdict, planned model.Condition, before model.RouteStatus, e evidence) model.Summary {
	if planned.Status != yes {
		return model.Summary{Reason: short(phrase(planned))}
	}
	p := v.Families[0].RoutePlan
	m := e.measured(0)
	out := model.Summary{
		InZone:       inZone(v, p, before, e),
		Planned:      whole(p.InZone.Planned),
		MaxLoad:      strconv.FormatFloat(p.MaxLoad, 'f', 2, 64),
		CostPerMonth: fmt.Sprintf("$%.2f/TB", p.PerTB.Planned),
		Reason:       short(p.Reason),
	}
	if rate := p.Demand.BytesPerSecond; rate > 0 {
		out.CostPerMonth = fmt.Sprintf("$%.2f", p.PerTB.PerMonth(rate).Planned)
	}
	if !m.At.IsZero() {
		out.InZone, out.Planned, out.CostPerMonth = whole(m.InZone.Now), whole(m.InZone.Planned), fmt.Sprintf("$%.2f", m.PerMonth.Now)
	}
	return out
}

// inZone is the share that stays in its zone now: as counted if that is known, else as the plan
// predicts. What was counted once stays as long as the plan does and agents may tell again.
func inZone(v verdict, p model.RoutePlan, before model.RouteStatus, e evidence) string {
	shown := before.Summary.InZone
	if share, ok := inZoneCounted(e); ok {
		if now := whole(share); !waver(now, shown) {
			return now
		}
		return shown
	}
	if shown != "" && e.agents != 0 && before.Mode == v.Mode && len(before.Plans) > 0 &&
		math.Abs(before.Plans[0].InZone.Planned-p.InZone.Planned) < epsilon && math.Abs(before.Plans[0].InZone.Before-p.InZone.Before) < epsilon {
		return shown
	}
	switch {
	case v.Mode == model.Optimal && e.agents == 0 && e.standing == Delivering: // hints alone
		return whole(p.Hints.InZone)
	case v.Mode != model.Optimal || e.agents == 0:
		return whole(p.InZone.Before)
	}
	return whole(p.InZone.Planned)
}

// waver tells whether two shown shares differ by no more than counts do.
func waver(a, b string) bool {
	x, errA := strconv.ParseFloat(strings.TrimSuffix(a, "%"), 64)
	y, errB := strconv.ParseFloat(strings.TrimSuffix(b, "%"), 64)
	return errA == nil && errB == nil && math.Abs(x-y) < news
}

// inZoneCounted is the share of the counted connections that stayed in their zone; of the first
// family that has enough of them.
func inZoneCounted(e evidence) (float64, bool) {
	for _, s := range e.counted {
		var own, all uint64
		for _, c := range s.pairs {
			all += c.Connections
			if c.From == c.To {
				own += c.Connections
			}
		}
		if all >= enough {
			return float64(own) / float64(all), true
		}
	}
	return 0, false
}

// phrase is a condition that says no, in a few words.
func phrase(c model.Condition) string {
	switch c.Reason {
	case "Off":
		return "off"
	case "NoEndpoints":
		return "no ready endpoint"
	case ServiceNotFound:
		return "no such Service"
	}
	return c.Message
}

// short cuts at a word.
func short(s string) string {
	runes := []rune(s)
	if len(runes) <= reasonLength {
		return s
	}
	cut := string(runes[:reasonLength-1])
	if i := strings.LastIndexByte(cut, ' '); i > 0 {
		cut = cut[:i]
	}
	return strings.TrimRight(cut, " ,;:") + "…"
}

func whole(share float64) string   { return strconv.FormatFloat(100*share, 'f', 0, 64) + "%" }
func percent(share float64) string { return strconv.FormatFloat(100*share, 'f', 1, 64) + "%" }
