package hints

import (
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
	ready, fair := make([]model.Endpoint, 0, len(endpoints)), make([]float64, 0, len(endpoints))
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
	return newTraffic(clients, ready, fair).forecast(c.directory(len(ready), hintsOn(ready)))
}

// traffic is clients and ready endpoints, set out for several forecasts.
type traffic struct {
	clients []Client
	fair    []float64 // of each endpoint
	zones   []string  // of clients and endpoints, in order
	from    []int     // each client's zone
	at      []int     // each endpoint's
	total   float64   // of the clients' shares
}

func newTraffic(clients []Client, ready []model.Endpoint, fair []float64) traffic {
	t := traffic{clients: clients, fair: fair, from: make([]int, len(clients)), at: make([]int, len(ready))}
	for i, c := range clients {
		t.total += c.Share
		if i == 0 || c.Zone != clients[i-1].Zone {
			t.zones = withZone(t.zones, c.Zone)
		}
	}
	for i := range ready {
		t.zones = withZone(t.zones, ready[i].Zone)
	}
	for i, c := range clients {
		if i > 0 && c.Zone == clients[i-1].Zone {
			t.from[i] = t.from[i-1]
			continue
		}
		t.from[i], _ = slices.BinarySearch(t.zones, c.Zone)
	}
	for i := range ready {
		t.at[i], _ = slices.BinarySearch(t.zones, ready[i].Zone)
	}
	return t
}

// withZone puts a zone in its place, if it is not there yet.
func withZone(zones []string, zone string) []string {
	if i, there := slices.BinarySearch(zones, zone); !there {
		return slices.Insert(zones, i, zone)
	}
	return zones
}

// forecast adds up what the clients send to the endpoints. Nodes without hints of their own are taken
// together, zone by zone: there may be thousands.
func (t traffic) forecast(d directory) Forecast {
	var f Forecast
	if len(t.at) == 0 || !(t.total > 0) {
		return f
	}
	flow := make([][]float64, len(t.zones)) // from zone to endpoint
	send := func(from int, share float64, use []int) {
		part := share / float64(len(use)) / t.total
		for _, e := range use {
			flow[from][e] += part
		}
	}
	follow := make([]float64, len(t.zones))
	for i, c := range t.clients {
		from := t.from[i]
		if flow[from] == nil {
			flow[from] = make([]float64, len(t.at))
		}
		if use := d.named(c.Node); len(use) > 0 {
			send(from, c.Share, use)
		} else {
			follow[from] += c.Share
		}
	}
	load := make([]float64, len(t.at))
	to := make([]float64, len(t.zones))
	for from, row := range flow {
		if row == nil {
			continue
		}
		if follow[from] > 0 {
			send(from, follow[from], d.zone(t.zones[from]))
		}
		clear(to)
		var out float64
		for e, x := range row {
			load[e] += x
			to[t.at[e]] += x
			out += x
		}
		if t.zones[from] != "" {
			f.InZone += to[from]
		}
		f.Matrix = append(f.Matrix, model.Row{Zone: t.zones[from], To: shares(t.zones, to, out)})
	}
	for e, x := range load {
		if t.fair[e] > 0 {
			f.MaxLoad = max(f.MaxLoad, x/t.fair[e])
		}
	}
	return f
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
