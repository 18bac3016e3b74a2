// Package nft makes the kernel do what the service room decided for this node: one nftables table
// for each address family, written by element, so that the cost of a change does not depend on how
// many Services there are.
package nft

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"

	"github.com/zonewise/zonewise/internal/kernel/conntrack"
	"github.com/zonewise/zonewise/internal/kernel/nft"
	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/service"
)

// kernel is nf_tables: kernel/nft's Conn, or its Fake.
type kernel interface {
	Read(nft.Table) (nft.Contents, bool, error)
	Elements(nft.Table, nft.Set) ([]nft.Element, error)
	Commit(*nft.Batch) error
	Generation() (uint32, error)
}

// flows is the flow table: kernel/conntrack's Conn, or its Fake.
type flows interface {
	CutUDP(v6 bool, cut func(conntrack.Flow) bool) (int, error)
}

// Options of an Applier. The zero value is good.
type Options struct {
	// PodInterface is the prefix that names of interfaces to this node's pods have: "eni" if empty.
	PodInterface string
	// MasqueradeAll makes the source of every connection to a cluster IP the node's own address.
	MasqueradeAll bool
	// CountBytes makes every packet of a translated connection be counted by Service and endpoint.
	// It costs each about 0.4 µs; connections are counted in any case.
	CountBytes bool
}

// Applier programs the Services of one node. It is safe for concurrent use. Existing connections
// are never touched, save UDP flows whose endpoint has gone. The families have nothing to do with
// each other: an error in one leaves the other as it should be.
type Applier struct {
	mu      sync.Mutex
	door    *door
	halves  [2]*half // IPv4, IPv6
	applied bool
}

// door is the kernel, and the number of its transactions as far as we know of them.
type door struct {
	kernel
	// generation is as it was before a half was first read, and one more for each transaction of
	// ours since.
	generation uint32
	known      bool
}

// write is where every transaction of ours goes through.
func (d *door) write(b *nft.Batch) error {
	err := d.Commit(b)
	if err == nil {
		d.generation++
	}
	return err
}

// look asks the kernel for its generation and remembers it.
func (d *door) look() error {
	now, err := d.Generation()
	if err != nil {
		return fmt.Errorf("service table: %w", err)
	}
	d.generation, d.known = now, true
	return nil
}

// New returns an applier that has not looked at the kernel yet.
func New(k kernel, f flows, o Options) *Applier {
	a := &Applier{door: &door{kernel: k}}
	for i, family := range []nft.Family{nft.IPv4, nft.IPv6} {
		a.halves[i] = newHalf(a.door, f, layout{
			family: family, podInterface: cmp.Or(o.PodInterface, "eni"), masqueradeAll: o.MasqueradeAll, countBytes: o.CountBytes,
		})
	}
	return a
}

// ranges returns the family's prefixes, each once, in order.
func ranges(family nft.Family, list []netip.Prefix) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range list {
		if p.Addr().Is4() == (family == nft.IPv4) {
			out = append(out, p.Masked())
		}
	}
	slices.SortFunc(out, func(a, b netip.Prefix) int { return a.Compare(b) })
	return slices.Compact(out)
}

// Apply makes want the whole of what the node does: it reads the kernel and writes the difference
// in one transaction for each family, or nothing if there is none. (An empty kernel is filled in
// several, and chains for a number of endpoints that is new come in one before.) Unless complete,
// frontends of the table that want does not mention are left as they are: so a new agent adopts
// what its predecessor left, before it has heard of every Service. A table that was damaged or
// deleted is repaired. After an error the next call starts from the kernel again. A Service that
// the kernel refuses is no error, but a fault: all others are programmed.
func (a *Applier) Apply(want map[model.Name][]service.Frontend, complete bool) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.applied = true
	if err := a.door.look(); err != nil {
		return err
	}
	return a.each(func(h *half) error {
		h.complete = complete
		return h.apply(want)
	})
}

// Update replaces the frontends of the Services that it names (none: the Service is gone) and
// writes the difference in one transaction. Before the first Apply, and after an error, it
// does what Apply does with what is known.
func (a *Applier) Update(changed map[model.Name][]service.Frontend) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.applied = true
	if !a.door.known {
		if err := a.door.look(); err != nil {
			return err
		}
	}
	return a.each(func(h *half) error { return h.update(changed) })
}

// ServiceCIDRs tells where cluster IPs come from: new connections to an address in one of these
// that no Service has are dropped. Nil: none are.
func (a *Applier) ServiceCIDRs(list []netip.Prefix) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.each(func(h *half) error { return h.allocate(list) })
}

// Audit repairs the tables if anyone but us has changed nf_tables since our last transaction,
// and tells whether something of ours had to be repaired. It costs one question to the kernel
// when nobody has. What the kernel refused it tries again. Before the first Apply or Update it
// does nothing.
func (a *Applier) Audit() (repaired bool, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.applied {
		return false, nil
	}
	before, known := a.door.generation, a.door.known
	if err := a.door.look(); err != nil {
		return false, err
	}
	changed := !known || a.door.generation != before
	err = a.each(func(h *half) error {
		did, err := h.audit(changed)
		repaired = repaired || did
		return err
	})
	return repaired, err
}

// Faults returns what is not programmed as wanted, in order.
func (a *Applier) Faults() []service.Fault {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []service.Fault
	for _, h := range a.halves {
		out = append(out, h.faults()...)
	}
	slices.SortFunc(out, service.Fault.Compare)
	return slices.Compact(out)
}

// Remove deletes the tables. Without them the kernel translates no more: connections through
// Services stop, unless another proxy's table translates in their place.
func (a *Applier) Remove() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.applied, a.door.known = false, false
	return a.each((*half).remove)
}

// Counters returns what the kernel counted for each frontend and backend that is wanted, since
// the pair came to this node; pairs without traffic are left out. Counters outlive the agent.
// Those of pairs that are wanted no more are deleted on the way.
func (a *Applier) Counters() (map[service.Pair]service.Traffic, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := map[service.Pair]service.Traffic{}
	err := a.each(func(h *half) error { return h.count(out) })
	if err != nil {
		return nil, err
	}
	return out, nil
}

// AffinityTable returns whom the kernel remembers, and for how long still.
func (a *Applier) AffinityTable() (map[Sticky]Stuck, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := map[Sticky]Stuck{}
	err := a.each(func(h *half) error {
		list, err := h.remembered()
		maps.Copy(out, list)
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// each does something with both halves, whatever becomes of the first.
func (a *Applier) each(do func(*half) error) error {
	var errs []error
	for _, h := range a.halves {
		errs = append(errs, do(h))
	}
	return errors.Join(errs...)
}
