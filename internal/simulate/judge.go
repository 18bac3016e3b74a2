package simulate

import (
	"net/netip"

	"github.com/zonewise/zonewise/internal/hints"
	"github.com/zonewise/zonewise/internal/model"
)

// worth is what one answer is worth.
type worth struct {
	inZone, maxLoad, perTB float64
	refused                bool
}

// outcome is that, and what the next answer is compared with.
type outcome struct {
	worth
	steps     int
	endpoints []model.Endpoint
	spread    map[string]map[netip.Addr]float64 // by node: the endpoints' shares of its connections
}

// judge asks for an answer and works out, client by client and endpoint by endpoint, what comes of
// it: by arithmetic of its own, so that no algorithm is believed what it says of itself.
func judge(c Case, r Router) outcome {
	a := r.Route(c)
	out := outcome{worth: worth{refused: a.Refused}, steps: a.Steps, endpoints: c.Endpoints, spread: make(map[string]map[netip.Addr]float64, len(c.Clients))}
	if a.Weights == nil {
		out.endpoints = a.Endpoints
	}
	zones := map[string]int{}
	for _, e := range c.Endpoints {
		zones[e.Zone]++
	}
	loads := make([]float64, len(c.Endpoints))
	for _, client := range c.Clients {
		to := make(map[netip.Addr]float64, len(c.Endpoints))
		for i, share := range choose(client, a, c.Endpoints, zones) {
			if share == 0 {
				continue
			}
			e := c.Endpoints[i]
			to[e.Addr] = share
			loads[i] += client.Share * share
			if e.Zone == client.Zone {
				out.inZone += client.Share * share
			}
			// 1,000 GB are a terabyte.
			out.perTB += client.Share * share * c.Prices.Of(client.Zone, e.Zone) * 1000
		}
		out.spread[client.Node] = to
	}
	for _, l := range loads {
		out.maxLoad = max(out.maxLoad, l*float64(len(loads)))
	}
	return out
}

// choose returns the share of a client's connections that each endpoint gets.
func choose(client hints.Client, a Answer, endpoints []model.Endpoint, zones map[string]int) []float64 {
	out := make([]float64, len(endpoints))
	if a.Weights == nil {
		chosen := hints.KubeProxy.Choose(client.Node, client.Zone, a.Endpoints)
		for _, i := range chosen {
			out[i] = 1 / float64(len(chosen))
		}
		return out
	}
	row := a.Weights.Of(client.Zone)
	for i, e := range endpoints {
		out[i] = row.Of(e.Zone) / float64(zones[e.Zone])
	}
	return out
}
