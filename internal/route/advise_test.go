package route_test

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/route"
)

func TestAdvise(t *testing.T) {
	for _, c := range []struct {
		pods  []int
		wish  float64
		adds  []route.Add
		added float64
		moves []route.Move
		moved float64
		why   string
	}{
		{[]int{4, 4, 4}, 1, nil, 1, nil, 1, ""},
		{[]int{4, 4, 3}, 1, []route.Add{{Zone: "c", Pods: 1}}, 1, nil, 2./3 + 3.6/11, "pods moved do not bring 100%"},
		{[]int{2, 1, 1}, 1, []route.Add{{Zone: "b", Pods: 1}, {Zone: "c", Pods: 1}}, 1, nil, 1./3 + 0.6, "pods moved do not bring 100%"},
		{[]int{5, 1, 0}, 0.99, []route.Add{{Zone: "b", Pods: 3}, {Zone: "c", Pods: 4}}, 1,
			[]route.Move{{From: "a", To: "b", Pods: 1}, {From: "a", To: "c", Pods: 2}}, 1, ""},
		{[]int{9, 0, 0}, 1, []route.Add{{Zone: "b", Pods: 6}, {Zone: "c", Pods: 6}}, 1,
			[]route.Move{{From: "a", To: "b", Pods: 3}, {From: "a", To: "c", Pods: 3}}, 1, ""},
		{[]int{4, 4, 3}, 1.5, nil, 2./3 + 3.6/11, nil, 2./3 + 3.6/11, "neither pods added nor moved bring 150%"},
	} {
		a := route.Advise(input(c.pods...), c.wish)
		if !reflect.DeepEqual(a.Adds, c.adds) || !reflect.DeepEqual(a.Moves, c.moves) || !near(a.Added, c.added) || !near(a.Moved, c.moved) || a.Why != c.why {
			t.Errorf("%v: %+v", c.pods, a)
		}
	}
}

// fewest tries every way to change pods: the least number added and moved that fulfil a wish.
func fewest(pods []int, most int, fulfilled func([]int) bool) (added, moved int) {
	added, moved = -1, -1
	sum := 0
	for _, p := range pods {
		sum += p
	}
	for a := 0; a <= sum+most; a++ {
		for b := 0; a+b <= sum+most; b++ {
			for c := 0; a+b+c <= sum+most; c++ {
				n := []int{a, b, c}
				grown, shrunk := 0, 0
				for z := range n {
					grown += max(0, n[z]-pods[z])
					shrunk += max(0, pods[z]-n[z])
				}
				if a+b+c == 0 || shrunk > 0 && grown != shrunk || !fulfilled(n) {
					continue
				}
				if shrunk == 0 && (added < 0 || grown < added) {
					added = grown
				}
				if shrunk == grown && (moved < 0 || grown < moved) {
					moved = grown
				}
			}
		}
	}
	return added, moved
}

// Advice is held against trying everything: nobody gets by with fewer pods, and it brings what it
// says when planned.
func TestAdviseIsLeast(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 10))
	for i := range 150 {
		pods := []int{1 + r.IntN(4), r.IntN(4), r.IntN(4)}
		spec := model.RouteSpec{Demand: model.Static}
		for _, z := range abc {
			spec.Static = append(spec.Static, model.Share{Zone: z, Share: 1 + float64(r.IntN(4))})
		}
		wish := 0.7 + 0.3*r.Float64()
		plan := func(n []int) float64 {
			in := input(n...)
			in.Spec = spec
			p, _ := route.Plan(in)
			return p.InZone.Ideal
		}
		in := input(pods...)
		in.Spec = spec
		a := route.Advise(in, wish)
		const most = 8
		wantAdd, wantMove := fewest(pods, most, func(n []int) bool { return plan(n) >= wish-1e-9 })
		grown, moved := append([]int(nil), pods...), append([]int(nil), pods...)
		adds, moves := 0, 0
		for _, x := range a.Adds {
			grown[x.Zone[0]-'a'] += x.Pods
			adds += x.Pods
		}
		for _, x := range a.Moves {
			moved[x.To[0]-'a'] += x.Pods
			moved[x.From[0]-'a'] -= x.Pods
			moves += x.Pods
		}
		name := fmt.Sprintf("case %d: %v %v wish %v: %+v", i, pods, spec.Static, wish, a)
		if !near(plan(grown), a.Added) || !near(plan(moved), a.Moved) {
			t.Errorf("%s: planned %v and %v", name, plan(grown), plan(moved))
		}
		if (wantAdd >= 0 || adds <= most) && adds != max(wantAdd, 0) {
			t.Errorf("%s: %d pods added would do", name, wantAdd)
		}
		if moves != max(wantMove, 0) {
			t.Errorf("%s: %d pods moved would do", name, wantMove)
		}
	}
}

func TestLoss(t *testing.T) {
	a := route.Advise(input(3, 3, 3), 1)
	want := []route.Loss{
		{Zone: "a", MaxLoad: 1, AllLoad: 1.5, In: "b"},
		{Zone: "b", MaxLoad: 1, AllLoad: 1.5, In: "a"},
		{Zone: "c", MaxLoad: 1, AllLoad: 1.5, In: "a"},
	}
	for i, l := range a.Loss {
		if w := want[i]; l.Zone != w.Zone || l.In != w.In || !near(l.MaxLoad, w.MaxLoad) || !near(l.AllLoad, w.AllLoad) {
			t.Errorf("%+v, want %+v", l, w)
		}
	}
	// Most of the pods are in a, not most of the clients: b and c cannot carry what a did.
	a = route.Advise(input(8, 1, 1), 1)
	if l := a.Loss[0]; l.Zone != "a" || !near(l.MaxLoad, 10./3) || !near(l.AllLoad, 5) {
		t.Errorf("%+v", l)
	}
	if l := route.Advise(input(2, 0, 0), 1).Loss; len(l) != 1 || !l[0].Down {
		t.Errorf("%+v", l)
	}
	if a := route.Advise(input(), 1); a.Why != "no endpoint is ready" || a.Loss != nil {
		t.Errorf("%+v", a)
	}
}
