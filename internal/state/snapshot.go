package state

import (
	"iter"
	"net/netip"
	"slices"
	"time"

	"github.com/hashicorp/go-memdb"

	"github.com/zonewise/zonewise/internal/model"
)

// Snapshot is the tables at one moment. It is safe for use by many and costs nothing to keep
// beyond the memory of rows that have changed since.
type Snapshot struct {
	txn      *memdb.Txn
	revision uint64
	missing  []Source
	changed  chan struct{}
}

// Revision grows with every change; it is what Changes and Forget speak of.
func (s *Snapshot) Revision() uint64 { return s.revision }

// Changed is closed when the tables are no longer as in this snapshot.
func (s *Snapshot) Changed() <-chan struct{} { return s.changed }

// Missing returns the sources that have not delivered everything yet. Until it is empty,
// what is absent from the tables may just not have arrived: nothing may be pruned.
func (s *Snapshot) Missing() []Source { return slices.Clone(s.missing) }

// Node returns a node by its name.
func (s *Snapshot) Node(name string) (model.Node, bool) {
	return first[model.Node](s.txn.First(tableNodes, indexID, name))
}

// Nodes yields every node, by name.
func (s *Snapshot) Nodes() iter.Seq[model.Node] {
	return rows[model.Node](func() (memdb.ResultIterator, error) { return s.txn.Get(tableNodes, indexID) })
}

// Service returns a service by its name.
func (s *Snapshot) Service(name model.Name) (model.Service, bool) {
	return first[model.Service](s.txn.First(tableServices, indexID, key(name)))
}

// Services yields every service, by namespace and name.
func (s *Snapshot) Services() iter.Seq[model.Service] {
	return rows[model.Service](func() (memdb.ResultIterator, error) { return s.txn.Get(tableServices, indexID) })
}

// Unserved tells why no dataplane has anything to do for a service that exists: a headless one, say.
func (s *Snapshot) Unserved(name model.Name) (why string, ok bool) {
	u, ok := first[unserved](s.txn.First(tableUnserved, indexID, key(name)))
	return u.why, ok
}

// AllUnserved yields every service of that sort and why it is one, by namespace and name.
func (s *Snapshot) AllUnserved() iter.Seq2[model.Name, string] {
	return func(yield func(model.Name, string) bool) {
		for u := range rows[unserved](func() (memdb.ResultIterator, error) { return s.txn.Get(tableUnserved, indexID) }) {
			if !yield(u.Name, u.why) {
				return
			}
		}
	}
}

// Route returns the ZoneRoute of a service.
func (s *Snapshot) Route(service model.Name) (model.ZoneRoute, bool) {
	return first[model.ZoneRoute](s.txn.First(tableRoutes, indexID, key(service)))
}

// Routes yields every ZoneRoute, by namespace and name.
func (s *Snapshot) Routes() iter.Seq[model.ZoneRoute] {
	return rows[model.ZoneRoute](func() (memdb.ResultIterator, error) { return s.txn.Get(tableRoutes, indexID) })
}

// Pod returns a pod by its name.
func (s *Snapshot) Pod(name model.Name) (model.Pod, bool) {
	return first[model.Pod](s.txn.First(tablePods, indexID, key(name)))
}

// Pods yields every pod that runs or will, by namespace and name.
func (s *Snapshot) Pods() iter.Seq[model.Pod] {
	return rows[model.Pod](func() (memdb.ResultIterator, error) { return s.txn.Get(tablePods, indexID) })
}

// Mode returns what a namespace says about the mode of its services; empty if it says nothing.
func (s *Snapshot) Mode(name string) model.Mode {
	n, _ := first[namespace](s.txn.First(tableNamespaces, indexID, name))
	return n.mode
}

// NamespaceModes returns the namespaces that say a mode, and which.
func (s *Snapshot) NamespaceModes() map[string]model.Mode {
	out := map[string]model.Mode{}
	for n := range s.namespaces() {
		if n.mode != "" {
			out[n.name] = n.mode
		}
	}
	return out
}

// InvalidModes returns the namespaces that say something which is no mode, and what.
func (s *Snapshot) InvalidModes() map[string]string {
	out := map[string]string{}
	for n := range s.namespaces() {
		if n.mode == "" {
			out[n.name] = n.invalid
		}
	}
	return out
}

// Namespaces yields the name of every namespace that says something.
func (s *Snapshot) Namespaces() iter.Seq[string] {
	return func(yield func(string) bool) {
		for n := range s.namespaces() {
			if !yield(n.name) {
				return
			}
		}
	}
}

func (s *Snapshot) namespaces() iter.Seq[namespace] {
	return rows[namespace](func() (memdb.ResultIterator, error) { return s.txn.Get(tableNamespaces, indexID) })
}

// ServiceCIDRs returns the ranges from which Services get their addresses, in order, each once.
func (s *Snapshot) ServiceCIDRs() []netip.Prefix {
	var out []netip.Prefix
	for _, c := range collect[serviceCIDR](must(s.txn.Get(tableCIDRs, indexID))) {
		out = append(out, c.prefixes...)
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	return slices.Compact(out)
}

// ServiceCIDRNames yields the name of every object that says such ranges.
func (s *Snapshot) ServiceCIDRNames() iter.Seq[string] {
	return func(yield func(string) bool) {
		for c := range rows[serviceCIDR](func() (memdb.ResultIterator, error) { return s.txn.Get(tableCIDRs, indexID) }) {
			if !yield(c.name) {
				return
			}
		}
	}
}

// AllSlices yields every endpoint slice, by namespace and name.
func (s *Snapshot) AllSlices() iter.Seq[model.Slice] {
	return rows[model.Slice](func() (memdb.ResultIterator, error) { return s.txn.Get(tableSlices, indexID) })
}

// Slices returns the endpoint slices of a service, by name.
func (s *Snapshot) Slices(service model.Name) []model.Slice {
	return collect[model.Slice](must(s.txn.Get(tableSlices, indexService, key(service))))
}

// Changes is what is different from an earlier revision.
type Changes struct {
	Services []Change[model.Name] // in order of their latest change; deleted ones included
	Nodes    []Change[string]
	CIDRs    bool // what ServiceCIDRs returns may be different
}

// Change names one thing that is different, and since when this process could know.
type Change[T any] struct {
	Of    T
	Since time.Time
}

// Changes returns what has changed after a revision, in time proportional to their number. It is
// complete for a reader that began by reading a whole snapshot with nothing Missing, and as long
// as nobody forgets more than that reader has seen.
func (s *Snapshot) Changes(after uint64) Changes {
	var out Changes
	it := must(s.txn.LowerBound(tableChanges, indexRevision, after+1))
	for _, c := range collect[change](it) {
		switch {
		case c.subject.cidrs:
			out.CIDRs = true
		case c.subject.node != "":
			out.Nodes = append(out.Nodes, Change[string]{c.subject.node, c.since})
		default:
			out.Services = append(out.Services, Change[model.Name]{c.subject.service, c.since})
		}
	}
	return out
}

func rows[T any](get func() (memdb.ResultIterator, error)) iter.Seq[T] {
	return func(yield func(T) bool) {
		it := must(get())
		for row := it.Next(); row != nil; row = it.Next() {
			if !yield(row.(T)) {
				return
			}
		}
	}
}
