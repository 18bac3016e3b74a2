package hints

import (
	"fmt"
	"math/rand/v2"
	"net/netip"

	"github.com/zonewise/zonewise/internal/model"
)

// world is a Service to plan for.
type world struct {
	plan      model.RoutePlan
	clients   []Client
	endpoints []model.Endpoint
	optimum   float64 // in-zone share with weights
}

// newWorld has pods[i] endpoints, nodes nodes and the demand share demand[i] in zone i.
func newWorld(pods []int, nodes int, demand []float64, bound float64) world {
	var w world
	n := 0
	for z, count := range pods {
		for range count {
			n++
			w.endpoints = append(w.endpoints, model.Endpoint{
				Addr: netip.AddrFrom4([4]byte{10, 0, byte(n >> 8), byte(n)}), Zone: zoneName(z), Ready: true, Serving: true,
			})
		}
		for i := range nodes {
			w.clients = append(w.clients, Client{fmt.Sprintf("%s%d", zoneName(z), i+1), zoneName(z), demand[z] / float64(nodes)})
		}
	}
	w.plan, w.optimum = planFor(pods, demand, bound)
	return w
}

func zoneName(z int) string { return string(rune('a' + z)) }

// planFor is the optimum for equal prices: each zone keeps what its endpoints can carry, the rest
// goes where there is room.
func planFor(pods []int, demand []float64, bound float64) (p model.RoutePlan, optimum float64) {
	p.MaxOverload = bound
	total := 0
	for _, n := range pods {
		total += n
	}
	room := make([]float64, len(pods))
	var rooms float64
	for z, n := range pods {
		c := (1 + bound) * float64(n) / float64(total)
		room[z] = max(0, c-demand[z])
		rooms += room[z]
		optimum += min(demand[z], c)
	}
	for z, n := range pods {
		c := (1 + bound) * float64(n) / float64(total)
		plan := model.ZonePlan{Name: zoneName(z), Demand: demand[z], Endpoints: n}
		for to := range pods {
			x := min(demand[z], c)
			if to != z {
				x = (demand[z] - x) * room[to] / rooms
			}
			if x > 0 {
				plan.Weights = append(plan.Weights, model.Share{Zone: zoneName(to), Share: x / demand[z]})
			}
		}
		p.Zones = append(p.Zones, plan)
	}
	return p, optimum
}

// gamma draws from the gamma distribution with a whole shape.
func gamma(r *rand.Rand, shape int) float64 {
	var sum float64
	for range shape {
		sum += r.ExpFloat64()
	}
	return sum
}

func drawDemand(r *rand.Rand, zones int) []float64 {
	out := make([]float64, zones)
	var sum float64
	for z := range out {
		out[z] = gamma(r, 8)
		sum += out[z]
	}
	for z := range out {
		out[z] /= sum
	}
	return out
}

// spread places pods evenly, the odd ones at random; scatter each at random.
func spread(r *rand.Rand, n, zones int) []int {
	out := make([]int, zones)
	for z := range out {
		out[z] = n / zones
	}
	for _, z := range r.Perm(zones)[:n%zones] {
		out[z]++
	}
	return out
}

func scatter(r *rand.Rand, n, zones int) []int {
	out := make([]int, zones)
	for range n {
		out[r.IntN(zones)]++
	}
	return out
}
