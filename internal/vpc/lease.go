package vpc

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// ErrExhausted says that every address of the pool is leased.
var ErrExhausted = errors.New("no free address")

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

// Leases is who holds what. It is a value: the functions below return a new one and leave theirs
// as it was, so that a caller who cannot write the new one down still has the old one.
type Leases struct {
	Held    []Lease `json:"held"`    // in the order in which they were given
	Resting []Rest  `json:"resting"` // longest ago first; at most one for each address
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
// or held twice, or a key that holds two.
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
	return nil
}

// Assign gives the key an address of the pool, and returns the leases with it.
//
// The same key gets the same lease again, even if the pool has changed since. Otherwise it is the
// lowest address that nobody has had, else the one released longest ago. So an address rests as
// long as the pool allows, and when nothing else is left, even one that was released a moment ago
// is given: this pool cannot grow, and a pod that waits is worse than a peer that still has a
// connection to the predecessor and now gets a reset.
//
// The error is ErrExhausted, with the size of the pool and the mend.
func Assign(pool Pool, l Leases, key Key, owner Owner, now time.Time) (Lease, Leases, error) {
	if lease, ok := l.Find(key); ok {
		return lease, l, nil
	}
	a, ok := pick(pool, l)
	if !ok {
		return Lease{}, l, fmt.Errorf("%w: all %d addresses of the pool %s are leased; "+
			"remove a pod from this node, or add a range to pool.ranges", ErrExhausted, pool.Size(), pool)
	}
	lease := Lease{Key: key, Owner: owner, Address: a, IPv6: pool.IPv6(a), Since: now}
	return lease, l.with(lease), nil
}

// Release ends the lease of the key and returns the leases without it. A key that holds nothing is
// fine: it was released already.
func Release(l Leases, key Key, now time.Time) Leases {
	next, _ := Collect(l, func(h Lease) bool { return h.Key != key }, now)
	return next
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
	return Leases{Held: kept, Resting: resting}, gone
}

// pick goes by the order of releases, not by their times: a clock that is set back changes nothing.
func pick(pool Pool, l Leases) (netip.Addr, bool) {
	used := make(map[netip.Addr]bool, len(l.Held)+len(l.Resting))
	for _, r := range l.Resting {
		used[r.Address] = true
	}
	held := make(map[netip.Addr]bool, len(l.Held))
	for _, h := range l.Held {
		held[h.Address] = true
	}
	for a := range pool.All() {
		if !held[a] && !used[a] {
			return a, true
		}
	}
	for _, r := range l.Resting {
		if !held[r.Address] && pool.Contains(r.Address) {
			return r.Address, true
		}
	}
	return netip.Addr{}, false
}

func (l Leases) with(lease Lease) Leases {
	return Leases{
		Held:    append(slices.Clone(l.Held), lease),
		Resting: without(slices.Clone(l.Resting), lease.Address),
	}
}

func without(rests []Rest, a netip.Addr) []Rest {
	return slices.DeleteFunc(rests, func(r Rest) bool { return r.Address == a })
}
