package metering

import (
	"cmp"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/zonewise/zonewise/internal/controller/view"
	"github.com/zonewise/zonewise/internal/meter"
	"github.com/zonewise/zonewise/internal/model"
)

// bill is what one line costs, and would have cost.
type bill struct {
	meter.Traffic
	saved, forecast *float64
	since           time.Time // the first plan that saved something
}

// bills adds up what flows cost.
type bills struct {
	by    meter.By
	known func(asked) known
	of    map[string]*bill
	total bill
}

// known is what of a plan savings need.
type known struct {
	before, plan model.Matrix
	applied      time.Time // zero: it is not
	observed     bool      // it could be
}

// answerCost tells what was spent, and what plans saved of it or would have.
func (t *term) answerCost(w http.ResponseWriter, r *http.Request, q question) error {
	now := time.Now()
	by, err := t.name(r.Context(), q.by, now)
	if err != nil {
		return err
	}
	payer := q.filter.namespace // costs are one namespace's, not those of both ends
	q.filter.namespace = ""
	ask := t.knowledge()
	b := &bills{by: by, of: map[string]*bill{}, known: func(a asked) (out known) {
		k := ask(a)
		if k.Plan == nil {
			return out
		}
		out.before, out.plan, out.applied = k.Before, k.Plan.Matrix(), k.Applied
		out.observed = k.Mode == model.Observe
		return out
	}}
	interval, notes, err := t.scan(r.Context(), q, false, now, func(p piece) error {
		for i := range p.flows {
			if f := &p.flows[i]; payer == "" || pays(q.by, f.FlowKey) == payer {
				b.add(f, p)
			}
		}
		return r.Context().Err()
	})
	if err != nil {
		return err
	}
	d := interval.To.Sub(interval.From)
	out := view.Cost{Schema: view.CostSchema, Interval: interval, By: q.by, Prices: books(t.Prices.Series(), interval), Lines: []view.CostLine{},
		Total: b.total.line("total", d), Notes: append(t.notes(now), notes...)}
	for name, one := range b.of {
		out.Lines = append(out.Lines, one.line(name, d))
	}
	slices.SortFunc(out.Lines, func(a, b view.CostLine) int {
		return cmp.Or(cmp.Compare(b.USD, a.USD), cmp.Compare(b.Bytes, a.Bytes), strings.Compare(a.Name, b.Name))
	})
	if q.limit > 0 {
		out.Lines = out.Lines[:min(q.limit, len(out.Lines))]
	}
	return write(w, out)
}

// pays is the namespace that a flow's cost is put down to: of Services theirs, else that of who opens connections.
func pays(by string, k model.FlowKey) string {
	if by == "services" && k.Service != (model.Name{}) {
		return k.Service.Namespace
	}
	return meter.Payer(k)
}

func (b *bills) add(f *model.Flow, p piece) {
	name := b.by(f.FlowKey)
	one := b.of[name]
	if one == nil {
		one = &bill{}
		b.of[name] = one
	}
	cost := p.tariff.Cost(*f)
	one.Add(*f, cost)
	b.total.Add(*f, cost)
	if f.Service == (model.Name{}) {
		return
	}
	k := b.known(asked{f.Service, f.V6})
	would := func(m model.Matrix) float64 {
		return meter.Would([]model.Flow{*f}, f.Service, f.V6, m, p.tariff).USD()
	}
	switch {
	case !k.applied.IsZero() && k.before != nil:
		part := 1.0 // of the time, after it was applied
		if k.applied.After(p.from) {
			part = max(0, p.to.Sub(k.applied).Seconds()/p.to.Sub(p.from).Seconds())
		}
		saved := part * (would(k.before) - cost.USD())
		for _, x := range []*bill{one, &b.total} {
			x.saved = sum(x.saved, saved)
			if x.since.IsZero() || k.applied.Before(x.since) {
				x.since = k.applied
			}
		}
	case k.observed && k.plan != nil:
		forecast := cost.USD() - would(k.plan)
		one.forecast, b.total.forecast = sum(one.forecast, forecast), sum(b.total.forecast, forecast)
	}
}

func sum(a *float64, b float64) *float64 {
	if a != nil {
		b += *a
	}
	return &b
}

func (b *bill) line(name string, d time.Duration) view.CostLine {
	out := view.CostLine{Name: name, Bytes: b.Bytes(), CrossZoneBytes: b.CrossZone, InZoneShare: inZone(b.Traffic), USD: b.USD(),
		USDPerMonth: meter.PerMonth(b.USD(), d), SavedUSD: b.saved, ForecastUSD: b.forecast}
	if !b.since.IsZero() {
		at := b.since.UTC()
		out.Since = &at
	}
	return out
}
