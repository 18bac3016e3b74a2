// Package report turns what the nodes say about a Service into what the command line prints.
package report

import (
	"cmp"
	"slices"

	"github.com/zonewise/zonewise/internal/agent/view"
	"github.com/zonewise/zonewise/internal/model"
)

// Schema names the form of Service. Fields are only ever added to it.
const Schema = "zonewise.service/v1"

// Service is one Service on all nodes that answered.
type Service struct {
	Schema    string `json:"schema"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	Ports     []Port `json:"ports"`
}

// Port is one port of it.
type Port struct {
	Port     uint16 `json:"port"`
	Protocol string `json:"protocol"`
	Name     string `json:"name,omitempty"`
	Nodes    []Node `json:"nodes"`
}

// Node is what one node does with the port. Verdict, why and shares are those of the first ClusterIP;
// connections and bytes are summed over every address at which the node answers for the port.
// Frontends has each of these addresses by itself.
type Node struct {
	Node      string          `json:"node"`
	Zone      string          `json:"zone"`
	Verdict   string          `json:"verdict"`
	Why       string          `json:"why"`
	Endpoints []view.Endpoint `json:"endpoints"`
	Frontends []view.Frontend `json:"frontends"`
}

// Merge puts the views of several nodes together: ports by number and protocol, nodes by zone and name.
func Merge(name model.Name, views []view.Service) Service {
	out := Service{Schema: Schema, Namespace: name.Namespace, Name: name.Name, Ports: []Port{}}
	for _, v := range views {
		for _, p := range v.Ports {
			i := slices.IndexFunc(out.Ports, func(o Port) bool { return o.Port == p.Port && o.Protocol == p.Protocol })
			if i < 0 {
				i = len(out.Ports)
				out.Ports = append(out.Ports, Port{Port: p.Port, Protocol: p.Protocol, Name: p.Name})
			}
			out.Ports[i].Nodes = append(out.Ports[i].Nodes, node(v, p))
		}
	}
	slices.SortStableFunc(out.Ports, func(a, b Port) int {
		return cmp.Or(cmp.Compare(a.Port, b.Port), cmp.Compare(a.Protocol, b.Protocol))
	})
	for _, p := range out.Ports {
		slices.SortFunc(p.Nodes, func(a, b Node) int { return cmp.Or(cmp.Compare(a.Zone, b.Zone), cmp.Compare(a.Node, b.Node)) })
	}
	return out
}

func node(v view.Service, p view.Port) Node {
	out := Node{Node: v.Node, Zone: v.Zone, Endpoints: []view.Endpoint{}, Frontends: p.Frontends}
	if i := slices.IndexFunc(p.Frontends, func(f view.Frontend) bool { return f.Kind == clusterIP }); i >= 0 {
		f := p.Frontends[i]
		out.Verdict, out.Why = f.Verdict, f.Why
		out.Endpoints = append(out.Endpoints, f.Endpoints...)
	}
	for i := range out.Endpoints {
		e := &out.Endpoints[i]
		e.Connections, e.AtSocket, e.Bytes = 0, 0, 0
		for _, f := range p.Frontends {
			e.Connections += total(f, e.Address, func(e view.Endpoint) uint64 { return e.Connections })
			e.AtSocket += total(f, e.Address, func(e view.Endpoint) uint64 { return e.AtSocket })
			e.Bytes += total(f, e.Address, func(e view.Endpoint) uint64 { return e.Bytes })
		}
	}
	return out
}

// Kinds of frontends.
const (
	clusterIP = "ClusterIP"
	nodePort  = "NodePort"
)

// total returns one frontend's count for an endpoint. Inside and outside share a counter, and an
// endpoint may be in either.
func total(f view.Frontend, address string, of func(view.Endpoint) uint64) uint64 {
	for _, c := range choices(f) {
		for _, e := range c.Endpoints {
			if e.Address == address {
				return of(e)
			}
		}
	}
	return 0
}

func choices(f view.Frontend) []view.Choice {
	if f.Inside == nil {
		return []view.Choice{f.Choice}
	}
	return []view.Choice{f.Choice, *f.Inside}
}
