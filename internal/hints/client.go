package hints

import (
	"slices"

	"github.com/zonewise/zonewise/internal/model"
)

// Client is a node that connections to a Service come from.
type Client struct {
	Node, Zone string
	Share      float64 // of all connections
}

// Clients splits each zone's demand evenly over its ready nodes, control plane left out. The demand
// of a zone without such a node comes from a client without a name, whom only zone hints can reach.
func Clients(nodes []model.Node, demand model.Shares) []Client {
	return NewSites(nodes).Clients(demand)
}

// Sites are the nodes that connections may come from, once for the demand of many Services.
type Sites map[string][]string // by zone, in order

// NewSites takes ready nodes, control plane left out.
func NewSites(nodes []model.Node) Sites {
	s := Sites{}
	for _, n := range nodes {
		if n.Ready && !n.ControlPlane {
			s[n.Zone] = append(s[n.Zone], n.Name)
		}
	}
	for _, names := range s {
		slices.Sort(names)
	}
	return s
}

// Clients splits each zone's demand evenly over its nodes.
func (s Sites) Clients(demand model.Shares) []Client {
	var out []Client
	for _, d := range demand {
		if !(d.Share > 0) {
			continue
		}
		names := s[d.Zone]
		if len(names) == 0 {
			names = []string{""}
		}
		out = slices.Grow(out, len(names))
		for _, n := range names {
			out = append(out, Client{n, d.Zone, d.Share / float64(len(names))})
		}
	}
	if !slices.IsSortedFunc(out, byPlace) {
		slices.SortFunc(out, byPlace)
	}
	return out
}
