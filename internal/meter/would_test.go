package meter_test

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/zonewise/zonewise/internal/meter"
	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/route"
)

func TestWould(t *testing.T) {
	tariff := series(t, meter.Era{Prices: book(t, "aws")}).Tariff(start, start)
	headless := calls("b", 1e6)
	headless.Via = model.ViaHeadless
	flows := []model.Flow{calls("a", 1e6), calls("b", 1e6), calls("c", 1e6), headless, crossing("a", "b")} // 1 GB each, all to zone a
	even := model.Shares{{Zone: "a", Share: 0.25}, {Zone: "b", Share: 0.75}}
	for _, c := range []struct {
		name               string
		matrix             model.Matrix
		bytes, inZone, usd float64
	}{
		{"as it was", nil, 4e9, 1e9, 0.06},
		{"all at home", model.Matrix{{Zone: "a", To: model.Shares{{Zone: "a", Share: 1}}}, {Zone: "b", To: model.Shares{{Zone: "b", Share: 1}}}, {Zone: "c", To: model.Shares{{Zone: "c", Share: 1}}}}, 4e9, 3e9, 0.02},
		{"evenly", model.Matrix{{Zone: "a", To: even}, {Zone: "b", To: even}, {Zone: "c", To: even}}, 4e9, 1e9, 0.06},
		{"a zone is not in it", model.Matrix{{Zone: "b", To: even}}, 4e9, 1.75e9, 0.045},
	} {
		got := meter.Would(flows, web, false, c.matrix, tariff)
		share, ok := got.InZoneShare()
		if !near(got.Bytes, c.bytes) || !near(got.InZone, c.inZone) || !near(got.USD(), c.usd) || !ok || !near(share, c.inZone/c.bytes) {
			t.Errorf("%s: %+v", c.name, got)
		}
	}
	if got := meter.Would(flows, web, true, nil, tariff); got != (meter.Forecast{}) {
		t.Error(got)
	}
	if _, ok := (meter.Forecast{}).InZoneShare(); ok {
		t.Error("a share of nothing")
	}
}

// A forecast is what a plan says of itself, where demand is what was planned for.
func TestForecastAgreesWithThePlan(t *testing.T) {
	zones := []string{"a", "b", "c"}
	rapid.Check(t, func(t *rapid.T) {
		var flows []model.Flow
		var demand model.Shares
		var matrix model.Matrix
		sum := uint64(0)
		for _, z := range zones {
			n := rapid.Uint64Range(1, 1000).Draw(t, "connections")
			f := calls(z, n)
			f.ResponseBytes = 900 * n
			flows, sum, demand = append(flows, f), sum+n, append(demand, model.Share{Zone: z, Share: float64(n)})
			x, y := rapid.Float64Range(0, 1).Draw(t, "share"), rapid.Float64Range(0, 1).Draw(t, "share")
			matrix = append(matrix, model.Row{Zone: z, To: model.Shares{{Zone: "a", Share: x * y}, {Zone: "b", Share: x * (1 - y)}, {Zone: "c", Share: 1 - x}}})
		}
		for i := range demand {
			demand[i].Share /= float64(sum)
		}
		p := model.Prices{PerGB: 0.02, Receiver: 0.5, Pairs: map[model.ZonePair]float64{{From: "a", To: "c"}: 0.3}}
		got := meter.Would(flows, web, false, matrix, series(t, meter.Era{Prices: p}).Tariff(start, start))
		share, _ := got.InZoneShare()
		if !near(share, route.InZone(matrix, demand)) || !near(got.USD(), route.PerTB(matrix, demand, p)*got.Bytes/1e12) {
			t.Fatalf("%+v, in zone %g; the plan says %g, %g USD/TB", got, share, route.InZone(matrix, demand), route.PerTB(matrix, demand, p))
		}
	})
}
