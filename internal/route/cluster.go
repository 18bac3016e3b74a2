package route

import (
	"slices"

	"github.com/zonewise/zonewise/internal/model"
)

// Cluster is what the plans of all Services share. It is made once for a snapshot.
type Cluster struct {
	zones    []string     // sorted: of every node
	unplaced bool         // a node has no zone
	demand   model.Shares // by allocatable CPU; nil if no node counts
	prices   model.Prices
}

// NewCluster reads nodes as upstream does: clients are expected on ready nodes that are not control
// plane, in proportion to allocatable CPU. Other than upstream, a node without a zone spoils
// nothing: its clients are in zone "", from where every endpoint is in another zone. Where no such
// node tells its CPU, every node counts the same.
func NewCluster(nodes []model.Node, prices model.Prices) *Cluster {
	c := &Cluster{prices: prices}
	cpu, count := map[string]float64{}, map[string]float64{}
	placed := false
	for _, n := range nodes {
		if n.Zone != "" {
			c.zones = append(c.zones, n.Zone)
		} else {
			c.unplaced = true
		}
		if !n.Ready || n.ControlPlane {
			continue
		}
		placed = placed || n.Zone != ""
		cpu[n.Zone] += float64(max(n.MilliCPU, 0))
		count[n.Zone]++
	}
	slices.Sort(c.zones)
	c.zones = slices.Compact(c.zones)
	if placed {
		if c.demand = normalised(cpu); c.demand == nil {
			c.demand = normalised(count)
		}
	}
	return c
}

// Zones returns the names of the zones that have nodes, sorted.
func (c *Cluster) Zones() []string { return slices.Clone(c.zones) }

// Demand returns the demand by allocatable CPU. It has no shares if no ready node has a zone.
func (c *Cluster) Demand() model.Demand {
	return model.Demand{Source: model.NodeCPU, Shares: slices.Clone(c.demand)}
}

// normalised makes shares of sum 1 of the positive parts; nil if there are none.
func normalised(parts map[string]float64) model.Shares {
	out := make(model.Shares, 0, len(parts))
	for z, v := range parts {
		out = append(out, model.Share{Zone: z, Share: v})
	}
	return proportions(out)
}
