package hints

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

func BenchmarkPlan(b *testing.B) {
	for _, c := range []struct{ zones, nodes, pods int }{{3, 6, 12}, {3, 167, 60}, {3, 17, 50}, {3, 167, 1000}, {8, 12, 100}} {
		for _, random := range []bool{false, true} {
			place, name := spread, "even"
			if random {
				place, name = scatter, "random"
			}
			b.Run(fmt.Sprintf("zones=%d/nodes=%d/pods=%d/%s", c.zones, c.nodes*c.zones, c.pods, name), func(b *testing.B) {
				r := rand.New(rand.NewPCG(1, 2))
				var worlds []world
				for range 50 {
					worlds = append(worlds, newWorld(place(r, c.pods, c.zones), c.nodes, drawDemand(r, c.zones), 0.2))
				}
				var kept, ideal float64
				i := 0
				for b.Loop() {
					w := worlds[i%len(worlds)]
					s := Plan(w.plan, w.clients, w.endpoints, nil)
					kept, ideal, i = kept+s.Forecast.InZone, ideal+w.optimum, i+1
				}
				b.ReportMetric(100*kept/ideal, "%optimum")
			})
		}
	}
}
