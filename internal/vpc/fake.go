package vpc

import (
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// Fake is a cloud with one node: it remembers what was done, and refuses what a cloud refuses.
type Fake struct {
	Limits Limits
	Attach time.Duration        // from the making of an interface until it appears in the node
	Fail   func(Action) Failure // asked first; nil: nothing fails that way
	Lose   func(Action) bool    // does what is asked, and says Away; nil: never
	Calls  []Action             // that were asked

	now        time.Time
	subnets    []Subnet
	taken      map[netip.Addr]bool
	interfaces []Interface
	made       int // interfaces, for their names
	done       int // calls that were not refused
}

// NewFake has subnets and the primary interface of a node, in the first of them.
func NewFake(limits Limits, now time.Time, subnets ...string) *Fake {
	f := &Fake{Limits: limits, now: now, taken: map[netip.Addr]bool{}}
	for i, s := range subnets {
		p := netip.MustParsePrefix(s)
		f.subnets = append(f.subnets, Subnet{ID: fmt.Sprint("subnet-", i+1), CIDR: p})
		for k := range uint32(4) { // the first four and the last are the cloud's
			f.taken[plus(p.Addr(), k)] = true
		}
		f.taken[rangeOf(p).Last] = true
	}
	f.attach(f.subnets[0].ID, 0)
	f.interfaces[0].Primary, f.interfaces[0].Table = true, 254
	f.interfaces[0].Attached, f.interfaces[0].SecurityGroups = now.Add(-time.Hour), []string{"sg-1"}
	return f
}

// At sets the time.
func (f *Fake) At(now time.Time) { f.now = now }

// Interfaces are those of the node, as the cloud tells of them.
func (f *Fake) Interfaces() []Interface {
	out := make([]Interface, len(f.interfaces))
	for k, i := range f.interfaces {
		if f.now.Sub(i.Attached) < f.Attach {
			i.Device = ""
		}
		i.Addresses, i.Prefixes = slices.Clone(i.Addresses), slices.Clone(i.Prefixes)
		out[k] = i
	}
	return out
}

// Subnets are those that interfaces may lie in.
func (f *Fake) Subnets() []Subnet {
	out := slices.Clone(f.subnets)
	for k := range out {
		out[k].Free = f.free(out[k].CIDR)
	}
	return out
}

func (f *Fake) free(p netip.Prefix) int {
	n := rangeOf(p).Size()
	for a := range f.taken {
		if p.Contains(a) {
			n--
		}
	}
	return n
}

// Take makes addresses somebody else's.
func (f *Fake) Take(addresses ...netip.Addr) {
	for _, a := range addresses {
		f.taken[a] = true
	}
}

// Give makes them free again.
func (f *Fake) Give(addresses ...netip.Addr) {
	for _, a := range addresses {
		delete(f.taken, a)
	}
}

// SetGroups gives an interface other security groups, by hand.
func (f *Fake) SetGroups(id string, groups ...string) {
	for k := range f.interfaces {
		if f.interfaces[k].ID == id {
			f.interfaces[k].SecurityGroups = groups
		}
	}
}

// Remove is somebody who deletes an interface by hand.
func (f *Fake) Remove(id string) { f.detach(id) }

// Do does what is asked.
func (f *Fake) Do(a Action) Outcome {
	if a.Verb == None {
		return Outcome{}
	}
	f.Calls = append(f.Calls, a)
	if f.Fail != nil {
		if failure := f.Fail(a); failure != OK {
			return Outcome{Failure: failure}
		}
	}
	o := f.do(a)
	if o.Failure == OK {
		f.done++
	}
	if f.Lose != nil && f.Lose(a) {
		return Outcome{Failure: Away}
	}
	return o
}

func (f *Fake) do(a Action) Outcome {
	if a.Verb == CreateInterface {
		return f.create(a)
	}
	k := slices.IndexFunc(f.interfaces, func(i Interface) bool { return i.ID == a.Interface })
	if k < 0 {
		return Outcome{Failure: Gone}
	}
	i := &f.interfaces[k]
	switch a.Verb {
	case AssignAddresses, AssignPrefixes:
		return f.assign(i, a.Count, a.Verb == AssignPrefixes)
	case AssignIPv6Prefix:
		i.IPv6Prefix = netip.MustParsePrefix(fmt.Sprintf("fd00:0:0:%x::/80", k+1))
	case UnassignAddresses:
		f.Give(a.Addresses...)
		i.Addresses = slices.DeleteFunc(i.Addresses, func(x netip.Addr) bool { return slices.Contains(a.Addresses, x) })
	case UnassignPrefixes:
		for _, p := range a.Prefixes {
			f.Give(slices.Collect(block{rangeOf(p)}.all())...)
		}
		i.Prefixes = slices.DeleteFunc(i.Prefixes, func(x netip.Prefix) bool { return slices.Contains(a.Prefixes, x) })
	case SetSecurityGroups:
		i.SecurityGroups = slices.Clone(a.SecurityGroups)
	case DeleteInterface:
		if i.Primary {
			return Outcome{Failure: Invalid}
		}
		f.detach(a.Interface)
	}
	return Outcome{}
}

func (f *Fake) create(a Action) Outcome {
	taken := func(i Interface) bool { return i.Index == a.Index }
	switch {
	case len(f.interfaces) >= f.Limits.Interfaces:
		return Outcome{Failure: Limit}
	case slices.ContainsFunc(f.interfaces, taken):
		return Outcome{Failure: Invalid}
	case !f.attach(a.Subnet, a.Index):
		return Outcome{Failure: SubnetFull}
	}
	made := &f.interfaces[len(f.interfaces)-1]
	if made.SecurityGroups = a.SecurityGroups; len(made.SecurityGroups) == 0 {
		made.SecurityGroups = f.interfaces[0].SecurityGroups
	}
	o := f.assign(made, a.Count, a.OfPrefixes)
	if o.Failure != OK {
		f.detach(made.ID)
	}
	return o
}

// attach makes an interface; it is false where the subnet has no address for it.
func (f *Fake) attach(subnet string, index int) bool {
	s := f.subnets[slices.IndexFunc(f.subnets, func(s Subnet) bool { return s.ID == subnet })]
	own := f.find(s.CIDR, 1, 1)
	if len(own) == 0 {
		return false
	}
	f.Take(own...)
	f.made++
	f.interfaces = append(f.interfaces, Interface{
		ID: fmt.Sprintf("eni-%d", f.made), Device: fmt.Sprintf("eth%d", index), Index: index, MAC: fmt.Sprintf("02:00:00:00:00:%02x", f.made),
		SubnetID: s.ID, Subnet: s.CIDR, Gateway: s.CIDR.Addr().Next(), Table: index + 1, Address: own[0], Attached: f.now,
	})
	return true
}

func (f *Fake) detach(id string) {
	f.interfaces = slices.DeleteFunc(f.interfaces, func(i Interface) bool {
		if i.ID != id {
			return false
		}
		f.Give(i.Address)
		f.Give(i.Addresses...)
		for _, p := range i.Prefixes {
			f.Give(slices.Collect(block{rangeOf(p)}.all())...)
		}
		return true
	})
}

func (f *Fake) assign(i *Interface, n int, ofPrefixes bool) Outcome {
	size, none := 1, SubnetFull
	if ofPrefixes {
		size, none = prefixSize, Fragmented
	}
	if len(i.Addresses)+len(i.Prefixes)+n > f.Limits.Slots() {
		return Outcome{Failure: Limit}
	}
	found := f.find(i.Subnet, n, size)
	if len(found) < n {
		return Outcome{Failure: none}
	}
	if !ofPrefixes {
		f.Take(found...)
		i.Addresses = append(i.Addresses, found...)
		return Outcome{Addresses: found}
	}
	var o Outcome
	for _, a := range found {
		p := netip.PrefixFrom(a, 28)
		f.Take(slices.Collect(block{rangeOf(p)}.all())...)
		o.Prefixes = append(o.Prefixes, p)
	}
	i.Prefixes = append(i.Prefixes, o.Prefixes...)
	return o
}

// find returns the first n free addresses that begin a free, aligned block of the size.
func (f *Fake) find(p netip.Prefix, n, size int) (found []netip.Addr) {
	all := rangeOf(p)
	for at := all.First; len(found) < n && all.contains(at); at = plus(at, uint32(size)) {
		free := true
		for k := range uint32(size) {
			free = free && !f.taken[plus(at, k)]
		}
		if free {
			found = append(found, at)
		}
	}
	return found
}
