package service

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/zonewise/zonewise/internal/model"
)

// endpoint is a slice's endpoint on one port, seen from a node.
type endpoint struct {
	*model.Endpoint // as it is in the slice
	slice           *model.Slice
	addr            netip.AddrPort
	local           bool
}

// leaving tells that the endpoint is on its way out and still answers.
func (e endpoint) leaving() bool { return e.Serving && e.Terminating }

// label names the endpoint for people.
func (e endpoint) label() string {
	if e.Pod != "" {
		return "pod " + e.Pod
	}
	return "endpoint " + e.addr.String()
}

// endpoints is ordered by address, each address once.
type endpoints []endpoint

func (e endpoints) filter(keep func(endpoint) bool) endpoints {
	out := make(endpoints, 0, len(e))
	for _, ep := range e {
		if keep(ep) {
			out = append(out, ep)
		}
	}
	return out
}

// backends returns them with even shares.
func (e endpoints) backends() []Backend {
	out := make([]Backend, len(e))
	for i, ep := range e {
		out[i] = Backend{Addr: ep.addr, Zone: ep.Zone, Node: ep.Node, Pod: ep.Pod, Local: ep.local, Share: 1 / float64(len(e))}
	}
	return out
}

// serving returns the addresses that still answer, ready or not.
func (e endpoints) serving() []netip.AddrPort {
	var out []netip.AddrPort
	for _, ep := range e {
		if ep.Serving {
			out = append(out, ep.addr)
		}
	}
	return out
}

// mine returns the slices of the Service and family.
func mine(svc model.Name, v6 bool, all []model.Slice) []model.Slice {
	var out []model.Slice
	for _, s := range all {
		if s.V6 == v6 && s.ServiceName() == svc {
			out = append(out, s)
		}
	}
	return out
}

// merge gathers the endpoints behind a Service port from all slices: slice ports match by name
// and protocol. An address that occurs twice (an endpoint on its way from one slice to another,
// or a new pod with the address of a dying one) is taken once, at its liveliest.
func merge(node string, port model.ServicePort, all []model.Slice) endpoints {
	return slices.CompactFunc(gather(node, port, all), func(a, b endpoint) bool { return a.addr == b.addr })
}

// gather is merge with every occurrence of an address, the liveliest first.
func gather(node string, port model.ServicePort, all []model.Slice) endpoints {
	var found endpoints
	for i := range all {
		for _, p := range all[i].Ports {
			if p.Name != port.Name || p.Protocol != port.Protocol || p.Port == 0 {
				continue
			}
			found = slices.Grow(found, len(all[i].Endpoints))
			for j := range all[i].Endpoints {
				ep := &all[i].Endpoints[j]
				found = append(found, endpoint{
					Endpoint: ep,
					slice:    &all[i],
					addr:     netip.AddrPortFrom(ep.Addr, p.Port),
					local:    node != "" && ep.Node == node,
				})
			}
		}
	}
	slices.SortFunc(found, livelier)
	return found
}

// livelier orders by address and port, then the one to prefer first.
func livelier(a, b endpoint) int {
	if c := a.addr.Compare(b.addr); c != 0 {
		return c // nearly always: the rest is not worked out in vain
	}
	return cmp.Or(model.Livelier(*a.Endpoint, *b.Endpoint), a.slice.Name.Compare(b.slice.Name))
}
