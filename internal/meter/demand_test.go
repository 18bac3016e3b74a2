package meter_test

import (
	"math"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/zonewise/zonewise/internal/meter"
	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/route"
)

var web = model.Name{Namespace: "shop", Name: "web"}

// calls is n connections of a zone to Service web.
func calls(zone string, n uint64) model.Flow {
	f := flow(pod(zone, zone+"1", "shop", "deployment/front"), pod("a", "a1", "shop", "deployment/web"), "web", 100*n, 900*n)
	f.Connections = n
	return f
}

func TestDemandSettles(t *testing.T) {
	m := meter.NewDemands(meter.Smoothing{HalfLife: time.Minute, Minimum: 100})
	if _, ok := m.Of(web, false, start); ok || m.Measured(web, false, start) != nil {
		t.Fatal("demand for nothing")
	}
	at := start
	add := func(d time.Duration, flows ...model.Flow) meter.Estimate {
		at = at.Add(d)
		m.Add(at, d, flows)
		e, _ := m.Of(web, false, at)
		return e
	}
	e := add(10*time.Second, calls("a", 7), calls("b", 3))
	if e.Shares != nil || !near(e.Connections, 10*fraction(10)) || !near(e.PerSecond, 1) || !near(e.BytesPerSecond, 1000) {
		t.Errorf("10 connections are too few to plan by: %+v", e)
	}
	for range 100 {
		e = add(10*time.Second, calls("a", 70), calls("b", 20), calls("c", 10))
	}
	if !close(e.Shares.Of("a"), 0.7, 0.001) || !close(e.Shares.Of("c"), 0.1, 0.001) || !close(e.PerSecond, 10, 0.01) || !close(e.BytesPerSecond, 10000, 10) || e.Source != model.Measured || !e.At.Equal(at) || e.Age != 0 {
		t.Errorf("%+v", e)
	}
	// It moves from 70/20/10 to 10/20/70: half the way in a half-life, three quarters in two.
	for range 6 {
		e = add(10*time.Second, calls("a", 10), calls("b", 20), calls("c", 70))
	}
	if !close(e.Shares.Of("a"), 0.4, 0.001) || !close(e.Shares.Of("c"), 0.4, 0.001) {
		t.Errorf("after a half-life: %+v", e.Shares)
	}
	for range 6 {
		e = add(10*time.Second, calls("a", 10), calls("b", 20), calls("c", 70))
	}
	if !close(e.Shares.Of("a"), 0.25, 0.001) || !close(e.Shares.Of("c"), 0.55, 0.001) {
		t.Errorf("after two: %+v", e.Shares)
	}
	// Nobody tells any more: it is trusted less and less.
	e, _ = m.Of(web, false, at.Add(2*time.Minute))
	full, _ := m.Of(web, false, at)
	if e.Age != 2*time.Minute || !near(e.Connections, full.Connections/4) || !slices.Equal(e.Shares, full.Shares) {
		t.Errorf("%+v, %+v", e, full)
	}
	if d := m.Measured(web, false, at.Add(5*time.Minute)); d == nil || d.Shares != nil || d.BytesPerSecond == 0 {
		t.Errorf("%+v is too old to plan by", d)
	}
	// A look from before, since a clock was set, is a look now.
	if e, _ = m.Of(web, false, at.Add(-time.Hour)); e.Age != 0 || !near(e.Connections, full.Connections) {
		t.Errorf("%+v", e)
	}
	// Nothing comes any more: in the end it is forgotten.
	for range 60 {
		add(time.Minute)
	}
	if _, ok := m.Of(web, false, at); ok {
		t.Error("demand that is over an hour ago")
	}
}

// fraction is the mean weight of what is evenly spread over the last s seconds, with a half-life of a minute.
func fraction(s float64) float64 {
	return (1 - math.Exp2(-s/60)) / (s / 60 * math.Ln2)
}

func close(a, b, tolerance float64) bool { return math.Abs(a-b) <= tolerance }

// What demand is made of: connections for which an endpoint was chosen at the client's node.
func TestWhatCountsAsDemand(t *testing.T) {
	outside := model.Party{Kind: model.Outside, Block: "internet"}
	entering := model.Party{Kind: model.Outside, Block: "internet", Zone: "b", Node: "b1"}
	for _, c := range []struct {
		name   string
		change func(*model.Flow)
		want   model.Shares
	}{
		{"a ClusterIP", func(*model.Flow) {}, model.Shares{{Zone: "a", Share: 1}}},
		{"a node port, at the node that chooses", func(f *model.Flow) { f.Via, f.Client = model.ViaNodePort, node("b", "b1") }, model.Shares{{Zone: "b", Share: 1}}},
		{"a node port, on the way to it", func(f *model.Flow) { f.Via, f.Server = model.ViaNodePort, node("b", "b1") }, nil},
		{"from outside, by a node", func(f *model.Flow) { f.Via, f.Client = model.ViaLoadBalancer, entering }, model.Shares{{Zone: "b", Share: 1}}},
		{"from outside, straight", func(f *model.Flow) { f.Via, f.Client = model.ViaLoadBalancer, outside }, nil},
		{"from nobody knows where", func(f *model.Flow) { f.Client = model.Party{Kind: model.Unknown} }, nil},
		{"from a node without a zone", func(f *model.Flow) { f.Client = node("", "x1") }, model.Shares{{Zone: "", Share: 1}}},
		{"headless", func(f *model.Flow) { f.Via = model.ViaHeadless }, nil},
		{"a pod itself", func(f *model.Flow) { f.Via, f.Service = model.ViaDirect, model.Name{} }, nil},
		{"the other family", func(f *model.Flow) { f.V6 = true }, nil},
		{"another Service", func(f *model.Flow) { f.Service.Name = "db" }, nil},
	} {
		m := meter.NewDemands(meter.Smoothing{HalfLife: time.Minute, Minimum: 1})
		f := calls("a", 1000)
		c.change(&f)
		m.Add(start, time.Minute, []model.Flow{f})
		e, _ := m.Of(web, false, start)
		if !slices.Equal(e.Shares, c.want) {
			t.Errorf("%s: %v, want %v", c.name, e.Shares, c.want)
		}
	}
}

// A steady rate is measured as what it is, however time is cut into intervals, and whatever was not
// watched between.
func TestDemandDoesNotDependOnIntervals(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := meter.Smoothing{HalfLife: time.Duration(rapid.IntRange(1, 300).Draw(t, "half-life")) * time.Second, Minimum: 0}
		one, many := meter.NewDemands(s), meter.NewDemands(s)
		at, total := start, 0
		for range rapid.IntRange(1, 10).Draw(t, "intervals") {
			d := rapid.IntRange(1, 200).Draw(t, "seconds")
			total += d
			at = at.Add(time.Duration(d) * time.Second)
			many.Add(at, time.Duration(d)*time.Second, []model.Flow{calls("a", uint64(3*d)), calls("b", uint64(d))})
		}
		one.Add(at, time.Duration(total)*time.Second, []model.Flow{calls("b", uint64(total)), calls("a", uint64(3*total))})
		x, _ := one.Of(web, false, at)
		y, _ := many.Of(web, false, at)
		for _, e := range []meter.Estimate{x, y} {
			if !near(e.PerSecond, 4) || !near(e.BytesPerSecond, 4000) || !near(e.Shares.Of("a"), 0.75) || !near(e.Connections, x.Connections) {
				t.Fatalf("%+v, %+v", x, y)
			}
		}
		gap := time.Duration(rapid.IntRange(-100, 1000).Draw(t, "gap")) * time.Second
		many.Add(at.Add(gap+time.Second), time.Second, []model.Flow{calls("a", 3), calls("b", 1)})
		z, _ := many.Of(web, false, at.Add(gap+time.Second))
		if !near(z.PerSecond, 4) || !near(z.Shares.Of("a"), 0.75) || gap > 0 && z.Connections > y.Connections*math.Exp2(-gap.Seconds()/s.HalfLife.Seconds())+4.01 {
			t.Fatalf("%+v after %v of nothing, before %+v", z, gap, y)
		}
	})
}

// Whatever is added, shares are shares, and no order matters.
func TestDemandShares(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := meter.Smoothing{HalfLife: time.Duration(rapid.IntRange(0, 100).Draw(t, "half-life")) * time.Second, Minimum: float64(rapid.IntRange(0, 50).Draw(t, "minimum"))}
		one, two := meter.NewDemands(s), meter.NewDemands(s)
		at := start
		for range rapid.IntRange(1, 8).Draw(t, "intervals") {
			at = at.Add(time.Duration(rapid.IntRange(-50, 500).Draw(t, "later")) * time.Second)
			d := time.Duration(rapid.IntRange(-1, 100).Draw(t, "seconds")) * time.Second
			flows := someFlows(t)
			one.Add(at, d, flows)
			two.Add(at, d, rapid.Permutation(flows).Draw(t, "order"))
		}
		for _, name := range []string{"one", "two", "three"} {
			svc := model.Name{Namespace: "shop", Name: name}
			e, ok := one.Of(svc, false, at)
			other, too := two.Of(svc, false, at)
			if ok != too || !slices.Equal(e.Shares, other.Shares) || e.BytesPerSecond != other.BytesPerSecond {
				t.Fatalf("%+v, %+v", e, other)
			}
			sum := 0.0
			for i, s := range e.Shares {
				sum += s.Share
				if !(s.Share > 0 && s.Share <= 1) || i > 0 && e.Shares[i-1].Zone >= s.Zone {
					t.Fatal(e.Shares)
				}
			}
			if e.Shares != nil && (!near(sum, 1) || e.Connections < s.Minimum) || math.IsNaN(e.BytesPerSecond) || e.BytesPerSecond < 0 {
				t.Fatalf("%+v", e)
			}
		}
	})
}

// What was counted is what a plan is held against.
func TestCounted(t *testing.T) {
	away, headless, unknown, other := calls("b", 5), calls("a", 7), calls("a", 9), calls("a", 11)
	away.Server = pod("c", "c1", "shop", "deployment/web")
	headless.Via, unknown.Server, other.V6 = model.ViaHeadless, model.Party{Kind: model.Unknown}, true
	got := meter.Counted([]model.Flow{calls("b", 3), away, calls("a", 1), calls("a", 1), headless, unknown, other}, web, false)
	want := []route.Counted{{From: "a", To: "a", Connections: 2}, {From: "b", To: "a", Connections: 3}, {From: "b", To: "c", Connections: 5}}
	if !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
