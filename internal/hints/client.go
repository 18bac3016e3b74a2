package hints

import (
	"cmp"
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
	in := map[string][]string{}
	for _, n := range nodes {
		if n.Ready && !n.ControlPlane {
			in[n.Zone] = append(in[n.Zone], n.Name)
		}
	}
	var out []Client
	for _, d := range demand {
		if !(d.Share > 0) {
			continue
		}
		names := in[d.Zone]
		if len(names) == 0 {
			names = []string{""}
		}
		for _, n := range names {
			out = append(out, Client{n, d.Zone, d.Share / float64(len(names))})
		}
	}
	slices.SortFunc(out, func(a, b Client) int {
		return cmp.Or(cmp.Compare(a.Zone, b.Zone), cmp.Compare(a.Node, b.Node), cmp.Compare(a.Share, b.Share))
	})
	return out
}
