package simulate

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/zonewise/zonewise/internal/hints"
	"github.com/zonewise/zonewise/internal/model"
)

// WalkRow is what one algorithm made of the walks: an autoscaler goes from one pod up to many, a
// node is lost and comes back, a zone is lost and comes back, and it goes down to one pod again.
type WalkRow struct {
	Algorithm    string
	NodesPerZone int // 0: makes no difference
	Changes      int
	InZone       float64 // mean over the walk
	Above        float64 // share of states in which an endpoint is above the bound
	LoadP99      float64
	Moved        float64 // mean share of connections that a change sends elsewhere than before
	MovedMax     float64 // the most that one change moved
	Writes       float64 // mean number of writes of slices that a change causes
	Refused      float64 // share of states in which the algorithm gave up
}

// minute passes between two changes, which is how often an autoscaler looks at most.
const minute = time.Minute

// walkTally collects the states of a walk, and the changes between them.
type walkTally struct {
	worth         []worth
	moved, writes []float64
}

func (t *walkTally) walk(states []Case, r Router) {
	var last outcome
	for i, c := range states {
		now := judge(c, r)
		t.worth = append(t.worth, now.worth)
		if i > 0 {
			t.moved = append(t.moved, moved(c.Clients, last, now))
			t.writes = append(t.writes, float64(writes(last, now)))
		}
		last = now
	}
}

// walkRow sums up a player's walks.
func walkRow(pl player, walks []walkTally, maxOverload float64) WalkRow {
	var t tally
	var moved, writes []float64
	for _, w := range walks {
		for _, x := range w.worth {
			t.add(x)
		}
		moved, writes = append(moved, w.moved...), append(writes, w.writes...)
	}
	r := t.row(maxOverload)
	out := WalkRow{Algorithm: pl.Name, NodesPerZone: pl.label, Changes: len(moved), InZone: r.InZone, Above: r.Above,
		LoadP99: r.LoadP99, Refused: r.Refused, Moved: mean(moved), Writes: mean(writes)}
	if len(moved) > 0 {
		out.MovedMax = slices.Max(moved)
	}
	return out
}

// moved is the share of the connections, of clients that were there before, which go elsewhere now.
func moved(clients []hints.Client, before, now outcome) float64 {
	gone, all := 0.0, 0.0
	for _, c := range clients {
		was, ok := before.spread[c.Node]
		if !ok {
			continue
		}
		all += c.Share
		stayed := 0.0
		for addr, share := range now.spread[c.Node] {
			stayed += math.Min(share, was[addr])
		}
		gone += c.Share * (1 - stayed)
	}
	if all == 0 {
		return 0
	}
	return max(gone/all, 0)
}

// writes counts the writes of the one slice: one if the endpoints changed, one if their hints
// alone did, and what it takes where hints are brought apart.
func writes(before, now outcome) int {
	same := slices.EqualFunc(before.endpoints, now.endpoints, func(a, b model.Endpoint) bool { return a.Addr == b.Addr && a.Node == b.Node })
	if now.steps > 0 {
		if same {
			return now.steps
		}
		return now.steps + 1
	}
	if same && slices.EqualFunc(before.endpoints, now.endpoints, sameHints) {
		return 0
	}
	return 1
}

func sameHints(a, b model.Endpoint) bool {
	return slices.Equal(a.ZoneHints, b.ZoneHints) && slices.Equal(a.NodeHints, b.NodeHints)
}

// states is one walk, the same for every algorithm that has as many nodes.
func (c Config) states(nodesPerZone, n int) []Case {
	r := c.random("walk", n)
	w := world{config: c, random: r, demand: demand(r, c.Zones), nodes: nodes(c.Zones, nodesPerZone)}
	for len(w.pods) < c.WalkPods {
		w.add()
		w.look()
	}
	node := w.nodes[r.IntN(len(w.nodes))]
	w.lose(func(n model.Node) bool { return n.Name == node.Name })
	w.restore()
	w.lose(func(n model.Node) bool { return n.Zone == node.Zone })
	w.restore()
	for len(w.pods) > 1 {
		w.remove()
		w.look()
	}
	return w.seen
}

// world is a cluster that changes.
type world struct {
	config Config
	random *rand.Rand
	demand model.Shares
	nodes  []model.Node // ordered by name
	lost   []model.Node
	pods   []model.Endpoint
	born   int // pods ever made: none gets the address of another
	seen   []Case
}

// look records the world as it is now.
func (w *world) look() {
	demand := w.present()
	endpoints := slices.Clone(w.pods)
	slices.SortFunc(endpoints, func(a, b model.Endpoint) int { return a.Addr.Compare(b.Addr) })
	alive := slices.Clone(w.nodes)
	w.seen = append(w.seen, Case{Nodes: alive, Demand: demand, Clients: hints.Clients(alive, demand), Endpoints: endpoints,
		MaxOverload: w.config.MaxOverload, Prices: w.config.Prices, Now: time.Unix(0, 0).UTC().Add(time.Duration(len(w.seen)) * minute)})
}

// present is the demand of the zones that have a node.
func (w *world) present() model.Shares {
	var out model.Shares
	sum := 0.0
	for _, d := range w.demand {
		if slices.ContainsFunc(w.nodes, func(n model.Node) bool { return n.Zone == d.Zone }) {
			out = append(out, d)
			sum += d.Share
		}
	}
	for i := range out {
		out[i].Share /= sum
	}
	return out
}

// add starts a pod as the scheduler does by default: in the zone that has fewest, on its node that
// has fewest.
func (w *world) add() {
	zone, node := map[string]int{}, map[string]int{}
	for _, p := range w.pods {
		zone[p.Zone]++
		node[p.Node]++
	}
	best := w.nodes[0]
	for _, n := range w.nodes[1:] {
		if zone[n.Zone] < zone[best.Zone] || zone[n.Zone] == zone[best.Zone] && node[n.Name] < node[best.Name] {
			best = n
		}
	}
	w.pods = append(w.pods, endpoint(w.born, best))
	w.born++
}

// remove ends any pod: scaling in keeps no balance between zones.
func (w *world) remove() {
	i := w.random.IntN(len(w.pods))
	w.pods = slices.Delete(w.pods, i, i+1)
}

// lose takes nodes away with their pods and clients; then the pods start anew elsewhere.
func (w *world) lose(which func(model.Node) bool) {
	for _, n := range w.nodes {
		if which(n) {
			w.lost = append(w.lost, n)
		}
	}
	gone := map[string]bool{}
	for _, n := range w.lost {
		gone[n.Name] = true
	}
	w.nodes = slices.DeleteFunc(w.nodes, which)
	before := len(w.pods)
	w.pods = slices.DeleteFunc(w.pods, func(p model.Endpoint) bool { return gone[p.Node] })
	if len(w.pods) > 0 {
		w.look()
	}
	for len(w.pods) < before {
		w.add()
	}
	w.look()
}

// restore brings lost nodes back. No pod moves to them by itself.
func (w *world) restore() {
	w.nodes = append(w.nodes, w.lost...)
	slices.SortFunc(w.nodes, func(a, b model.Node) int {
		return cmp.Or(strings.Compare(a.Zone, b.Zone), strings.Compare(a.Name, b.Name))
	})
	w.lost = nil
	w.look()
}
