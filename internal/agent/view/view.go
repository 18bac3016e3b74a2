// Package view is what an agent tells about one Service on its node, and how that is worked out.
// The agent serves it as JSON; the command line reads it. Fields are only ever added.
package view

import (
	"net"
	"slices"

	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/service"
)

// Schema names the form of Service.
const Schema = "zonewise.node-service/v1"

// Service is one Service as one node serves it.
type Service struct {
	Schema    string `json:"schema"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	Node      string `json:"node"`
	Zone      string `json:"zone"`
	Ports     []Port `json:"ports"`
}

// Port is one port of the Service with the addresses at which the node answers for it.
type Port struct {
	Port      uint16     `json:"port"`
	Protocol  string     `json:"protocol"`
	Name      string     `json:"name,omitempty"`
	Frontends []Frontend `json:"frontends"`
}

// Frontend is one address. Inside is set where connections from this node and its pods get
// another choice than those from outside do.
type Frontend struct {
	Kind    string `json:"kind"`    // ClusterIP, ExternalIP, LoadBalancer or NodePort
	Address string `json:"address"` // address:port
	Choice
	Inside *Choice `json:"inside,omitempty"`
}

// Choice is what happens to a new connection.
type Choice struct {
	Verdict   string     `json:"verdict"` // balance, reject or drop
	Why       string     `json:"why"`
	Endpoints []Endpoint `json:"endpoints"`
}

// Endpoint is one of the backends. Connections and bytes are the kernel's count for this
// frontend since the pair of both came to be on the node; bytes go both ways. AtSocket is how many of
// the connections were sent to the endpoint where they began: their packets pass by no counter, so
// that bytes are without theirs.
type Endpoint struct {
	Address     string  `json:"address"` // address:port
	Zone        string  `json:"zone"`
	Node        string  `json:"node,omitempty"`
	Pod         string  `json:"pod,omitempty"`
	Local       bool    `json:"local"`
	Share       float64 `json:"share"` // fraction of new connections, 0 to 1
	Connections uint64  `json:"connections"`
	AtSocket    uint64  `json:"atSocket"`
	Bytes       uint64  `json:"bytes"`
}

// counts are what the kernel counted: packet by packet, and at sockets.
type counts struct {
	packets, sockets map[service.Pair]service.Traffic
}

// Of puts together what the node plans for the Service and what the kernel counted, packet by packet
// and at sockets. Of two families the Service's first comes first.
func Of(node model.Node, svc model.Service, plan []service.Frontend, packets, sockets map[service.Pair]service.Traffic) Service {
	counted := counts{packets, sockets}
	out := Service{Schema: Schema, Namespace: svc.Namespace, Name: svc.Name.Name, Node: node.Name, Zone: node.Zone}
	for _, p := range svc.Ports {
		port := Port{Port: p.Port, Protocol: p.Protocol.String(), Name: p.Name, Frontends: []Frontend{}}
		for _, f := range plan {
			if f.Port == p.Name && f.Protocol == p.Protocol {
				port.Frontends = append(port.Frontends, frontend(f, counted))
			}
		}
		if len(svc.ClusterIPs) > 0 {
			first := svc.ClusterIPs[0].String()
			slices.SortStableFunc(port.Frontends, func(a, b Frontend) int { return rank(a, first) - rank(b, first) })
		}
		out.Ports = append(out.Ports, port)
	}
	return out
}

// rank is 0 for the address that a Service is known by.
func rank(f Frontend, first string) int {
	if host, _, err := net.SplitHostPort(f.Address); err == nil && f.Kind == string(service.ClusterIP) && host == first {
		return 0
	}
	return 1
}

func frontend(f service.Frontend, counted counts) Frontend {
	out := Frontend{Kind: string(f.Kind), Address: f.Addr.String(), Choice: choice(f.Choice, f.Key(), counted)}
	if f.Inside != nil {
		inside := choice(*f.Inside, f.Key(), counted)
		out.Inside = &inside
	}
	return out
}

func choice(c service.Choice, key service.Key, counted counts) Choice {
	out := Choice{Verdict: string(c.Verdict), Why: c.Why, Endpoints: make([]Endpoint, 0, len(c.Backends))}
	for _, b := range c.Backends {
		pair := service.Pair{Frontend: key, Backend: b.Addr}
		t, atSocket := counted.packets[pair], counted.sockets[pair].Connections
		out.Endpoints = append(out.Endpoints, Endpoint{
			Address: b.Addr.String(), Zone: b.Zone, Node: b.Node, Pod: b.Pod, Local: b.Local,
			Share: b.Share, Connections: t.Connections + atSocket, AtSocket: atSocket, Bytes: t.Bytes,
		})
	}
	return out
}
