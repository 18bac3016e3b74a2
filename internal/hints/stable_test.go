package hints

import (
	"math/rand/v2"
	"net/netip"
	"reflect"
	"testing"

	"github.com/zonewise/zonewise/internal/model"
)

// Measured demand is never the same twice. What it moves hints for must be worth it, and hints are
// never kept above the bound.
func TestNoiseMovesLittle(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	steps, moves := 0, 0
	var kept, ideal float64
	for range 50 {
		pods, demand := spread(r, 3+r.IntN(28), 3), drawDemand(r, 3)
		var previous []model.Endpoint
		var last Set
		for range 20 {
			noisy, sum := make([]float64, 3), 0.0
			for z := range noisy {
				noisy[z] = demand[z] * (0.99 + 0.02*r.Float64())
				sum += noisy[z]
			}
			for z := range noisy {
				noisy[z] /= sum
			}
			w := newWorld(pods, 6, noisy, 0.2)
			w.plan.Demand.Source = model.Measured
			s := Plan(w.plan, w.clients, w.endpoints, previous)
			if s.Forecast.MaxLoad > 1.2+1e-9 {
				t.Fatalf("load %v\n%s", s.Forecast.MaxLoad, s.Text(w.endpoints))
			}
			if previous != nil {
				steps++
				if !reflect.DeepEqual(s.Of, last.Of) {
					moves++
				}
			}
			previous, last = wear(w.endpoints, s), s
			kept, ideal = kept+s.Forecast.InZone, ideal+w.optimum
		}
	}
	t.Logf("%d of %d steps moved hints; %.2f%% of the optimum", moves, steps, 100*kept/ideal)
	if moves*10 > steps || kept < 0.98*ideal {
		t.Error("too many, or too little")
	}
}

// A pod more or less: the others' hints change where they must.
func TestWalkMovesLittle(t *testing.T) {
	sizes := []int{}
	for n := 1; n <= 24; n++ {
		sizes = append(sizes, n)
	}
	for n := 23; n >= 1; n-- {
		sizes = append(sizes, n)
	}
	var previous []model.Endpoint
	changed, carried := 0, 0
	for _, n := range sizes {
		pods := []int{(n + 2) / 3, (n + 1) / 3, n / 3}
		w := walkWorld(pods)
		s := Plan(w.plan, w.clients, w.endpoints, previous)
		if s.Forecast.MaxLoad > 1.2+1e-9 || s.Older.MaxLoad > 1.4+1e-9 {
			t.Fatalf("%d pods: loads %v and %v\n%s", n, s.Forecast.MaxLoad, s.Older.MaxLoad, s.Text(w.endpoints))
		}
		if s.Forecast.InZone < 0.9*w.optimum && n > 3 {
			t.Errorf("%d pods: %.3f in zone, optimum %.3f", n, s.Forecast.InZone, w.optimum)
		}
		for _, e := range previous {
			now, still := s.Of[e.Addr]
			if still {
				carried++
				if !now.Equal(Hint{e.ZoneHints, e.NodeHints}) {
					changed++
				}
			}
		}
		previous = wear(w.endpoints, s)
	}
	t.Logf("of %d hints %d changed", carried, changed)
	if changed*3 > carried {
		t.Error("too many")
	}
}

// walkWorld has pods whose addresses stay when others come and go.
func walkWorld(pods []int) world {
	w := newWorld(pods, 6, []float64{1. / 3, 1. / 3, 1. / 3}, 0.2)
	seen := map[string]byte{}
	for i := range w.endpoints {
		e := &w.endpoints[i]
		seen[e.Zone]++
		a := e.Addr.As4()
		a[2], a[3] = e.Zone[0], seen[e.Zone]
		e.Addr = netip.AddrFrom4(a)
	}
	return w
}
