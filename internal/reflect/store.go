package reflect

import (
	"cmp"
	"fmt"
	"slices"
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

	streamed uint64 // how many objects came as part of streamed lists
}

// arrival is what is kept of an object of a streamed list until the list is complete.
type arrival[T any] struct {
	number uint64 // in the order of the stream
	name   model.Name
	row    T
	ours   bool
}

// Transformer makes the reflector keep rows, not objects, while a list streams in: the objects of a
// whole list take several times the memory of the tables. Only the reflector's own goroutine uses it.
func (s *store[K, T]) Transformer() cache.TransformFunc {
	return func(obj any) (any, error) {
		o, ok := obj.(K)
		if !ok {
			return nil, fmt.Errorf("%s: unexpected %T", s.source, obj)
		}
		s.streamed++
		return s.arrived(o, s.streamed), nil
	}
}

func (s *store[K, T]) arrived(o K, number uint64) *arrival[T] {
	row, ours := s.convert(o)
	return &arrival[T]{number, name(o), row, ours}
}

// Add puts one object into the tables, or takes it out if it is not, or no longer, for us.
func (s *store[K, T]) Add(obj any) error {
	o, ok := obj.(K)
	if !ok {
		return fmt.Errorf("%s: unexpected %T", s.source, obj)
	}
	row, ours := s.convert(o)
	s.tables.Update(s.now(), func(tx *state.Tx) {
		if ours {
			s.put(tx, row)
		} else {
			s.remove(tx, name(o))
		}
	})
	return nil
}

// Update is Add.
func (s *store[K, T]) Update(obj any) error { return s.Add(obj) }

// Delete takes one object out.
func (s *store[K, T]) Delete(obj any) error {
	o, ok := obj.(K)
	if !ok {
		return fmt.Errorf("%s: unexpected %T", s.source, obj)
	}
	s.tables.Update(s.now(), func(tx *state.Tx) { s.remove(tx, name(o)) })
	return nil
}

// Replace makes the table equal to a whole list, and marks the source as having delivered.
func (s *store[K, T]) Replace(list []any, _ string) error {
	arrivals, err := s.arrivals(list)
	if err != nil {
		return err
	}
	// Only this stream writes this table, so what we have cannot change before the update.
	gone := s.gone(arrivals)
	s.tables.Update(s.now(), func(tx *state.Tx) {
		for _, a := range arrivals {
			if a.ours {
				s.put(tx, a.row)
			}
		}
		for _, n := range gone {
			s.remove(tx, n)
		}
		tx.Initialised(s.source)
	})
	return nil
}

// arrivals are the objects of a list, or what Transformer made of them, in the API server's order, which is that
// of the tables or close to it: rows in order go in faster.
func (s *store[K, T]) arrivals(list []any) ([]*arrival[T], error) {
	out := make([]*arrival[T], 0, len(list))
	for i, obj := range list {
		switch o := obj.(type) {
		case *arrival[T]:
			out = append(out, o)
		case K:
			out = append(out, s.arrived(o, uint64(i)))
		default:
			return nil, fmt.Errorf("%s: unexpected %T", s.source, obj)
		}
	}
	slices.SortFunc(out, func(a, b *arrival[T]) int { return cmp.Compare(a.number, b.number) })
	return out, nil
}

// gone are the names that we have and a list does not.
func (s *store[K, T]) gone(list []*arrival[T]) []model.Name {
	have := s.have(s.tables.Snapshot())
	if len(have) == 0 {
		return nil
	}
	keep := make(map[model.Name]bool, len(list))
	for _, a := range list {
		keep[a.name] = a.ours
	}
	return slices.DeleteFunc(have, func(n model.Name) bool { return keep[n] })
}

// Resync has nothing to do: the tables keep what they were given.
func (s *store[K, T]) Resync() error { return nil }

func name(o metav1.Object) model.Name {
	return model.Name{Namespace: o.GetNamespace(), Name: o.GetName()}
}
