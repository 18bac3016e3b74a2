package route_test

import (
	"math"
	"strings"
	"testing"

	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/route"
)

func TestValidate(t *testing.T) {
	static := func(s ...model.Share) model.RouteSpec { return model.RouteSpec{Demand: model.Static, Static: s} }
	for want, spec := range map[string]model.RouteSpec{
		`spec.mode: "Always" is none of Optimal, Observe, Off`:               {Mode: "Always"},
		`spec.maxOverload: 10 is more than 4`:                                {MaxOverload: 10},
		`spec.maxOverload: -1 is less than 0.01`:                             {MaxOverload: -1},
		`spec.maxOverload: 0.001 is less than 0.01`:                          {MaxOverload: 0.001},
		`spec.maxOverload: not a number`:                                     {MaxOverload: math.NaN()},
		`spec.maxOverload: +Inf is more than 4`:                              {MaxOverload: math.Inf(1)},
		`spec.capacity: "Memory" is none of Pods, CPURequests`:               {Capacity: "Memory"},
		`spec.demand.source: "Guessed" is none of Measured, NodeCPU, Static`: {Demand: "Guessed"},
		`spec.demand.shares: source Static needs some`:                       static(),
		`spec.demand.shares: they hold only with source Static`:              {Static: model.Shares{{Zone: "a", Share: 1}}},
		`spec.demand.shares: zone a: -1 is negative`:                         static(model.Share{Zone: "a", Share: -1}),
		`spec.demand.shares: zone a: not a number`:                           static(model.Share{Zone: "a", Share: math.NaN()}),
		`spec.demand.shares: zone b: not a finite number`:                    static(model.Share{Zone: "b", Share: math.Inf(1)}),
		`spec.demand.shares[1].zone: zone a is there twice`:                  static(model.Share{Zone: "a", Share: 1}, model.Share{Zone: "a", Share: 1}),
		`spec.demand.shares[0].zone: a zone without a name`:                  static(model.Share{Share: 1}),
		`spec.demand.shares: one share at least must be more than 0`:         static(model.Share{Zone: "a"}, model.Share{Zone: "b"}),
		`spec.demand.bytesPerSecond: -5 is negative`:                         {BytesPerSecond: -5},
		`spec.drainedZones[1]: zone a is there twice`:                        {Drained: []string{"a", "a"}},
		`spec.drainedZones[0]: a zone without a name`:                        {Drained: []string{""}},
	} {
		if err := route.Validate(spec); err == nil || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
	for _, s := range stories() {
		if err := route.Validate(s.in.Spec); err != nil {
			t.Errorf("%s: %v", s.name, err)
		}
	}
}

// Whatever a spec says, it is either refused with a field's name, or planned with finite figures
// that keep the bound.
func FuzzSpec(f *testing.F) {
	f.Add("", 0.2, "", "", 1.0, 2.0, "a", "c", 0.0, uint8(4), uint8(4), uint8(3))
	f.Add("Optimal", 10.0, "CPURequests", "Static", math.NaN(), -1.0, "a", "", 1e9, uint8(1), uint8(0), uint8(0))
	f.Add("Off", math.Inf(1), "Pods", "Static", 1e308, 1e308, "x", "a", math.NaN(), uint8(0), uint8(0), uint8(9))
	f.Add("Observe", 4.0, "Pods", "Static", 5e-324, 1e308, "b", "b", 1.0, uint8(60), uint8(1), uint8(1))
	f.Fuzz(func(t *testing.T, mode string, bound float64, capacity, source string, one, two float64, zone, drained string, bytes float64, a, b, c uint8) {
		in := input(int(a), int(b), int(c))
		in.Spec = model.RouteSpec{
			Mode: model.Mode(mode), MaxOverload: bound, Capacity: model.CapacitySource(capacity), Demand: model.DemandSource(source),
			Drained: []string{drained}, BytesPerSecond: bytes,
		}
		if source == string(model.Static) {
			in.Spec.Static = model.Shares{{Zone: zone, Share: one}, {Zone: "c", Share: two}}
		}
		err := route.Validate(in.Spec)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "spec.") {
				t.Fatal(err)
			}
			return
		}
		p, _ := route.Plan(in)
		if err := check(p, in); err != nil {
			t.Fatalf("%v\n%s", err, route.Text(p))
		}
		for _, v := range []float64{p.InZone.Before, p.InZone.Planned, p.InZone.Ideal, p.MaxLoad, p.BeforeLoad, p.PerTB.Before, p.PerTB.Planned, p.PerTB.Ideal} {
			if math.IsNaN(v) || math.IsInf(v, 0) || v < 0 {
				t.Fatalf("%v in\n%s", v, route.Text(p))
			}
		}
	})
}
