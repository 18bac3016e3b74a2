package bpf

import "slices"

// image is what all tables hold, by frontend.
type image struct {
	frontends map[address]*programmed
	digest    digest
	usage     usage
	numbers   *numbers
	// affine are the frontends where clients are remembered, by id; former are the ids that they had.
	affine, former map[uint32]address

	// Elements that no frontend leads to: a predecessor was interrupted, or somebody else wrote them.
	lostSlots   []slotKey
	lostWeights []uint32
}

// read makes an image of the tables.
func read(t tables) (*image, error) {
	m := &image{frontends: map[address]*programmed{}, affine: map[uint32]address{}, former: map[uint32]address{}}
	m.numbers = &numbers{next: 1, inUse: m.ids, counters: t.connections.Max()}
	byID := map[uint32]*programmed{}
	written := map[address]frontend{}
	err := t.frontends.Each(func(keys []address, values []frontend) {
		for i, at := range keys {
			written[at] = values[i]
			m.enter(at, values[i], byID)
		}
	})
	if err != nil {
		return nil, err
	}
	found, counters := map[uint32]int{}, map[uint32]*programmed{}
	err = t.slots.Each(func(keys []slotKey, values []slot) {
		for i, k := range keys {
			p := byID[k.ID]
			if p == nil || int(k.Slot) >= len(p.slots) {
				m.lostSlots = append(m.lostSlots, k)
				m.numbers.after(k.ID)
				continue
			}
			s := seat{values[i].Endpoint, values[i].Counter}
			p.slots[k.Slot] = s
			taken := s.counter != 0 && counters[s.counter] != nil && counters[s.counter] != p || int(s.counter) >= t.connections.Max()
			p.broken = p.broken || taken || newSlot(k.ID, s) != values[i]
			if !taken && s.counter != 0 {
				counters[s.counter] = p
			}
			found[k.ID]++
		}
	})
	if err != nil {
		return nil, err
	}
	m.numbers.adopt(counters)
	weighs := map[uint32]bool{}
	err = t.weights.Each(func(keys []uint32, values []weights) {
		for i, id := range keys {
			p := byID[id]
			if p == nil || p.weights == nil {
				m.lostWeights = append(m.lostWeights, id)
				m.numbers.after(id)
				continue
			}
			*p.weights, weighs[id] = values[i], true
		}
	})
	if err != nil {
		return nil, err
	}
	for id, p := range byID {
		p.broken = p.broken || found[id] != len(p.slots) || p.weights != nil && !weighs[id]
	}
	if err := t.kept.Each(func(keys []pair, _ []uint32) {
		for _, k := range keys {
			m.at(k.Service).kept = append(m.at(k.Service).kept, k.Endpoint)
		}
	}); err != nil {
		return nil, err
	}
	if err := t.remembered.Each(func(keys []memoryKey, _ []memory) {
		for _, k := range keys {
			m.numbers.after(k.ID) // or somebody would be taken for who was there before
		}
	}); err != nil {
		return nil, err
	}
	for at, p := range m.frontends {
		if f, ok := written[at]; ok && !p.broken && f != p.frontend(at) {
			p.broken = true
		}
		slices.SortFunc(p.kept, compareAddresses)
		if p.affine {
			m.affine[p.id] = at
		}
		m.digest.add(p.digest(at))
		m.usage.add(p.usage())
	}
	return m, nil
}

// ids are those in use.
func (m *image) ids() map[uint32]bool {
	out := make(map[uint32]bool, len(m.frontends))
	for _, p := range m.frontends {
		out[p.id] = true
	}
	return out
}

// sweep removes what no frontend leads to.
func (m *image) sweep(t tables) (swept bool, err error) {
	swept = len(m.lostSlots)+len(m.lostWeights) > 0
	if err := t.slots.Delete(m.lostSlots); err != nil {
		return false, err
	}
	if err := t.weights.Delete(m.lostWeights); err != nil {
		return false, err
	}
	m.lostSlots, m.lostWeights = nil, nil
	return swept, nil
}

// most is more slots than a frontend can have: what claims to have more is broken.
const most = 1 << 20

func (m *image) enter(at address, f frontend, byID map[uint32]*programmed) {
	p := m.at(at)
	p.id = f.ID
	m.numbers.after(f.ID)
	if f != f.sealed(&at) || f.ID == 0 || f.Count > most || byID[f.ID] != nil {
		p.broken = true
		return
	}
	byID[f.ID] = p
	p.slots = make([]seat, f.Count)
	if f.Flags&weighted != 0 {
		p.weights = &weights{}
	}
	p.affine = f.Flags&affine != 0
}

// expect makes room for so many frontends.
func (m *image) expect(frontends int) { m.frontends = make(map[address]*programmed, frontends) }

// at returns the frontend's entry, made if missing.
func (m *image) at(a address) *programmed {
	p := m.frontends[a]
	if p == nil {
		p = &programmed{}
		m.frontends[a] = p
	}
	return p
}

// become enters a change that was written.
func (m *image) become(c *change) {
	for i, at := range c.becomes.keys {
		p := c.becomes.values[i]
		if was := m.frontends[at]; was != nil {
			m.digest.subtract(was.digest(at))
			m.usage.subtract(was.usage())
			m.rename(at, was, p)
			switch {
			case was.broken: // its counters may be another's
			case p == nil:
				m.numbers.release(was.slots, nil)
			default:
				m.numbers.release(was.slots, p.slots)
			}
		}
		if p == nil || p.id == 0 && len(p.kept) == 0 {
			delete(m.frontends, at)
			continue
		}
		m.frontends[at] = p
		m.digest.add(p.digest(at))
		m.usage.add(p.usage())
		if p.affine {
			m.affine[p.id] = at
		}
	}
}

// rename enters that a frontend where clients are remembered has another id, or none.
func (m *image) rename(at address, was, is *programmed) {
	if !was.affine || is != nil && is.id == was.id {
		return
	}
	delete(m.affine, was.id)
	if is != nil && is.affine {
		m.former[was.id] = at
	}
}

// sum adds up what the tables hold, by copying it out of the kernel.
func sum(t tables) (d digest, u usage, err error) {
	if err := t.frontends.Each(func(keys []address, values []frontend) {
		u.frontends += len(keys)
		for i := range keys {
			d.frontends += values[i].digest(&keys[i])
		}
	}); err != nil {
		return d, u, err
	}
	if err := t.slots.Each(func(keys []slotKey, values []slot) {
		u.slots += len(keys)
		for i := range keys {
			d.slots += values[i].digest(keys[i])
		}
	}); err != nil {
		return d, u, err
	}
	if err := t.weights.Each(func(keys []uint32, values []weights) {
		u.weights += len(keys)
		for i := range keys {
			d.weights += values[i].digest(keys[i])
		}
	}); err != nil {
		return d, u, err
	}
	err = t.kept.Each(func(keys []pair, _ []uint32) {
		u.kept += len(keys)
		for i := range keys {
			d.kept += keys[i].digest()
		}
	})
	return d, u, err
}

func compareAddresses(a, b address) int {
	if c := slices.Compare(a.IP[:], b.IP[:]); c != 0 {
		return c
	}
	if c := slices.Compare(a.Port[:], b.Port[:]); c != 0 {
		return c
	}
	return int(a.Protocol) - int(b.Protocol)
}
