package vpc

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// ErrExhausted says that every address of the pool is leased, and that it has as many as it can have.
var ErrExhausted = errors.New("no free address")

// ErrWait says that there is no address now, and will be one: *Waiting says when.
var ErrWait = errors.New("no free address yet")

// Waiting is the error of Assign when it is worth to wait.
type Waiting struct {
	Until time.Time // an address has rested enough then; zero: when the pool grows
	Why   string    // what is waited for, and which limit is next
}

// Error says what is waited for.
func (w *Waiting) Error() string { return ErrWait.Error() + ": " + w.Why }

// Is makes it ErrWait.
func (w *Waiting) Is(err error) bool { return err == ErrWait }

// Key names one attachment of a container: the runtime calls with the same key again and again.
type Key struct {
	Container string `json:"container"` // the sandbox's id, not the pod's
	Interface string `json:"interface"` // as the pod sees it, such as eth0
}

// String returns "container/interface".
func (k Key) String() string { return k.Container + "/" + k.Interface }

// Owner is the pod for which an address is held; empty when the runtime does not say.
type Owner struct {
	Namespace string `json:"namespace,omitempty"`
	Pod       string `json:"pod,omitempty"`
}

// String returns "namespace/pod".
func (o Owner) String() string { return o.Namespace + "/" + o.Pod }

// Lease is an address held by one attachment, or one of each family.
type Lease struct {
	Key
	Owner
	Address netip.Addr `json:"address"`
	IPv6    netip.Addr `json:"ipv6,omitzero"` // the zero address: none
	Since   time.Time  `json:"since"`
}

// String returns "address namespace/pod container/interface", with both addresses where there are two.
func (l Lease) String() string {
	addresses := l.Address.String()
	if l.IPv6.IsValid() {
		addresses += "," + l.IPv6.String()
	}
	return fmt.Sprint(addresses, " ", l.Owner, " ", l.Key)
}

// Rest remembers that an address was held until lately.
type Rest struct {
	Address netip.Addr `json:"address"`
	At      time.Time  `json:"at"`
}

// cools tells whether packets for the one who had the address may still be on their way, or another
// node not know yet that it is gone. A rest that begins in the future is of a clock that was set back.
func (r Rest) cools(now time.Time, cooldown time.Duration) bool {
	return now.Sub(r.At).Abs() < cooldown
}

// Ticket is a pod that waits for an address: whoever makes the pool grow counts them.
type Ticket struct {
	Key
	Owner
	Since time.Time `json:"since"`
	Until time.Time `json:"until"` // who waited gives up then
}

// Leases is who holds what. It is a value: the functions below return a new one and leave theirs
// as it was, so that a caller who cannot write the new one down still has the old one.
type Leases struct {
	Held    []Lease  `json:"held"`              // in the order in which they were given
	Resting []Rest   `json:"resting"`           // longest ago first; at most one for each address
	Waiting []Ticket `json:"waiting,omitempty"` // longest ago first; at most one for each key
}

// Find returns the lease of the key.
func (l Leases) Find(key Key) (Lease, bool) {
	i := slices.IndexFunc(l.Held, func(h Lease) bool { return h.Key == key })
	if i < 0 {
		return Lease{}, false
	}
	return l.Held[i], true
}

// Validate tells what is wrong with leases that were read from outside: an address without value,
// or held twice, or a key that holds two or waits twice.
func (l Leases) Validate() error {
	keys, held := map[Key]bool{}, map[netip.Addr]bool{}
	for _, h := range l.Held {
		switch {
		case !h.Address.IsValid() || h.Container == "" || h.Interface == "":
			return fmt.Errorf("lease %s: incomplete", h)
		case held[h.Address] || h.IPv6.IsValid() && held[h.IPv6]:
			return fmt.Errorf("lease %s: address held twice", h)
		case keys[h.Key]:
			return fmt.Errorf("lease %s: second lease of its container", h)
		}
		keys[h.Key], held[h.Address], held[h.IPv6] = true, true, true
	}
	for _, r := range l.Resting {
		if !r.Address.IsValid() {
			return errors.New("resting address without value")
		}
	}
	for _, w := range l.Waiting {
		if w.Container == "" || w.Interface == "" || keys[w.Key] {
			return fmt.Errorf("ticket of %s: incomplete, or holds or waits already", w.Key)
		}
		keys[w.Key] = true
	}
	return nil
}

// Wait notes that the key waits for an address until then, and forgets those who have given up. Who
// waits already keeps its place.
func Wait(l Leases, key Key, owner Owner, now, until time.Time) Leases {
	l.Waiting = slices.DeleteFunc(slices.Clone(l.Waiting), func(t Ticket) bool { return t.Key != key && !t.Until.After(now) })
	if i := slices.IndexFunc(l.Waiting, func(t Ticket) bool { return t.Key == key }); i >= 0 {
		l.Waiting[i].Until = until
	} else {
		l.Waiting = append(l.Waiting, Ticket{Key: key, Owner: owner, Since: now, Until: until})
	}
	return l
}

// GiveUp forgets that the key waits.
func GiveUp(l Leases, key Key) Leases {
	if i := slices.IndexFunc(l.Waiting, func(t Ticket) bool { return t.Key == key }); i >= 0 {
		l.Waiting = slices.Delete(slices.Clone(l.Waiting), i, i+1)
	}
	return l
}

// Assign gives the key an address of the pool, and returns the leases with it.
//
// The same key gets the same lease again, even if the pool has changed since. Otherwise it is one of
// the interface that has the most pods already, so that the others empty and can be given back: the
// lowest that nobody has had, else the one released longest ago.
//
// An address that was released rests for the pool's cooldown, and is not given in that time; the
// error is a *Waiting then. The same if the pool can grow. A pool of the configuration has no
// cooldown: it cannot grow, and a pod that waits is worse than a peer that still has a connection to
// the predecessor and now gets a reset.
//
// Else the error is ErrExhausted, with the size of the pool and the mend.
func Assign(pool Pool, l Leases, key Key, owner Owner, now time.Time) (Lease, Leases, error) {
	if lease, ok := l.Find(key); ok {
		return lease, l, nil
	}
	a, err := pool.pick(l, now)
	if err != nil {
		return Lease{}, l, err
	}
	lease := Lease{Key: key, Owner: owner, Address: a, IPv6: pool.IPv6(a), Since: now}
	return lease, l.with(lease, pool, now), nil
}

// Release ends the lease of the key, or its waiting, and returns the leases without it. A key that
// has neither is fine: it was released already.
func Release(l Leases, key Key, now time.Time) Leases {
	next, _ := Collect(l, func(h Lease) bool { return h.Key != key }, now)
	return GiveUp(next, key)
}

// Collect ends every lease that is not to be kept, and returns the leases without them, and them.
func Collect(l Leases, keep func(Lease) bool, now time.Time) (Leases, []Lease) {
	var kept, gone []Lease
	for _, h := range l.Held {
		if keep(h) {
			kept = append(kept, h)
		} else {
			gone = append(gone, h)
		}
	}
	if len(gone) == 0 {
		return l, nil
	}
	resting := slices.Clone(l.Resting)
	for _, h := range gone {
		resting = append(without(resting, h.Address), Rest{Address: h.Address, At: now})
	}
	return Leases{Held: kept, Resting: resting, Waiting: l.Waiting}, gone
}

// maxRests is how many released addresses are remembered, besides those that cool. No instance has so
// many IPv4 addresses for pods; of an IPv6 prefix there would be no end.
const maxRests = 1024

func (l Leases) with(lease Lease, pool Pool, now time.Time) Leases {
	resting := without(slices.Clone(l.Resting), lease.Address)
	old := len(resting) - maxRests
	n := 0
	for i, r := range resting {
		if r.cools(now, pool.cooldown) || i >= old && pool.Contains(r.Address) {
			resting[n] = r
			n++
		}
	}
	l = GiveUp(l, lease.Key)
	return Leases{Held: append(slices.Clone(l.Held), lease), Resting: resting[:n], Waiting: l.Waiting}
}

func without(rests []Rest, a netip.Addr) []Rest {
	return slices.DeleteFunc(rests, func(r Rest) bool { return r.Address == a })
}
