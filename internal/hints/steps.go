package hints

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/route"
)

// Step is one write: the hints of every endpoint of one slice. An endpoint that is missing has none.
type Step struct {
	Slice model.Name
	Hints map[netip.Addr]Hint
}

// Steps orders the writes that turn the hints of a Service's slices, all of one family, into the
// target. Consumers see slices one by one, so what is between counts too: no endpoint gets more than
// before, after, or the plan's bound, whichever is most, be the consumer new or old. Four ways are
// tried:
//   - each slice once, in some order;
//   - each slice widened to both the old and the new names, then narrowed;
//   - one slice loses its node hints, so that all are ignored until the others are written;
//   - the same with all hints, if none of that will do. Then connections spread evenly over all
//     endpoints for a moment, as they would without us, and go to the target all at once.
//
// Who writes may ask anew after each step: what is left is again such a sequence, and it ends.
func Steps(current []model.Slice, target Set, clients []Client, p model.RoutePlan) []Step {
	t := newTransition(current, target, clients, p)
	if len(t.changed) == 0 {
		return nil
	}
	t.again()
	if steps, ok := t.order(t.now, t.final, nil, t.changed); ok {
		return steps
	}
	if steps, ok := t.widened(); ok {
		return steps
	}
	if steps, ok := t.byZone(); ok {
		return steps
	}
	return t.without()
}

// effort is how many endpoints a search for an order looks at: 200 states of 100.
const effort = 20_000

// again allows another search.
func (t *transition) again() {
	n := 1
	for _, s := range t.current {
		n += len(s.Endpoints)
	}
	t.tries = min(200, effort/n)
}

// transition is slices on their way.
type transition struct {
	now, final []map[netip.Addr]Hint
	current    []model.Slice // ordered by name
	changed    []int         // slices that must be written
	clients    []Client
	capacity   func(netip.Addr) float64
	drained    map[string]bool
	limits     [2]float64 // by consumer
	tries      int
}

func newTransition(current []model.Slice, target Set, clients []Client, p model.RoutePlan) *transition {
	t := &transition{clients: slices.Clone(clients), capacity: capacities(p), drained: drained(p)}
	t.current = slices.SortedFunc(slices.Values(current), func(a, b model.Slice) int {
		return a.Name.Compare(b.Name)
	})
	slices.SortFunc(t.clients, byPlace)
	byNode := false
	for _, h := range target.Of {
		byNode = byNode || len(h.Nodes) > 0
	}
	for i, s := range t.current {
		now, final := map[netip.Addr]Hint{}, map[netip.Addr]Hint{}
		differs := false
		for _, e := range s.Endpoints {
			if h := (Hint{sorted(e.ZoneHints), sorted(e.NodeHints)}); len(h.Zones)+len(h.Nodes) > 0 {
				now[e.Addr] = h
			}
			if h, ok := targetOf(target, byNode, e); ok {
				final[e.Addr] = h
			}
			differs = differs || !now[e.Addr].Equal(final[e.Addr])
		}
		t.now, t.final = append(t.now, now), append(t.final, final)
		if differs {
			t.changed = append(t.changed, i)
		}
	}
	before, after := t.loads(t.now), t.loads(t.final)
	for c := range t.limits {
		bound := 1 + p.MaxOverload
		if c > 0 {
			bound = 1 + olderSlack*p.MaxOverload
		}
		t.limits[c] = max(before[c], after[c], bound) + tiny
	}
	return t
}

func targetOf(target Set, byNode bool, e model.Endpoint) (Hint, bool) {
	if len(target.Of) == 0 {
		return Hint{}, false
	}
	h, ok := target.Of[e.Addr]
	if !ok {
		h = Unplanned(e)
		if !byNode {
			h.Nodes = nil
		}
	}
	return h, true
}

// loads are the most that an endpoint gets from new and from old consumers.
func (t *transition) loads(hints []map[netip.Addr]Hint) (out [2]float64) {
	var family []model.Slice
	for i, s := range t.current {
		s.Endpoints = slices.Clone(s.Endpoints)
		for j := range s.Endpoints {
			h := hints[i][s.Endpoints[j].Addr]
			s.Endpoints[j].ZoneHints, s.Endpoints[j].NodeHints = h.Zones, h.Nodes
		}
		family = append(family, s)
	}
	endpoints := route.Endpoints(family, len(family) > 0 && family[0].V6)
	capacity := func(i int) float64 {
		if t.drained[endpoints[i].Zone] {
			return 0
		}
		return t.capacity(endpoints[i].Addr)
	}
	for c, consumer := range []Consumer{KubeProxy, KubeProxyOld} {
		out[c] = Predict(consumer, t.clients, endpoints, capacity).MaxLoad
	}
	return out
}

// safe tells whether nobody gets too much while slices have these hints.
func (t *transition) safe(hints []map[netip.Addr]Hint) bool {
	t.tries--
	loads := t.loads(hints)
	return loads[0] <= t.limits[0] && loads[1] <= t.limits[1]
}

// order looks for an order of writes from one state to another in which every state is safe.
func (t *transition) order(from, to []map[netip.Addr]Hint, done []Step, open []int) ([]Step, bool) {
	if len(open) == 0 {
		return done, true
	}
	for n, i := range open {
		if t.tries <= 0 {
			return nil, false
		}
		next := slices.Clone(from)
		next[i] = to[i]
		if !t.safe(next) {
			continue
		}
		step := Step{t.current[i].Name, to[i]}
		rest := slices.Delete(slices.Clone(open), n, n+1)
		if steps, ok := t.order(next, to, append(slices.Clip(done), step), rest); ok {
			return steps, true
		}
	}
	return nil, false
}

// widened goes by way of both the old and the new names.
func (t *transition) widened() ([]Step, bool) {
	wide := slices.Clone(t.now)
	for _, i := range t.changed {
		wide[i] = map[netip.Addr]Hint{}
		for a, h := range t.final[i] {
			both := Hint{both(t.now[i][a].Zones, h.Zones, NoZone), both(t.now[i][a].Nodes, h.Nodes, NoNode)}
			if len(both.Zones) > maxZones || len(both.Nodes) > maxNodes {
				return nil, false
			}
			wide[i][a] = both
		}
	}
	wider := slices.DeleteFunc(slices.Clone(t.changed), func(i int) bool { return sameHints(wide[i], t.now[i]) })
	t.again()
	steps, ok := t.order(t.now, wide, nil, wider)
	if !ok {
		return nil, false
	}
	t.again()
	return t.order(wide, t.final, steps, t.changed)
}

func sameHints(a, b map[netip.Addr]Hint) bool { return maps.EqualFunc(a, b, Hint.Equal) }

// both joins names; the one that stands for nobody goes where there is another.
func both(a, b []string, nobody string) []string {
	out := sorted(slices.Concat(a, b))
	if len(out) > 1 {
		out = slices.DeleteFunc(out, func(n string) bool { return n == nobody })
	}
	return out
}

// gate is a slice with a ready endpoint: while that lacks a kind of hint, no hint of the kind counts.
// It is one that lacks them already, else the smallest; -1 if nothing is ready.
func (t *transition) gate(lacks func(Hint) bool) (gate int, open bool) {
	gate = -1
	for i, s := range t.current {
		ready, bare := false, false
		for _, e := range s.Endpoints {
			ready = ready || e.Ready
			bare = bare || e.Ready && lacks(t.now[i][e.Addr])
		}
		switch {
		case bare:
			return i, true
		case ready && (gate < 0 || len(s.Endpoints) < len(t.current[gate].Endpoints)):
			gate = i
		}
	}
	return gate, false
}

// byZone lets every node follow its zone while slices are written, if no endpoint gets too much then.
func (t *transition) byZone() ([]Step, bool) {
	gate, open := t.gate(func(h Hint) bool { return len(h.Nodes) == 0 })
	if gate < 0 || open {
		return nil, false
	}
	closed := slices.Clone(t.now)
	closed[gate] = map[netip.Addr]Hint{}
	for a, h := range t.now[gate] {
		closed[gate][a] = Hint{Zones: h.Zones}
	}
	if !t.safe(closed) {
		return nil, false
	}
	t.again()
	steps, ok := t.order(closed, t.final, []Step{{t.current[gate].Name, closed[gate]}}, t.but(gate))
	return append(steps, Step{t.current[gate].Name, t.final[gate]}), ok
}

// without lets every node use every endpoint while slices are written.
func (t *transition) without() (steps []Step) {
	gate, open := t.gate(func(h Hint) bool { return len(h.Zones)+len(h.Nodes) == 0 })
	if gate >= 0 && !open {
		steps = append(steps, Step{t.current[gate].Name, map[netip.Addr]Hint{}})
	}
	for _, i := range t.but(gate) {
		steps = append(steps, Step{t.current[i].Name, t.final[i]})
	}
	if gate >= 0 {
		steps = append(steps, Step{t.current[gate].Name, t.final[gate]})
	}
	return steps
}

// but is the slices to be written, one left out.
func (t *transition) but(gate int) []int {
	return slices.DeleteFunc(slices.Clone(t.changed), func(i int) bool { return i == gate })
}

func byPlace(a, b Client) int {
	return cmp.Or(cmp.Compare(a.Zone, b.Zone), cmp.Compare(a.Node, b.Node), cmp.Compare(a.Share, b.Share))
}
