package meter

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/zonewise/zonewise/internal/model"
)

// Text prints flows, one a line. Golden tests hold this text.
func Text(flows []model.Flow) string {
	var b strings.Builder
	for _, f := range flows {
		b.WriteString(flowText(f))
		b.WriteByte('\n')
	}
	return b.String()
}

// String prints the flow on one line, with who saw it.
func (o Observed) String() string { return flowText(o.Flow) + " seen by " + string(o.Observer) }

// flowText prints "a/a1 shop/deployment/web -> shop/db:5432 TCP ClusterIP -> b/b1 shop/deployment/db: 3 connections, …".
func flowText(f model.Flow) string {
	var b strings.Builder
	b.WriteString(ByFlow(f.FlowKey))
	fmt.Fprintf(&b, ": %d connections, %d bytes there, %d back, %d and %d packets", f.Connections, f.RequestBytes, f.ResponseBytes,
		f.RequestPackets, f.ResponsePackets)
	if f.RequestExtra+f.ResponseExtra > 0 {
		fmt.Fprintf(&b, ", %d and %d bytes of headers more", f.RequestExtra, f.ResponseExtra)
	}
	return b.String()
}

// ByFlow is by client, Service or port, and server, with their zones and nodes: all that flows are
// kept by.
func ByFlow(f model.FlowKey) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s -> ", PartyText(f.Client))
	if f.Service != (model.Name{}) {
		fmt.Fprintf(&b, "%s:%d %s %s -> ", f.Service, f.Port, f.Protocol, f.Via)
	} else {
		fmt.Fprintf(&b, "%d %s %s -> ", f.Port, f.Protocol, f.Via)
	}
	b.WriteString(PartyText(f.Server))
	if f.V6 {
		b.WriteString(" IPv6")
	}
	return b.String()
}

// PartyText prints a party: its zone and node, and who it is.
func PartyText(p model.Party) string {
	at := cmp.Or(p.Zone, "-") + "/" + cmp.Or(p.Node, "-")
	switch {
	case p.Kind == model.Outside && p.Node == "":
		return "outside " + p.Block
	case p.Kind == model.Outside:
		return "outside " + p.Block + " by " + at
	case p.Kind == model.Unknown:
		return at + " unknown"
	}
	return at + " " + WorkloadText(p)
}

// WorkloadText prints who a party is, without its place: "shop/deployment/web", "node a1", "outside internet".
func WorkloadText(p model.Party) string {
	switch {
	case p.Kind == model.Outside:
		return "outside " + p.Block
	case p.Kind == model.Unknown:
		return "unknown"
	case p.Workload == "":
		return "node " + p.Node
	case p.Kind == model.NodeParty && p.Namespace == "":
		return "node " + p.Node + " " + p.Workload
	}
	return p.Namespace + "/" + p.Workload
}
