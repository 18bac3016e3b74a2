package nft

import (
	"encoding/binary"
	"net/netip"

	"github.com/zonewise/zonewise/internal/kernel/nft"
	"github.com/zonewise/zonewise/internal/service"
)

// image is what the programmed sets hold: set name, key, element. It is our copy of the kernel.
type image map[string]map[string]nft.Element

func newImage() image { return newImageFor(0, 0) }

// newImageFor returns an empty image with room for that many frontends and slots.
func newImageFor(frontends, slots int) image {
	m := image{}
	for _, s := range programmed {
		m[s.Name] = map[string]nft.Element{}
	}
	m[services.Name] = make(map[string]nft.Element, frontends)
	m[clusterIPs.Name] = make(map[string]nft.Element, frontends)
	m[backends.Name] = make(map[string]nft.Element, slots)
	return m
}

// empty forgets the elements and keeps the room.
func (m image) empty() {
	for _, s := range m {
		clear(s)
	}
}

// size is the number of elements.
func (m image) size() int {
	n := 0
	for _, s := range m {
		n += len(s)
	}
	return n
}

// same tells that two elements mean the same to a packet.
func same(a, b nft.Element) bool { return a.Data == b.Data && a.Verdict == b.Verdict }

// frontend is the key of an address, protocol and port in the sets.
func frontend(k service.Key) string {
	var b [12]byte
	put(b[:4], k.Addr.Addr())
	b[4] = byte(k.Protocol)
	binary.BigEndian.PutUint16(b[8:], k.Addr.Port())
	return string(b[:])
}

func target(a netip.AddrPort) string {
	var b [8]byte
	put(b[:4], a.Addr())
	binary.BigEndian.PutUint16(b[4:], a.Port())
	return string(b[:])
}

func address4(a netip.Addr) string {
	b := a.As4()
	return string(b[:])
}

func put(b []byte, a netip.Addr) {
	ip := a.As4()
	copy(b, ip[:])
}

// withSlot is the key of a slot of a frontend.
func withSlot(frontend string, slot int) string {
	var b [16]byte
	copy(b[:], frontend)
	binary.NativeEndian.PutUint32(b[12:], uint32(slot))
	return string(b[:])
}

// place puts what the frontend means into want. Each backend that is in the kernel already
// stays in its slot where it can, so that a change of one endpoint is a change of few elements.
func (m image) place(f service.Frontend, want image) {
	k := frontend(f.Key())
	set := func(s nft.Set, e nft.Element) { want[s.Name][e.Key] = e }
	if f.Kind == service.ClusterIP {
		set(clusterIPs, nft.Element{Key: address4(f.Addr.Addr())})
	}
	sizes := sizes{0}
	if len(f.Backends) > 0 {
		sizes = m.draws(k, 0, 0, f.Backends, want)
	}
	switch {
	case f.Inside != nil && len(f.Inside.Backends) > 0:
		set(services, nft.Element{Key: k, Verdict: local.of(sizes...)})
		within := m.draws(k, insideSlots, insideWeights, f.Inside.Backends, want)
		set(inside, nft.Element{Key: k, Verdict: balanceInner.of(within...)})
	case f.Verdict == service.Balance && f.Masquerade:
		set(services, nft.Element{Key: k, Verdict: external.of(sizes...)})
	case f.Verdict == service.Balance:
		set(services, nft.Element{Key: k, Verdict: balance.of(sizes...)})
	}
	switch f.Verdict {
	case service.Reject:
		set(unreachable, nft.Element{Key: k, Verdict: rejectChain})
	case service.Drop:
		set(unreachable, nft.Element{Key: k, Verdict: nft.Drop})
	}
}

// draws puts slots and odds into want, and a hairpin for each of this node's own; it returns the
// sizes of the draws.
func (m image) draws(k string, slots, numbers int, list []service.Backend, want image) sizes {
	for _, b := range list {
		if b.Local {
			a := address4(b.Addr.Addr())
			want[hairpin.Name][a+a] = nft.Element{Key: a + a}
		}
	}
	mixed := mix(list)
	for _, t := range mixed.tiers {
		m.slots(k, slots, t, want)
		slots += len(t)
	}
	mixed.weigh(k, numbers, want)
	return mixed.sizes
}

// slots gives each backend a slot from first on.
func (m image) slots(k string, first int, list []service.Backend, want image) {
	waiting := make(map[string]bool, len(list))
	for _, b := range list {
		waiting[target(b.Addr)] = true
	}
	have, put := m[backends.Name], want[backends.Name]
	var free []string
	for i := range list {
		slot := withSlot(k, first+i)
		if e, ok := have[slot]; ok && waiting[e.Data] {
			put[slot] = e
			delete(waiting, e.Data)
			continue
		}
		free = append(free, slot)
	}
	for _, b := range list {
		if t := target(b.Addr); waiting[t] {
			put[free[0]] = nft.Element{Key: free[0], Data: t}
			free = free[1:]
		}
	}
}

// holds copies into out what the image has of the frontend: its own elements, not those that it
// may share with others.
func (m image) holds(k string, out image) {
	for _, s := range []nft.Set{services, inside, unreachable} {
		if e, ok := m[s.Name][k]; ok {
			out[s.Name][k] = e
		}
	}
	for _, first := range []int{0, insideSlots} {
		for i := first; ; i++ {
			slot := withSlot(k, i)
			e, ok := m[backends.Name][slot]
			if !ok {
				break
			}
			out[backends.Name][slot] = e
		}
	}
	m.holdsWeights(k, 0, out)
	m.holdsWeights(k, insideWeights, out)
}
