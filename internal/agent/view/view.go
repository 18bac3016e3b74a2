// Package view is what an agent tells about one Service on its node, and how that is worked out.
// The agent serves it as JSON; the command line reads it. Fields are only ever added.
package view

import (
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
	Kind    string `json:"kind"`    // ClusterIP or NodePort
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
// frontend since the pair of both came to be on the node; bytes go both ways.
type Endpoint struct {
	Address     string  `json:"address"` // address:port
	Zone        string  `json:"zone"`
	Node        string  `json:"node,omitempty"`
	Pod         string  `json:"pod,omitempty"`
	Local       bool    `json:"local"`
	Share       float64 `json:"share"` // fraction of new connections, 0 to 1
	Connections uint64  `json:"connections"`
	Bytes       uint64  `json:"bytes"`
}

// Of puts together what the node plans for the Service and what the kernel counted.
func Of(node model.Node, svc model.Service, plan []service.Frontend, counted map[service.Pair]service.Traffic) Service {
	out := Service{Schema: Schema, Namespace: svc.Namespace, Name: svc.Name.Name, Node: node.Name, Zone: node.Zone}
	for _, p := range svc.Ports {
		port := Port{Port: p.Port, Protocol: p.Protocol.String(), Name: p.Name, Frontends: []Frontend{}}
		for _, f := range plan {
			if f.Port == p.Name && f.Protocol == p.Protocol {
				port.Frontends = append(port.Frontends, frontend(f, counted))
			}
		}
		out.Ports = append(out.Ports, port)
	}
	return out
}

func frontend(f service.Frontend, counted map[service.Pair]service.Traffic) Frontend {
	out := Frontend{Kind: string(f.Kind), Address: f.Addr.String(), Choice: choice(f.Choice, f.Key(), counted)}
	if f.Inside != nil {
		inside := choice(*f.Inside, f.Key(), counted)
		out.Inside = &inside
	}
	return out
}

func choice(c service.Choice, key service.Key, counted map[service.Pair]service.Traffic) Choice {
	out := Choice{Verdict: string(c.Verdict), Why: c.Why, Endpoints: make([]Endpoint, 0, len(c.Backends))}
	for _, b := range c.Backends {
		t := counted[service.Pair{Frontend: key, Backend: b.Addr}]
		out.Endpoints = append(out.Endpoints, Endpoint{
			Address: b.Addr.String(), Zone: b.Zone, Node: b.Node, Pod: b.Pod, Local: b.Local,
			Share: b.Share, Connections: t.Connections, Bytes: t.Bytes,
		})
	}
	return out
}
