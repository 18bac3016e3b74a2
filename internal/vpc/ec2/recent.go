package ec2

import (
	"net/netip"
	"slices"
	"time"
)

// lag is how long EC2's answers may be older than what we did.
const lag = time.Minute

// recent is what was got within the last minute. EC2 is many machines, and which of them answers is chance: one answer
// has a change and the next has not. Taken for the truth, the latter would have us ask for the same thing again.
// What was given back is not here: vpc.Memory keeps that from pods.
type recent struct{ marks []mark }

// mark is one thing that was got: an interface, or what one owns.
type mark struct {
	at   time.Time
	id   string       // of the interface
	what netip.Prefix // the zero prefix: the interface
	eni  eni
}

func (r *recent) born(i eni, now time.Time) {
	r.died(i.ID)
	r.marks = append(r.marks, mark{at: now, id: i.ID, eni: i})
}

func (r *recent) bound(id string) {
	for i := range r.marks {
		if r.marks[i].id == id {
			r.marks[i].eni.lasting = false
		}
	}
}

func (r *recent) regrouped(id string, groups []string) {
	for i := range r.marks {
		if r.marks[i].id == id {
			r.marks[i].eni.SecurityGroups = groups
		}
	}
}

func (r *recent) died(id string) {
	r.marks = slices.DeleteFunc(r.marks, func(m mark) bool { return m.id == id })
}

func (r *recent) added(id string, what []netip.Prefix, now time.Time) {
	r.removed(id, what)
	for _, p := range what {
		r.marks = append(r.marks, mark{at: now, id: id, what: p})
	}
}

func (r *recent) removed(id string, what []netip.Prefix) {
	r.marks = slices.DeleteFunc(r.marks, func(m mark) bool { return m.id == id && m.what.IsValid() && slices.Contains(what, m.what) })
	for i, m := range r.marks {
		if m.id == id && !m.what.IsValid() {
			for _, p := range what {
				r.marks[i].eni.put(p, false)
			}
		}
	}
}

// has tells whether a thing was got within the last minute; the zero prefix is the interface itself.
func (r *recent) has(id string, what netip.Prefix) bool {
	return slices.ContainsFunc(r.marks, func(m mark) bool { return m.id == id && m.what == what })
}

// over puts what was got over what was seen.
func (r *recent) over(seen map[string]eni, now time.Time) {
	r.marks = slices.DeleteFunc(r.marks, func(m mark) bool { return now.Sub(m.at) >= lag })
	for _, m := range r.marks {
		i, known := seen[m.id]
		switch {
		case known && m.what.IsValid():
			i.put(m.what, true)
			seen[m.id] = i
		case !known && !m.what.IsValid():
			seen[m.id] = m.eni
		}
	}
}

// put makes a thing be among those that the interface owns, or not.
func (i *eni) put(what netip.Prefix, here bool) {
	switch {
	case what.IsSingleIP():
		i.Addresses = set(i.Addresses, what.Addr(), here, netip.Addr.Compare)
	case what.Addr().Is4():
		i.Prefixes = set(i.Prefixes, what, here, netip.Prefix.Compare)
	case here:
		i.IPv6Prefix = what
	}
}

// set does not change the list that it is given: who was told of it before may still read it.
func set[T comparable](list []T, x T, here bool, order func(a, b T) int) []T {
	list = slices.DeleteFunc(slices.Clone(list), func(y T) bool { return y == x })
	if here {
		list = append(list, x)
		slices.SortFunc(list, order)
	}
	return list
}
