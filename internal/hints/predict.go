package hints

import (
	"cmp"
	"slices"

	"github.com/zonewise/zonewise/internal/model"
)

// Forecast is where connections go.
type Forecast struct {
	Matrix  model.Matrix
	InZone  float64
	MaxLoad float64 // of an endpoint; 1 is the fair share by capacity
}

// Predict tells what a consumer does with the hints that endpoints carry, if each client chooses
// evenly among the endpoints that it uses. Only ready endpoints count. Capacity is asked by index
// into endpoints, nil is the same for all; what an endpoint of capacity 0 gets is in the matrix, but
// no load.
func Predict(c Consumer, clients []Client, endpoints []model.Endpoint, capacity func(i int) float64) Forecast {
	var ready []model.Endpoint
	var fair []float64
	var sum float64
	for i, e := range endpoints {
		if !e.Ready {
			continue
		}
		k := 1.0
		if capacity != nil {
			k = capacity(i)
		}
		ready, fair, sum = append(ready, e), append(fair, k), sum+k
	}
	for i := range fair {
		fair[i] /= sum
	}
	return forecast(clients, ready, fair, c.directory(ready).choose)
}

// forecast adds up what clients send to ready endpoints, of which fair tells the fair shares.
func forecast(clients []Client, ready []model.Endpoint, fair []float64, choose func(node, zone string) []int) Forecast {
	var f Forecast
	var total float64
	for _, c := range clients {
		total += c.Share
	}
	if len(ready) == 0 || !(total > 0) {
		return f
	}
	zones, at := places(clients, ready)
	flow := make([][]float64, len(zones)) // from zone to endpoint
	for _, c := range clients {
		from, _ := slices.BinarySearchFunc(zones, c.Zone, cmp.Compare[string])
		if flow[from] == nil {
			flow[from] = make([]float64, len(ready))
		}
		use := choose(c.Node, c.Zone)
		for _, e := range use {
			flow[from][e] += c.Share / float64(len(use)) / total
		}
	}
	load := make([]float64, len(ready))
	for from, row := range flow {
		if row == nil {
			continue
		}
		to := make([]float64, len(zones))
		var out float64
		for e, x := range row {
			load[e] += x
			to[at[e]] += x
			out += x
		}
		if zones[from] != "" {
			f.InZone += to[from]
		}
		f.Matrix = append(f.Matrix, model.Row{Zone: zones[from], To: shares(zones, to, out)})
	}
	for e, x := range load {
		if fair[e] > 0 {
			f.MaxLoad = max(f.MaxLoad, x/fair[e])
		}
	}
	return f
}

// places returns the sorted zones of clients and endpoints, and each endpoint's index in them.
func places(clients []Client, ready []model.Endpoint) (zones []string, at []int) {
	for i, c := range clients {
		if i == 0 || c.Zone != clients[i-1].Zone {
			zones = append(zones, c.Zone)
		}
	}
	for i, e := range ready {
		if i == 0 || e.Zone != ready[i-1].Zone {
			zones = append(zones, e.Zone)
		}
	}
	slices.Sort(zones)
	zones = slices.Compact(zones)
	at = make([]int, len(ready))
	for i, e := range ready {
		at[i], _ = slices.BinarySearchFunc(zones, e.Zone, cmp.Compare[string])
	}
	return zones, at
}

func shares(zones []string, to []float64, sum float64) model.Shares {
	out := make(model.Shares, 0, len(to))
	for z, x := range to {
		if x > 0 {
			out = append(out, model.Share{Zone: zones[z], Share: x / sum})
		}
	}
	return out
}
