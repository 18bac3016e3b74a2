package bpf

import (
	"net/netip"
	"slices"

	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/service"
	"github.com/zonewise/zonewise/internal/service/affinity"
)

// programmed is what the maps hold of one frontend: our copy of the kernel.
type programmed struct {
	id      uint32    // 0: the frontend itself is not there, at most its kept endpoints are
	slots   []seat    // by number
	weights *weights  // nil: even
	affine  bool      // clients are remembered
	kept    []address // serving endpoints of a UDP frontend
	// broken tells that something of it is missing or wrong, so that it must be written anew.
	broken bool
}

// seat is what is in a slot: an endpoint, and the number of the pair's counter; 0: it has none.
type seat struct {
	endpoint address
	counter  uint32
}

// digest is the sum of the digests of a frontend's elements, by table.
type digest struct{ frontends, slots, weights, kept uint64 }

func (d *digest) add(o digest) {
	d.frontends += o.frontends
	d.slots += o.slots
	d.weights += o.weights
	d.kept += o.kept
}

func (d *digest) subtract(o digest) {
	d.frontends -= o.frontends
	d.slots -= o.slots
	d.weights -= o.weights
	d.kept -= o.kept
}

// usage is how many elements a frontend has, by table.
type usage struct{ frontends, slots, weights, kept int }

func (u *usage) add(o usage) {
	u.frontends += o.frontends
	u.slots += o.slots
	u.weights += o.weights
	u.kept += o.kept
}

func (u *usage) subtract(o usage) {
	u.frontends -= o.frontends
	u.slots -= o.slots
	u.weights -= o.weights
	u.kept -= o.kept
}

// within tells that none is more than there.
func (u usage) within(o usage) bool {
	return u.frontends <= o.frontends && u.slots <= o.slots && u.weights <= o.weights && u.kept <= o.kept
}

func (p *programmed) frontend(at address) frontend {
	return newFrontend(at, p)
}

func (p *programmed) digest(at address) digest {
	var d digest
	if p == nil {
		return d
	}
	if p.id != 0 {
		d.frontends = p.frontend(at).digest(&at)
		for i, e := range p.slots {
			s := newSlot(p.id, e)
			d.slots += s.digest(slotKey{p.id, uint32(i)})
		}
		if p.weights != nil {
			d.weights = p.weights.digest(p.id)
		}
	}
	for _, e := range p.kept {
		k := pair{at, e}
		d.kept += k.digest()
	}
	return d
}

func (p *programmed) usage() usage {
	var u usage
	if p == nil {
		return u
	}
	if p.id != 0 {
		u.frontends, u.slots = 1, len(p.slots)
		if p.weights != nil {
			u.weights = 1
		}
	}
	u.kept = len(p.kept)
	return u
}

// here tells whether the socket path does a frontend, and by which choice: who opens a socket on
// this node is an insider. The rest is left to the packet path, which knows the packet's source, and
// answers where there is no endpoint.
func here(f service.Frontend) (service.Choice, bool) {
	choice := f.Choice
	if f.Inside != nil {
		choice = *f.Inside
	}
	ours := choice.Verdict == service.Balance && len(choice.Backends) > 0 && f.Sources == nil && (f.Affinity <= 0 || f.Affinity >= affinity.Least) &&
		(f.Protocol == model.TCP || f.Protocol == model.UDP)
	return choice, ours
}

// keeps lists the endpoints of a UDP frontend to which flows stay: those that serve, ours or not, and
// whatever we lead to.
func keeps(f service.Frontend) []address {
	if f.Protocol != model.UDP {
		return nil
	}
	out := make([]address, 0, len(f.Keep))
	known := make(map[netip.AddrPort]bool, len(f.Keep))
	add := func(e netip.AddrPort) {
		if !known[e] {
			known[e] = true
			out = append(out, addressOf(e, f.Protocol))
		}
	}
	for _, e := range f.Keep {
		add(e)
	}
	if choice, ok := here(f); ok {
		for _, b := range choice.Backends {
			add(b.Addr)
		}
	}
	return out
}

// reach returns what a frontend should become when it leads to t, out of what it is now. Even
// shares keep their slots where they can, so that a change costs what it is. So do weights if only
// endpoints differ. Else all is written beside the old, under a new id, and comes into force at once.
// Where clients are remembered, none of an endpoint that has left must be led to it when it is
// back: then, too, the id is another one.
func (p *programmed) reach(t target, affine bool, kept []address, numbers *numbers) *programmed {
	to := &programmed{weights: t.weights, affine: affine, kept: kept}
	switch {
	case p == nil || p.id == 0 || p.broken:
		to.id, to.slots = numbers.id(), settle(nil, t.endpoints)
	case p.affine != affine || affine && p.loses(t.endpoints):
		to.id, to.slots = numbers.id(), settle(nil, t.endpoints)
		to.count(p)
	case p.weights == nil && t.weights == nil:
		to.id, to.slots = p.id, settle(p.slots, t.endpoints)
	case p.weights != nil && t.weights != nil && *p.weights == *t.weights && len(p.slots) == len(t.endpoints):
		to.id, to.slots = p.id, make([]seat, 0, len(t.endpoints))
		at := 0
		for _, n := range t.tiers {
			to.slots = append(to.slots, settle(p.slots[at:at+n], t.endpoints[at:at+n])...)
			at += n
		}
		to.count(p)
	default:
		to.id, to.slots = numbers.id(), settle(nil, t.endpoints)
		to.count(p)
	}
	numbers.count(to.slots)
	return to
}

// loses tells that not all endpoints stay.
func (p *programmed) loses(endpoints []address) bool {
	stays := make(map[address]bool, len(endpoints))
	for _, e := range endpoints {
		stays[e] = true
	}
	return slices.ContainsFunc(p.slots, func(s seat) bool { return !stays[s.endpoint] })
}

// count lets endpoints go on with the counters that they had in p.
func (p *programmed) count(from *programmed) {
	had := make(map[address]uint32, len(from.slots))
	for _, s := range from.slots {
		had[s.endpoint] = s.counter
	}
	for i, s := range p.slots {
		p.slots[i].counter = had[s.endpoint]
	}
}

// settle puts the endpoints into as many slots: each that has one of these keeps it, and whoever is
// new has no counter yet.
func settle(slots []seat, endpoints []address) []seat {
	out := make([]seat, len(endpoints))
	if len(slots) == 0 {
		for i, e := range endpoints {
			out[i].endpoint = e
		}
		return out
	}
	if slices.EqualFunc(slots, endpoints, func(s seat, e address) bool { return s.endpoint == e }) {
		return slices.Clone(slots)
	}
	counters := make(map[address]uint32, len(slots))
	for _, s := range slots {
		counters[s.endpoint] = s.counter
	}
	stays := make(map[address]bool, len(endpoints))
	for _, e := range endpoints {
		stays[e] = true
	}
	var free []int
	for i := range out {
		if i < len(slots) && stays[slots[i].endpoint] {
			out[i] = slots[i]
			delete(stays, slots[i].endpoint)
			continue
		}
		free = append(free, i)
	}
	for _, e := range endpoints {
		if stays[e] {
			delete(stays, e)
			out[free[0]] = seat{e, counters[e]}
			free = free[1:]
		}
	}
	return out[:len(out)-len(free)]
}
