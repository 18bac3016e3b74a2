package bpf

import "slices"

// numbers gives out the ids of frontends and the numbers of counters.
type numbers struct {
	next  uint32          // no id from here on is in use, save those in taken
	taken map[uint32]bool // set once the ids have come round
	inUse func() map[uint32]bool

	counters int      // so many there are; 0 is none
	used     uint32   // no counter beyond this is in use
	free     []uint32 // nor are these
	fresh    []uint32 // counters given out that have not been set to 0 yet
}

// id returns one that no element has.
func (n *numbers) id() uint32 {
	for {
		id := n.next
		n.next++
		if id == 0 {
			n.taken = n.inUse()
			continue
		}
		if !n.taken[id] {
			return id
		}
	}
}

// after makes ids go on after this one.
func (n *numbers) after(id uint32) { n.next = max(n.next, id+1) }

// counter returns the number of one that nobody has, or 0 when there is none left.
func (n *numbers) counter() uint32 {
	var c uint32
	switch last := len(n.free) - 1; {
	case last >= 0:
		c, n.free = n.free[last], n.free[:last]
	case int(n.used)+1 < n.counters:
		n.used++
		c = n.used
	default:
		return 0
	}
	n.fresh = append(n.fresh, c)
	return c
}

// count gives a counter to each that has none, as long as there are some.
func (n *numbers) count(slots []seat) {
	for i := range slots {
		if slots[i].counter == 0 {
			slots[i].counter = n.counter()
		}
	}
}

// uncount takes back the counters that is has and was has not.
func (n *numbers) uncount(is, was []seat) {
	n.release(is, was)
	had := make(map[uint32]bool, len(was))
	for _, s := range was {
		had[s.counter] = true
	}
	for i, s := range is {
		if !had[s.counter] {
			is[i].counter = 0
		}
	}
}

// release takes back the counters of those who were in slots and are no more.
func (n *numbers) release(was, is []seat) {
	if slices.Equal(was, is) {
		return
	}
	stays := make(map[uint32]bool, len(is))
	for _, s := range is {
		stays[s.counter] = true
	}
	for _, s := range was {
		if s.counter != 0 && !stays[s.counter] {
			stays[s.counter] = true
			n.free = append(n.free, s.counter)
		}
	}
}

// adopt enters the counters that are in use.
func (n *numbers) adopt(used map[uint32]*programmed) {
	for c := range used {
		n.used = max(n.used, c)
	}
	for c := uint32(1); c < n.used; c++ {
		if used[c] == nil {
			n.free = append(n.free, c)
		}
	}
}
