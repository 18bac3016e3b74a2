package reflect

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/state"
)

// store is where client-go's reflector puts objects of kind K; rows of type T come out of it.
type store[K metav1.Object, T any] struct {
	tables  *state.Tables
	now     func() time.Time
	source  state.Source
	convert func(K) (T, bool) // false: not for us
	put     func(*state.Tx, T)
	remove  func(*state.Tx, model.Name)
	have    func(*state.Snapshot) []model.Name

	mu       sync.Mutex // held while convert runs
	streamed uint64     // how many objects came as part of streamed lists
}

// arrival is what is kept of an object of a streamed list until the list is complete.
type arrival[T any] struct {
	name model.Name
	row  T
	ours bool
}

// lot is arrivals that came one after the other.
type lot[T any] struct {
	number uint64 // in the order of the stream
	rows   []arrival[T]
}

// Transformer makes the reflector keep rows, not objects, while a list streams in: the objects of a
// whole list take several times the memory of the tables. Only the reflector's own goroutine uses it.
func (s *store[K, T]) Transformer() cache.TransformFunc {
	return func(obj any) (any, error) {
		switch o := obj.(type) {
		case *parcel[T]:
			return &o.lot, nil
		case K:
			s.streamed++
			return &lot[T]{s.streamed, []arrival[T]{s.arrived(o)}}, nil
		}
		return nil, fmt.Errorf("%s: unexpected %T", s.source, obj)
	}
}

// arrived may be called by the reflector and by a watch that is ending.
func (s *store[K, T]) arrived(o K) arrival[T] {
	s.mu.Lock()
	defer s.mu.Unlock()
	row, ours := s.convert(o)
	return arrival[T]{name(o), row, ours}
}

// arrivals returns what an object brings, or the parcel that took its place.
func (s *store[K, T]) arrivals(obj any) ([]arrival[T], error) {
	switch o := obj.(type) {
	case *parcel[T]:
		return o.rows, nil
	case K:
		return []arrival[T]{s.arrived(o)}, nil
	}
	return nil, fmt.Errorf("%s: unexpected %T", s.source, obj)
}

func (s *store[K, T]) change(tx *state.Tx, a arrival[T]) {
	if a.ours {
		s.put(tx, a.row)
	} else {
		s.remove(tx, a.name)
	}
}

// Add puts one object into the tables, or takes it out if it is not, or no longer, for us.
func (s *store[K, T]) Add(obj any) error {
	rows, err := s.arrivals(obj)
	if err != nil {
		return err
	}
	s.tables.Update(s.now(), func(tx *state.Tx) {
		for _, a := range rows {
			s.change(tx, a)
		}
	})
	return nil
}

// Update is Add.
func (s *store[K, T]) Update(obj any) error { return s.Add(obj) }

// Delete takes one object out.
func (s *store[K, T]) Delete(obj any) error {
	rows, err := s.arrivals(obj)
	if err != nil {
		return err
	}
	s.tables.Update(s.now(), func(tx *state.Tx) {
		for _, a := range rows {
			s.remove(tx, a.name)
		}
	})
	return nil
}

// Replace makes the table equal to a whole list, and marks the source as having delivered.
func (s *store[K, T]) Replace(list []any, _ string) error {
	lots, err := s.lots(list)
	if err != nil {
		return err
	}
	// Only this stream writes this table, so what we have cannot change before the update.
	gone := s.gone(lots)
	s.tables.Update(s.now(), func(tx *state.Tx) {
		for _, l := range lots {
			for _, a := range l.rows {
				s.change(tx, a)
			}
		}
		for _, n := range gone {
			s.remove(tx, n)
		}
		tx.Initialised(s.source)
	})
	return nil
}

// lots are the objects of a list, or what Transformer made of them, in the API server's order, which is that
// of the tables or close to it: rows in order go in faster.
func (s *store[K, T]) lots(list []any) ([]*lot[T], error) {
	out := make([]*lot[T], 0, len(list))
	for i, obj := range list {
		switch o := obj.(type) {
		case *lot[T]:
			out = append(out, o)
		case *parcel[T]:
			out = append(out, &o.lot)
		case K:
			out = append(out, &lot[T]{uint64(i), []arrival[T]{s.arrived(o)}})
		default:
			return nil, fmt.Errorf("%s: unexpected %T", s.source, obj)
		}
	}
	slices.SortFunc(out, func(a, b *lot[T]) int { return cmp.Compare(a.number, b.number) })
	return out, nil
}

// gone are the names that we have and a list does not.
func (s *store[K, T]) gone(list []*lot[T]) []model.Name {
	have := s.have(s.tables.Snapshot())
	if len(have) == 0 {
		return nil
	}
	keep := make(map[model.Name]bool, len(list))
	for _, l := range list {
		for _, a := range l.rows {
			keep[a.name] = a.ours
		}
	}
	return slices.DeleteFunc(have, func(n model.Name) bool { return keep[n] })
}

// Resync has nothing to do: the tables keep what they were given.
func (s *store[K, T]) Resync() error { return nil }

func name(o metav1.Object) model.Name {
	return model.Name{Namespace: o.GetNamespace(), Name: o.GetName()}
}
