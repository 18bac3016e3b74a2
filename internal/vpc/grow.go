package vpc

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// grow chooses what is to be asked of the cloud for a pool that is short. Blocked says why there is
// nothing to be asked.
func (s *survey) grow(short int) (a Action, blocked string) {
	if !s.Targets.byPrefix(s.Limits) {
		return s.growBy(short, short, false)
	}
	a, blocked = s.growBy((short+prefixSize-1)/prefixSize, short, true)
	if a.Verb != None {
		return a, ""
	}
	if a = s.merge(); a.Verb != None {
		return a, ""
	}
	// No block of 16 is to be had: single addresses, as many as one interface has at most. They go
	// back when there are blocks again.
	if !s.Targets.byIP() {
		short -= max(s.Targets.warm(s.Limits)-s.Limits.Slots(), 0)
	}
	if short = max(short, s.urgent()); short > 0 {
		var singles string
		if a, singles = s.growBy(short, short, false); a.Verb != None {
			return a, ""
		}
		blocked += "; " + singles
	}
	return a, blocked
}

// growBy asks for n addresses, or for n prefixes, first of an interface that is there.
func (s *survey) growBy(n, short int, ofPrefixes bool) (a Action, blocked string) {
	blocked = "every interface is full"
	for _, p := range s.ports {
		if !p.gives || p.open <= 0 || p.Device == "" {
			continue
		}
		if r, no := s.Memory.refusal(p.ID, false, s.Now); no {
			blocked = s.told(p.ID, r)
			continue
		}
		want := n
		if !ofPrefixes && !s.single() {
			want = s.fill(short)
		}
		count, why := s.allowed(p.SubnetID, min(want, p.open), ofPrefixes, 0)
		if count == 0 {
			blocked = why
			continue
		}
		verb := AssignAddresses
		if ofPrefixes {
			verb = AssignPrefixes
		}
		return Action{Verb: verb, Interface: p.ID, Subnet: p.SubnetID, Count: count}, ""
	}
	a, why := s.create(n, short, ofPrefixes)
	if a.Verb == None {
		blocked += "; " + why
	}
	return a, blocked
}

// single tells whether addresses are asked for one by one, and not an interface full of them.
func (s *survey) single() bool { return s.Targets.byIP() || s.Targets.byPrefix(s.Limits) }

// fill is how many addresses are worth having on an interface that is to be full: not more than pods
// that can still come.
func (s *survey) fill(short int) int {
	if s.Node.MaxPods == 0 {
		return s.Limits.Slots()
	}
	return max(min(s.Limits.Slots(), s.Node.MaxPods-s.held-s.elsewhere-s.free-s.coming), short)
}

func (s *survey) create(n, short int, ofPrefixes bool) (a Action, blocked string) {
	most := s.Targets.interfaces(s.Limits)
	if len(s.Interfaces) >= most {
		return Action{}, fmt.Sprintf("the instance has all %d interfaces", most)
	}
	if ofPrefixes != s.Targets.byPrefix(s.Limits) && s.urgent() == 0 {
		return Action{}, "an interface for single addresses is not made before a pod waits"
	}
	if r, no := s.Memory.refusal(nowhere, false, s.Now); no {
		return Action{}, s.told("the instance", r)
	}
	if !ofPrefixes && !s.single() {
		n = s.fill(short)
	}
	n = min(n, s.Limits.Slots())
	blocked = "no subnet is known for a new interface"
	for _, subnet := range slices.SortedStableFunc(slices.Values(s.Subnets), func(a, b Subnet) int { return cmp.Compare(b.Free, a.Free) }) {
		count, why := s.allowed(subnet.ID, n, ofPrefixes, 1)
		if count == 0 {
			blocked = why
			continue
		}
		return Action{Verb: CreateInterface, Subnet: subnet.ID, SecurityGroups: subnet.SecurityGroups,
			Index: s.index(), Count: count, OfPrefixes: ofPrefixes}, ""
	}
	return Action{}, blocked
}

// index is the lowest device index that is not taken.
func (s *survey) index() int {
	n := 1
	for slices.ContainsFunc(s.Interfaces, func(i Interface) bool { return i.Index == n }) {
		n++
	}
	return n
}

// allowed is how many of n addresses or prefixes a subnet may be asked for, besides an interface's own.
// After a refusal only pods that wait are worth a call, and only for less than was refused.
func (s *survey) allowed(subnet string, n int, ofPrefixes bool, own int) (count int, blocked string) {
	each := 1
	if ofPrefixes {
		each = prefixSize
	}
	if i := slices.IndexFunc(s.Subnets, func(x Subnet) bool { return x.ID == subnet }); i >= 0 && s.Subnets[i].Free >= 0 {
		free := s.Subnets[i].Free
		if n = min(n, max(free-own, 0)/each); n == 0 {
			return 0, fmt.Sprintf("subnet %s has %d free addresses", subnet, free)
		}
	}
	r, no := s.Memory.refusal(subnet, ofPrefixes, s.Now)
	if !no {
		return n, ""
	}
	urgent := (s.urgent() + each - 1) / each
	if s.hasRoom(subnet, r) {
		return min(n, urgent), s.told("subnet "+subnet, r)
	}
	return min(n, urgent, r.Count/2), s.told("subnet "+subnet, r)
}

// hasRoom tells whether the cloud has said since the refusal that the subnet has addresses. Of blocks of 16
// it says nothing.
func (s *survey) hasRoom(subnet string, r Refusal) bool {
	i := slices.IndexFunc(s.Subnets, func(x Subnet) bool { return x.ID == subnet })
	return i >= 0 && r.Failure == SubnetFull && s.Subnets[i].Free > 0 && s.Subnets[i].Asked.After(r.Since)
}

func (s *survey) told(place string, r Refusal) string {
	return fmt.Sprintf("%s: %s, asked again in %s", place, r.Failure, r.Until.Sub(s.Now).Round(time.Second))
}

// probes is how often a single address is given up to see whether there are prefixes again.
const probes = 5

// merge opens a slot for a prefix where single addresses, of a time in which there was no block of 16,
// have taken them all.
func (s *survey) merge() Action {
	if s.waiting > 0 {
		return Action{}
	}
	for _, p := range s.ports {
		if !p.gives || p.Device == "" || p.open > 0 || len(p.singles) == 0 {
			continue
		}
		r, _ := s.Memory.refusedOnce(p.SubnetID, true)
		if n, _ := s.allowed(p.SubnetID, 1, true, 0); n > 0 && r.Times < probes {
			return Action{Verb: UnassignAddresses, Interface: p.ID, Subnet: p.SubnetID, Addresses: last(p.singles, 1)}
		}
	}
	return Action{}
}
