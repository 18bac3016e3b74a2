package hints

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/route"
)

// deal puts endpoints into slices.
func deal(r *rand.Rand, endpoints []model.Endpoint, n int) []model.Slice {
	out := make([]model.Slice, n)
	for i := range out {
		out[i] = model.Slice{Name: model.Name{Namespace: "shop", Name: fmt.Sprintf("web-%d", i)}, Service: "web"}
	}
	for _, e := range endpoints {
		s := &out[r.IntN(n)]
		s.Endpoints = append(s.Endpoints, e)
	}
	return out
}

func put(all []model.Slice, hints map[netip.Addr]Hint, only model.Name) []model.Slice {
	out := slices.Clone(all)
	for i := range out {
		if only.Name != "" && out[i].Name != only {
			continue
		}
		out[i].Endpoints = slices.Clone(out[i].Endpoints)
		for j := range out[i].Endpoints {
			h := hints[out[i].Endpoints[j].Addr]
			out[i].Endpoints[j].ZoneHints, out[i].Endpoints[j].NodeHints = h.Zones, h.Nodes
		}
	}
	return out
}

// At each step nobody gets more than before, after or by the bound, unless the state is the one
// without hints; and the last step reaches the target.
func TestStepsAreSafe(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	ways := map[string]int{}
	for range 800 {
		pods := scatter(r, 3+r.IntN(15), 3)
		nodes := 1 + r.IntN(6)
		old := newWorld(pods, nodes, drawDemand(r, 3), 0.2)
		now := newWorld(pods, nodes, drawDemand(r, 3), 0.2)
		before := Plan(old.plan, old.clients, old.endpoints, nil)
		target := Plan(now.plan, now.clients, now.endpoints, nil)
		if r.IntN(10) == 0 {
			before = Set{}
		}
		if r.IntN(10) == 0 {
			target = Set{}
		}
		state := put(deal(r, now.endpoints, 1+r.IntN(5)), before.Of, model.Name{})
		steps := Steps(state, target, now.clients, now.plan)
		again := slices.Clone(state)
		slices.Reverse(again)
		if got := Steps(again, target, now.clients, now.plan); !reflect.DeepEqual(got, steps) {
			t.Fatalf("in another order of slices:\n%v\n%v", got, steps)
		}
		check := func(c Consumer, overload float64) {
			load := func(s []model.Slice) float64 {
				return Predict(c, now.clients, route.Endpoints(s, false), nil).MaxLoad
			}
			state := state
			limit := max(load(state), load(put(state, target.Of, model.Name{})), 1+overload) + 1e-6
			for n, s := range steps {
				state = put(state, s.Hints, s.Slice)
				if l := load(state); l > limit {
					t.Errorf("%s, step %d of %d: load %.3f, limit %.3f", c, n+1, len(steps), l, limit)
				}
			}
			if !reflect.DeepEqual(state, put(state, target.Of, model.Name{})) {
				t.Errorf("the steps end elsewhere than the target")
			}
		}
		check(KubeProxy, 0.2)
		check(KubeProxyOld, 0.4)
		ways[way(steps)]++
	}
	t.Logf("ways: %v", ways)
	for _, w := range []string{"none", "each once", "widened", "by zone", "without hints"} {
		if ways[w] == 0 {
			t.Errorf("no case went the way %q", w)
		}
	}
}

func way(steps []Step) string {
	seen := map[model.Name]int{}
	twice := 0
	for _, s := range steps {
		if seen[s.Slice]++; seen[s.Slice] > 1 {
			twice++
		}
	}
	switch {
	case len(steps) == 0:
		return "none"
	case twice == 0:
		return "each once"
	case len(steps[0].Hints) == 0:
		return "without hints"
	}
	for _, h := range steps[0].Hints {
		if len(h.Nodes) == 0 {
			return "by zone"
		}
	}
	return "widened"
}

// A second look at what was written finds nothing to write.
func TestStepsEnd(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 100 {
		w := newWorld(spread(r, 3+r.IntN(20), 3), 3, drawDemand(r, 3), 0.2)
		s := Plan(w.plan, w.clients, w.endpoints, nil)
		if steps := Steps(put(deal(r, w.endpoints, 3), s.Of, model.Name{}), s, w.clients, w.plan); len(steps) > 0 {
			t.Fatalf("%d steps to where it is:\n%v", len(steps), steps)
		}
	}
}

// Asking anew after each step gets there too, as safely.
func TestStepByStep(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 10))
	for range 500 {
		pods, nodes, n := scatter(r, 3+r.IntN(15), 3), 1+r.IntN(6), 1+r.IntN(5)
		old, now := newWorld(pods, nodes, drawDemand(r, 3), 0.2), newWorld(pods, nodes, drawDemand(r, 3), 0.2)
		target := Plan(now.plan, now.clients, now.endpoints, nil)
		state := put(deal(r, now.endpoints, n), Plan(old.plan, old.clients, old.endpoints, nil).Of, model.Name{})
		load := func(s []model.Slice) float64 {
			return Predict(KubeProxy, now.clients, route.Endpoints(s, false), nil).MaxLoad
		}
		limit := max(load(state), load(put(state, target.Of, model.Name{})), 1.2) + 1e-6
		writes := 0
		for {
			steps := Steps(state, target, now.clients, now.plan)
			if len(steps) == 0 {
				break
			}
			next := put(state, steps[0].Hints, steps[0].Slice)
			if reflect.DeepEqual(next, state) {
				t.Fatalf("a write that changes nothing: %v", steps[0])
			}
			state = next
			if writes++; writes > 3*n {
				t.Fatalf("%d slices, %d writes and no end", n, writes)
			}
			if l := load(state); l > limit {
				t.Fatalf("after write %d: load %.3f, limit %.3f", writes, l, limit)
			}
		}
	}
}
