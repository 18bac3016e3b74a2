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
	nodes, zones map[string][]int // nil: hints of this kind are ignored
	all          []int
}

func (c Consumer) directory(ready []model.Endpoint) directory {
	d := directory{zones: gather(ready, zonesOf), all: make([]int, len(ready))}
	for i := range d.all {
		d.all[i] = i
	}
	if c.knowsNodes() {
		d.nodes = gather(ready, nodesOf)
	}
	return d
}

func gather(ready []model.Endpoint, names func(*model.Endpoint) []string) map[string][]int {
	for i := range ready {
		if len(names(&ready[i])) == 0 {
			return nil
		}
	}
	out := map[string][]int{}
	for i := range ready {
		hints := names(&ready[i])
		for _, h := range hints {
			// A name that occurs twice in one endpoint is one name.
			if at := out[h]; len(at) == 0 || at[len(at)-1] != i {
				out[h] = append(at, i)
			}
		}
	}
	return out
}

func (d directory) choose(node, zone string) []int {
	if use := d.nodes[node]; len(use) > 0 {
		return use
	}
	if use := d.zones[zone]; len(use) > 0 {
		return use
	}
	return d.all
}
