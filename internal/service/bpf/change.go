package bpf

import "slices"

// table is a hash map in the kernel: kernel/bpf's Map, or its Fake.
type table[K comparable, V any] interface {
	Max() int
	Put([]K, []V) error
	Delete([]K) error
	Each(func([]K, []V)) error
}

// tables are the maps of the layout.
type tables struct {
	frontends   table[address, frontend]
	slots       table[slotKey, slot]
	weights     table[uint32, weights]
	kept        table[pair, uint32]
	connections table[uint32, uint64]
	optouts     table[uint64, uint32]
	remembered  table[memoryKey, memory]
	uses        table[memoryKey, uint64]
	pods        table[uint64, pod]
}

// room is how much fits.
func (t tables) room() usage {
	return usage{t.frontends.Max(), t.slots.Max(), t.weights.Max(), t.kept.Max()}
}

// expect makes room for so many frontends with two endpoints each.
func (c *change) expect(frontends int) {
	c.frontends.expect(frontends)
	c.becomes.expect(frontends)
	c.slots.expect(2 * frontends)
}

// puts are elements to be written to a table.
type puts[K comparable, V any] struct {
	keys   []K
	values []V
}

func (p *puts[K, V]) expect(n int) {
	p.keys, p.values = slices.Grow(p.keys, n), slices.Grow(p.values, n)
}

func (p *puts[K, V]) add(k K, v V) { p.keys, p.values = append(p.keys, k), append(p.values, v) }

// change is a difference between what the tables hold and what they should. It is written in an
// order in which every single step leaves something right: what is led to comes before what leads
// there, and goes after it.
type change struct {
	counters  puts[uint32, uint64]
	keep      puts[pair, uint32]
	slots     puts[slotKey, slot]
	weights   puts[uint32, weights]
	frontends puts[address, frontend]

	noFrontends []address
	noSlots     []slotKey
	noWeights   []uint32
	noKeep      []pair

	becomes puts[address, *programmed] // our copy, once all is written; nil: nothing
	grows   usage                      // so many elements are added before any goes
}

// turn adds what makes a frontend to out of from; either may be nil.
func (c *change) turn(at address, from, to *programmed) {
	if from == nil {
		from = &programmed{}
	}
	c.becomes.add(at, to)
	if to == nil {
		to = &programmed{}
	}
	c.turnKept(at, from.kept, to.kept)
	same := from.id == to.id
	if to.id != 0 {
		if from.id == 0 && !from.broken {
			c.grows.frontends++
		}
		for i, e := range to.slots {
			if !same || i >= len(from.slots) {
				c.grows.slots++
			}
			if !same || i >= len(from.slots) || from.slots[i] != e {
				c.slots.add(slotKey{to.id, uint32(i)}, newSlot(to.id, e))
			}
		}
		if to.weights != nil && !same {
			c.grows.weights++
			c.weights.add(to.id, *to.weights)
		}
		if f := to.frontend(at); !same || f != from.frontend(at) {
			c.frontends.add(at, f)
		}
	}
	if to.id == 0 && (from.id != 0 || from.broken) {
		c.noFrontends = append(c.noFrontends, at)
	}
	if from.id == 0 {
		return
	}
	stay := 0
	if same {
		stay = len(to.slots)
	} else if from.weights != nil {
		c.noWeights = append(c.noWeights, from.id)
	}
	for i := stay; i < len(from.slots); i++ {
		c.noSlots = append(c.noSlots, slotKey{from.id, uint32(i)})
	}
}

func (c *change) turnKept(at address, from, to []address) {
	if slices.Equal(from, to) {
		return
	}
	if len(from) == 0 {
		for _, e := range to {
			c.keep.add(pair{at, e}, 1)
		}
		c.grows.kept += len(to)
		return
	}
	had := make(map[address]bool, len(from))
	for _, e := range from {
		had[e] = true
	}
	for _, e := range to {
		if !had[e] {
			c.keep.add(pair{at, e}, 1)
			c.grows.kept++
		}
		delete(had, e)
	}
	for _, e := range from {
		if had[e] {
			c.noKeep = append(c.noKeep, pair{at, e})
		}
	}
}

// write carries the change out, up to the first failure.
func (c *change) write(t tables) error {
	for _, step := range []func() error{
		func() error { return t.connections.Put(c.counters.keys, c.counters.values) },
		func() error { return t.kept.Put(c.keep.keys, c.keep.values) },
		func() error { return t.slots.Put(c.slots.keys, c.slots.values) },
		func() error { return t.weights.Put(c.weights.keys, c.weights.values) },
		func() error { return t.frontends.Put(c.frontends.keys, c.frontends.values) },
		func() error { return t.frontends.Delete(c.noFrontends) },
		func() error { return t.slots.Delete(c.noSlots) },
		func() error { return t.weights.Delete(c.noWeights) },
		func() error { return t.kept.Delete(c.noKeep) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// steps is how many elements change.
func (c *change) steps() int {
	return len(c.keep.keys) + len(c.slots.keys) + len(c.weights.keys) + len(c.frontends.keys) +
		len(c.noFrontends) + len(c.noSlots) + len(c.noWeights) + len(c.noKeep)
}

// plus is the usage while a change is written.
func (u usage) plus(c *change) usage {
	u.add(c.grows)
	return u
}
