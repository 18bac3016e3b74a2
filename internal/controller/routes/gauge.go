package routes

import (
	"hash/fnv"
	"math"
	"time"

	"github.com/zonewise/zonewise/internal/meter"
	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/outlook"
	"github.com/zonewise/zonewise/internal/route"
	"github.com/zonewise/zonewise/internal/state"
)

const (
	// glance is the time between two looks at whether measured demand has moved.
	glance = 10 * time.Second
	// glances is after how many of them the evidence is looked at again.
	glances = 3
	// fallback is how long the last measured demand holds where there is none any more: a leader that has
	// just begun knows none yet, and a Service that is quiet now and then must not change plans each time.
	fallback = 10 * time.Minute
	// telling is the least time between two readings of a Service's traffic for its status, and
	// tellings is how many of all Services there may be in a second: each may cost a write.
	telling  = time.Minute
	tellings = writesPerSecond / 5
	// What differs by less is not written anew: a share by a point, an amount by a twentieth, money by
	// half a cent.
	newShare  = 0.01
	newAmount = 0.05
	newMoney  = 0.005
)

// gauge is what is told of the traffic of a Service in one family. It is read now and then, lest each
// look at a Service find another status.
type gauge struct {
	bytes  float64 // a second, to plan with
	told   model.Realised
	blame  blame
	judged bool      // blame is known; a plan that has just changed is still judged by what went under the one before
	plan   time.Time // when the plan came to be that told is about
	read   time.Time
	silent time.Time // since when no demand is measured; zero: it is
	dark   time.Time // since when nothing is known; zero: something is
}

// gauge returns a Service's, which begins with what its status says.
func (k *Keeper) gauge(snap *state.Snapshot, svc model.Name, v6 bool) *gauge {
	f := flow{svc, v6}
	if g := k.gauges[f]; g != nil {
		return g
	}
	g := &gauge{}
	zr, _ := k.route(snap, svc)
	for _, p := range zr.Status.Plans {
		if p.V6 == v6 {
			g.told, g.plan = p.Measured, p.At
		}
	}
	if d := standing(zr.Status, v6); d != nil {
		g.bytes = d.BytesPerSecond
	}
	k.gauges[f] = g
	return g
}

// standing is the demand that a status was made for, as far as it was measured; nil if none of it was.
func standing(s model.RouteStatus, v6 bool) *model.Demand {
	for _, p := range s.Plans {
		if p.V6 != v6 || p.Demand.At.IsZero() {
			continue
		}
		d := p.Demand
		if d.Source != model.Measured {
			d.Shares = nil
		}
		return &d
	}
	return nil
}

// measured is the demand to plan with; nil if there is no meter.
func (k *Keeper) measured(snap *state.Snapshot, now time.Time) func(svc model.Name, v6 bool) *model.Demand {
	if k.Metered == nil {
		return nil
	}
	return func(svc model.Name, v6 bool) *model.Demand {
		g := k.gauge(snap, svc, v6)
		out := model.Demand{}
		if m := k.Metered.Measured(svc, v6, now); m != nil {
			out = *m
		}
		if g.bytes == 0 {
			g.bytes = out.BytesPerSecond
		}
		out.BytesPerSecond = g.bytes
		if len(out.Shares) > 0 {
			g.silent = time.Time{}
			return &out
		}
		zr, _ := k.route(snap, svc)
		was := standing(zr.Status, v6)
		if was == nil {
			return &out
		}
		if out.At.IsZero() {
			out.At = was.At
		}
		if len(was.Shares) > 0 {
			if g.silent.IsZero() {
				g.silent = now
			}
			if until := g.silent.Add(fallback); now.Before(until) {
				out.Source, out.Shares, out.At = was.Source, was.Shares, was.At
				k.again(svc, until)
			}
		}
		return &out
	}
}

// watch looks at what is measured: it puts on the list the Services to whose plans it is news, and
// those whose status has other figures to tell.
func (k *Keeper) watch(snap *state.Snapshot, now time.Time) {
	if k.Metered == nil || now.Sub(k.glanced) < glance {
		return
	}
	last := k.glanced
	k.glanced = now
	if last.IsZero() {
		return
	}
	if k.glimpses++; k.glimpses%glances == 0 {
		k.mu.Lock()
		k.recheck = true
		k.mu.Unlock()
	}
	every := max(telling, time.Duration(len(k.verdicts))*time.Second/tellings)
	for name, v := range k.verdicts {
		if v.Mode == model.Off || v.reason != "" {
			continue
		}
		mine := turn(name, every, last, now)
		for i := range v.Families {
			f := &v.Families[i]
			news := (v.Mode == model.Optimal || mine) && k.moved(snap, name, f, v.Mode == model.Optimal, now)
			if mine && k.read(snap, v, f, now) {
				news = true
			}
			if news {
				k.dirty[name] = k.dirty[name] || v.Mode == model.Optimal
			}
		}
	}
}

// turn tells whether it is a Service's turn between two instants. Turns of all Services are spread
// over the time between two of one.
func turn(name model.Name, every time.Duration, from, to time.Time) bool {
	h := fnv.New64a()
	h.Write([]byte(name.String()))
	phase := int64(h.Sum64() % uint64(every))
	return (from.UnixNano()-phase)/int64(every) != (to.UnixNano()-phase)/int64(every)
}

// moved tells whether what is measured is news to a plan: its demand moved, is measured now, or is not
// any more.
func (k *Keeper) moved(snap *state.Snapshot, name model.Name, f *outlook.Family, followed bool, now time.Time) bool {
	zr, _ := snap.Route(name)
	if zr.Spec.Demand != "" && zr.Spec.Demand != model.Measured {
		return false
	}
	m := k.Metered.Measured(name, f.V6, now)
	switch {
	case m == nil || len(m.Shares) == 0:
		return f.Demand.Source == model.Measured && k.gauge(snap, name, f.V6).silent.IsZero()
	case f.Demand.Source != model.Measured:
		return true
	}
	return route.Moved(f.RoutePlan, *m, followed)
}

// read takes a new reading of a Service's traffic, and tells whether it is worth telling.
func (k *Keeper) read(snap *state.Snapshot, v verdict, f *outlook.Family, now time.Time) bool {
	g := k.gauge(snap, v.Name, f.V6)
	if now.Sub(g.read) < telling {
		return false
	}
	g.read = now
	m := k.Metered.Measured(v.Name, f.V6, now)
	lately, known := k.Metered.Lately(v.Name, f.V6)
	if m == nil && !known { // perhaps for want of reports: what was known holds for a while
		if g.dark.IsZero() {
			g.dark = now
		}
		if now.Sub(g.dark) < fallback {
			return false
		}
	} else {
		g.dark = time.Time{}
	}
	if !known {
		lately = Lately{}
	}
	news, bytes := false, 0.0
	if m != nil {
		bytes = m.BytesPerSecond
	}
	if other(g.bytes, bytes, newAmount) {
		g.bytes, news = bytes, true
	}
	return g.realise(lately, v, f, now) || news
}

// reread takes a new reading where a plan has become another: what is told is about the plan in force.
func (k *Keeper) reread(snap *state.Snapshot, v verdict, now time.Time) {
	if k.Metered == nil || v.Mode == model.Off {
		return
	}
	for i := range v.Families {
		f := &v.Families[i]
		g := k.gauge(snap, v.Name, f.V6)
		if at := f.At.Truncate(time.Second); !g.plan.Equal(at) { // the status keeps seconds
			g.plan = at
			if lately, ok := k.Metered.Lately(v.Name, f.V6); ok {
				g.realise(lately, v, f, now)
			}
		}
	}
}

// realise holds a Service's traffic against its plan, and tells whether that is worth telling.
func (g *gauge) realise(l Lately, v verdict, f *outlook.Family, now time.Time) bool {
	changed := false
	if now.Sub(f.At) >= settling+l.For { // all of it went under this plan
		is := blame{}
		if v.Mode == model.Optimal {
			is = whose(l.Flows, v, f)
		}
		if is.differs(g.blame) || !g.judged {
			g.blame, g.judged, changed = is, true, true
		}
	}
	if told := realised(l, v.Name, f, now); differ(g.told, told) {
		g.told, changed = told, true
	}
	return changed
}

// realised is what traffic did, and would have done; zero if there was none.
func realised(l Lately, svc model.Name, f *outlook.Family, now time.Time) model.Realised {
	is := meter.Would(l.Flows, svc, f.V6, nil, l.Tariff)
	share, ok := is.InZoneShare()
	if !ok || l.For <= 0 {
		return model.Realised{}
	}
	planned, before := meter.Would(l.Flows, svc, f.V6, f.Matrix(), l.Tariff), meter.Would(l.Flows, svc, f.V6, f.Before, l.Tariff)
	out := model.Realised{At: now, BytesPerSecond: is.Bytes / l.For.Seconds(), InZone: model.Compared{Now: share}}
	out.InZone.Planned, _ = planned.InZoneShare()
	out.InZone.Before, _ = before.InZoneShare()
	out.PerMonth = model.Compared{
		Now: meter.PerMonth(is.USD(), l.For), Planned: meter.PerMonth(planned.USD(), l.For), Before: meter.PerMonth(before.USD(), l.For),
	}
	return out
}

// differ tells whether what traffic did is worth a write.
func differ(a, b model.Realised) bool {
	shares, money := [][2]float64{}, [][2]float64{}
	each := func(to *[][2]float64, a, b model.Compared) {
		*to = append(*to, [2]float64{a.Now, b.Now}, [2]float64{a.Planned, b.Planned}, [2]float64{a.Before, b.Before})
	}
	each(&shares, a.InZone, b.InZone)
	each(&money, a.PerMonth, b.PerMonth)
	for _, s := range shares {
		if math.Abs(s[0]-s[1]) > newShare {
			return true
		}
	}
	for _, m := range money {
		if math.Abs(m[0]-m[1]) > newMoney && other(m[0], m[1], newAmount) {
			return true
		}
	}
	return a.At.IsZero() != b.At.IsZero() || other(a.BytesPerSecond, b.BytesPerSecond, newAmount)
}

// other tells whether two amounts differ by more than a part of the greater.
func other(a, b, part float64) bool { return math.Abs(a-b) > part*max(math.Abs(a), math.Abs(b)) }
