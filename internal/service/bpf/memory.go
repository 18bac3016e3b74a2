package bpf

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"time"

	"github.com/zonewise/zonewise/internal/kernel/bpf"
	"github.com/zonewise/zonewise/internal/service"
	"github.com/zonewise/zonewise/internal/service/affinity"
)

// What the socket path remembers of clients are copies of nft's notes: affinity.Keeper makes them, by what
// is here. Nothing of it is in digests, as programs write there too: each element has a check of its own.

// Now is the programs' clock.
func (a *Applier) Now() (time.Duration, error) { return bpf.Monotonic() }

// Remembered returns what is remembered of clients, and who asked in vain. What is of frontends,
// endpoints or pods that are no more it forgets.
func (a *Applier) Remembered() ([]affinity.Entry, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.have == nil || len(a.have.affine) == 0 && a.forgotten {
		return nil, nil
	}
	out, err := a.recall()
	if err != nil {
		return nil, fmt.Errorf("socket path: %w", err)
	}
	a.forgotten = len(a.have.affine) == 0
	return out, nil
}

func (a *Applier) recall() ([]affinity.Entry, error) {
	if err := a.host.KnowPods(); err != nil {
		return nil, err
	}
	uses := map[memoryKey]uint64{}
	if err := a.tables.uses.Each(func(keys []memoryKey, values []uint64) {
		for i, k := range keys {
			uses[k] = values[i]
		}
	}); err != nil {
		return nil, err
	}
	here, err := a.podAddresses()
	if err != nil {
		return nil, err
	}
	var out []affinity.Entry
	var gone []memoryKey
	a.asked = map[memoryKey]bool{}
	former := map[uint32]address{}
	if err := a.tables.remembered.Each(func(keys []memoryKey, values []memory) {
		for i, k := range keys {
			at, current := a.have.affine[k.ID]
			if !current {
				at = a.have.former[k.ID]
			}
			used, complete := uses[k]
			delete(uses, k)
			e, ok := a.entry(at, k, values[i], time.Duration(used))
			if e.Former = !current; !complete {
				e.Backend = netip.AddrPort{} // it never leads
			}
			if !ok || !here[k.Client] || e.Former && !e.Backend.IsValid() {
				gone = append(gone, k)
				continue
			}
			if e.Former {
				former[k.ID] = at
			}
			if !e.Backend.IsValid() {
				a.asked[k] = true
			}
			out = append(out, e)
		}
	}); err != nil {
		return nil, err
	}
	a.former, a.have.former = former, former
	for k := range uses { // of an agent that was interrupted
		gone = append(gone, k)
	}
	return out, a.forget(gone)
}

// podAddresses are those by which pods of this node are known.
func (a *Applier) podAddresses() (map[[16]byte]bool, error) {
	out := map[[16]byte]bool{}
	err := a.tables.pods.Each(func(_ []uint64, values []pod) {
		for _, p := range values {
			out[netip.AddrFrom4(p.IP4).As16()], out[p.IP6] = true, true
		}
	})
	return out, err
}

// entry makes one of what is remembered of a client at a frontend, and tells whether it is still of use.
func (a *Applier) entry(at address, k memoryKey, m memory, used time.Duration) (affinity.Entry, bool) {
	f, wanted := a.wanted(at)
	if !wanted || f.Affinity <= 0 {
		return affinity.Entry{}, false
	}
	e := affinity.Entry{
		Client: affinity.Client{Group: f.Group, Addr: netip.AddrFrom16(k.Client).Unmap()}, ID: k.ID, Timeout: f.Affinity,
	}
	if m != m.sealed(k) || m.Endpoint.Port == [2]byte{} {
		return e, true
	}
	e.Backend, e.Until, e.Used = m.Endpoint.addrPort(), time.Duration(m.Until), used
	choice, ok := here(f)
	return e, ok && slices.ContainsFunc(choice.Backends, func(b service.Backend) bool { return b.Addr == e.Backend })
}

// Remember writes entries, of frontends that still have their number and endpoint, and deletes some.
func (a *Applier) Remember(keep, drop []affinity.Entry) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.have == nil {
		return nil
	}
	var begun puts[memoryKey, uint64]
	var write puts[memoryKey, memory]
	var gone []memoryKey
	for _, e := range keep {
		k := keyOf(e)
		m, ok := a.memory(e)
		if !ok {
			gone = append(gone, k)
			continue
		}
		if a.asked[k] { // it has no use yet that we would overwrite
			begun.add(k, uint64(max(0, e.Until-e.Timeout)))
		}
		write.add(k, m.sealed(k))
	}
	for _, e := range drop {
		gone = append(gone, keyOf(e))
	}
	a.asked = nil
	for _, step := range []func() error{
		func() error { return a.tables.uses.Put(begun.keys, begun.values) },
		func() error { return a.tables.remembered.Put(write.keys, write.values) },
		func() error { return a.forget(gone) },
	} {
		if err := step(); err != nil {
			return fmt.Errorf("socket path: %w", err)
		}
	}
	return nil
}

func keyOf(e affinity.Entry) memoryKey { return memoryKey{e.ID, e.Addr.As16()} }

// memory is what programs read of an entry.
func (a *Applier) memory(e affinity.Entry) (memory, bool) {
	at, ok := a.have.affine[e.ID]
	if !ok {
		return memory{}, false
	}
	endpoint := addressOf(e.Backend, at.Protocol)
	slot := slices.IndexFunc(a.have.frontends[at].slots, func(s seat) bool { return s.endpoint == endpoint })
	if slot < 0 {
		return memory{}, false
	}
	return memory{
		Endpoint: endpoint, Slot: uint32(slot),
		Safe: uint64(max(0, e.Safe())), Until: uint64(e.Until), Timeout: uint64(min(e.Timeout, math.MaxInt64/4)),
	}, true
}

// forget deletes what is remembered.
func (a *Applier) forget(gone []memoryKey) error {
	if err := a.tables.remembered.Delete(gone); err != nil {
		return err
	}
	return a.tables.uses.Delete(gone)
}
