package kube

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/zonewise/zonewise/internal/model"
)

// Apply returns the cluster with the fix in it: the nodes, and the Service's slices of the family.
// Endpoints that Scale adds are spread over the zones. What it is given stays as it is.
func (f Fix) Apply(svc model.Name, v6 bool, nodes []model.Node, all []model.Slice) ([]model.Node, []model.Slice) {
	nodes = f.applyNodes(nodes)
	out := own(svc, v6, all)
	refs := endpoints(out)
	for _, e := range refs {
		if e.Zone == "" {
			e.Zone = f.Label[e.Node]
		}
		if e.Zone == "" {
			e.Zone = f.Zone[e.Addr]
		}
	}
	if more := f.Scale - ready(refs); f.Scale > 0 && more > 0 {
		out = append(out, model.Slice{
			Name: model.Name{Namespace: svc.Namespace, Name: svc.Name + "-more"}, Service: svc.Name, V6: v6,
			Endpoints: spread(more, v6, nodes, refs),
		})
	}
	return nodes, out
}

func (f Fix) applyNodes(nodes []model.Node) []model.Node {
	nodes = slices.Clone(nodes)
	for i, n := range nodes {
		if n.Zone == "" {
			nodes[i].Zone = f.Label[n.Name]
		}
		if n.MilliCPU <= 0 {
			nodes[i].MilliCPU = f.CPU[n.Name]
		}
		nodes[i].Ready = n.Ready || slices.Contains(f.Ready, n.Name)
	}
	return append(nodes, f.Add...)
}

// spread makes ready endpoints, one node after the other, at addresses above all others.
func spread(n int, v6 bool, nodes []model.Node, others []*model.Endpoint) []model.Endpoint {
	hosts := slices.DeleteFunc(slices.Clone(nodes), func(n model.Node) bool { return !counts(n) })
	slices.SortFunc(hosts, func(a, b model.Node) int { return strings.Compare(a.Name, b.Name) })
	at := netip.AddrFrom4([4]byte{10, 0, 0, 0})
	if v6 {
		at = netip.MustParseAddr("fd00::")
	}
	for _, e := range others {
		if at.Less(e.Addr) {
			at = e.Addr
		}
	}
	out := make([]model.Endpoint, n)
	for i := range out {
		at = at.Next()
		host := hosts[i%len(hosts)]
		out[i] = model.Endpoint{Addr: at, Node: host.Name, Zone: host.Zone, Ready: true, Serving: true}
	}
	return out
}
