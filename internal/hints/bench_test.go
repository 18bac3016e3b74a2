package hints

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/zonewise/zonewise/internal/model"
)

func BenchmarkPlan(b *testing.B) {
	for _, c := range []struct{ zones, nodes, pods int }{{3, 6, 12}, {3, 167, 5}, {3, 167, 12}, {3, 167, 60}, {3, 17, 50}, {3, 167, 1000}, {8, 12, 100}} {
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

// Ten thousand Services of 50 endpoints in 3 zones with 6 nodes each: all anew, and all as they were.
func BenchmarkTenThousandServices(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 2))
	var worlds []world
	var worn [][]model.Endpoint
	for range 10_000 {
		w := newWorld(spread(r, 50, 3), 6, drawDemand(r, 3), 0.2)
		worlds = append(worlds, w)
		worn = append(worn, wear(w.endpoints, Plan(w.plan, w.clients, w.endpoints, nil)))
	}
	for name, previous := range map[string]func(i int) []model.Endpoint{
		"new": func(int) []model.Endpoint { return nil }, "same": func(i int) []model.Endpoint { return worn[i] },
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				for i, w := range worlds {
					Plan(w.plan, w.clients, w.endpoints, previous(i))
				}
			}
		})
	}
}

// A change of 500 nodes' hints over five slices.
func BenchmarkSteps(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 2))
	old, now := newWorld(spread(r, 60, 3), 167, drawDemand(r, 3), 0.2), newWorld(spread(r, 60, 3), 167, drawDemand(r, 3), 0.2)
	before, target := Plan(old.plan, old.clients, old.endpoints, nil), Plan(now.plan, now.clients, now.endpoints, nil)
	state := put(deal(r, now.endpoints, 5), before.Of, model.Name{})
	for b.Loop() {
		Steps(state, target, now.clients, now.plan)
	}
}
