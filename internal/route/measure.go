package route

import (
	"math"
	"slices"
	"strings"

	"github.com/zonewise/zonewise/internal/model"
)

// InZone returns the share of all connections that stay in their zone. What comes from zone "",
// whose place nobody knows, never does.
func InZone(m model.Matrix, demand model.Shares) float64 {
	sum := 0.0
	for _, r := range m {
		if r.Zone != "" {
			sum += demand.Of(r.Zone) * r.To.Of(r.Zone)
		}
	}
	return sum
}

// Load returns the load of each zone's endpoints, 1 being the fair share: their part of the
// connections over their part of the capacity. It is +Inf where connections go to no capacity.
func Load(m model.Matrix, demand, capacity model.Shares) model.Shares {
	parts := map[string]float64{}
	for _, k := range capacity {
		if k.Share > 0 {
			parts[k.Zone] = 0
		}
	}
	for _, r := range m {
		d := demand.Of(r.Zone)
		for _, t := range r.To {
			if d*t.Share > 0 {
				parts[t.Zone] += d * t.Share
			}
		}
	}
	out := make(model.Shares, 0, len(parts))
	for z, part := range parts {
		if k := capacity.Of(z); k > 0 {
			part /= k
		} else {
			part = math.Inf(1)
		}
		out = append(out, model.Share{Zone: z, Share: part})
	}
	slices.SortFunc(out, func(a, b model.Share) int { return strings.Compare(a.Zone, b.Zone) })
	return out
}

// PerTB returns what it costs, in USD, that clients and endpoints exchange 10^12 bytes.
func PerTB(m model.Matrix, demand model.Shares, prices model.Prices) float64 {
	sum := 0.0
	for _, r := range m {
		d := demand.Of(r.Zone)
		for _, t := range r.To {
			if d*t.Share > 0 {
				sum += d * t.Share * price(prices, r.Zone, t.Zone)
			}
		}
	}
	return 1000 * sum // GB in a TB
}

// Even sends every client zone evenly to every ready endpoint, as a plain Service does.
func Even(endpoints []model.Endpoint, clients []string) model.Matrix {
	count := map[string]float64{}
	for _, e := range endpoints {
		if e.Ready {
			count[e.Zone]++
		}
	}
	to := normalised(count)
	if to == nil {
		return nil
	}
	clients = slices.Clone(clients)
	slices.Sort(clients)
	clients = slices.Compact(clients)
	out := make(model.Matrix, len(clients))
	for i, c := range clients {
		out[i] = model.Row{Zone: c, To: slices.Clone(to)}
	}
	return out
}

// without returns the weights that hold without us.
func (f *facts) without(in Input) []float64 {
	n := len(f.zones)
	out := make([]float64, n*n)
	for z := range n {
		row := out[z*n : (z+1)*n]
		if in.Without != nil && f.row(in.Without.Of(f.zones[z]), row) {
			continue
		}
		for y, e := range f.endpoints {
			row[y] = float64(e) / float64(f.ready)
		}
	}
	return out
}

// row reads shares into weights of sum 1. It reports false if they are none, or go where there is
// no endpoint.
func (f *facts) row(to model.Shares, row []float64) bool {
	clear(row)
	for _, t := range to {
		y := f.index(t.Zone)
		if !(t.Share >= 0) || math.IsInf(t.Share, 0) || t.Share > 0 && (y < 0 || f.endpoints[y] == 0) {
			clear(row)
			return false
		}
		if y >= 0 {
			row[y] = t.Share
		}
	}
	scale(row)
	return total(row) > 0
}

func (f *facts) inZone(weights []float64) float64 {
	n := len(f.zones)
	sum := 0.0
	for z, d := range f.demand {
		if f.local(z) {
			sum += d * weights[z*n+z]
		}
	}
	return min(sum, 1)
}

func (f *facts) perTB(weights []float64) float64 {
	n := len(f.zones)
	sum := 0.0
	for z, d := range f.demand {
		for y, w := range weights[z*n : (z+1)*n] {
			if d*w > 0 {
				sum += d * w * price(f.prices, f.zones[z], f.zones[y])
			}
		}
	}
	return 1000 * sum
}

// arrivals returns each zone's part of all connections.
func (f *facts) arrivals(weights []float64) []float64 {
	n := len(f.zones)
	out := make([]float64, n)
	for z, d := range f.demand {
		for y, w := range weights[z*n : (z+1)*n] {
			out[y] += d * w
		}
	}
	return out
}

// loads returns the load of each zone's endpoints, among which connections are shared out by what
// they can carry. A drained zone's load is 0 by any plan of ours.
func (f *facts) loads(weights []float64) []float64 {
	out := f.arrivals(weights)
	for y, k := range f.capacity {
		if k > 0 {
			out[y] /= k
		} else {
			out[y] = 0
		}
	}
	return out
}

// evenLoad returns the most that an endpoint gets where a zone's endpoints get the same, whatever
// they can carry, and nobody knows of drained zones.
func (f *facts) evenLoad(weights []float64) float64 {
	most := 0.0
	for y, part := range f.arrivals(weights) {
		if k := f.full[y]; k > 0 {
			load := part / k
			if f.weakest != nil {
				load *= f.weakest[y]
			}
			most = max(most, load)
		}
	}
	return most
}

// zonePlans reports zone by zone; nil weights for none.
func (f *facts) zonePlans(weights []float64) []model.ZonePlan {
	n := len(f.zones)
	out := make([]model.ZonePlan, n)
	var loads []float64
	if weights != nil {
		loads = f.loads(weights)
	}
	used := 0
	for _, w := range weights {
		if w > 0 {
			used++
		}
	}
	to := make(model.Shares, 0, used)
	for z, name := range f.zones {
		p := model.ZonePlan{
			Name: name, Demand: f.demand[z], Endpoints: f.endpoints[z], Capacity: f.capacity[z], Drained: f.drained[z],
		}
		if weights != nil {
			p.Load = loads[z]
			start := len(to)
			for y, w := range weights[z*n : (z+1)*n] {
				if w > 0 {
					to = append(to, model.Share{Zone: f.zones[y], Share: w})
				}
			}
			p.Weights = to[start:len(to):len(to)]
		}
		out[z] = p
	}
	return out
}
