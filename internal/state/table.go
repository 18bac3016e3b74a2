package state

import (
	"iter"

	"github.com/google/btree"
)

// degree makes nodes of 16 to 31 rows. Wider trees fill a little faster, and copy more for each small change.
const degree = 16

// table is rows in the order of their keys. A copy of one costs next to nothing, and then keeps what
// it has whatever happens to the other.
type table[K, T any] struct {
	tree *btree.BTreeG[row[K, T]]
	// writer is the transaction that may write into the tree. Every other one makes a copy first:
	// readers may be in it.
	writer uint64
}

type row[K, T any] struct {
	key   K
	value *T
}

func newTable[K, T any](compare func(a, b K) int) table[K, T] {
	return table[K, T]{tree: btree.NewG(degree, func(a, b row[K, T]) bool { return compare(a.key, b.key) < 0 })}
}

// get returns nil for a row that is not there.
func (t *table[K, T]) get(key K) *T {
	r, _ := t.tree.Get(row[K, T]{key: key})
	return r.value
}

// value returns a row as its readers want it.
func (t *table[K, T]) value(key K) (T, bool) {
	v := t.get(key)
	if v == nil {
		var zero T
		return zero, false
	}
	return *v, true
}

// put returns what was there, or nil.
func (t *table[K, T]) put(tx *Tx, key K, value *T) *T {
	old, _ := t.write(tx).ReplaceOrInsert(row[K, T]{key, value})
	return old.value
}

// remove returns what was there, or nil.
func (t *table[K, T]) remove(tx *Tx, key K) *T {
	old := t.get(key)
	if old != nil {
		t.write(tx).Delete(row[K, T]{key: key})
	}
	return old
}

func (t *table[K, T]) write(tx *Tx) *btree.BTreeG[row[K, T]] {
	if t.writer != tx.number {
		t.tree, t.writer = t.tree.Clone(), tx.number
	}
	return t.tree
}

// all yields every row in order.
func (t *table[K, T]) all() iter.Seq2[K, *T] {
	return func(yield func(K, *T) bool) {
		t.tree.Ascend(func(r row[K, T]) bool { return yield(r.key, r.value) })
	}
}

// from yields the rows from a key on, in order.
func (t *table[K, T]) from(key K) iter.Seq2[K, *T] {
	return func(yield func(K, *T) bool) {
		t.tree.AscendGreaterOrEqual(row[K, T]{key: key}, func(r row[K, T]) bool { return yield(r.key, r.value) })
	}
}

// values yields every row in order, as readers want them.
func (t *table[K, T]) values() iter.Seq[T] {
	return func(yield func(T) bool) {
		t.tree.Ascend(func(r row[K, T]) bool { return yield(*r.value) })
	}
}

// keys yields every key in order.
func (t *table[K, T]) keys() iter.Seq[K] {
	return func(yield func(K) bool) {
		t.tree.Ascend(func(r row[K, T]) bool { return yield(r.key) })
	}
}
