package service

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/zonewise/zonewise/internal/model"
)

// Faults returns what is wrong with the Service and its slices (those of other Services are passed
// over): what each object says wrongly, and where they contradict each other. In order, each once.
func Faults(svc model.Service, all []model.Slice) []Fault {
	var out []Fault
	for _, problem := range svc.Faults {
		out = append(out, Fault{"Service", svc.Name, problem})
	}
	for _, v6 := range []bool{false, true} {
		list := mine(svc.Name, v6, all)
		out = append(out, ofSlices(list)...)
		p := planner{svc: svc, v6: v6}
		if p.places = p.answers(); len(p.places) == 0 {
			out = append(out, withoutFamily(list, v6)...)
			continue
		}
		out = append(out, p.openToAll()...)
		for _, port := range svc.Ports {
			out = append(out, contradictions(gather("", port, list))...)
		}
	}
	slices.SortFunc(out, Fault.Compare)
	return slices.Compact(out)
}

func ofSlices(list []model.Slice) (out []Fault) {
	for _, s := range list {
		for _, problem := range s.Faults {
			out = append(out, Fault{"EndpointSlice", s.Name, problem})
		}
	}
	return out
}

// withoutFamily are the slices that hold endpoints of a family in which nobody can reach the Service.
func withoutFamily(list []model.Slice, v6 bool) (out []Fault) {
	for _, s := range list {
		if n := len(s.Endpoints); n > 0 {
			out = append(out, Fault{"EndpointSlice", s.Name, fmt.Sprintf(
				"service %s has no %s address: endpoints are not used, %d of them", s.Service, family(v6), n)})
		}
	}
	return out
}

// openToAll tells that source ranges were given, but leave a family open: kube-proxy does so, too.
func (p planner) openToAll() []Fault {
	if len(p.svc.SourceRanges) == 0 || !slices.ContainsFunc(p.places, func(a place) bool { return a.kind == LoadBalancer }) ||
		slices.ContainsFunc(p.svc.SourceRanges, func(r netip.Prefix) bool { return r.Addr().Is6() == p.v6 }) {
		return nil
	}
	return []Fault{{"Service", p.svc.Name, fmt.Sprintf(
		"no source range is %s: everybody may use the load balancer's %s addresses", family(p.v6), family(p.v6))}}
}

func family(v6 bool) string {
	if v6 {
		return "IPv6"
	}
	return "IPv4"
}

// contradictions are the slices that say of an address what another slice says otherwise. A pod
// whose address a dying one still has is no contradiction, nor is a pod in two slices while it moves.
func contradictions(found endpoints) []Fault {
	type pair struct{ loser, winner *model.Slice }
	first, more := map[pair]string{}, map[pair]int{}
	used := 0
	for i, other := range found {
		if found[used].addr != other.addr {
			used = i
		}
		theirs, here := differ(found[used], other)
		of := pair{other.slice, found[used].slice}
		switch {
		case here == "":
		case first[of] == "":
			first[of] = fmt.Sprintf("endpoint %s is %s here and %s in %s: that holds", other.addr.Addr(), here, theirs, of.winner.Name.Name)
		default:
			more[of]++
		}
	}
	var out []Fault
	for of, problem := range first {
		if more[of] > 0 {
			problem += fmt.Sprintf(", and so for %d more", more[of])
		}
		out = append(out, Fault{"EndpointSlice", of.loser.Name, problem})
	}
	return out
}

// differ tells the first thing in which two entries of one address contradict each other.
func differ(used, other endpoint) (theirs, here string) {
	switch {
	case used.Pod != other.Pod && other.Terminating && !used.Terminating:
		return "", "" // its address is somebody else's already
	case used.Node != other.Node:
		return onNode(used.Node), onNode(other.Node)
	case used.Zone != other.Zone:
		return inZone(used.Zone), inZone(other.Zone)
	case used.condition() != other.condition():
		return used.condition(), other.condition()
	}
	return "", ""
}

func onNode(name string) string {
	if name == "" {
		return "on no node"
	}
	return "on node " + name
}

func inZone(name string) string {
	if name == "" {
		return "in no zone"
	}
	return "in zone " + name
}

func (e endpoint) condition() string {
	switch {
	case e.Terminating:
		return "terminating"
	case e.Ready:
		return "ready"
	}
	return "not ready"
}
