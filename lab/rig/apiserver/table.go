package apiserver

import (
	"cmp"
	"slices"
	"sync"

	"k8s.io/apimachinery/pkg/watch"
)

// kept is how many events a watch may be behind at least; who is more behind may have to list again.
const kept = 1 << 17

// table is the objects of one resource, and what happened to them of late.
type table struct {
	mu        sync.Mutex
	now       []*event // as Added, in order of appearance; nil: deleted
	at        map[string]int
	version   uint64   // of the last event
	log       []*event // the last events
	forgotten uint64   // the version of the last one that is no longer in log
	changed   chan struct{}
}

func newTable(objects []*event) *table {
	t := &table{now: slices.Clone(objects), at: make(map[string]int, len(objects)), version: first, changed: make(chan struct{})}
	for i, e := range objects {
		t.at[e.key] = i
	}
	return t
}

// put records an event that is younger than all before, and wakes whoever watches.
func (t *table) put(e *event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	i, have := t.at[e.key]
	switch {
	case e.kind == watch.Deleted:
		t.now[i] = nil
		delete(t.at, e.key)
	case have:
		t.now[i] = e.added()
	default:
		t.at[e.key] = len(t.now)
		t.now = append(t.now, e)
	}
	t.version = e.version
	t.log = append(t.log, e)
	if len(t.log) > 2*kept {
		t.forgotten = t.log[kept-1].version
		t.log = slices.Clone(t.log[kept:])
	}
	close(t.changed)
	t.changed = make(chan struct{})
}

// all is every object, and the version of the last change.
func (t *table) all() ([]*event, uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]*event, 0, len(t.at))
	for _, e := range t.now {
		if e != nil {
			out = append(out, e)
		}
	}
	return out, t.version
}

func (t *table) get(key string) *event {
	t.mu.Lock()
	defer t.mu.Unlock()
	if i, ok := t.at[key]; ok {
		return t.now[i]
	}
	return nil
}

// since is what happened after a version, and a channel that is closed when there is more. It is
// false if not all of that is known any more.
func (t *table) since(version uint64) (events []*event, more <-chan struct{}, known bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	from, _ := slices.BinarySearchFunc(t.log, version+1, func(e *event, v uint64) int { return cmp.Compare(e.version, v) })
	return t.log[from:], t.changed, version >= t.forgotten
}
