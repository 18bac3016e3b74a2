package route_test

import (
	"math"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/route"
)

// movedBetween is the share of all connections that a change of plan sends elsewhere, demand being
// the later one.
func movedBetween(before, after model.RoutePlan) float64 {
	sum := 0.0
	for _, z := range after.Zones {
		old := before.Matrix().Of(z.Name)
		seen := map[string]float64{}
		for _, w := range z.Weights {
			seen[w.Zone] += w.Share
		}
		for _, w := range old {
			seen[w.Zone] -= w.Share
		}
		for _, v := range seen {
			sum += z.Demand * math.Abs(v) / 2
		}
	}
	return sum
}

// after plans with the plan before, some time later.
func after(in route.Input, old model.RoutePlan, wait time.Duration) (model.RoutePlan, time.Time) {
	in.Previous, in.Now, in.Stability = &old, old.At.Add(wait), route.DefaultStability()
	return route.Plan(in)
}

func TestNothingChangesNothing(t *testing.T) {
	for _, s := range stories() {
		old, _ := route.Plan(s.in)
		p, next := after(s.in, old, time.Hour)
		if !next.IsZero() || !reflect.DeepEqual(p, old) {
			t.Errorf("%s: next %v, was and is\n%s%s", s.name, next, route.Text(old), route.Text(p))
		}
	}
}

func TestStability(t *testing.T) {
	demand := func(a, b, c float64) func(*route.Input) {
		return func(in *route.Input) {
			in.Spec.Demand = model.Static
			in.Spec.Static = model.Shares{{Zone: "a", Share: a}, {Zone: "b", Share: b}, {Zone: "c", Share: c}}
		}
	}
	drained := func(zones ...string) func(*route.Input) {
		return func(in *route.Input) { in.Spec.Drained = zones }
	}
	for _, c := range []struct {
		name     string
		from, to route.Input
		wait     time.Duration
		changed  bool
		ideal    bool          // the plan is at the optimum
		next     time.Duration // after the time of planning; 0: no need
	}{
		{"a gain of a point is not worth it", with(input(4, 4, 4), demand(42, 29, 29)), with(input(4, 4, 4), demand(40, 30, 30)), time.Hour, false, false, 0},
		{"a gain of more is", with(input(4, 4, 4), demand(70, 15, 15)), with(input(4, 4, 4), demand(40, 30, 30)), time.Hour, true, true, 0},
		{"but not right after a change", with(input(4, 4, 4), demand(70, 15, 15)), with(input(4, 4, 4), demand(40, 30, 30)), 10 * time.Second, false, false, 20 * time.Second},
		{"a little over the bound is borne", input(4, 4, 4), with(input(4, 4, 4), demand(41, 30, 29)), time.Hour, false, false, 0},
		{"much over the bound is not", input(4, 4, 4), with(input(4, 4, 4), demand(46, 27, 27)), time.Hour, true, true, 0},
		{"much over the bound waits too, if nothing vanished", input(4, 4, 4), with(input(4, 4, 4), demand(46, 27, 27)), time.Second, false, false, 29 * time.Second},
		{"an endpoint vanished: the bound goes first", input(4, 4, 4), input(4, 4, 3), time.Second, true, true, 0},
		{"an endpoint vanished, and its zone bears it", input(8, 8, 8), input(8, 8, 7), time.Second, false, false, 0},
		{"a zone vanished", input(4, 4, 4), input(4, 4, 0), time.Second, true, true, 0},
		{"a zone is drained", input(4, 4, 4), with(input(4, 4, 4), func(in *route.Input) { in.Spec.Drained = []string{"a"} }), time.Second, true, true, 0},
		{"a zone is given back: a half a minute", with(input(9, 9, 9), drained("b", "c")), input(9, 9, 9), time.Hour, true, false, 30 * time.Second},
		{"the first pod of a zone is used at once", input(1, 0, 0), input(1, 1, 0), time.Second, true, true, 0},
		{"the pod that was missing: nothing stays behind", input(4, 4, 3), input(4, 4, 4), time.Second, true, true, 0},
		{"a pod more where nobody needs it", input(3, 3, 3), input(4, 3, 3), time.Second, false, false, 0},
		{"another bound is meant, and does not wait", input(2, 1, 1), with(input(2, 1, 1), func(in *route.Input) { in.Spec.MaxOverload = 0.34 }), 20 * time.Second, true, true, 0},
		{"a plan from the future holds nothing", with(input(4, 4, 4), demand(70, 15, 15)), with(input(4, 4, 4), demand(40, 30, 30)), -time.Hour, true, true, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			old, _ := route.Plan(c.from)
			p, next := after(c.to, old, c.wait)
			now := old.At.Add(c.wait)
			if changed := p.At == now; changed != c.changed || !changed && p.At != old.At {
				t.Errorf("at %v", p.At.Sub(old.At))
			}
			if (movedBetween(old, p) > 1e-9) != c.changed {
				t.Errorf("moved %v", movedBetween(old, p))
			}
			if ideal := math.Abs(p.InZone.Planned-p.InZone.Ideal) < 1e-9 && p.MaxLoad <= 1+p.MaxOverload+1e-9; ideal != c.ideal && c.next != 0 {
				t.Errorf("in zone %+v, load %v", p.InZone, p.MaxLoad)
			}
			want := time.Time{}
			if c.next != 0 {
				want = now.Add(c.next)
			}
			if next != want {
				t.Errorf("next %v, want %v", next, want)
			}
		})
	}
}

// A zone that is given back gets its connections in steps, each no more than half of all in a minute.
func TestSteps(t *testing.T) {
	old, _ := route.Plan(with(input(9, 9, 9), func(in *route.Input) { in.Spec.Drained = []string{"b", "c"} }))
	in := input(9, 9, 9)
	p, next := after(in, old, time.Minute)
	steps := 1
	for ; !next.IsZero(); steps++ {
		if m := movedBetween(old, p); m > 0.5*p.At.Sub(old.At).Minutes()+1e-9 {
			t.Fatalf("step %d moves %v in %v", steps, m, p.At.Sub(old.At))
		}
		old = p
		p, next = after(in, old, next.Sub(old.At))
	}
	if steps < 2 || steps > 4 || p.InZone.Ideal-p.InZone.Planned > 0.02 {
		t.Errorf("%d steps, in zone %+v", steps, p.InZone)
	}
}

// Where prices differ, money is a gain too: what spills goes on to the zone that became cheaper, if
// that is worth it.
func TestCheaperZone(t *testing.T) {
	for _, c := range []struct {
		pods    []int
		changed bool
	}{{[]int{4, 4, 2}, true}, {[]int{4, 4, 3}, false}} {
		in := input(c.pods...)
		old, _ := route.Plan(in)
		in.Cluster = route.NewCluster(nodesOf(equal), model.Prices{PerGB: 0.05, Pairs: map[model.ZonePair]float64{{From: "c", To: "b"}: 0.01}})
		p, next := after(in, old, time.Hour)
		if changed := p.At != old.At; changed != c.changed || !next.IsZero() {
			t.Errorf("%v: changed %v, next %v", c.pods, changed, next)
		}
		if c.changed && (p.PerTB.Planned != p.PerTB.Ideal || row(p, "c").Of("a") != 0) {
			t.Error(route.Text(p))
		}
	}
}

// Demand that trembles moves nothing.
func TestNoise(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	in := input(4, 4, 3)
	p, _ := route.Plan(in)
	for i := range 1000 {
		in.Measured = &model.Demand{At: start}
		for _, z := range abc {
			in.Measured.Shares = append(in.Measured.Shares, model.Share{Zone: z, Share: 1 + 0.06*(r.Float64()-0.5)})
		}
		q, next := after(in, p, time.Hour)
		if q.At != p.At || !next.IsZero() {
			t.Fatalf("tremble %d: changed\n%s", i, route.Text(q))
		}
		p = q
	}
}

// An autoscaler walks from 1 pod to 40 and back, a step every 15 s. Weights never lead to where no
// pod is; no load is ever above the bound; what moves is capped unless the weights
// of before would break the bound; and there are fewer changes than steps.
func TestAutoscaler(t *testing.T) {
	count := func(pods int) []int { return []int{(pods + 2) / 3, (pods + 1) / 3, pods / 3} }
	var walk []int
	for n := 1; n <= 40; n++ {
		walk = append(walk, n)
	}
	for n := 39; n >= 1; n-- {
		walk = append(walk, n)
	}
	s := route.DefaultStability()
	old, _ := route.Plan(input(count(1)...))
	now, changes, down := old.At, 0, false
	for i, n := range walk {
		in := input(count(n)...)
		now = now.Add(15 * time.Second)
		in.Previous, in.Now, in.Stability = &old, now, s
		p, _ := route.Plan(in)
		down = i > 0 && n < walk[i-1]
		if err := check(p, in); err != nil {
			t.Errorf("step %d, %d pods: %v", i, n, err)
		}
		moved := movedBetween(old, p)
		if moved > 1e-9 {
			changes++
			if !down && moved > s.Move*now.Sub(old.At).Minutes()+1e-9 && !unfit(old, p) {
				t.Errorf("step %d, %d pods: moved %v", i, n, moved)
			}
			if p.At != now {
				t.Errorf("step %d: moved, but at %v", i, p.At)
			}
		}
		if p.InZone.Planned < p.InZone.Before-1e-9 {
			t.Errorf("step %d, %d pods: worse than nothing: %+v", i, n, p.InZone)
		}
		old = p
	}
	if changes == 0 || changes > len(walk)/2 {
		t.Errorf("%d changes in %d steps", changes, len(walk))
	}
	t.Logf("%d changes in %d steps", changes, len(walk))
}

// unfit tells whether the weights of before would break the bound of now.
func unfit(old, now model.RoutePlan) bool {
	var demand, capacity model.Shares
	for _, z := range now.Zones {
		demand = append(demand, model.Share{Zone: z.Name, Share: z.Demand})
		capacity = append(capacity, model.Share{Zone: z.Name, Share: z.Capacity})
	}
	for _, l := range route.Load(old.Matrix(), demand, capacity) {
		if l.Share > 1+now.MaxOverload+1e-9 {
			return true
		}
	}
	return false
}

// Among equally good plans the one that moves the least is taken: as little as another algorithm
// finds to be possible.
func TestLeastMoves(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	for i := range 10_000 {
		in, q := draw(r, i%2 == 1)
		other, _ := draw(r, false)
		other.Cluster, other.Spec = in.Cluster, in.Spec
		old, _ := route.Plan(other)
		in.Previous = &old
		p, _ := route.Plan(in)
		keep := make([][]float64, len(q.demand))
		moved := 0.0
		names := q.names
		for z := range names {
			keep[z] = make([]float64, len(names))
			was, is := row(old, names[z]), row(p, names[z])
			for y := range names {
				keep[z][y] = q.demand[z] * was.Of(names[y])
				if q.crosses[z][y] {
					moved += max(0, q.demand[z]*is.Of(names[y])-keep[z][y])
				}
			}
		}
		if least := q.leastMoved(keep); math.Abs(least-moved) > 1e-9 {
			t.Fatalf("case %d: moves %v, %v would do\nold\n%s\nnew\n%s", i, moved, least, route.Text(old), route.Text(p))
		}
	}
}

func row(p model.RoutePlan, zone string) model.Shares { return p.Matrix().Of(zone) }
