package state

import (
	"iter"
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
		if c.subject.node != "" {
			out.Nodes = append(out.Nodes, Change[string]{c.subject.node, c.since})
		} else {
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
