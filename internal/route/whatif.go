package route

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/zonewise/zonewise/internal/model"
)

// WhatIf is a change that is only thought of. Its methods return changed copies of the facts, to be
// planned as the facts are. What is lost goes first, then comes what is scaled.
type WhatIf struct {
	Scale       map[string]int // zone to ready pods
	Lose        []string       // zones whose nodes, endpoints and clients vanish
	MaxOverload *float64
	Prices      *model.Prices
}

// maxScale is the most pods in a zone that can be thought of.
const maxScale = 10000

// Check tells what of the change makes no sense on these nodes.
func (w WhatIf) Check(nodes []model.Node) error {
	zones := NewCluster(nodes, model.Prices{}).zones
	known := func(zone string) error {
		if _, ok := slices.BinarySearch(zones, zone); ok {
			return nil
		}
		if len(zones) == 0 {
			return fmt.Errorf("there is no zone %q: no node has a zone", zone)
		}
		return fmt.Errorf("there is no zone %q, only %s", zone, strings.Join(zones, ", "))
	}
	for _, z := range slices.Sorted(maps.Keys(w.Scale)) {
		if err := known(z); err != nil {
			return fmt.Errorf("scale: %w", err)
		}
		if n := w.Scale[z]; n < 0 || n > maxScale {
			return fmt.Errorf("scale: zone %s: %d is not between 0 and %d", z, n, maxScale)
		}
		if slices.Contains(w.Lose, z) && w.Scale[z] > 0 {
			return fmt.Errorf("scale: zone %s is lost", z)
		}
	}
	for _, z := range w.Lose {
		if err := known(z); err != nil {
			return fmt.Errorf("lose: %w", err)
		}
	}
	if w.MaxOverload != nil {
		if err := checkOverload(*w.MaxOverload); err != nil {
			return fmt.Errorf("max overload: %w", err)
		}
	}
	if w.Prices != nil {
		if err := CheckPrices(*w.Prices); err != nil {
			return fmt.Errorf("prices: %w", err)
		}
	}
	return nil
}

func (w WhatIf) lost(zone string) bool { return zone != "" && slices.Contains(w.Lose, zone) }

// Nodes returns the nodes that are left.
func (w WhatIf) Nodes(nodes []model.Node) []model.Node {
	out := make([]model.Node, 0, len(nodes))
	for _, n := range nodes {
		if !w.lost(n.Zone) {
			out = append(out, n)
		}
	}
	return out
}

// Spec returns the spec with the other bound, and without the demand of lost zones.
func (w WhatIf) Spec(spec model.RouteSpec) model.RouteSpec {
	if w.MaxOverload != nil {
		spec.MaxOverload = *w.MaxOverload
	}
	if spec.Demand == model.Static && len(w.Lose) > 0 {
		spec.Static = w.left(spec.Static)
		if proportions(slices.Clone(spec.Static)) == nil {
			spec.Demand, spec.Static = "", nil
		}
	}
	return spec
}

// Demand returns what was measured, without the clients of lost zones; nil if none are left.
func (w WhatIf) Demand(d *model.Demand) *model.Demand {
	if d == nil || len(w.Lose) == 0 {
		return d
	}
	all, left := 0.0, w.left(d.Shares)
	for _, s := range d.Shares {
		all += s.Share
	}
	out := *d
	part := 0.0
	for _, s := range left {
		part += s.Share
	}
	if out.Shares = proportions(left); out.Shares == nil {
		return nil
	}
	out.BytesPerSecond *= part / all
	return &out
}

func (w WhatIf) left(s model.Shares) model.Shares {
	return slices.DeleteFunc(slices.Clone(s), func(x model.Share) bool { return w.lost(x.Zone) })
}

// Book returns the price book that holds.
func (w WhatIf) Book(p model.Prices) model.Prices {
	if w.Prices != nil {
		return *w.Prices
	}
	return p
}

// Slices returns the Service's slices with the endpoints that are left and those that are added:
// an added one has an address of a range that is for tests only, and stands on a node on which the
// zone's other endpoints do. Slices of other Services are left as they are.
func (w WhatIf) Slices(svc model.Service, all []model.Slice) []model.Slice {
	out := make([]model.Slice, 0, len(all))
	for _, s := range all {
		if s.ServiceName() == svc.Name {
			s.Endpoints = slices.DeleteFunc(slices.Clone(s.Endpoints), func(e model.Endpoint) bool { return w.lost(e.Zone) })
		}
		out = append(out, s)
	}
	for _, v6 := range []bool{false, true} {
		if !served(svc, out, v6) {
			continue
		}
		for _, zone := range slices.Sorted(maps.Keys(w.Scale)) {
			out = scaled(svc, out, v6, zone, w.Scale[zone])
		}
	}
	return out
}

// served tells whether the Service has the family.
func served(svc model.Service, all []model.Slice, v6 bool) bool {
	return slices.ContainsFunc(svc.ClusterIPs, func(a netip.Addr) bool { return a.Is6() == v6 }) ||
		slices.ContainsFunc(all, func(s model.Slice) bool { return s.V6 == v6 && s.ServiceName() == svc.Name })
}

// scaled brings a zone to a number of ready endpoints: it takes the last ones, or adds some.
func scaled(svc model.Service, all []model.Slice, v6 bool, zone string, want int) []model.Slice {
	mine := func(s model.Slice) bool { return s.V6 == v6 && s.ServiceName() == svc.Name }
	var own []model.Slice
	for _, s := range all {
		if mine(s) {
			own = append(own, s)
		}
	}
	var ready []model.Endpoint
	for _, e := range Endpoints(own, v6) {
		if e.Ready && e.Zone == zone {
			ready = append(ready, e)
		}
	}
	if len(ready) > want {
		gone := map[netip.Addr]bool{}
		for _, e := range ready[want:] {
			gone[e.Addr] = true
		}
		for i := range all {
			if mine(all[i]) {
				all[i].Endpoints = slices.DeleteFunc(all[i].Endpoints, func(e model.Endpoint) bool { return gone[e.Addr] })
			}
		}
		return all
	}
	if len(ready) == want {
		return all
	}
	first := -1
	for i := range all {
		if mine(all[i]) && (first < 0 || all[i].Compare(all[first].Name) < 0) {
			first = i
		}
	}
	if first < 0 {
		first = len(all)
		all = append(all, invented(svc, v6))
	}
	all[first].Endpoints = append(all[first].Endpoints, added(svc, all, v6, zone, want-len(ready))...)
	return all
}

// invented is a slice for a Service that has none.
func invented(svc model.Service, v6 bool) model.Slice {
	s := model.Slice{Name: model.Name{Namespace: svc.Namespace, Name: svc.Name.Name + "-what-if"}, Service: svc.Name.Name, V6: v6}
	for _, p := range svc.Ports {
		s.Ports = append(s.Ports, model.EndpointPort{Name: p.Name, Protocol: p.Protocol, Port: p.Port})
	}
	return s
}

// added makes ready endpoints in a zone, turn by turn on the nodes that are seen there.
func added(svc model.Service, all []model.Slice, v6 bool, zone string, count int) []model.Endpoint {
	used, pods := map[netip.Addr]bool{}, map[string]bool{}
	var nodes []string
	for _, s := range all {
		for _, e := range s.Endpoints {
			used[e.Addr] = true
			pods[e.Pod] = true
			if e.Zone == zone && e.Node != "" {
				nodes = append(nodes, e.Node)
			}
		}
	}
	slices.Sort(nodes)
	nodes = slices.Compact(nodes)
	addr := netip.AddrFrom4([4]byte{198, 18, 0, 0}) // RFC 2544
	if v6 {
		addr = netip.MustParseAddr("2001:db8::") // RFC 3849
	}
	out := make([]model.Endpoint, 0, count)
	for number := 1; len(out) < count; number++ {
		addr = addr.Next()
		pod := fmt.Sprintf("%s-what-if-%d", svc.Name.Name, number)
		if used[addr] || pods[pod] {
			continue
		}
		e := model.Endpoint{Addr: addr, Zone: zone, Pod: pod, Ready: true, Serving: true}
		if len(nodes) > 0 {
			e.Node = nodes[len(out)%len(nodes)]
		}
		out = append(out, e)
	}
	return out
}
