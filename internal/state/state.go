// Package state keeps the tables that reflect fills and every other room reads: nodes, services,
// endpoint slices, ZoneRoutes, pods, what namespaces say and the ranges of Services' addresses. Readers take a Snapshot, which never changes; writers go through Update,
// one at a time, and what one Update does becomes visible at once.
//
// Values in the tables are shared. Nobody may change one after it was put in or taken out.
package state

import (
	"context"
	"net/netip"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zonewise/zonewise/internal/model"
)

// Source names an input that must have delivered everything once before the tables can be
// taken for complete.
type Source string

// The inputs.
const (
	Nodes        Source = "nodes"
	Services     Source = "services"
	Slices       Source = "endpointslices"
	Routes       Source = "zoneroutes"
	Pods         Source = "pods"
	Namespaces   Source = "namespaces"
	ServiceCIDRs Source = "servicecidrs"
)

// Tables is the store. The zero value is not ready for use; call New.
type Tables struct {
	mu      sync.Mutex // one writer at a time
	writers uint64     // how many there were
	current atomic.Pointer[Snapshot]
}

// New returns empty tables that are complete once every source has been marked.
func New(sources ...Source) *Tables {
	t := &Tables{}
	t.current.Store(&Snapshot{contents: empty(), missing: sources, changed: make(chan struct{})})
	return t
}

// Snapshot returns the tables as they are now.
func (t *Tables) Snapshot() *Snapshot { return t.current.Load() }

// Follow calls wake once, and again after every change, until ctx ends. Several changes in
// quick succession may share a call; what happens after wake began gets another.
func (t *Tables) Follow(ctx context.Context, wake func()) {
	for {
		changed := t.Snapshot().Changed() // taken first, so that nothing falls between
		wake()
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// Update makes the changes of f visible together. At is the moment at which the news reached
// this process; it is what programming latency is measured from. An f that changes nothing
// wakes nobody.
func (t *Tables) Update(at time.Time, f func(*Tx)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	tx, old := t.begin(), t.current.Load()
	tx.at = at
	f(tx)
	if tx.revision == old.revision && len(tx.missing) == len(old.missing) {
		return
	}
	t.current.Store(&Snapshot{contents: tx.contents, revision: tx.revision, missing: tx.missing, changed: make(chan struct{})})
	close(old.changed)
}

// begin is for whoever holds the lock.
func (t *Tables) begin() *Tx {
	t.writers++
	old := t.current.Load()
	return &Tx{contents: old.contents, number: t.writers, revision: old.revision, missing: old.missing}
}

// Forget drops the record of changes up to and including a revision that every reader of
// Changes has dealt with. The tables themselves stay as they are, so it wakes nobody.
func (t *Tables) Forget(revision uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	tx, old := t.begin(), t.current.Load()
	var done []*change
	for _, c := range old.news.all() {
		if c.first <= revision {
			done = append(done, c)
		}
	}
	for _, c := range done {
		if c.revision <= revision {
			tx.news.remove(tx, c.revision)
			tx.changes.remove(tx, c.subject)
		} else { // changed again since; only the later news is still open
			tx.note(&change{c.subject, c.revision, c.revision, c.last, c.last})
		}
	}
	t.current.Store(&Snapshot{contents: tx.contents, revision: old.revision, missing: old.missing, changed: old.changed})
}

// Tx is one Update in progress. It must not be used after the Update's function returned.
type Tx struct {
	contents
	number   uint64 // of this writer: what it may write without a copy is marked with it
	at       time.Time
	revision uint64
	missing  []Source
}

// PutNode adds or replaces a node.
func (tx *Tx) PutNode(n model.Node) {
	if put(tx, &tx.nodes, n.Name, &n) {
		tx.touch(subject{node: n.Name})
	}
}

// DeleteNode removes a node; one that is not there is no error.
func (tx *Tx) DeleteNode(name string) {
	if tx.nodes.remove(tx, name) != nil {
		tx.touch(subject{node: name})
	}
}

// PutService adds or replaces a service.
func (tx *Tx) PutService(s model.Service) { tx.AdoptService(&s) }

// AdoptService is PutService without a copy.
func (tx *Tx) AdoptService(s *model.Service) {
	was := tx.unserved.remove(tx, s.Name)
	if put(tx, &tx.services, s.Name, s) || was != nil {
		tx.touch(subject{service: s.Name})
	}
}

// PutUnserved keeps, in the place of a service, why no dataplane has anything to do for it.
func (tx *Tx) PutUnserved(name model.Name, why string) {
	was := tx.services.remove(tx, name)
	if put(tx, &tx.unserved, name, &why) || was != nil {
		tx.touch(subject{service: name})
	}
}

// DeleteService removes a service, served or not; one that is not there is no error.
func (tx *Tx) DeleteService(name model.Name) {
	served, known := tx.services.remove(tx, name), tx.unserved.remove(tx, name)
	if served != nil || known != nil {
		tx.touch(subject{service: name})
	}
}

// PutSlice adds or replaces an endpoint slice. A slice that moved to another service changes both.
func (tx *Tx) PutSlice(s model.Slice) { tx.AdoptSlice(&s) }

// AdoptSlice is PutSlice without a copy.
func (tx *Tx) AdoptSlice(s *model.Slice) {
	old := tx.slices.put(tx, s.Name, s)
	if old != nil && reflect.DeepEqual(old, s) {
		tx.slices.put(tx, s.Name, old)
		return
	}
	if old != nil && ownedBy(old) != ownedBy(s) {
		tx.byService.remove(tx, ownedBy(old))
		tx.touch(subject{service: old.ServiceName()})
	}
	tx.byService.put(tx, ownedBy(s), s)
	tx.touch(subject{service: s.ServiceName()})
}

// DeleteSlice removes an endpoint slice; one that is not there is no error.
func (tx *Tx) DeleteSlice(name model.Name) {
	if old := tx.slices.remove(tx, name); old != nil {
		tx.byService.remove(tx, ownedBy(old))
		tx.touch(subject{service: old.ServiceName()})
	}
}

// PutRoute adds or replaces a ZoneRoute. It is news about the service of the same name.
func (tx *Tx) PutRoute(r model.ZoneRoute) {
	if put(tx, &tx.routes, r.Name, &r) {
		tx.touch(subject{service: r.Name})
	}
}

// DeleteRoute removes a ZoneRoute; one that is not there is no error.
func (tx *Tx) DeleteRoute(name model.Name) {
	if tx.routes.remove(tx, name) != nil {
		tx.touch(subject{service: name})
	}
}

// PutPod adds or replaces a pod. Pods come and go by the thousand and matter to few services, so
// that no service counts as changed: who plans by pods looks again from time to time.
func (tx *Tx) PutPod(p model.Pod) {
	if put(tx, &tx.pods, p.Name, &p) {
		tx.touch(subject{pod: p.Name})
	}
}

// DeletePod removes a pod; one that is not there is no error.
func (tx *Tx) DeletePod(name model.Name) {
	if tx.pods.remove(tx, name) != nil {
		tx.touch(subject{pod: name})
	}
}

// PutNamespace keeps what a namespace says about the mode of its services. What is no mode counts
// as nothing said, and is kept for InvalidModes.
func (tx *Tx) PutNamespace(name string, mode model.Mode) {
	row := namespace{}
	switch mode {
	case model.Optimal, model.Observe, model.Off:
		row.mode = mode
	default:
		row.invalid = string(mode)
	}
	if put(tx, &tx.namespaces, name, &row) {
		tx.touchNamespace(name)
	}
}

// DeleteNamespace forgets what a namespace said; one that said nothing is no error.
func (tx *Tx) DeleteNamespace(name string) {
	if tx.namespaces.remove(tx, name) != nil {
		tx.touchNamespace(name)
	}
}

// PutServiceCIDR keeps the ranges that an object says Services get their addresses from.
func (tx *Tx) PutServiceCIDR(name string, prefixes []netip.Prefix) {
	if put(tx, &tx.cidrs, name, &prefixes) {
		tx.touch(subject{cidrs: true})
	}
}

// DeleteServiceCIDR forgets the ranges of an object; one that is not there is no error.
func (tx *Tx) DeleteServiceCIDR(name string) {
	if tx.cidrs.remove(tx, name) != nil {
		tx.touch(subject{cidrs: true})
	}
}

// touchNamespace is news about every service of a namespace.
func (tx *Tx) touchNamespace(name string) {
	tx.revision++ // also where the namespace has no service
	for service := range tx.services.from(model.Name{Namespace: name}) {
		if service.Namespace != name {
			return
		}
		tx.touch(subject{service: service})
	}
}

// Initialised marks a source as having delivered everything once.
func (tx *Tx) Initialised(source Source) {
	var rest []Source
	for _, s := range tx.missing {
		if s != source {
			rest = append(rest, s)
		}
	}
	tx.missing = rest
}

// touch records that something about a subject is different from the next revision on. There is
// no record of how incomplete tables filled: nobody can begin before they are complete.
func (tx *Tx) touch(s subject) {
	tx.revision++
	if len(tx.missing) > 0 {
		return
	}
	c := change{subject: s, revision: tx.revision, first: tx.revision, since: tx.at, last: tx.at}
	if open := tx.changes.get(s); open != nil {
		c.first, c.since = open.first, open.since
		tx.news.remove(tx, open.revision)
	}
	tx.note(&c)
}

func (tx *Tx) note(c *change) {
	tx.changes.put(tx, c.subject, c)
	tx.news.put(tx, c.revision, c)
}

// put tells whether a row differs from what was there. Most rows do: to look first would be a search
// more for each.
func put[K, T any](tx *Tx, t *table[K, T], key K, value *T) bool {
	old := t.put(tx, key, value)
	return old == nil || !reflect.DeepEqual(old, value)
}
