package reflect

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
	"sigs.k8s.io/yaml"

	"github.com/zonewise/zonewise/api/v1alpha1"
	"github.com/zonewise/zonewise/internal/model"
)

func TestRoute(t *testing.T) {
	got := Route(parse[v1alpha1.ZoneRoute](t, `
metadata:
  namespace: shop
  name: web
  uid: u1
  generation: 7
  labels: {app.kubernetes.io/managed-by: zonewise}
spec:
  mode: Optimal
  maxOverload: 0.5
  capacity: CPURequests
  demand:
    source: Static
    shares: [{zone: b, share: 1}, {zone: a, share: 3}]
    bytesPerSecond: 1e6
  drainedZones: [c, b, c]`))
	want := model.ZoneRoute{
		Name: model.Name{Namespace: "shop", Name: "web"}, UID: "u1", Generation: 7, Automatic: true,
		Spec: model.RouteSpec{Mode: model.Optimal, MaxOverload: 0.5, Capacity: model.CPURequests, Demand: model.Static,
			Static: model.Shares{{Zone: "a", Share: 3}, {Zone: "b", Share: 1}}, BytesPerSecond: 1e6, Drained: []string{"b", "c"}},
	}
	if diff := cmp.Diff(want, got, byValue); diff != "" {
		t.Error(diff)
	}
}

// What RouteSpec cannot hold must not be taken for a default.
func TestInvalid(t *testing.T) {
	for _, c := range []struct{ spec, want string }{
		{`{}`, ""},
		{`{maxOverload: 0.2}`, ""},
		{`{maxOverload: 0}`, "spec.maxOverload: 0 is less than 0.01"},
		{`{demand: {source: Static, shares: [{zone: a, share: 1}, {zone: a, share: 2}]}}`, `spec.demand.shares: zone "a" more than once`},
		{`{demand: {source: NodeCPU, shares: [{zone: a, share: 1}]}}`, "spec.demand.shares: needed with source Static, and only there"},
		{`{demand: {source: Static, shares: [{zone: a, share: 1}]}}`, ""},
	} {
		zr := parse[v1alpha1.ZoneRoute](t, `spec: `+c.spec)
		if got := Route(zr).Invalid; got != c.want {
			t.Errorf("%s: %q, want %q", c.spec, got, c.want)
		}
	}
}

// A status comes back from the API server as it was written.
func TestStatusIsNotLost(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		want := drawStatus(rt)
		text, err := json.Marshal(v1alpha1.ZoneRoute{Status: Status(want)})
		if err != nil {
			rt.Fatal(err)
		}
		var zr v1alpha1.ZoneRoute
		if err := json.Unmarshal(text, &zr); err != nil {
			rt.Fatal(err)
		}
		if diff := cmp.Diff(want, Route(&zr).Status, byValue); diff != "" {
			rt.Fatal(diff)
		}
	})
}

func drawStatus(rt *rapid.T) model.RouteStatus {
	text := rapid.StringMatching(`[a-zA-Z0-9 :×≥/]{0,20}`)
	seconds := func(what string) time.Time { return time.Unix(rapid.Int64Range(1, 4e9).Draw(rt, what), 0).UTC() }
	out := model.RouteStatus{
		Generation: rapid.Int64Min(0).Draw(rt, "generation"),
		Mode:       rapid.SampledFrom([]model.Mode{"", model.Optimal, model.Observe, model.Off}).Draw(rt, "mode"),
		Summary: model.Summary{InZone: text.Draw(rt, "s1"), Planned: text.Draw(rt, "s2"), MaxLoad: text.Draw(rt, "s3"),
			CostPerMonth: text.Draw(rt, "s4"), Reason: text.Draw(rt, "s5")},
	}
	for i := range rapid.IntRange(0, 2).Draw(rt, "plans") {
		p := drawPlan(rt, text)
		p.V6, p.At = i == 1, seconds("at")
		if rapid.Bool().Draw(rt, "measured") {
			p.Demand.At = seconds("measured at")
		}
		out.Plans = append(out.Plans, p)
	}
	for _, kind := range []string{"Applied", "Obeyed", "Planned"}[:rapid.IntRange(0, 3).Draw(rt, "conditions")] {
		out.Conditions = append(out.Conditions, model.Condition{Type: kind, Status: "True", Reason: "Because",
			Message: text.Draw(rt, "message"), Since: seconds("since")})
	}
	return out
}

func drawPlan(rt *rapid.T, text *rapid.Generator[string]) model.RoutePlan {
	number := rapid.Float64Range(1e-9, 1e9)
	outcome := func(what string) model.Outcome {
		return model.Outcome{Before: number.Draw(rt, what), Planned: number.Draw(rt, what), Ideal: number.Draw(rt, what)}
	}
	p := model.RoutePlan{
		MaxOverload: number.Draw(rt, "bound"),
		Demand:      model.Demand{Source: model.Measured, BytesPerSecond: rapid.SampledFrom([]float64{0, 0.1, 1e9}).Draw(rt, "bytes")},
		InZone:      outcome("in zone"), MaxLoad: number.Draw(rt, "load"), BeforeLoad: number.Draw(rt, "before"), PerTB: outcome("per TB"),
		Hints: model.HintOutcome{InZone: number.Draw(rt, "hints"), MaxLoad: number.Draw(rt, "hints load"), Reason: text.Draw(rt, "why"), None: rapid.Bool().Draw(rt, "none")},
		Upstream: model.Verdict{Asked: text.Draw(rt, "asked"), Hints: rapid.Bool().Draw(rt, "upstream"), Reason: text.Draw(rt, "reason"),
			Inequality: text.Draw(rt, "inequality"), Culprit: text.Draw(rt, "culprit"), Fix: text.Draw(rt, "fix")},
		Reason: text.Draw(rt, "reason"), Fix: text.Draw(rt, "fix"),
	}
	if rapid.Bool().Draw(rt, "measured") {
		compared := func(what string) model.Compared {
			return model.Compared{Now: number.Draw(rt, what), Planned: number.Draw(rt, what), Before: number.Draw(rt, what)}
		}
		p.Measured = model.Realised{At: time.Date(2026, 1, 2, 3, 4, rapid.IntRange(0, 59).Draw(rt, "second"), 0, time.UTC),
			BytesPerSecond: number.Draw(rt, "rate"), InZone: compared("bytes in zone"), PerMonth: compared("per month")}
	}
	for i := range rapid.IntRange(0, 4).Draw(rt, "zones") {
		z := model.ZonePlan{Name: fmt.Sprintf("z%d", i), Demand: rapid.SampledFrom([]float64{0, 0.25, 1. / 3}).Draw(rt, "demand"),
			Endpoints: rapid.IntRange(0, 99).Draw(rt, "endpoints"), Capacity: number.Draw(rt, "capacity"), Load: number.Draw(rt, "zone load"),
			Drained: rapid.Bool().Draw(rt, "drained")}
		for j := range rapid.IntRange(0, 3).Draw(rt, "weights") {
			z.Weights = append(z.Weights, model.Share{Zone: fmt.Sprintf("z%d", j), Share: number.Draw(rt, "weight")})
		}
		p.Zones = append(p.Zones, z)
		if z.Demand > 0 {
			p.Demand.Shares = append(p.Demand.Shares, model.Share{Zone: z.Name, Share: z.Demand})
		}
	}
	for i := range rapid.IntRange(0, 3).Draw(rt, "capacities") {
		addr := netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})
		p.Capacities = append(p.Capacities, model.Capacity{Addr: addr, Capacity: number.Draw(rt, "pod")})
	}
	return p
}

// Whatever a ZoneRoute's text says, conversion neither panics nor lets nonsense through, and what it
// gives does not depend on the order of sets.
func FuzzRoute(f *testing.F) {
	f.Add([]byte(`{metadata: {namespace: a, name: b}, spec: {mode: Optimal, maxOverload: 0, drainedZones: [b, a, b]}}`))
	f.Add([]byte(`{spec: {demand: {source: Static, shares: [{zone: a, share: -1}, {zone: a, share: 1e308}, {}]}}}`))
	f.Add([]byte(`{spec: {maxOverload: .nan}}`))
	f.Add([]byte(`{status: {plans: [{family: IPv5, zones: [{name: a, demand: 2, weights: {b: 0.5}}], capacities: [{address: x}]}], conditions: [{type: B}, {type: A}]}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var zr v1alpha1.ZoneRoute
		if yaml.Unmarshal(text, &zr) != nil {
			return
		}
		got := Route(&zr)
		checkShares(t, got.Spec.Static)
		if !slices.IsSorted(got.Spec.Drained) {
			t.Errorf("drained %v", got.Spec.Drained)
		}
		for _, p := range got.Status.Plans {
			for _, z := range p.Zones {
				checkShares(t, z.Weights)
			}
			for _, c := range p.Capacities {
				checkAddr(t, c.Addr)
			}
		}
		slices.Reverse(zr.Spec.DrainedZones)
		if diff := cmp.Diff(got.Spec.Drained, Route(&zr).Spec.Drained); diff != "" {
			t.Errorf("order matters: %s", diff)
		}
	})
}

func checkShares(t *testing.T, s model.Shares) {
	t.Helper()
	for i := 1; i < len(s); i++ {
		if strings.Compare(s[i-1].Zone, s[i].Zone) >= 0 {
			t.Errorf("shares %v", s)
		}
	}
}
