package vpc

import (
	"net/netip"
	"slices"
)

// shrink chooses what the pool can do without: nothing that a pod has or had a moment ago, and nothing
// that would be asked for again.
func (s *survey) shrink() Action {
	// Emptiest first.
	for _, p := range slices.Backward(s.ports) {
		if a := s.detach(p); a.Verb != None {
			return a
		}
	}
	for _, p := range slices.Backward(s.ports) {
		if a := s.trim(p); a.Verb != None {
			return a
		}
	}
	return Action{}
}

// young is how long an interface stays at least: what the cloud and the node say of it may still change.
const young = patience

func (s *survey) detach(p *port) Action {
	if p.Primary || p.used > 0 || p.Draining || p.Device == "" {
		return Action{}
	}
	if old := p.Attached.Add(young); old.After(s.Now) {
		s.wake(old)
		return Action{}
	}
	if p.gives && s.shortage(p.free) > s.shortage(0) {
		return Action{}
	}
	return Action{Verb: DeleteInterface, Interface: p.ID, Subnet: p.SubnetID}
}

// trim takes prefixes and addresses away from an interface that stays.
func (s *survey) trim(p *port) Action {
	if p.Draining || p.Device == "" {
		return Action{}
	}
	if n := s.spare(p, len(p.whole), prefixSize); n > 0 {
		return Action{Verb: UnassignPrefixes, Interface: p.ID, Subnet: p.SubnetID, Prefixes: last(p.whole, n)}
	}
	// An interface full of addresses is what WARM_ENI_TARGET counts in: it stays full.
	if !s.single() && p.gives {
		return Action{}
	}
	if n := s.spare(p, len(p.singles), 1); n > 0 {
		return Action{Verb: UnassignAddresses, Interface: p.ID, Subnet: p.SubnetID, Addresses: last(p.singles, n)}
	}
	return Action{}
}

// spare is how many of n things of so many addresses each can go.
func (s *survey) spare(p *port, n, size int) int {
	if !p.gives {
		return n
	}
	now := s.shortage(0)
	for n > 0 && s.shortage(n*size) > now {
		n--
	}
	return n
}

func last[T netip.Addr | netip.Prefix](all []T, n int) []T {
	return slices.Clone(all[len(all)-n:])
}
