package bpf

import (
	"errors"
	"slices"
)

// ErrKilled is what every fake of a Life answers once its time is up.
var ErrKilled = errors.New("killed")

// Life counts the steps that a process takes in the kernel, and ends it after some. Zero Steps
// never end.
type Life struct {
	Steps int // after so many nothing succeeds any more
	Taken int
}

// Step is one change of the kernel's state.
func (l *Life) Step() error {
	if !l.Alive() {
		return ErrKilled
	}
	l.Taken++
	return nil
}

// Alive tells whether there is another step in it.
func (l *Life) Alive() bool { return l.Steps == 0 || l.Taken < l.Steps }

// Fake is a Map that remembers. It outlives its writers: each comes with a Life of its own.
type Fake[K comparable, V any] struct {
	Entries map[K]V
	Room    int
	Life    *Life
	// Seen, if set, is called after every single change.
	Seen func()
}

// NewFake returns an empty one with room for so many.
func NewFake[K comparable, V any](room int) *Fake[K, V] {
	return &Fake[K, V]{Entries: map[K]V{}, Room: room, Life: &Life{}}
}

// Max is how many elements fit.
func (m *Fake[K, V]) Max() int { return m.Room }

var errFull = errors.New("map is full")

// Put writes the elements, one after another.
func (m *Fake[K, V]) Put(keys []K, values []V) error {
	for i, k := range keys {
		if _, ok := m.Entries[k]; !ok && len(m.Entries) >= m.Room {
			return errFull
		}
		if err := m.change(func() { m.Entries[k] = values[i] }); err != nil {
			return err
		}
	}
	return nil
}

// Delete removes the elements; those that are not there are passed over.
func (m *Fake[K, V]) Delete(keys []K) error {
	for _, k := range keys {
		if _, ok := m.Entries[k]; !ok {
			continue
		}
		if err := m.change(func() { delete(m.Entries, k) }); err != nil {
			return err
		}
	}
	return nil
}

func (m *Fake[K, V]) change(f func()) error {
	if err := m.Life.Step(); err != nil {
		return err
	}
	f()
	if m.Seen != nil {
		m.Seen()
	}
	return nil
}

// Each calls f with the elements, some at a time.
func (m *Fake[K, V]) Each(f func([]K, []V)) error {
	var keys []K
	var values []V
	for k, v := range m.Entries {
		keys, values = append(keys, k), append(values, v)
	}
	for chunk := range slices.Chunk(keys, 7) {
		f(chunk, values[:len(chunk)])
		values = values[len(chunk):]
	}
	return nil
}
