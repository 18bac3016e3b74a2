package vpc

import (
	"cmp"
	"net/netip"
	"slices"
	"time"
)

// survey is an Input, counted.
type survey struct {
	Input
	ports []*port // interfaces of ours: the primary first, then those with the most pods

	held      int // addresses that pods have
	elsewhere int // such that pods may not have anew: of the primary in custom networking, or of no interface
	cooling   int
	free      int
	coming    int                   // free ones of interfaces that are not in the node yet
	waiting   int                   // pods
	found     map[netip.Prefix]bool // addresses and prefixes of interfaces, of which pods have some
	lost      []Lease               // whose address no interface has
	later     time.Time             // the first time at which something changes by itself
}

// port is an interface, counted.
type port struct {
	Interface // what is leaving left out
	gives     bool
	whole     []netip.Prefix // prefixes of which nothing is used
	singles   []netip.Addr   // addresses that are not used and belong to no prefix
	used      int            // held or cooling
	held      int
	free      int
	open      int // slots, as the cloud counts
}

type use struct{ held, cooling int }

// look counts. It makes Interfaces and Memory its own, and may change them.
func look(in Input) *survey {
	s := &survey{Input: in, found: map[netip.Prefix]bool{}}
	s.Memory = in.Memory.forget(in.Now)
	for _, t := range in.Leases.Waiting {
		if t.Until.After(in.Now) {
			s.waiting++
		}
	}
	addresses, prefixes := s.uses()
	s.Interfaces = slices.Clone(in.Interfaces)
	for i := range s.Interfaces {
		s.Interfaces[i].Draining = false
		if !s.Interfaces[i].Unmanaged {
			s.ports = append(s.ports, s.count(&s.Interfaces[i], addresses, prefixes))
		}
	}
	slices.SortStableFunc(s.ports, func(a, b *port) int {
		if a.Primary != b.Primary {
			return map[bool]int{true: -1, false: 1}[a.Primary]
		}
		return cmp.Or(cmp.Compare(b.held, a.held), cmp.Compare(a.Index, b.Index), cmp.Compare(a.ID, b.ID))
	})
	for _, h := range in.Leases.Held {
		if !s.found[netip.PrefixFrom(h.Address, h.Address.BitLen())] && !s.found[prefixOf(h.Address)] && !s.behind6(h.Address) {
			s.lost = append(s.lost, h)
		}
	}
	s.elsewhere += len(s.lost)
	if in.Targets.Family == IPv6 {
		s.held, s.elsewhere, s.cooling, s.free, s.coming = len(in.Leases.Held), 0, 0, 0, 0
		if s.behindPrefix() {
			s.free = max(in.Node.MaxPods-s.held, 0)
		}
	}
	return s
}

func (s *survey) behind6(a netip.Addr) bool {
	return a.Is6() && slices.ContainsFunc(s.ports, func(p *port) bool { return p.Has(a) })
}

// behindPrefix tells whether pods can have addresses of the primary's IPv6 prefix.
func (s *survey) behindPrefix() bool {
	return slices.ContainsFunc(s.ports, func(p *port) bool { return p.Primary && p.Device != "" && p.IPv6Prefix.IsValid() })
}

// uses tells what of the leases is held and what cools, by address and by prefix.
func (s *survey) uses() (map[netip.Addr]use, map[netip.Prefix]use) {
	addresses := make(map[netip.Addr]use, len(s.Leases.Held)+len(s.Leases.Resting))
	prefixes := map[netip.Prefix]use{}
	note := func(a netip.Addr, u use) {
		addresses[a] = u
		p := prefixOf(a)
		sum := prefixes[p]
		prefixes[p] = use{held: sum.held + u.held, cooling: sum.cooling + u.cooling}
	}
	for _, h := range s.Leases.Held {
		note(h.Address, use{held: 1})
	}
	for _, r := range s.Leases.Resting {
		if addresses[r.Address].held == 0 && r.cools(s.Now, s.Targets.Cooldown) {
			note(r.Address, use{cooling: 1})
			s.wake(r.At.Add(s.Targets.Cooldown))
		}
	}
	return addresses, prefixes
}

// wake notes a time at which something changes by itself.
func (s *survey) wake(t time.Time) {
	if t.After(s.Now) && (s.later.IsZero() || t.Before(s.later)) {
		s.later = t
	}
}

func prefixOf(a netip.Addr) netip.Prefix {
	return netip.PrefixFrom(a, min(28, a.BitLen())).Masked()
}

// count marks the interface and counts it.
func (s *survey) count(i *Interface, addresses map[netip.Addr]use, prefixes map[netip.Prefix]use) *port {
	p := &port{open: s.Limits.Slots() - len(i.Addresses) - len(i.Prefixes)}
	s.mark(i, addresses, prefixes)
	p.Interface = *i
	p.gives = !i.Draining && !(i.Primary && s.Targets.CustomNetworking) && !(s.Targets.Family == Dual && !i.IPv6Prefix.IsValid())
	cooling := 0
	for _, a := range i.Addresses {
		u := addresses[a]
		p.held += u.held
		cooling += u.cooling
		if u.held > 0 {
			s.found[netip.PrefixFrom(a, a.BitLen())] = true
		}
		if u == (use{}) {
			p.singles = append(p.singles, a)
		}
	}
	p.free = len(p.singles)
	for _, x := range i.Prefixes {
		u := prefixes[x]
		p.held += u.held
		cooling += u.cooling
		s.found[x] = true
		p.free += prefixSize - u.held - u.cooling
		if u == (use{}) {
			p.whole = append(p.whole, x)
		}
	}
	p.used = p.held + cooling
	switch {
	case !p.gives:
		s.elsewhere += p.held
	case i.Device == "":
		s.wake(s.Now.Add(attaching))
		s.coming += p.free
		s.held += p.held
	default:
		s.free += p.free
		s.held += p.held
		s.cooling += cooling
	}
	return p
}

// mark takes what is leaving out of the interface. What a pod has does not leave: that can only be
// because the memory is older than the leases, and then it is the memory that is wrong.
func (s *survey) mark(i *Interface, addresses map[netip.Addr]use, prefixes map[netip.Prefix]use) {
	for _, l := range s.Memory.Leaving {
		switch {
		case l.Interface != i.ID:
		case l.Whole:
			i.Draining = !slices.ContainsFunc(i.Addresses, func(a netip.Addr) bool { return addresses[a].held > 0 }) &&
				!slices.ContainsFunc(i.Prefixes, func(p netip.Prefix) bool { return prefixes[p].held > 0 })
		default:
			i.Addresses = slices.DeleteFunc(slices.Clone(i.Addresses), func(a netip.Addr) bool {
				return addresses[a].held == 0 && slices.Contains(l.Addresses, a)
			})
			i.Prefixes = slices.DeleteFunc(slices.Clone(i.Prefixes), func(p netip.Prefix) bool {
				return prefixes[p].held == 0 && slices.Contains(l.Prefixes, p)
			})
		}
	}
}

// publish returns the interfaces as the plugin is to see them: what pods must not have is left out.
func (s *survey) publish() []Interface {
	addresses, prefixes := s.uses()
	for k := range s.Interfaces {
		i := &s.Interfaces[k]
		if i.Unmanaged {
			continue
		}
		s.mark(i, addresses, prefixes)
		if s.Targets.Family == Dual && !i.IPv6Prefix.IsValid() {
			i.Draining = true // a pod would lack one of its two addresses
		}
		if i.Primary && s.Targets.CustomNetworking {
			i.Addresses = slices.DeleteFunc(slices.Clone(i.Addresses), func(a netip.Addr) bool { return addresses[a].held == 0 })
			i.Prefixes = slices.DeleteFunc(slices.Clone(i.Prefixes), func(p netip.Prefix) bool { return prefixes[p].held == 0 })
		}
	}
	return s.Interfaces
}

// shortage is how many addresses the pool would lack if so many of its free ones were gone. It does
// not rise with time alone. So what is given back when nothing would be lacking is not asked for
// again until something changes.
func (s *survey) shortage(gone int) int {
	free := s.free + s.coming - gone
	ready := free - s.waiting
	short := 0
	if t := s.Targets; t.byIP() {
		short = max(t.WarmIP-ready, t.MinimumIP-(s.held+s.cooling+free))
	} else {
		// Interfaces and prefixes are large steps. They are not taken for a few addresses that
		// cool, and will be back before a new interface is: of these, half the target may be.
		warm := t.warm(s.Limits)
		short = max(warm, 1) - ready - min(s.cooling, warm/2)
	}
	if s.Node.MaxPods > 0 {
		short = min(short, s.Node.MaxPods-s.held-s.elsewhere-free)
	}
	return max(short, -ready, 0)
}

// urgent is how many of the waiting pods have nothing to come.
func (s *survey) urgent() int { return max(s.waiting-s.free-s.coming, 0) }
