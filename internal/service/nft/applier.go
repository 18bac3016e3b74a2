// Package nft makes the kernel do what the service room decided for this node: one nftables
// table, written by element, so that the cost of a change does not depend on how many Services
// there are. It programs IPv4; frontends of IPv6 are passed over.
package nft

import (
	"cmp"
	"fmt"
	"slices"
	"sync"

	"github.com/zonewise/zonewise/internal/kernel/conntrack"
	"github.com/zonewise/zonewise/internal/kernel/nft"
	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/service"
)

// kernel is nf_tables: kernel/nft's Conn, or its Fake.
type kernel interface {
	Read(table string) (nft.Contents, bool, error)
	Elements(table string, s nft.Set) ([]nft.Element, error)
	Commit(*nft.Batch) error
	Generation() (uint32, error)
}

// flows is the flow table: kernel/conntrack's Conn, or its Fake.
type flows interface {
	CutUDP(func(conntrack.Flow) bool) (int, error)
}

// Options of an Applier. The zero value is good.
type Options struct {
	// PodInterface is the prefix that names of interfaces to this node's pods have: "eni" if empty.
	PodInterface string
}

// Applier programs the Services of one node. It is safe for concurrent use. Existing connections
// are never touched, save UDP flows whose endpoint has gone.
type Applier struct {
	kernel kernel
	flows  flows
	layout layout
	lot    int // about how many elements go into one transaction when an empty table is filled

	mu       sync.Mutex
	want     map[model.Name][]service.Frontend
	owners   map[service.Key][]model.Name // who wants a frontend, in order; the first has it
	uses     map[use]int                  // elements that several frontends share
	complete bool                         // what is not wanted may go

	// have is what the kernel holds, or nil when that is not known: at the start, and after a
	// failure. chains are the table's counted chains.
	have   image
	chains map[nft.Verdict]bool
	crowd  int // so many chains are swept without waiting for the next Apply
	// generation is nf_tables' as far as we know of it: as it was before have was read, and one
	// more for each transaction of ours since.
	generation uint32
	applied    bool
	// cut are the UDP frontends whose stale flows are still to be cut.
	cut map[service.Key]bool
}

// use is an element of cluster-ips or hairpin.
type use struct{ set, key string }

// New returns an applier that has not looked at the kernel yet.
func New(k kernel, f flows, o Options) *Applier {
	return &Applier{
		kernel: k, flows: f, lot: coldLot, crowd: fewChains,
		layout: layout{podInterface: cmp.Or(o.PodInterface, "eni")},
		want:   map[model.Name][]service.Frontend{},
		cut:    map[service.Key]bool{},
	}
}

// Apply makes want the whole of what the node does: it reads the kernel and writes the difference
// in one transaction, or nothing if there is none. (An empty kernel is filled in several, and
// chains for a number of endpoints that is new come in one before.) Unless complete, frontends of the table that want does not mention are left as they are: so a
// new agent adopts what its predecessor left, before it has heard of every Service. A table that
// was damaged or deleted is repaired. After an error the next call starts from the kernel again.
func (a *Applier) Apply(want map[model.Name][]service.Frontend, complete bool) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.take(want)
	a.complete = complete
	_, err := a.converge()
	return err
}

// Update replaces the frontends of the Services that it names (none: the Service is gone) and
// writes the difference in one transaction. Before the first Apply, and after an error, it
// does what Apply does with what is known.
func (a *Applier) Update(changed map[model.Name][]service.Frontend) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	before := a.touched(changed)
	known := a.have != nil
	for name, frontends := range changed {
		a.replace(name, frontends)
	}
	if !known {
		_, err := a.converge()
		return err
	}
	return a.step(before)
}

// Audit repairs the table if anyone but us has changed nf_tables since our last transaction,
// and tells whether something of ours had to be repaired. It costs one question to the kernel
// when nobody has. Before the first Apply or Update it does nothing.
func (a *Applier) Audit() (repaired bool, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.applied {
		return false, nil
	}
	if a.have != nil {
		now, err := a.kernel.Generation()
		if err != nil {
			return false, fmt.Errorf("service table: %w", err)
		}
		if now == a.generation {
			return false, nil
		}
	}
	return a.converge()
}

// Remove deletes the table. Without it the kernel translates no more: connections through
// Services stop, unless another proxy's table translates in its place.
func (a *Applier) Remove() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.take(nil)
	a.have, a.chains, a.complete, a.applied = nil, nil, false, false
	for _, table := range []string{tableName, interimTable} {
		_, there, err := a.kernel.Read(table)
		if err == nil && there {
			b := nft.NewBatch(table)
			b.DelTable()
			err = a.write(b)
		}
		if err != nil {
			return fmt.Errorf("service table: %w", err)
		}
	}
	return nil
}

// take makes want the whole of what is wanted.
func (a *Applier) take(want map[model.Name][]service.Frontend) {
	a.want = make(map[model.Name][]service.Frontend, len(want))
	a.owners = make(map[service.Key][]model.Name, len(want))
	a.uses = map[use]int{}
	for name, frontends := range want {
		a.replace(name, frontends)
	}
}

// replace changes what one Service wants, and who owns its frontends.
func (a *Applier) replace(name model.Name, frontends []service.Frontend) {
	for _, f := range a.want[name] {
		k := f.Key()
		a.owners[k] = slices.DeleteFunc(a.owners[k], func(n model.Name) bool { return n == name })
		if len(a.owners[k]) == 0 {
			delete(a.owners, k)
		}
	}
	delete(a.want, name)
	for _, f := range frontends {
		if !f.Addr.Addr().Is4() {
			continue
		}
		a.want[name] = append(a.want[name], f)
		at, _ := slices.BinarySearchFunc(a.owners[f.Key()], name, model.Name.Compare)
		a.owners[f.Key()] = slices.Insert(a.owners[f.Key()], at, name)
	}
}

// wanted returns what is wanted at an address. Two Services can claim one for a moment, while
// one that was deleted makes room for another.
func (a *Applier) wanted(k service.Key) (service.Frontend, bool) {
	owners := a.owners[k]
	if len(owners) == 0 {
		return service.Frontend{}, false
	}
	for _, f := range a.want[owners[0]] {
		if f.Key() == k {
			return f, true
		}
	}
	return service.Frontend{}, false
}

// touched returns what is wanted now at every address that the change is about.
func (a *Applier) touched(changed map[model.Name][]service.Frontend) map[service.Key]service.Frontend {
	before := map[service.Key]service.Frontend{}
	for name, frontends := range changed {
		for _, list := range [][]service.Frontend{a.want[name], frontends} {
			for _, f := range list {
				if f.Addr.Addr().Is4() {
					before[f.Key()], _ = a.wanted(f.Key())
				}
			}
		}
	}
	return before
}

// transact writes what is in the batch and the difference. Chains that are new come in a
// transaction before the elements that lead to them: a packet that is under way decides once
// which generation of rules it sees, and at each look-up anew which elements.
func (a *Applier) transact(b *nft.Batch, d difference) (wrote bool, err error) {
	d.writeChains(b, a.layout, a.chains)
	if len(d.chains) > 0 {
		if err := a.commit(b, difference{chains: d.chains}); err != nil {
			return false, err
		}
		wrote, b = true, nft.NewBatch(tableName)
	}
	d.writeElements(b)
	return wrote || b.Len() > 0, a.commit(b, d)
}

// commit writes the batch and, if the kernel took it, the image. Otherwise the image is void.
func (a *Applier) commit(b *nft.Batch, d difference) error {
	if b.Len() == 0 {
		return nil
	}
	if err := a.write(b); err != nil {
		a.have, a.chains = nil, nil
		return fmt.Errorf("service table: %w", err)
	}
	d.enter(a.have)
	for v := range d.chains {
		a.chains[v] = true
	}
	return nil
}

// write is where every transaction of ours goes through.
func (a *Applier) write(b *nft.Batch) error {
	err := a.kernel.Commit(b)
	if err == nil {
		a.generation++
	}
	return err
}
