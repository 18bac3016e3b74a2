package reflect

import (
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

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
	rows, keep := make([]T, 0, len(list)), make(map[model.Name]bool, len(list))
	for _, obj := range list {
		o, ok := obj.(K)
		if !ok {
			return fmt.Errorf("%s: unexpected %T", s.source, obj)
		}
		if row, ours := s.convert(o); ours {
			rows, keep[name(o)] = append(rows, row), true
		}
	}
	// Only this stream writes this table, so what we have cannot change before the update.
	have := s.have(s.tables.Snapshot())
	s.tables.Update(s.now(), func(tx *state.Tx) {
		for _, row := range rows {
			s.put(tx, row)
		}
		for _, n := range have {
			if !keep[n] {
				s.remove(tx, n)
			}
		}
		tx.Initialised(s.source)
	})
	return nil
}

// Resync has nothing to do: the tables keep what they were given.
func (s *store[K, T]) Resync() error { return nil }

func name(o metav1.Object) model.Name {
	return model.Name{Namespace: o.GetNamespace(), Name: o.GetName()}
}
