// Package bpf is the door to the hash maps and cgroups of eBPF: maps read and written in batches,
// links that outlive their maker, and what a machine must have for either.
package bpf

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
)

// batch is how many elements go to or come from the kernel in one call.
const batch = 4096

// Map is a hash map in the kernel. K and V are as they lie in its memory: without padding.
type Map[K comparable, V any] struct{ m *ebpf.Map }

// NewMap returns the map by its types. They must have the size that the map was made for.
func NewMap[K comparable, V any](m *ebpf.Map) Map[K, V] { return Map[K, V]{m} }

// Max is how many elements fit.
func (m Map[K, V]) Max() int { return int(m.m.MaxEntries()) }

// Put writes the elements, one after another.
func (m Map[K, V]) Put(keys []K, values []V) error {
	for len(keys) > 0 {
		n := min(batch, len(keys))
		if n == 1 {
			if err := m.m.Put(&keys[0], &values[0]); err != nil {
				return fmt.Errorf("map %s: %w", m.name(), err)
			}
		} else if _, err := m.m.BatchUpdate(keys[:n], values[:n], nil); err != nil {
			return fmt.Errorf("map %s: %w", m.name(), err)
		}
		keys, values = keys[n:], values[n:]
	}
	return nil
}

// Delete removes the elements; those that are not there are passed over.
func (m Map[K, V]) Delete(keys []K) error {
	for len(keys) > 0 {
		n := min(batch, len(keys))
		done, err := m.m.BatchDelete(keys[:n], nil)
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			keys = keys[done+1:]
			continue
		}
		if err != nil {
			return fmt.Errorf("map %s: %w", m.name(), err)
		}
		keys = keys[n:]
	}
	return nil
}

// Each calls f with the elements, some at a time. The slices are f's only while it runs.
func (m Map[K, V]) Each(f func([]K, []V)) error {
	var cursor ebpf.MapBatchCursor
	size := min(batch, m.Max())
	keys, values := make([]K, size), make([]V, size)
	for {
		n, err := m.m.BatchLookup(&cursor, keys, values, nil)
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("map %s: %w", m.name(), err)
		}
		f(keys[:n], values[:n])
		if err != nil {
			return nil
		}
	}
}

func (m Map[K, V]) name() string {
	if info, err := m.m.Info(); err == nil {
		return info.Name
	}
	return m.m.String()
}
