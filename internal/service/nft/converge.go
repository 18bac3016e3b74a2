package nft

import (
	"errors"
	"fmt"
	"slices"
	"syscall"

	"github.com/zonewise/zonewise/internal/kernel/nft"
	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/service"
)

// coldLot is how many elements go into one transaction when an empty table is filled: the kernel
// serves nobody else's changes while it works on one.
const coldLot = 32768

// settle reads the kernel and makes it hold what is wanted, as far as it takes that. It tells
// whether it had to write.
func (h *half) settle() (wrote bool, err error) {
	wrote, err = h.converge()
	if refuses(err) {
		wrote, err = true, h.isolate()
	}
	if err != nil {
		h.forgetKernel()
		return wrote, err
	}
	if h.complete && h.have != nil && h.there {
		if err := h.sweep(); err != nil {
			return wrote, err
		}
	}
	return wrote, h.cutFlows()
}

// isolate puts everything aside and brings it back as far as the kernel takes it. What is there
// already stays meanwhile.
func (h *half) isolate() error {
	all, unfit, complete := h.want, h.refused, h.complete
	h.take(nil)
	h.complete = false
	_, err := h.converge()
	h.complete = complete
	if err == nil && h.have == nil { // another layout's table
		_, err = h.converge()
	}
	if err == nil && h.have != nil && !h.there {
		err = h.install(nft.NewBatch(h.layout.table()), h.layout.table())
	}
	if err == nil && h.have != nil {
		h.refused = unfit
		err = h.bring(all)
	}
	if err != nil {
		refused := h.refused
		h.take(all)
		h.refused = refused
		return err
	}
	_, err = h.converge()
	return err
}

// converge reads the kernel and makes it hold what is wanted, or nothing of it.
func (h *half) converge() (wrote bool, err error) {
	h.forgetKernel()
	h.there = false
	contents, there, err := h.door.Read(h.layout.table())
	if err != nil {
		return false, fmt.Errorf("service table: %w", err)
	}
	switch {
	case there && ours(contents):
		wrote, err = h.adopt(contents)
	case !there && h.idleFamily():
		h.have, h.numbers, h.chains = newImage(), newNumbers(), map[nft.Verdict]bool{}
		return false, h.drop(h.layout.interim())
	case !there:
		wrote, err = true, h.install(nft.NewBatch(h.layout.table()), h.layout.table())
	case h.complete:
		wrote, err = true, h.supplant()
	default:
		return false, nil // another layout's: it serves better than what we know of so far
	}
	if err == nil {
		err = h.drop(h.layout.interim()) // ours, or one that a predecessor left when it was killed
	}
	if err != nil {
		return false, err
	}
	for k := range h.owners {
		if k.Protocol == model.UDP {
			h.cut[k] = true
		}
	}
	return wrote, nil
}

// ours tells that the table can be adopted.
func ours(contents nft.Contents) bool {
	_, ok := contents.Chains[layoutChain]
	return ok
}

// adopt brings a table of our layout to what is wanted.
func (h *half) adopt(contents nft.Contents) (wrote bool, err error) {
	have, err := h.read(contents)
	if err != nil {
		return false, err
	}
	b := nft.NewBatch(h.layout.table())
	h.have, h.chains, h.there = have, h.repair(b, contents), true
	h.idled = h.idle() // the sweep that follows is the second look at these
	return h.transact(b, diff(have, h.compile(have), h.prunable()))
}

// install makes the table, with clients that are remembered, after what is in the batch already.
func (h *half) install(b *nft.Batch, table nft.Table, notes ...nft.Element) error {
	slots, tossed := 0, 0
	for _, frontends := range h.want {
		for i := range frontends {
			slots += len(frontends[i].Backends)
			if !even(frontends[i].Backends) {
				tossed++
			}
		}
	}
	h.have, h.numbers, h.chains = newImageFor(len(h.owners), slots, tossed), newNumbers(), h.repair(b, nft.Contents{})
	h.idled = idle{}
	b.Add(sets[sticky], notes...)
	if err := h.fill(b, table); err != nil {
		return err
	}
	h.there = true
	return nil
}

// supplant replaces a table of another layout. Another table serves meanwhile: a packet that is
// between the chains of the old one and the new one would be served by neither. Clients stay
// remembered.
func (h *half) supplant() error {
	if err := h.drop(h.layout.interim()); err != nil {
		return err
	}
	if err := h.succeed(nft.NewBatch(h.layout.interim()), h.layout.interim(), h.layout.table()); err != nil {
		return err
	}
	b := nft.NewBatch(h.layout.table())
	b.DelTable()
	return h.succeed(b, h.layout.table(), h.layout.interim())
}

// succeed makes a table that remembers the clients of another.
func (h *half) succeed(b *nft.Batch, table, other nft.Table) error {
	notes, err := h.notes(other)
	if err != nil {
		return err
	}
	return h.install(b, table, notes...)
}

// notes returns the clients that a table remembers, if it has them in our form.
func (h *half) notes(of nft.Table) ([]nft.Element, error) {
	elements, err := h.door.Elements(of, sets[sticky])
	if errors.Is(err, syscall.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("service table: %w", err)
	}
	n := nft.Addr.Width(h.layout.family)
	seen := make(map[string]bool, len(elements))
	return slices.DeleteFunc(elements, func(e nft.Element) bool {
		odd := seen[e.Key] || len(e.Key) != 2*n+8 || len(e.Data) != n+8 || e.Expires <= 0
		seen[e.Key] = true
		return odd
	}), nil
}

// read fetches the elements of the sets that are there, and the numbers.
func (h *half) read(contents nft.Contents) (*image, error) {
	m := newImage()
	h.numbers = newNumbers()
	for s := range programmed {
		if !contents.Sets[sets[s].Name] {
			continue
		}
		elements, err := h.door.Elements(h.layout.table(), sets[s])
		if err != nil {
			return nil, fmt.Errorf("service table: %w", err)
		}
		m[s] = make(map[string]string, len(elements))
		for _, e := range elements {
			m.put(s, e.Key, s.value(e))
			if s.verdicts() {
				h.numbers.learn(e.Key, e.Verdict)
			}
		}
	}
	return m, nil
}

// repair queues whatever of the table's frame is missing or was tampered with, and returns the
// counted chains that are sound. While inputs are incomplete nobody's address counts as unallocated
// unless the predecessor knew it.
func (h *half) repair(b *nft.Batch, contents nft.Contents) map[nft.Verdict]bool {
	if contents.Chains == nil {
		b.AddTable()
	}
	for _, s := range sets {
		if !contents.Sets[s.Name] {
			b.AddSet(s)
		}
	}
	fix := func(c chain) {
		comments, ok := contents.Chains[c.Name]
		switch {
		case !ok:
			addChain(b, c)
		case !slices.Equal(comments, c.comments()):
			b.FlushChain(c.Name)
			for _, r := range c.rules {
				b.AddRule(c.Name, r)
			}
		}
	}
	for _, c := range h.layout.chains() {
		if c.Name == unallocatedChain {
			found, ok := contents.Chains[c.Name]
			if h.dropped = found; !h.complete || !h.ranged {
				if !ok {
					addChain(b, chain{Chain: c.Chain})
				}
				continue
			}
			h.dropped = c.comments()
		}
		fix(c)
	}
	sound := map[nft.Verdict]bool{}
	for name := range contents.Chains {
		for _, c := range h.layout.build(nft.Verdict(name)) {
			if !sound[nft.Verdict(c.Name)] {
				sound[nft.Verdict(c.Name)] = true
				fix(c)
			}
		}
	}
	return sound
}

// compile returns the elements that everything wanted needs, and counts those that are shared.
func (h *half) compile(have *image) *image {
	want := newImageFor(len(h.owners), len(have[backends]), len(have[weights])/tossNumbers)
	h.uses = map[use]int{}
	put := h.numbers.numbered(want.put)
	for k := range h.owners {
		f := h.wanted(k)
		have.place(f, put)
		h.share(f, +1, nil)
	}
	return want
}

// prunable tells what may go. While inputs are incomplete that is only what belongs to frontends
// that are wanted: an endpoint more than they have now.
func (h *half) prunable() func(s set, key string) bool {
	if h.complete {
		return func(set, string) bool { return true }
	}
	mine := make(map[string]bool, len(h.owners))
	for k := range h.owners {
		mine[frontend(k)] = true
	}
	n := frontendLength(h.layout.family)
	return func(s set, key string) bool {
		switch s {
		case clusterIPs:
			return false
		case eligible, eligibleInside:
			return mine[key[len(key)-n:]]
		}
		return mine[key[:n]]
	}
}

// claimedBefore tells that a Service has the frontend twice.
func claimedBefore(list []service.Frontend, i int) bool {
	return slices.ContainsFunc(list[:i], func(f service.Frontend) bool { return f.Key() == list[i].Key() })
}

// fill writes everything into an empty table, a lot of Services at a time. b makes the table. The
// next lot is made while the kernel takes the last one.
func (h *half) fill(b *nft.Batch, table nft.Table) error {
	h.uses = map[use]int{}
	lots, result := make(chan *nft.Batch), make(chan error, 1)
	go func() {
		var err error
		for b := range lots {
			if err == nil {
				err = h.door.write(b)
			}
		}
		result <- err
	}()
	d, size := &difference{chains: map[nft.Verdict]bool{}}, 0
	empty := newImage()
	put := func(s set, key, value string) {
		n := len(h.have[s])
		if h.have[s][key] = value; len(h.have[s]) > n { // one look-up, not two: there are many
			d.add[s] = append(d.add[s], s.element(key, value))
			size++
		}
	}
	named := h.numbers.numbered(put)
	flush := func() {
		d.writeChains(b, h.layout, h.chains)
		d.writeElements(b)
		for v := range d.chains {
			h.chains[v] = true
		}
		lots <- b
		next := &difference{chains: map[nft.Verdict]bool{}}
		for s := range programmed {
			next.add[s] = make([]nft.Element, 0, len(d.add[s])) // lots are much alike
		}
		b, d, size = nft.NewBatch(table), next, 0
	}
	for name, frontends := range h.want {
		// A Service goes whole: a cluster IP refuses the ports that it does not have yet.
		for i := range frontends {
			if f := &frontends[i]; h.owners[f.Key()] == name && !claimedBefore(frontends, i) {
				empty.place(f, named)
				h.share(f, +1, nil)
			}
		}
		if size >= h.lot {
			flush()
		}
	}
	flush()
	close(lots)
	if err := <-result; err != nil {
		h.forgetKernel()
		return fmt.Errorf("service table: %w", err)
	}
	return nil
}
