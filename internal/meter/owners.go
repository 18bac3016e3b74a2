package meter

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/zonewise/zonewise/internal/model"
)

// Place is an address, or a port at it. A zero Port stands for all ports that are not known one by one.
type Place struct {
	Addr     netip.Addr
	Port     uint16
	Protocol model.Protocol // with a Port
}

func (p Place) plain() Place {
	p.Addr = p.Addr.Unmap()
	if p.Port == 0 {
		p.Protocol = 0
	}
	return p
}

// Target is what a place means to who dials it.
type Target struct {
	Service model.Name
	Via     model.Via // one of the Service's addresses, or ViaHeadless
	Port    uint16    // of the Service
}

func (t Target) compare(o Target) int {
	return cmp.Or(t.Service.Compare(o.Service), cmp.Compare(t.Port, o.Port), strings.Compare(string(t.Via), string(o.Via)))
}

// Internet is the block of an address outside that no configured block has.
const Internet = "internet"

// Owners remembers who had an address when, for as long as somebody may ask. Instants are since
// boot, on the clock of Reading.At. The order in which it is told does not matter.
type Owners struct {
	Self  model.Party   // the node that counts: Kind NodeParty
	Grace time.Duration // how much later, or earlier, than in the kernel news of an owner may come

	parties   map[Place]tenures[model.Party]
	processes map[uint64]tenures[model.Party]
	frontends map[Place]tenures[Target]
	nodePorts map[nodePort]tenures[Target]
	headless  map[Place]tenures[Target]
	ranges    map[int]map[netip.Prefix]model.Party // by length
	lengths   []int                                // the longest first
}

// nodePort is a port at the addresses of all nodes.
type nodePort struct {
	port     uint16
	protocol model.Protocol
}

// NewOwners returns one that knows nobody but the node itself.
func NewOwners(self model.Party, grace time.Duration) *Owners {
	return &Owners{
		Self: self, Grace: grace, parties: map[Place]tenures[model.Party]{}, processes: map[uint64]tenures[model.Party]{},
		frontends: map[Place]tenures[Target]{}, nodePorts: map[nodePort]tenures[Target]{}, headless: map[Place]tenures[Target]{},
		ranges: map[int]map[netip.Prefix]model.Party{},
	}
}

// Own tells that a party has a place from an instant on, until to; 0 is not yet known. Where two
// have the same, the later one's beginning is the earlier one's end. A place with a port is for
// who listens at a node's address.
func (o *Owners) Own(p Place, who model.Party, from, to time.Duration) {
	p = p.plain()
	o.parties[p] = o.parties[p].with(tenure[model.Party]{who, from, to}, model.Party.Compare)
}

// Take tells that somebody was found to have a place, who cannot have had it before since. If nobody had it
// of late, it is theirs since then, or since the last one left: news comes later than the first packet. If
// somebody has it still, it changes hands now.
func (o *Owners) Take(p Place, who model.Party, since, now time.Duration) {
	from, had := min(max(since, 0), now), o.parties[p.plain()]
	for i := range had {
		if end := had.end(i); end == 0 {
			from = now
		} else {
			from = max(from, end)
		}
	}
	o.Own(p, who, from, 0)
}

// Leave tells that a party has a place no more.
func (o *Owners) Leave(p Place, who model.Party, at time.Duration) {
	o.parties[p.plain()].until(who, at)
}

// Tenure is that a party had an address from an instant on, until To; 0 is still.
type Tenure struct {
	Addr     netip.Addr
	Who      model.Party
	From, To time.Duration
}

// Last lists who had each of some addresses last, by address.
func (o *Owners) Last(of map[netip.Addr]bool) []Tenure {
	var out []Tenure
	for a := range of {
		a = a.Unmap()
		if s := o.parties[Place{Addr: a}]; len(s) > 0 {
			t := s[len(s)-1]
			out = append(out, Tenure{a, t.value, t.from, t.to})
		}
	}
	slices.SortFunc(out, func(a, b Tenure) int { return a.Addr.Compare(b.Addr) })
	return out
}

// Run tells which party the processes of a cgroup are, by its id.
func (o *Owners) Run(cgroup uint64, who model.Party, from, to time.Duration) {
	o.processes[cgroup] = o.processes[cgroup].with(tenure[model.Party]{who, from, to}, model.Party.Compare)
}

// Serve tells that a place is an address of a Service.
func (o *Owners) Serve(p Place, t Target, from, to time.Duration) {
	p = p.plain()
	o.frontends[p] = o.frontends[p].with(tenure[Target]{t, from, to}, Target.compare)
}

// Unserve tells that a place is no address of a Service any more.
func (o *Owners) Unserve(p Place, t Target, at time.Duration) { o.frontends[p.plain()].until(t, at) }

// ServeNodes tells that a port at the addresses of every node is a Service's.
func (o *Owners) ServeNodes(port uint16, proto model.Protocol, t Target, from, to time.Duration) {
	p := nodePort{port, proto}
	o.nodePorts[p] = o.nodePorts[p].with(tenure[Target]{t, from, to}, Target.compare)
}

// UnserveNodes tells that it is so no more.
func (o *Owners) UnserveNodes(port uint16, proto model.Protocol, t Target, at time.Duration) {
	o.nodePorts[nodePort{port, proto}].until(t, at)
}

// Back tells that a place is an endpoint of a headless Service. It may be one of several: the first by
// name has its flows.
func (o *Owners) Back(p Place, t Target, from, to time.Duration) {
	p = p.plain()
	o.headless[p] = o.headless[p].with(tenure[Target]{t, from, to}, Target.compare)
}

// Unback tells that a place is no endpoint of a headless Service any more.
func (o *Owners) Unback(p Place, t Target, at time.Duration) { o.headless[p.plain()].until(t, at) }

// Block tells whose addresses of a range are that nobody is known to have: Outside with the name of
// a block, or, for the cluster's own ranges, Unknown, with zone and node where the range is theirs.
// The longest range counts. An address in none is Outside, block Internet.
func (o *Owners) Block(p netip.Prefix, who model.Party) {
	if !p.IsValid() {
		return
	}
	if p.Addr().Is4In6() {
		if p.Bits() < 96 {
			return // more than the addresses of IPv4
		}
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	p = p.Masked()
	if o.ranges[p.Bits()] == nil {
		o.ranges[p.Bits()] = map[netip.Prefix]model.Party{}
		o.lengths = append(o.lengths, p.Bits())
		slices.SortFunc(o.lengths, func(a, b int) int { return cmp.Compare(b, a) })
	}
	if was, ok := o.ranges[p.Bits()][p]; !ok || who.Compare(was) < 0 {
		o.ranges[p.Bits()][p] = who
	}
}

// Forget drops what ended before an instant, less Grace: nobody will ask for an earlier one.
func (o *Owners) Forget(before time.Duration) {
	forget(o.parties, before-o.Grace, lingers)
	forget(o.processes, before-o.Grace, 0)
	forget(o.frontends, before-o.Grace, 0)
	forget(o.nodePorts, before-o.Grace, 0)
	forget(o.headless, before-o.Grace, 0)
}

// local tells the party of a process on this node; false if that is not known.
func (o *Owners) local(cgroup uint64, w Window) (model.Party, bool) {
	if cgroup == 0 {
		return model.Party{}, false
	}
	who, found, ambiguous := o.processes[cgroup].during(w, o.Grace)
	return who, found && !ambiguous
}

// party tells who had an address during a window, and whether that cannot be told because it
// changed hands.
func (o *Owners) party(a netip.Addr, port uint16, proto model.Protocol, w Window) (who model.Party, ambiguous bool) {
	a = a.Unmap()
	if port != 0 {
		if who, found, ambiguous := o.parties[Place{a, port, proto}].during(w, o.Grace); found {
			return o.unsure(a, who, ambiguous)
		}
	}
	had := o.parties[Place{Addr: a}]
	if who, found, ambiguous := had.during(w, o.Grace); found {
		return o.unsure(a, who, ambiguous)
	}
	if who, ok := had.before(w.From, lingers); ok {
		return model.Party{Kind: model.Unknown, Zone: who.Zone, Node: who.Node}, false
	}
	return o.block(a), false
}

// lingers is how long an address is still where its last owner was: routes and names lead there for a while,
// and who calls a pod that is gone crosses zones as before.
const lingers = 5 * time.Minute

// unsure makes a party Unknown, keeping what its range tells.
func (o *Owners) unsure(a netip.Addr, who model.Party, ambiguous bool) (model.Party, bool) {
	if !ambiguous {
		return who, false
	}
	b := o.block(a)
	return model.Party{Kind: model.Unknown, Zone: b.Zone, Node: b.Node}, true
}

func (o *Owners) block(a netip.Addr) model.Party {
	for _, bits := range o.lengths {
		if p, err := a.WithZone("").Prefix(bits); err == nil {
			if who, ok := o.ranges[bits][p]; ok {
				return who
			}
		}
	}
	return model.Party{Kind: model.Outside, Block: Internet}
}

// target tells what a place meant to who dialled it during a window.
func (o *Owners) target(a netip.AddrPort, proto model.Protocol, w Window) (t Target, found, ambiguous bool) {
	t, found, ambiguous = o.frontends[Place{a.Addr().Unmap(), a.Port(), proto}].during(w, o.Grace)
	if ports := o.nodePorts[nodePort{a.Port(), proto}]; !found && len(ports) > 0 && o.node(a.Addr(), w) {
		return ports.during(w, o.Grace)
	}
	return t, found, ambiguous
}

// node tells whether an address was a node's during a window.
func (o *Owners) node(a netip.Addr, w Window) bool {
	who, found, _ := o.parties[Place{Addr: a.Unmap()}].during(w, o.Grace)
	return found && who.Kind == model.NodeParty
}

// endpoint tells of which headless Service a place was an endpoint.
func (o *Owners) endpoint(a netip.AddrPort, proto model.Protocol, w Window) (Target, bool) {
	var best Target
	found := false
	for _, t := range o.headless[Place{a.Addr().Unmap(), a.Port(), proto}] {
		if t.overlaps(w, o.Grace) && (!found || t.value.compare(best) < 0) {
			best, found = t.value, true
		}
	}
	return best, found
}

// tenure is how long something was so: from an instant on, until another; 0 is still.
type tenure[T comparable] struct {
	value    T
	from, to time.Duration
}

func (t tenure[T]) overlaps(w Window, grace time.Duration) bool {
	return t.from < w.To+grace && (t.to == 0 || t.to > w.From-grace)
}

// tenures are ordered by their beginning.
type tenures[T comparable] []tenure[T]

// with adds a tenure. One with the same value and beginning is the same: an end that is told ends it.
func (s tenures[T]) with(t tenure[T], compare func(a, b T) int) tenures[T] {
	i, found := slices.BinarySearchFunc(s, t, func(a, b tenure[T]) int {
		return cmp.Or(cmp.Compare(a.from, b.from), compare(a.value, b.value))
	})
	if found {
		if s[i].to == 0 || t.to != 0 && t.to < s[i].to {
			s[i].to = t.to
		}
		return s
	}
	return slices.Insert(s, i, t)
}

// until ends the first of the tenures with a value that has no end.
func (s tenures[T]) until(value T, at time.Duration) {
	for i := range s {
		if s[i].value == value && s[i].to == 0 {
			s[i].to = max(at, s[i].from+1)
			return
		}
	}
}

// end returns when a tenure ends: who comes later has it, whatever was said of the end.
func (s tenures[T]) end(i int) time.Duration {
	for _, next := range s[i+1:] {
		if next.from > s[i].from {
			if s[i].to == 0 || s[i].to > next.from {
				return next.from
			}
			break
		}
	}
	return s[i].to
}

// during tells what was so in a window: the only value in it, else the only one within grace of it.
// Several values are ambiguous.
func (s tenures[T]) during(w Window, grace time.Duration) (value T, found, ambiguous bool) {
	for _, around := range []time.Duration{0, grace} {
		for i, t := range s {
			t.to = s.end(i)
			if !t.overlaps(w, around) {
				continue
			}
			if found && t.value != value {
				return value, true, true
			}
			value, found = t.value, true
		}
		if found {
			break
		}
	}
	return value, found, false
}

// before tells what was so last, if that ended before an instant, and not longer than a while.
func (s tenures[T]) before(at, while time.Duration) (value T, ok bool) {
	for i := range s {
		if end := s.end(i); end != 0 && end <= at {
			value, ok = s[i].value, end >= at-while
		}
	}
	return value, ok
}

// forget drops what ended before an instant; what was so last stays for a while.
func forget[K, T comparable](m map[K]tenures[T], before, while time.Duration) {
	for k, s := range m {
		if len(s) == 1 && s[0].to == 0 {
			continue // nearly all
		}
		var keep tenures[T]
		for i, t := range s {
			if end := s.end(i); end == 0 || end >= before || i == len(s)-1 && end >= before-while {
				keep = append(keep, t)
			}
		}
		switch len(keep) {
		case len(s):
		case 0:
			delete(m, k)
		default:
			m[k] = keep
		}
	}
}
