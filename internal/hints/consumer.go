package hints

import (
	"slices"

	"github.com/zonewise/zonewise/internal/model"
)

// Consumer is a program that obeys hints. What differs is how.
type Consumer string

// The consumers.
const (
	KubeProxy    Consumer = "kube-proxy"             // node hints, else zone hints, else every endpoint
	KubeProxyOld Consumer = "kube-proxy before 1.34" // zone hints, else every endpoint
	// Cilium is its kube-proxy replacement with loadBalancer.serviceTopology, for a Service that
	// asks for a trafficDistribution: zone hints, else every endpoint. It ignores node hints, and it
	// wants a zone hint on terminating endpoints too, which is why a set has hints for those.
	Cilium Consumer = "Cilium"
)

// knowsNodes tells whether the consumer obeys node hints.
func (c Consumer) knowsNodes() bool { return c == KubeProxy }

// Choose returns the indexes of the endpoints that a node uses, among ready ones. One endpoint
// without a hint of a kind, or no endpoint that names the node (its zone), makes the consumer ignore
// all hints of that kind.
func (c Consumer) Choose(node, zone string, ready []model.Endpoint) []int {
	if c.knowsNodes() {
		if use, ok := naming(node, ready, nodesOf); ok {
			return use
		}
	}
	if use, ok := naming(zone, ready, zonesOf); ok {
		return use
	}
	use := make([]int, len(ready))
	for i := range use {
		use[i] = i
	}
	return use
}

func nodesOf(e *model.Endpoint) []string { return e.NodeHints }
func zonesOf(e *model.Endpoint) []string { return e.ZoneHints }

func naming(name string, ready []model.Endpoint, names func(*model.Endpoint) []string) (use []int, ok bool) {
	for i := range ready {
		hints := names(&ready[i])
		if len(hints) == 0 {
			return nil, false
		}
		if slices.Contains(hints, name) {
			use = append(use, i)
		}
	}
	return use, len(use) > 0
}

// directory is Choose for many nodes: it reads the hints once.
type directory struct {
	nodes, zones index // empty: hints of this kind are ignored
	all          []int
}

// directory reads the hints of n ready endpoints.
func (c Consumer) directory(n int, hint func(i int) Hint) directory {
	d := unhinted(n)
	d.zones = gather(n, func(i int) []string { return hint(i).Zones })
	if c.knowsNodes() {
		d.nodes = gather(n, func(i int) []string { return hint(i).Nodes })
	}
	return d
}

// unhinted is n endpoints without hints.
func unhinted(n int) directory {
	d := directory{all: make([]int, n)}
	for i := range d.all {
		d.all[i] = i
	}
	return d
}

func hintsOn(ready []model.Endpoint) func(int) Hint {
	return func(i int) Hint { return Hint{ready[i].ZoneHints, ready[i].NodeHints} }
}

// index is the endpoints that name each name.
type index struct {
	at    map[string]int
	lists [][]int
}

func (x index) of(name string) []int {
	if i, named := x.at[name]; named {
		return x.lists[i]
	}
	return nil
}

// gather returns an empty index if an endpoint names nobody: then no hint of the kind counts.
func gather(n int, names func(i int) []string) index {
	for i := range n {
		if len(names(i)) == 0 {
			return index{}
		}
	}
	x := index{at: map[string]int{}}
	for i := range n {
		for _, h := range names(i) {
			at, named := x.at[h]
			if !named {
				at = len(x.lists)
				x.at[h], x.lists = at, append(x.lists, make([]int, 0, 8))
			}
			// A name that occurs twice in one endpoint is one name.
			if l := x.lists[at]; len(l) == 0 || l[len(l)-1] != i {
				x.lists[at] = append(l, i)
			}
		}
	}
	return x
}

func (d directory) choose(node, zone string) []int {
	if use := d.named(node); len(use) > 0 {
		return use
	}
	return d.zone(zone)
}

// named returns the endpoints that name a node and that it uses therefore; empty if it follows its zone.
func (d directory) named(node string) []int { return d.nodes.of(node) }

// zone returns what nodes of a zone use that no endpoint names.
func (d directory) zone(zone string) []int {
	if use := d.zones.of(zone); len(use) > 0 {
		return use
	}
	return d.all
}
