// Package model holds the nouns of Zonewise as plain values. It has no behaviour beyond
// naming and ordering, imports nothing of ours, and every other room speaks in its terms.
package model

import (
	"net/netip"
	"strings"
	"time"
)

// Name identifies a namespaced object.
type Name struct {
	Namespace string
	Name      string
}

// String returns "namespace/name".
func (n Name) String() string { return n.Namespace + "/" + n.Name }

// Compare orders names by namespace, then by name.
func (n Name) Compare(o Name) int {
	if c := strings.Compare(n.Namespace, o.Namespace); c != 0 {
		return c
	}
	return strings.Compare(n.Name, o.Name)
}

// Protocol is an IP protocol number as conntrack and nft know it.
type Protocol uint8

// The protocols that a Service can have.
const (
	TCP  Protocol = 6
	UDP  Protocol = 17
	SCTP Protocol = 132
)

// String returns the name that Kubernetes uses: TCP, UDP or SCTP.
func (p Protocol) String() string {
	switch p {
	case TCP:
		return "TCP"
	case UDP:
		return "UDP"
	case SCTP:
		return "SCTP"
	}
	return "unknown"
}

// Node is a machine of the cluster.
type Node struct {
	Name         string
	Zone         string // topology.kubernetes.io/zone; empty when the node has no such label
	Region       string
	InstanceType string
	Addresses    []netip.Addr // InternalIP addresses, the primary one first; for a family without one its ExternalIP
	// NodePorts are the addresses at which node ports answer, where that is not the primary address
	// of each family alone. The API knows nothing of it: it is this node's own setting.
	NodePorts    []netip.Addr
	Ready        bool
	Leaving      bool  // it is being deleted, or the autoscaler will: load balancers should send nothing more here
	MilliCPU     int64 // allocatable
	ControlPlane bool  // labelled as control plane: upstream expects no clients there
}

// Primary returns the node's first internal address of the family, or the zero address.
func (n Node) Primary(v6 bool) netip.Addr {
	for _, a := range n.Addresses {
		if a.Is6() == v6 {
			return a
		}
	}
	return netip.Addr{}
}

// ServiceType tells how far a Service reaches.
type ServiceType string

// The Service types that get addresses of their own. Headless and ExternalName Services
// never reach the tables: a dataplane has nothing to do for them.
const (
	ClusterIP    ServiceType = "ClusterIP"
	NodePort     ServiceType = "NodePort"
	LoadBalancer ServiceType = "LoadBalancer"
)

// Service is a virtual address and its ports, as the dataplane needs them.
type Service struct {
	Name
	Type                ServiceType
	ClusterIPs          []netip.Addr
	ExternalIPs         []netip.Addr   // spec.externalIPs
	LoadBalancerIPs     []netip.Addr   // status.loadBalancer's, without those of ipMode Proxy
	SourceRanges        []netip.Prefix // who may use LoadBalancerIPs; empty: everybody
	Ports               []ServicePort
	InternalLocal       bool          // internalTrafficPolicy: Local
	ExternalLocal       bool          // externalTrafficPolicy: Local
	HealthCheckNodePort uint16        // where load balancers ask whether this node has endpoints; 0: nowhere
	Affinity            time.Duration // sessionAffinity ClientIP: how long after its last connection a client is remembered; 0: not
	Faults              []string      // what is wrong with the object, each a short sentence; what is said there was left out
	TopologyMode        string        // annotation service.kubernetes.io/topology-mode (or the older topology-aware-hints)
	TrafficDistribution string        // spec.trafficDistribution
}

// ServicePort is one port of a Service. NodePort is 0 where there is none.
type ServicePort struct {
	Name     string
	Protocol Protocol
	Port     uint16
	NodePort uint16
}

// Slice is one EndpointSlice of a Service: ports times endpoints, one address family.
type Slice struct {
	Name
	Service   string // the Service's name, same namespace
	V6        bool
	Ports     []EndpointPort
	Endpoints []Endpoint
	Faults    []string // what is wrong with the object, each a short sentence; what is said there was left out
	HintMark  string   // annotation zonewise.io/hints: the digest of the hints that Zonewise put on; empty if it never did
}

// ServiceName returns the name of the Service that the slice belongs to.
func (s Slice) ServiceName() Name { return Name{s.Namespace, s.Service} }

// EndpointPort is a named port on which every endpoint of a slice listens.
type EndpointPort struct {
	Name     string
	Protocol Protocol
	Port     uint16
}

// Endpoint is one backend address with its conditions, place and hints, as the slice has them.
// Nil conditions are already resolved as the API documents: ready and serving default to true,
// terminating to false.
type Endpoint struct {
	Addr        netip.Addr
	Node        string
	Zone        string
	Pod         string // targetRef's name when it is a Pod; empty otherwise
	Ready       bool
	Serving     bool
	Terminating bool
	ZoneHints   []string
	NodeHints   []string
}
