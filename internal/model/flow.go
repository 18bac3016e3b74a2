package model

import (
	"cmp"
	"strings"
)

// PartyKind tells what stands at one end of a flow.
type PartyKind string

// The kinds of parties.
const (
	PodParty  PartyKind = "Pod"     // a pod with an address of its own
	NodeParty PartyKind = "Node"    // a node itself, or a pod of the host network
	Outside   PartyKind = "Outside" // an address that no node and no pod has
	Unknown   PartyKind = "Unknown" // an address of the cluster's ranges whose owner is not known
)

// Party is one end of a flow, as coarse as flows are kept: a workload on a node, not a pod.
// What does not apply is empty.
type Party struct {
	Kind      PartyKind
	Zone      string // of an address outside: where a node passes its packets on to another node; empty if none does
	Node      string // likewise
	Namespace string
	Workload  string // "deployment/web", "daemonset/dns", "pod/one"; a host process's where it is known
	Block     string // of an address outside: the address block's name, as configured, else "internet"
}

// Compare orders parties by zone, node, namespace, workload, block and kind.
func (p Party) Compare(o Party) int {
	return cmp.Or(strings.Compare(p.Zone, o.Zone), strings.Compare(p.Node, o.Node), strings.Compare(p.Namespace, o.Namespace),
		strings.Compare(p.Workload, o.Workload), strings.Compare(p.Block, o.Block), strings.Compare(string(p.Kind), string(o.Kind)))
}

// Via tells what a client dialled.
type Via string

// The ways in which a client reaches a server.
const (
	ViaClusterIP    Via = "ClusterIP"
	ViaNodePort     Via = "NodePort"
	ViaLoadBalancer Via = "LoadBalancer"
	ViaExternalIP   Via = "ExternalIP"
	ViaHeadless     Via = "Headless" // the endpoint's own address, and it is an endpoint of the headless Service named
	ViaDirect       Via = "Direct"   // the server's own address
	ViaUnknown      Via = "Unknown"  // the flow began before it was watched, or its maps were full
)

// FlowKey is what bytes are kept by. The client is who opened the connection.
type FlowKey struct {
	Client, Server Party
	Service        Name // the Service that was dialled, or whose endpoint it was (Headless); zero: none
	Port           uint16
	Protocol       Protocol // of the Service where there is one, else of the server
	Via            Via
	V6             bool // the address family of client and server
}

// Compare orders keys by client, server, Service, port, protocol, way and family, IPv4 first.
func (k FlowKey) Compare(o FlowKey) int {
	return cmp.Or(k.Client.Compare(o.Client), k.Server.Compare(o.Server), k.Service.Compare(o.Service),
		cmp.Compare(k.Port, o.Port), cmp.Compare(k.Protocol, o.Protocol), strings.Compare(string(k.Via), string(o.Via)), falseFirst(k.V6, o.V6))
}

// FlowCount is how much went. Bytes are those of IP packets as the kernel passes them on, headers
// included; where it passes on many as one (GSO), that one has one header, and what cutting it adds is
// Extra. Packets are as on the wire.
type FlowCount struct {
	Connections     uint64 // opened; a UDP flow counts when its first packet is seen
	RequestBytes    uint64 // client to server
	ResponseBytes   uint64 // server to client
	RequestPackets  uint64
	ResponsePackets uint64
	RequestExtra    uint64 // bytes of headers that segmentation adds on the wire; not in RequestBytes
	ResponseExtra   uint64 // likewise
}

// Add adds o to c.
func (c *FlowCount) Add(o FlowCount) {
	c.Connections += o.Connections
	c.RequestBytes += o.RequestBytes
	c.ResponseBytes += o.ResponseBytes
	c.RequestPackets += o.RequestPackets
	c.ResponsePackets += o.ResponsePackets
	c.RequestExtra += o.RequestExtra
	c.ResponseExtra += o.ResponseExtra
}

// Bytes is the sum of both directions, without Extra.
func (c FlowCount) Bytes() uint64 { return c.RequestBytes + c.ResponseBytes }

// Flow is how much went between two parties by one way.
type Flow struct {
	FlowKey
	FlowCount
}
