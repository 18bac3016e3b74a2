package route_test

import (
	"math"
	"testing"
	"time"

	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/route"
)

// counted is a measured demand of three zones, made of so many connections.
func counted(a, b, c, connections float64) *model.Demand {
	return &model.Demand{Source: model.Measured, At: start, Connections: connections, BytesPerSecond: 1,
		Shares: model.Shares{{Zone: "a", Share: a}, {Zone: "b", Share: b}, {Zone: "c", Share: c}}}
}

func TestWhatIsNewsToAPlan(t *testing.T) {
	const many, few = 1e6, 100 // chance does 0.15 points, and 15
	for _, c := range []struct {
		name     string
		was, is  *model.Demand
		followed bool
		news     bool
	}{
		{"the same", counted(.7, .2, .1, many), counted(.7, .2, .1, many), true, false},
		{"two points", counted(.3, .4, .3, many), counted(.32, .38, .3, many), true, false},
		{"more", counted(.3, .4, .3, many), counted(.325, .375, .3, many), true, true},
		{"more, and nobody follows", counted(.3, .4, .3, many), counted(.325, .375, .3, many), false, true},
		{"a zone that is new", counted(.3, .7, 0, many), counted(.3, .67, .03, many), true, true},
		{"a zone that is gone", counted(.3, .67, .03, many), counted(.3, .7, 0, many), true, true},
		{"little, and over the bound", counted(.4, .3, .3, many), counted(.401, .299, .3, many), true, true},
		{"little, and under the bound", counted(.4, .3, .3, many), counted(.399, .301, .3, many), true, false},
		{"over the bound, and nobody follows", counted(.4, .3, .3, many), counted(.401, .299, .3, many), false, false},
		{"ten points by chance", counted(.4, .3, .3, few), counted(.5, .25, .25, few), true, false},
		{"twenty are none", counted(.4, .3, .3, few), counted(.6, .2, .2, few), true, true},
		{"nobody knows how many: two points", counted(.4, .3, .3, 0), counted(.42, .28, .3, 0), true, false},
		{"nobody knows how many: three", counted(.4, .3, .3, 0), counted(.43, .27, .3, 0), true, true},
		{"nothing", counted(.4, .3, .3, many), &model.Demand{}, true, false},
		{"nonsense", counted(.4, .3, .3, many), counted(math.NaN(), -1, 0, many), true, false},
	} {
		in := input(3, 3, 3)
		in.Measured = c.was
		p, _ := route.Plan(in)
		if news := route.Moved(p, *c.is, c.followed); news != c.news {
			t.Errorf("%s: news %v", c.name, news)
		}
		// what is no news changes nothing in the plan; what is news is planned for
		in.Measured = c.is
		if in.Previous, in.Now = &p, start.Add(time.Hour); c.followed {
			in.Stability = route.DefaultStability()
		}
		q, _ := route.Plan(in)
		planned := c.was
		if c.news {
			planned = c.is
		}
		if c.is.Shares.Of("a") > 0 && !near(q.Demand.Shares.Of("a"), planned.Shares.Of("a")) {
			t.Errorf("%s: planned for %v", c.name, q.Demand.Shares)
		}
		if c.followed && q.MaxLoad > 1.2+1e-9 {
			t.Errorf("%s: load %v", c.name, q.MaxLoad)
		}
	}
}

// Where demand is measured the bound goes first, and what rises gets room to rise on; where it is
// not known how well it is measured, it is borne as what is guessed.
func TestTheBoundGoesFirstWhereDemandIsMeasured(t *testing.T) {
	for _, c := range []struct {
		name          string
		before, after *model.Demand
		wait          time.Duration
		load          float64 // of the plan; 0: it is the one before
	}{
		{"a rise", counted(.5, .3, .2, 1e6), counted(.51, .29, .2, 1e6), time.Second, 1.15},
		{"measured for the first time", nil, counted(.5, .3, .2, 1e6), time.Second, 1.2},
		{"a fall gains much", counted(.7, .15, .15, 1e6), counted(.5, .25, .25, 1e6), time.Hour, 1.2},
		{"a fall gains much, but not right after a change", counted(.7, .15, .15, 1e6), counted(.5, .25, .25, 1e6), time.Second, 0},
		{"a fall gains little", counted(.42, .29, .29, 1e6), counted(.40, .30, .30, 1e6), time.Hour, 0},
		{"nobody knows how many were counted", counted(.5, .3, .2, 0), counted(.52, .28, .2, 0), time.Hour, 0},
	} {
		in := input(3, 3, 3)
		in.Measured = c.before
		old, _ := route.Plan(in)
		in.Measured = c.after
		p, _ := after(in, old, c.wait)
		if changed := p.At != old.At; changed != (c.load != 0) || changed && math.Abs(p.MaxLoad-c.load) > 1e-9 {
			t.Errorf("%s: changed %v, load %v, in zone %+v\n%s", c.name, changed, p.MaxLoad, p.InZone, route.Text(p))
		}
	}
}
