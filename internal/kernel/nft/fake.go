package nft

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"syscall"
)

// Fake is a kernel that remembers: batches are checked and applied as nf_tables would, whole or
// not at all. The zero Fake has no table. Fields may be set between calls.
type Fake struct {
	mu     sync.Mutex
	tables map[Table]fakeTable

	// Fail, if set, is asked before each batch and its error fails the batch.
	Fail func(*Batch) error
	// Refuse, if set, is asked about each element that is added and its error fails the batch.
	Refuse func(set string, e Element) error
	// Commits and Changes count what was committed: batches, and the changes in them.
	Commits, Changes int
}

type fakeTable struct {
	chains map[string][]string
	sets   map[string]map[string]Element
}

func (t fakeTable) clone() fakeTable {
	out := fakeTable{chains: maps.Clone(t.chains), sets: make(map[string]map[string]Element, len(t.sets))}
	for name, s := range t.sets {
		out.sets[name] = maps.Clone(s)
	}
	return out
}

// Commit applies the batch to a copy, which replaces the original only if every change was good.
func (f *Fake) Commit(b *Batch) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.Fail != nil {
		if err := f.Fail(b); err != nil {
			return err
		}
	}
	var t *fakeTable
	if old, ok := f.tables[b.table]; ok {
		c := old.clone()
		t = &c
	}
	var err error
	for _, o := range b.ops {
		if err = f.refusal(o); err == nil {
			t, err = t.apply(o)
		}
		if err != nil {
			return fmt.Errorf("nft table %s: %s: %w", b.table, o, err)
		}
	}
	if f.tables == nil {
		f.tables = map[Table]fakeTable{}
	}
	delete(f.tables, b.table)
	if t != nil {
		f.tables[b.table] = *t
	}
	f.Commits++
	f.Changes += b.size
	return nil
}

// refusal is what Refuse says of a change.
func (f *Fake) refusal(o op) error {
	if f.Refuse == nil || o.verb != addElements {
		return nil
	}
	for _, e := range o.elements {
		if err := f.Refuse(o.set.Name, e); err != nil {
			return err
		}
	}
	return nil
}

func (t *fakeTable) apply(o op) (*fakeTable, error) {
	if o.verb == addTable {
		if t == nil {
			t = &fakeTable{chains: map[string][]string{}, sets: map[string]map[string]Element{}}
		}
		return t, nil
	}
	if t == nil {
		return nil, syscall.ENOENT
	}
	if o.verb == delTable {
		return nil, nil
	}
	if o.verb == addSet {
		if t.sets[o.set.Name] == nil {
			t.sets[o.set.Name] = map[string]Element{}
		}
		return t, nil
	}
	if o.verb == addElements || o.verb == delElements {
		return t, t.elements(o)
	}
	return t, t.chain(o)
}

func (t *fakeTable) chain(o op) error {
	rules, ok := t.chains[o.chain.Name]
	if o.verb == addChain {
		t.chains[o.chain.Name] = rules
		return nil
	}
	if !ok {
		return syscall.ENOENT
	}
	switch o.verb {
	case addRule:
		t.chains[o.chain.Name] = append(slices.Clone(rules), o.rule.Comment)
	case flushChain:
		t.chains[o.chain.Name] = nil
	case delChain:
		for _, s := range t.sets {
			for _, e := range s {
				if string(e.Verdict) == o.chain.Name {
					return syscall.EBUSY
				}
			}
		}
		delete(t.chains, o.chain.Name)
	}
	return nil
}

func (t *fakeTable) elements(o op) error {
	s, ok := t.sets[o.set.Name]
	if !ok {
		return syscall.ENOENT
	}
	for _, e := range o.elements {
		old, ok := s[e.Key]
		if o.verb == delElements {
			if !ok {
				return syscall.ENOENT
			}
			delete(s, e.Key)
			continue
		}
		if ok && (old.Data != e.Data || old.Verdict != e.Verdict) {
			return syscall.EEXIST
		}
		if _, chain := t.chains[string(e.Verdict)]; e.Verdict != "" && e.Verdict != Drop && !chain {
			return syscall.ENOENT
		}
		s[e.Key] = e
	}
	return nil
}

// Generation is Conn.Generation.
func (f *Fake) Generation() (uint32, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return uint32(f.Commits), nil
}

// Read is Conn.Read.
func (f *Fake) Read(name Table) (Contents, bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t, ok := f.tables[name]
	if !ok {
		return Contents{}, false, nil
	}
	out := Contents{Chains: maps.Clone(t.chains), Sets: map[string]bool{}}
	for s := range t.sets {
		out.Sets[s] = true
	}
	return out, true, nil
}

// Elements is Conn.Elements, in no order.
func (f *Fake) Elements(name Table, s Set) ([]Element, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	elements, ok := f.tables[name].sets[s.Name]
	if !ok {
		return nil, fmt.Errorf("nft table %s: set %s: %w", name, s.Name, syscall.ENOENT)
	}
	return slices.Collect(maps.Values(elements)), nil
}
