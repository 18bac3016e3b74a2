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

	"github.com/hashicorp/go-memdb"

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
	db *memdb.MemDB

	mu      sync.Mutex // one writer at a time
	current atomic.Pointer[Snapshot]
}

// New returns empty tables that are complete once every source has been marked.
func New(sources ...Source) *Tables {
	db, err := memdb.NewMemDB(schema)
	if err != nil {
		panic(err) // the schema is a constant of this package
	}
	t := &Tables{db: db}
	t.current.Store(&Snapshot{txn: db.Txn(false), missing: sources, changed: make(chan struct{})})
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
	old := t.current.Load()
	tx := &Tx{txn: t.db.Txn(true), at: at, revision: old.revision, missing: old.missing}
	defer tx.txn.Abort()
	f(tx)
	if tx.revision == old.revision && len(tx.missing) == len(old.missing) {
		return
	}
	tx.txn.Commit()
	t.publish(old, tx.revision, tx.missing)
}

// Forget drops the record of changes up to and including a revision that every reader of
// Changes has dealt with. The tables themselves stay as they are, so it wakes nobody.
func (t *Tables) Forget(revision uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	old := t.current.Load()
	txn := t.db.Txn(true)
	defer txn.Abort()
	for _, c := range collect[change](must(txn.Get(tableChanges, indexRevision))) {
		switch {
		case c.revision <= revision:
			mustDo(txn.Delete(tableChanges, c))
		case c.first <= revision: // changed again since; only the later news is still open
			mustDo(txn.Insert(tableChanges, change{c.subject, c.revision, c.revision, c.last, c.last}))
		}
	}
	txn.Commit()
	t.current.Store(&Snapshot{txn: t.db.Txn(false), revision: old.revision, missing: old.missing, changed: old.changed})
}

func (t *Tables) publish(old *Snapshot, revision uint64, missing []Source) {
	t.current.Store(&Snapshot{txn: t.db.Txn(false), revision: revision, missing: missing, changed: make(chan struct{})})
	close(old.changed)
}

// Tx is one Update in progress. It must not be used after the Update's function returned.
type Tx struct {
	txn      *memdb.Txn
	at       time.Time
	revision uint64
	missing  []Source
}

// PutNode adds or replaces a node.
func (tx *Tx) PutNode(n model.Node) {
	if put(tx, tableNodes, n, n.Name) {
		tx.touch(subject{node: n.Name})
	}
}

// DeleteNode removes a node; one that is not there is no error.
func (tx *Tx) DeleteNode(name string) {
	if _, ok := remove[model.Node](tx, tableNodes, name); ok {
		tx.touch(subject{node: name})
	}
}

// PutService adds or replaces a service.
func (tx *Tx) PutService(s model.Service) {
	_, was := remove[unserved](tx, tableUnserved, key(s.Name))
	if put(tx, tableServices, s, key(s.Name)) || was {
		tx.touch(subject{service: s.Name})
	}
}

// PutUnserved keeps, in the place of a service, why no dataplane has anything to do for it.
func (tx *Tx) PutUnserved(name model.Name, why string) {
	_, was := remove[model.Service](tx, tableServices, key(name))
	if put(tx, tableUnserved, unserved{name, why}, key(name)) || was {
		tx.touch(subject{service: name})
	}
}

// DeleteService removes a service, served or not; one that is not there is no error.
func (tx *Tx) DeleteService(name model.Name) {
	_, served := remove[model.Service](tx, tableServices, key(name))
	_, known := remove[unserved](tx, tableUnserved, key(name))
	if served || known {
		tx.touch(subject{service: name})
	}
}

// PutSlice adds or replaces an endpoint slice. A slice that moved to another service changes both.
func (tx *Tx) PutSlice(s model.Slice) {
	old, had := first[model.Slice](tx.txn.First(tableSlices, indexID, key(s.Name)))
	if !put(tx, tableSlices, s, key(s.Name)) {
		return
	}
	if had && old.ServiceName() != s.ServiceName() {
		tx.touch(subject{service: old.ServiceName()})
	}
	tx.touch(subject{service: s.ServiceName()})
}

// DeleteSlice removes an endpoint slice; one that is not there is no error.
func (tx *Tx) DeleteSlice(name model.Name) {
	if old, ok := remove[model.Slice](tx, tableSlices, key(name)); ok {
		tx.touch(subject{service: old.ServiceName()})
	}
}

// PutRoute adds or replaces a ZoneRoute. It is news about the service of the same name.
func (tx *Tx) PutRoute(r model.ZoneRoute) {
	if put(tx, tableRoutes, r, key(r.Name)) {
		tx.touch(subject{service: r.Name})
	}
}

// DeleteRoute removes a ZoneRoute; one that is not there is no error.
func (tx *Tx) DeleteRoute(name model.Name) {
	if _, ok := remove[model.ZoneRoute](tx, tableRoutes, key(name)); ok {
		tx.touch(subject{service: name})
	}
}

// PutPod adds or replaces a pod. Pods come and go by the thousand and matter to few services, so
// that no service counts as changed: who plans by pods looks again from time to time.
func (tx *Tx) PutPod(p model.Pod) {
	if put(tx, tablePods, p, key(p.Name)) {
		tx.revision++
	}
}

// DeletePod removes a pod; one that is not there is no error.
func (tx *Tx) DeletePod(name model.Name) {
	if _, ok := remove[model.Pod](tx, tablePods, key(name)); ok {
		tx.revision++
	}
}

// PutNamespace keeps what a namespace says about the mode of its services. What is no mode counts
// as nothing said, and is kept for InvalidModes.
func (tx *Tx) PutNamespace(name string, mode model.Mode) {
	row := namespace{name: name}
	switch mode {
	case model.Optimal, model.Observe, model.Off:
		row.mode = mode
	default:
		row.invalid = string(mode)
	}
	if put(tx, tableNamespaces, row, name) {
		tx.touchNamespace(name)
	}
}

// DeleteNamespace forgets what a namespace said; one that said nothing is no error.
func (tx *Tx) DeleteNamespace(name string) {
	if _, ok := remove[namespace](tx, tableNamespaces, name); ok {
		tx.touchNamespace(name)
	}
}

// PutServiceCIDR keeps the ranges that an object says Services get their addresses from.
func (tx *Tx) PutServiceCIDR(name string, prefixes []netip.Prefix) {
	if put(tx, tableCIDRs, serviceCIDR{name, prefixes}, name) {
		tx.touch(subject{cidrs: true})
	}
}

// DeleteServiceCIDR forgets the ranges of an object; one that is not there is no error.
func (tx *Tx) DeleteServiceCIDR(name string) {
	if _, ok := remove[serviceCIDR](tx, tableCIDRs, name); ok {
		tx.touch(subject{cidrs: true})
	}
}

// touchNamespace is news about every service of a namespace.
func (tx *Tx) touchNamespace(name string) {
	tx.revision++ // also where the namespace has no service
	it := must(tx.txn.LowerBound(tableServices, indexID, key(model.Name{Namespace: name})))
	for row := it.Next(); row != nil; row = it.Next() {
		s := row.(model.Service)
		if s.Namespace != name {
			return
		}
		tx.touch(subject{service: s.Name})
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
	if open, ok := first[change](tx.txn.First(tableChanges, indexID, s.key())); ok {
		c.first, c.since = open.first, open.since
	}
	mustDo(tx.txn.Insert(tableChanges, c))
}

// put inserts a row and tells whether it differs from what was there.
func put[T any](tx *Tx, table string, row T, id string) bool {
	if old, ok := first[T](tx.txn.First(table, indexID, id)); ok && reflect.DeepEqual(old, row) {
		return false
	}
	mustDo(tx.txn.Insert(table, row))
	return true
}

func remove[T any](tx *Tx, table, id string) (T, bool) {
	old, ok := first[T](tx.txn.First(table, indexID, id))
	if ok {
		mustDo(tx.txn.Delete(table, old))
	}
	return old, ok
}
