package nft

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/zonewise/zonewise/internal/kernel/nft"
	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/service"
)

// plans are frontends by Service.
type plans = map[model.Name][]service.Frontend

// half programs one address family.
type half struct {
	door   *door
	flows  flows
	layout layout
	lot    int // about how many elements go into one transaction when an empty table is filled

	want      plans
	owners    map[service.Key]model.Name   // who has a frontend
	contested map[service.Key][]model.Name // all who want it, in order, where it is more than one: the first has it
	uses      map[use]int                  // elements that several frontends share
	refused   map[model.Name]refusal       // what the kernel would not take; it is not in want
	complete  bool                         // what is not wanted may go
	ranged    bool                         // the layout's cidrs are known; until then a predecessor's rules stay
	dropped   []string                     // comments of the rules that drop what is unallocated, as they were found

	// have is what the kernel holds, or nil when that is not known: at the start, and after a
	// failure. chains are the table's counted chains. there tells that there is a table: that of
	// IPv6 is made when there is something for it.
	have    *image
	chains  map[nft.Verdict]bool
	numbers *numbers // of what have says that they mean, and of what may come
	there   bool
	crowd   int  // so many chains are swept without waiting for the next Apply
	idled   idle // numbers and chains that the last sweep found idle and left
	// cut are the UDP frontends whose stale flows are still to be cut.
	cut map[service.Key]bool
}

// use is an element of cluster-ips or hairpin.
type use struct {
	set set
	key string
}

// refusal is what a Service wanted and why it did not get it.
type refusal struct {
	frontends []service.Frontend
	why       error
}

func newHalf(d *door, f flows, l layout) *half {
	h := &half{door: d, flows: f, layout: l, lot: coldLot, crowd: fewChains, cut: map[service.Key]bool{}}
	h.take(nil)
	return h
}

// mine tells that the address is of this family.
func (h *half) mine(a netip.Addr) bool { return a.Is4() == (h.layout.family == nft.IPv4) }

// part returns those of this family; the list itself if all are.
func (h *half) part(list []service.Frontend) []service.Frontend {
	n := 0
	for i := range list {
		if h.mine(list[i].Addr.Addr()) {
			n++
		}
	}
	switch n {
	case 0:
		return nil
	case len(list):
		return list
	}
	out := make([]service.Frontend, 0, n)
	for i := range list {
		if h.mine(list[i].Addr.Addr()) {
			out = append(out, list[i])
		}
	}
	return out
}

// apply is Apply.
func (h *half) apply(want plans) error {
	h.take(want)
	_, err := h.settle()
	return err
}

// update is Update. A Service that has nothing in this family may have had.
func (h *half) update(all plans) error {
	changed := make(plans, len(all))
	for name, list := range all {
		list = h.part(list)
		_, had := h.want[name]
		_, refused := h.refused[name]
		if len(list) > 0 || had || refused {
			changed[name] = list
		}
	}
	if len(changed) == 0 && h.have != nil {
		return h.tidy()
	}
	for name := range changed {
		delete(h.refused, name)
	}
	if h.have == nil || !h.there {
		for name, frontends := range changed {
			h.replace(name, frontends)
		}
		if h.have != nil && h.idleFamily() {
			return nil
		}
		_, err := h.settle()
		return err
	}
	err := h.attempt(changed)
	if refuses(err) { // it may be that the kernel is not what we think
		if _, err = h.settle(); err == nil {
			err = h.bring(changed)
		}
	}
	if err != nil {
		h.forgetKernel()
		return err
	}
	return h.tidy()
}

// tidy does what comes after a change.
func (h *half) tidy() error {
	if len(h.chains) > h.crowd && h.complete {
		if err := h.sweep(); err != nil {
			return err
		}
		h.crowd = fewChains + 2*(len(h.chains)-len(h.idled.chains))
	}
	return h.cutFlows()
}

// audit is Audit. It is told whether anyone changed the kernel.
func (h *half) audit(changed bool) (repaired bool, err error) {
	if changed || h.have == nil {
		if repaired, err = h.settle(); err != nil {
			return false, err
		}
	}
	return repaired, h.again()
}

// allocate is ServiceCIDRs.
func (h *half) allocate(list []netip.Prefix) error {
	cidrs := ranges(h.layout.family, list)
	if h.ranged && slices.Equal(cidrs, h.layout.cidrs) {
		return nil
	}
	h.layout.cidrs, h.ranged = cidrs, true
	want := h.unallocated()
	if h.have == nil || !h.complete || slices.Equal(want.comments(), h.dropped) {
		return nil
	}
	if !h.there {
		_, err := h.settle()
		return err
	}
	b := nft.NewBatch(h.layout.table())
	b.FlushChain(unallocatedChain)
	for _, r := range want.rules {
		b.AddRule(unallocatedChain, r)
	}
	h.dropped = want.comments()
	err := h.commit(b, &difference{})
	if err != nil {
		h.forgetKernel() // the next audit brings it
	}
	return err
}

// unallocated is the chain that drops what goes to addresses nobody has.
func (h *half) unallocated() chain {
	return chain{nft.Chain{Name: unallocatedChain}, h.layout.dropUnallocated()}
}

// faults is Faults.
func (h *half) faults() []service.Fault {
	var out []service.Fault
	for name, r := range h.refused {
		out = append(out, service.Fault{Kind: "Service", Object: name, Problem: "not programmed: " + r.why.Error()})
	}
	for k, names := range h.contested {
		for _, n := range names[1:] {
			out = append(out, service.Fault{
				Kind: "Service", Object: n, Problem: fmt.Sprintf("%s/%s is left to %s, which claims it too", k.Addr, k.Protocol, names[0]),
			})
		}
	}
	return out
}

// remove is Remove.
func (h *half) remove() error {
	h.take(nil)
	h.forgetKernel()
	h.complete, h.ranged = false, false
	for _, table := range []nft.Table{h.layout.table(), h.layout.interim()} {
		if err := h.drop(table); err != nil {
			return err
		}
	}
	return nil
}

// drop deletes a table that may be there.
func (h *half) drop(t nft.Table) error {
	_, there, err := h.door.Read(t)
	if err == nil && there {
		b := nft.NewBatch(t)
		b.DelTable()
		err = h.door.write(b)
	}
	if err != nil {
		return fmt.Errorf("service table: %w", err)
	}
	return nil
}

// forgetKernel makes the next change begin with a look at the kernel.
func (h *half) forgetKernel() { h.have, h.chains = nil, nil }

// idleFamily tells that there is nothing to do in this family, and no need for a table.
func (h *half) idleFamily() bool {
	return h.layout.family == nft.IPv6 && len(h.want) == 0 && (len(h.layout.cidrs) == 0 || !h.complete)
}

// take makes want the whole of what is wanted.
func (h *half) take(want plans) {
	room := len(want)
	if h.layout.family == nft.IPv6 {
		room = 0 // it may well be that there is none of it
	}
	h.want = make(plans, room)
	h.owners = make(map[service.Key]model.Name, room)
	h.contested = map[service.Key][]model.Name{}
	h.uses = map[use]int{}
	h.refused = map[model.Name]refusal{}
	for name, frontends := range want {
		if list := h.part(frontends); len(list) > 0 {
			h.replace(name, list)
		}
	}
}

// replace changes what one Service wants, and who owns its frontends. What cannot be programmed
// in any kernel is refused at once.
func (h *half) replace(name model.Name, frontends []service.Frontend) {
	for i := range h.want[name] {
		h.leave(h.want[name][i].Key(), name)
	}
	delete(h.want, name)
	if err := h.sound(frontends); err != nil {
		h.refused[name] = refusal{frontends, err}
		return
	}
	if len(frontends) == 0 {
		return
	}
	h.want[name] = frontends
	for i := range frontends {
		h.claim(frontends[i].Key(), name)
	}
}

// claim and leave keep who has a frontend. Two Services can claim one for a moment, while one that
// was deleted makes room for another.
func (h *half) claim(k service.Key, name model.Name) {
	has, taken := h.owners[k]
	if !taken {
		h.owners[k] = name
		return
	}
	all, ok := h.contested[k]
	if !ok {
		all = []model.Name{has}
	}
	if at, ok := slices.BinarySearchFunc(all, name, model.Name.Compare); !ok {
		all = slices.Insert(all, at, name)
	}
	if h.owners[k] = all[0]; len(all) > 1 {
		h.contested[k] = all
	}
}

func (h *half) leave(k service.Key, name model.Name) {
	all, ok := h.contested[k]
	if !ok {
		if h.owners[k] == name {
			delete(h.owners, k)
		}
		return
	}
	all = slices.DeleteFunc(all, func(n model.Name) bool { return n == name })
	if h.owners[k] = all[0]; len(all) == 1 {
		delete(h.contested, k)
		return
	}
	h.contested[k] = all
}

// sound tells what is wrong with frontends whatever the kernel thinks of them.
func (h *half) sound(frontends []service.Frontend) error {
	for i := range frontends {
		f := &frontends[i]
		if err := h.soundChoice(f.Addr, &f.Choice); err != nil {
			return err
		}
		if f.Inside != nil {
			if err := h.soundChoice(f.Addr, f.Inside); err != nil {
				return err
			}
		}
		if f.Affinity > 0 && (!f.Group.Addr.IsValid() || !h.mine(f.Group.Addr.Addr())) {
			return fmt.Errorf("%s remembers clients for %s, of another family", f.Addr, f.Group.Addr)
		}
		for _, p := range f.Sources {
			if !p.IsValid() || !h.mine(p.Addr()) {
				return fmt.Errorf("%s is for %s, of another family", f.Addr, p)
			}
		}
	}
	return nil
}

func (h *half) soundChoice(at netip.AddrPort, c *service.Choice) error {
	if len(c.Backends) >= insideSlots {
		return fmt.Errorf("%s has %d endpoints", at, len(c.Backends))
	}
	for i := range c.Backends {
		if a := c.Backends[i].Addr; !a.IsValid() || !h.mine(a.Addr()) {
			return fmt.Errorf("%s has endpoint %s, of another family", at, a)
		}
	}
	return nil
}

// wanted returns what is wanted at an address, or nil.
func (h *half) wanted(k service.Key) *service.Frontend {
	owner, ok := h.owners[k]
	if !ok {
		return nil
	}
	list := h.want[owner]
	for i := range list {
		if list[i].Key() == k {
			return &list[i]
		}
	}
	return nil
}

// share notes that a frontend uses, or no longer uses, elements that others may use too, and adds
// them to the list, which may be nil.
func (h *half) share(f *service.Frontend, by int, list *[]use) {
	note := func(u use) {
		if h.uses[u] += by; h.uses[u] == 0 {
			delete(h.uses, u)
		}
		if list != nil {
			*list = append(*list, u)
		}
	}
	if f.Kind == service.ClusterIP {
		note(use{clusterIPs, address(f.Addr.Addr())})
	}
	locals := func(c *service.Choice) {
		for i := range c.Backends {
			if c.Backends[i].Local {
				ip := address(c.Backends[i].Addr.Addr())
				note(use{hairpin, ip + ip})
			}
		}
	}
	locals(&f.Choice)
	if f.Inside != nil {
		locals(f.Inside)
	}
}
