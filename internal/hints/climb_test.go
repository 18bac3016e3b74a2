package hints

import (
	"math/rand/v2"
	"testing"
)

// exhaust tries all sets for all zones, and returns the best score that names make of any.
func exhaust(w world) float64 {
	b := newBoard(w.plan, w.clients, w.endpoints, nil)
	zones := make([][]int, len(b.groups))
	best := 0.0
	var from func(group int)
	from = func(group int) {
		if group == len(zones) {
			d := b.newDraft(1.2, 1.4, zones)
			if d.trim(); d.value.over <= tiny {
				best = max(best, d.value.score)
			}
			return
		}
		for set := 1; set < 1<<len(b.ready); set++ {
			zones[group] = zones[group][:0:0]
			for e := range b.ready {
				if set>>e&1 == 1 {
					zones[group] = append(zones[group], e)
				}
			}
			from(group + 1)
		}
	}
	from(0)
	return best
}

// With few names for many nodes, what the search finds is hardly less than the best of all sets.
func TestSearchIsThorough(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var found, best float64
	for i := range 36 {
		place := spread
		if i%2 == 0 {
			place = scatter
		}
		w := newWorld(place(r, 3+i%3, 3), 167, drawDemand(r, 3), 0.2)
		s := Plan(w.plan, w.clients, w.endpoints, nil)
		ours, most := s.Forecast.InZone+olderWeight*s.Older.InZone, exhaust(w)
		if ours < 0.9*most {
			t.Errorf("score %.3f, possible %.3f\n%s", ours, most, s.Text(w.endpoints))
		}
		found, best = found+ours, best+most
	}
	t.Logf("%.2f%% of what the best sets have", 100*found/best)
	if found < 0.99*best {
		t.Error("too little")
	}
}

// More zones than an endpoint can name, few endpoints, and one of them in no zone.
func TestSearchKeepsToNames(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 1000 {
		zones := 9 + r.IntN(2)
		demand, sum := make([]float64, zones), 0.0
		for z := range demand {
			demand[z] = gamma(r, 1)
			sum += demand[z]
		}
		for z := range demand {
			demand[z] /= sum
		}
		w := newWorld(scatter(r, 2+r.IntN(3), zones), 40, demand, 0.05)
		w.endpoints[0].Zone = ""
		s := Plan(w.plan, w.clients, w.endpoints, nil)
		for _, h := range s.Of {
			if len(h.Zones) > 8 || len(h.Nodes) > 8 {
				t.Fatalf("%v\n%s", h, s.Text(w.endpoints))
			}
		}
	}
}
