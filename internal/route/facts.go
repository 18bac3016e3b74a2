package route

import (
	"math"
	"slices"

	"github.com/zonewise/zonewise/internal/model"
)

// facts are an Input in numbers. Slices that have one number for each zone have it at the zone's
// index in zones; tables that have one for each pair have it at client*len(zones)+endpoint.
type facts struct {
	zones     []string     // sorted; "" stands for where no zone is known
	known     model.Demand // as the plan reports it
	demand    []float64    // sum 1
	endpoints []int        // ready ones
	full      []float64    // part of the capacity of all ready endpoints; sum 1
	capacity  []float64    // the same without drained zones
	drained   []bool
	ignored   bool     // draining, because nothing would be left
	nowhere   []string // zones to drain that do not exist
	ready     int
	hosts     []bool  // there are nodes: pods could stand there
	theta     float64 // MaxOverload
	bound     float64 // 1 + theta
	prices    model.Prices
	uniform   bool    // all crossings cost the same
	chance    float64 // by how much chance may move a measured share; +Inf: not known

	eps     []model.Endpoint // all, ready or not
	caps    []float64        // of each of eps, 0 where nothing is known; nil: all the same
	mean    float64          // of those that are known
	weakest []float64        // mean capacity of a zone's endpoints over that of its weakest
}

func gather(in Input) *facts {
	theta := overload(in.Spec)
	f := &facts{eps: in.Endpoints, theta: theta, bound: 1 + theta}
	cluster := in.Cluster
	if cluster == nil {
		cluster = &Cluster{}
	}
	f.prices = cluster.prices
	f.known = demandOf(in, cluster)
	f.chance = chance(in.Measured)
	shares := f.known.Shares
	if len(shares) == 0 { // nobody knows a zone: all clients are somewhere
		shares = model.Shares{{Zone: "", Share: 1}}
	}
	f.place(cluster, shares)
	n := len(f.zones)
	f.demand, f.endpoints = make([]float64, n), make([]int, n)
	f.full, f.capacity, f.drained = make([]float64, n), make([]float64, n), make([]bool, n)
	for _, s := range shares {
		f.demand[f.index(s.Zone)] = s.Share
	}
	f.hosts = make([]bool, n)
	for _, z := range cluster.zones {
		f.hosts[f.index(z)] = true
	}
	if in.Spec.Capacity == model.CPURequests {
		f.caps, f.mean = requests(in)
	}
	f.count(in.Spec.Drained)
	f.uniform = f.samePrices()
	return f
}

func overload(spec model.RouteSpec) float64 {
	if spec.MaxOverload > 0 && spec.MaxOverload <= maxMaxOverload {
		return spec.MaxOverload
	}
	return DefaultMaxOverload
}

// place lists the zones: of nodes, of clients, of ready endpoints.
func (f *facts) place(c *Cluster, shares model.Shares) {
	f.zones = slices.Clone(c.zones)
	add := func(zone string) {
		if i, ok := slices.BinarySearch(f.zones, zone); !ok {
			f.zones = slices.Insert(f.zones, i, zone)
		}
	}
	if c.unplaced {
		add("")
	}
	for _, s := range shares {
		add(s.Zone)
	}
	for i := range f.eps {
		if f.eps[i].Ready {
			add(f.eps[i].Zone)
		}
	}
}

func (f *facts) index(zone string) int {
	i, ok := slices.BinarySearch(f.zones, zone)
	if !ok {
		return -1
	}
	return i
}

// requests returns the milli-CPU that the ready endpoints' pods request, and the mean of those that
// request some: what the others count for.
func requests(in Input) (caps []float64, mean float64) {
	caps = make([]float64, len(in.Endpoints))
	sum, some := 0.0, 0
	for i, e := range in.Endpoints {
		if !e.Ready || e.Pod == "" || in.CPU == nil {
			continue
		}
		if m := in.CPU(model.Name{Namespace: in.Service.Namespace, Name: e.Pod}); m > 0 {
			caps[i] = float64(m)
			sum += caps[i]
			some++
		}
	}
	if some == 0 {
		return caps, 1
	}
	return caps, sum / float64(some)
}

// carries is what an endpoint can carry.
func (f *facts) carries(i int) float64 {
	switch {
	case f.caps == nil:
		return 1
	case f.caps[i] == 0:
		return f.mean
	}
	return f.caps[i]
}

// count adds up endpoints and their capacity by zone. Whole numbers are summed first, so that the
// order of endpoints does not show in the last digits.
func (f *facts) count(drained []string) {
	n := len(f.zones)
	unknown, least := make([]float64, n), make([]float64, n)
	for i := range f.eps {
		if !f.eps[i].Ready {
			continue
		}
		z := f.index(f.eps[i].Zone)
		f.endpoints[z]++
		f.ready++
		k := f.carries(i)
		if f.caps != nil && f.caps[i] == 0 {
			unknown[z]++
		} else {
			f.full[z] += k
		}
		if least[z] == 0 || k < least[z] {
			least[z] = k
		}
	}
	if f.caps != nil {
		f.weakest = make([]float64, n)
		for z, u := range unknown {
			f.full[z] += u * f.mean
			if least[z] > 0 {
				f.weakest[z] = f.full[z] / float64(f.endpoints[z]) / least[z]
			}
		}
	}
	scale(f.full)
	copy(f.capacity, f.full)
	for _, d := range drained {
		z := f.index(d)
		if z < 0 || d == "" {
			f.nowhere = append(f.nowhere, d)
			continue
		}
		f.drained[z] = true
		f.capacity[z] = 0
	}
	slices.Sort(f.nowhere)
	if f.ready > 0 && total(f.capacity) == 0 {
		f.ignored = true
		copy(f.capacity, f.full)
		// A pod in another zone would make the draining good, and keep less in zone.
		for z, d := range f.drained {
			f.hosts[z] = f.hosts[z] && d
		}
		clear(f.drained)
		return
	}
	scale(f.capacity)
}

// scale makes the sum 1.
func scale(v []float64) {
	if sum := total(v); sum > 0 {
		for i := range v {
			v[i] /= sum
		}
	}
}

func total(v []float64) float64 {
	sum := 0.0
	for _, x := range v {
		sum += x
	}
	return sum
}

func maximum(v []float64) float64 {
	most := 0.0
	for _, x := range v {
		most = max(most, x)
	}
	return most
}

// price of a crossing in USD per GB; 0 within a zone.
func price(p model.Prices, from, to string) float64 {
	if from == "" && to == "" { // both unknown: nothing says that they are the same place
		if v, ok := p.Pairs[model.ZonePair{}]; ok {
			return v
		}
		return p.PerGB
	}
	return p.Of(from, to)
}

func (f *facts) samePrices() bool {
	if len(f.prices.Pairs) == 0 {
		return true
	}
	first := math.NaN()
	for i, from := range f.zones {
		for j, to := range f.zones {
			if i == j && from != "" || f.capacity[j] == 0 {
				continue
			}
			p := price(f.prices, from, to)
			if first != first {
				first = p
			}
			if p != first {
				return false
			}
		}
	}
	return true
}

// capacities lists what each ready endpoint can carry, if they differ.
func (f *facts) capacities() []model.Capacity {
	if f.caps == nil {
		return nil
	}
	out := make([]model.Capacity, 0, f.ready)
	same := true
	for i, e := range f.eps {
		if e.Ready {
			out = append(out, model.Capacity{Addr: e.Addr, Capacity: f.carries(i)})
			same = same && f.carries(i) == out[0].Capacity
		}
	}
	if same {
		return nil
	}
	slices.SortFunc(out, func(a, b model.Capacity) int { return a.Addr.Compare(b.Addr) })
	return out
}
