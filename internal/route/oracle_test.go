package route_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"gonum.org/v1/gonum/mat"
	"gonum.org/v1/gonum/optimize/convex/lp"

	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/route"
)

// question is a plan's problem, taken from the input by the words of the documentation alone.
type question struct {
	names        []string
	demand, room []float64
	price        [][]float64 // USD per GB
	crosses      [][]bool
}

// A network for minimum cost flow.
type edge struct {
	to, back   int
	room, cost int64
}

type network [][]edge

func (g network) join(u, v int, room, cost int64) {
	g[u] = append(g[u], edge{v, len(g[v]), room, cost})
	g[v] = append(g[v], edge{u, len(g[u]) - 1, 0, -cost})
}

// run sends all it can from s to t, along the cheapest path each time, found by Bellman and Ford.
func (g network) run(s, t int) {
	for {
		dist, via := make([]int64, len(g)), make([]*edge, len(g))
		for v := range dist {
			dist[v] = math.MaxInt64
		}
		dist[s] = 0
		for changed := true; changed; {
			changed = false
			for u := range g {
				for i := range g[u] {
					if e := &g[u][i]; dist[u] < math.MaxInt64 && e.room > 0 && dist[u]+e.cost < dist[e.to] {
						dist[e.to], via[e.to], changed = dist[u]+e.cost, e, true
					}
				}
			}
		}
		if via[t] == nil {
			return
		}
		back := func(e *edge) *edge { return &g[e.to][e.back] }
		amount := int64(math.MaxInt64)
		for v := t; v != s; v = back(via[v]).to {
			amount = min(amount, via[v].room)
		}
		for v := t; v != s; v = back(via[v]).to {
			via[v].room -= amount
			back(via[v]).room += amount
		}
	}
}

// answer solves the question as a flow of whole numbers: the least cost, and the greatest in-zone
// share that it can be had with. Prices must be multiples of 10^-5 USD.
func (q question) answer() (cost, inZone float64) {
	x := q.flow(nil)
	for z := range x {
		for y, v := range x[z] {
			cost += v * q.price[z][y]
			if !q.crosses[z][y] {
				inZone += v
			}
		}
	}
	return cost, inZone
}

// leastMoved is the least that crosses anew, beyond keep, among the answers.
func (q question) leastMoved(keep [][]float64) float64 {
	sum := 0.0
	for z, row := range q.flow(keep) {
		for y, v := range row {
			if q.crosses[z][y] {
				sum += max(0, v-keep[z][y])
			}
		}
	}
	return sum
}

func (q question) flow(keep [][]float64) [][]float64 {
	const parts = 1e12
	n := len(q.demand)
	g := make(network, 2*n+2)
	s, t := 2*n, 2*n+1
	for z := range n {
		g.join(s, z, int64(math.Round(q.demand[z]*parts)), 0)
		g.join(n+z, t, int64(q.room[z]*parts), 0)
		for y := range n {
			c := int64(math.Round(q.price[z][y]*1e5)) * 1_000_000
			if q.crosses[z][y] {
				c += 1000
			}
			if keep != nil && q.crosses[z][y] {
				g.join(z, n+y, int64(keep[z][y]*parts), c)
				c++
			}
			g.join(z, n+y, parts, c)
		}
	}
	g.run(s, t)
	out := make([][]float64, n)
	for z := range n {
		out[z] = make([]float64, n)
		for _, e := range g[z] {
			if y := e.to - n; y >= 0 && y < n {
				out[z][y] += float64(g[e.to][e.back].room) / parts
			}
		}
	}
	return out
}

// byLP solves it by a library for linear programs: the least cost alone.
func (q question) byLP() (float64, error) {
	n := len(q.demand)
	var rooms []int
	for y, r := range q.room {
		if r > 0 {
			rooms = append(rooms, y)
		}
	}
	m := len(rooms)
	c, b := make([]float64, n*m+m), make([]float64, n+m)
	a := mat.NewDense(n+m, n*m+m, nil)
	for z := range n {
		b[z] = q.demand[z]
		for i, y := range rooms {
			c[z*m+i] = q.price[z][y]
			a.Set(z, z*m+i, 1)
			a.Set(n+i, z*m+i, 1)
		}
	}
	for i, y := range rooms {
		a.Set(n+i, n*m+i, 1)
		b[n+i] = q.room[y]
	}
	v, _, err := lp.Simplex(c, a, b, 1e-12, nil)
	return v, err
}

// draw makes a random Service, and the question that it poses.
func draw(r *rand.Rand, unequal bool) (route.Input, question) {
	n := 2 + r.IntN(7)
	zones := make([]string, n)
	for z := range zones {
		zones[z] = fmt.Sprintf("zone-%c", 'a'+z)
	}
	places := zones
	if r.IntN(20) == 0 {
		places = append(slices.Clone(zones), "")
	}
	prices := model.Prices{PerGB: 0.02}
	if unequal {
		prices.Pairs = map[model.ZonePair]float64{}
		kinds := 2 + r.IntN(4) // few kinds make many ties
		for _, from := range zones {
			for _, to := range zones {
				if from != to {
					prices.Pairs[model.ZonePair{From: from, To: to}] = 0.01 * float64(r.IntN(kinds))
					if r.IntN(2) == 0 && kinds > 4 {
						prices.Pairs[model.ZonePair{From: from, To: to}] = float64(r.IntN(5000)) / 1e5
					}
				}
			}
		}
	}
	in := route.Input{Service: web, Now: start}
	var nodes []model.Node
	for _, z := range zones {
		nodes = append(nodes, model.Node{Name: "n-" + z, Zone: z, Ready: true, MilliCPU: int64(r.IntN(4)) * 1000})
	}
	in.Cluster = route.NewCluster(nodes, prices)
	for i := range 1 + r.IntN(60) {
		in.Endpoints = append(in.Endpoints, model.Endpoint{
			Addr: netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)}), Zone: places[r.IntN(len(places))],
			Pod: fmt.Sprintf("p%d", i), Ready: i == 0 || r.IntN(8) > 0,
		})
	}
	in.Spec.MaxOverload = []float64{0, 0.01, 0.1, 0.23, 0.5, 1, 4}[r.IntN(7)]
	if r.IntN(3) > 0 {
		in.Spec.Demand = model.Static
		for _, z := range zones {
			if r.IntN(6) > 0 || z == zones[0] {
				in.Spec.Static = append(in.Spec.Static, model.Share{Zone: z, Share: 0.001 + r.ExpFloat64()})
			}
		}
	}
	if r.IntN(8) == 0 {
		in.Spec.Drained = append(in.Spec.Drained, zones[r.IntN(n)])
	}
	if r.IntN(6) == 0 {
		in.Spec.Capacity = model.CPURequests
		in.CPU = func(p model.Name) int64 { return int64(100 * (len(p.Name) + int(p.Name[len(p.Name)-1]-'0') - 2)) } // p0 requests none
	}
	return in, pose(in, places, prices)
}

func pose(in route.Input, zones []string, prices model.Prices) question {
	demand := in.Cluster.Demand().Shares
	if in.Spec.Demand == model.Static {
		demand = in.Spec.Static
	}
	bound := 1 + in.Spec.MaxOverload
	if in.Spec.MaxOverload == 0 {
		bound = 1.2
	}
	q := question{names: zones}
	sum, all := 0.0, 0.0
	requested, some := 0.0, 0.0
	for _, e := range in.Endpoints {
		if in.CPU != nil && e.Ready && in.CPU(model.Name{Name: e.Pod}) > 0 {
			requested += float64(in.CPU(model.Name{Name: e.Pod}))
			some++
		}
	}
	for _, s := range demand {
		sum += s.Share
	}
	kept := func(drained bool) (room []float64, total float64) {
		for _, z := range zones {
			k := 0.0
			for _, e := range in.Endpoints {
				if e.Ready && e.Zone == z && !(drained && slices.Contains(in.Spec.Drained, z)) {
					cpu := 1.0
					if some > 0 {
						cpu = requested / some
					}
					if in.CPU != nil && in.CPU(model.Name{Name: e.Pod}) > 0 {
						cpu = float64(in.CPU(model.Name{Name: e.Pod}))
					}
					k += cpu
				}
			}
			room, total = append(room, k), total+k
		}
		return room, total
	}
	if q.room, all = kept(true); all == 0 {
		q.room, all = kept(false)
	}
	for y, z := range zones {
		q.room[y] *= bound / all
		d := 0.0
		if sum == 0 { // no node tells its CPU: all the same
			d = 1 / float64(len(slices.DeleteFunc(slices.Clone(zones), func(z string) bool { return z == "" })))
			if z == "" {
				d = 0
			}
		} else {
			for _, s := range demand {
				if s.Zone == z {
					d = s.Share / sum
				}
			}
		}
		q.demand = append(q.demand, d)
		q.price, q.crosses = append(q.price, nil), append(q.crosses, nil)
		for _, to := range zones {
			p := prices.Of(z, to)
			if z == "" && to == "" {
				p = prices.PerGB
			}
			q.price[y] = append(q.price[y], p)
			q.crosses[y] = append(q.crosses[y], z != to || z == "")
		}
	}
	return q
}

// check holds a plan to what must be true of any.
func check(p model.RoutePlan, in route.Input) error {
	ready := map[string]int{}
	for _, e := range in.Endpoints {
		if e.Ready {
			ready[e.Zone]++
		}
	}
	for _, z := range p.Zones {
		if z.Load > (1+p.MaxOverload)*(1+1e-12) {
			return fmt.Errorf("zone %s: load %v", z.Name, z.Load)
		}
		sum := 0.0
		for _, w := range z.Weights {
			sum += w.Share
			if ready[w.Zone] == 0 || !(w.Share > 0) {
				return fmt.Errorf("zone %s: %v to zone %s with %d ready endpoints", z.Name, w.Share, w.Zone, ready[w.Zone])
			}
		}
		if len(ready) > 0 && math.Abs(sum-1) > 1e-12 {
			return fmt.Errorf("zone %s: weights sum to %v", z.Name, sum)
		}
	}
	return nil
}

// The plan is the optimum: it costs what another algorithm finds, a library for linear programs
// too, with as many connections in their zone, and never breaks the bound, nor goes to where
// nothing is ready. Whatever was planned before, and in whatever order facts come.
func TestOptimum(t *testing.T) {
	const cases, every = 100_000, 200
	r := rand.New(rand.NewPCG(1, 2))
	for i := range cases {
		in, q := draw(r, i%2 == 1)
		if i%4 >= 2 {
			old, _ := draw(r, false)
			old.Cluster = in.Cluster
			p, _ := route.Plan(old)
			p.MaxOverload = in.Spec.MaxOverload
			in.Previous = &p
		}
		p, _ := route.Plan(in)
		cost, inZone := q.answer()
		// Half of the cases have one price: there the whole objective is the in-zone share.
		if math.Abs(p.PerTB.Ideal/1000-cost) > 1e-9 || math.Abs(p.InZone.Ideal-inZone) > 1e-9 {
			t.Fatalf("case %d: USD per GB %.12f, in zone %.12f, want %.12f and %.12f\n%s",
				i, p.PerTB.Ideal/1000, p.InZone.Ideal, cost, inZone, route.Text(p))
		}
		if math.Abs(p.InZone.Planned-p.InZone.Ideal) > 1e-11 {
			t.Fatalf("case %d: without stability the plan is at %v of %v", i, p.InZone.Planned, p.InZone.Ideal)
		}
		if err := check(p, in); err != nil {
			t.Fatalf("case %d: %v\n%s", i, err, route.Text(p))
		}
		if i%every < 2 {
			v, err := q.byLP()
			if err != nil {
				t.Fatalf("case %d: linear program: %v", i, err)
			}
			if math.Abs(p.PerTB.Ideal/1000-v) > 1e-9 {
				t.Fatalf("case %d: USD per GB %.12f, by linear program %.12f", i, p.PerTB.Ideal/1000, v)
			}
		}
		if i%10 == 0 {
			r.Shuffle(len(in.Endpoints), func(a, b int) {
				in.Endpoints[a], in.Endpoints[b] = in.Endpoints[b], in.Endpoints[a]
			})
			r.Shuffle(len(in.Spec.Static), func(a, b int) {
				in.Spec.Static[a], in.Spec.Static[b] = in.Spec.Static[b], in.Spec.Static[a]
			})
			again, _ := route.Plan(in)
			if diff := cmp.Diff(p, again, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
				t.Fatalf("case %d: order matters:\n%s", i, diff)
			}
		}
	}
}
