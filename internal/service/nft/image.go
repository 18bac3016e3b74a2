package nft

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/zonewise/zonewise/internal/kernel/nft"
	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/service"
)

// image is what the programmed sets hold: by set, key and value. The value is data, or the chain
// that a verdict goes to. It is our copy of the kernel.
type image [programmed]map[string]string

func newImage() *image { return newImageFor(0, 0, 0) }

// newImageFor returns an empty image with room for that many frontends, slots, and frontends that toss.
func newImageFor(frontends, slots, tossed int) *image {
	m := &image{}
	for s := range m {
		m[s] = map[string]string{}
	}
	m[services] = make(map[string]string, frontends)
	m[clusterIPs] = make(map[string]string, frontends)
	m[backends] = make(map[string]string, slots)
	m[weights] = make(map[string]string, tossNumbers*tossed)
	return m
}

// put enters an element.
func (m *image) put(s set, key, value string) { m[s][key] = value }

// emit is where elements go.
type emit func(s set, key, value string)

// frontend is the key of an address, protocol and port in the sets.
func frontend(k service.Key) string {
	b := make([]byte, 0, 24)
	b = appendAddr(b, k.Addr.Addr())
	b = append(b, byte(k.Protocol), 0, 0, 0)
	return string(appendPort(b, k.Addr.Port()))
}

// keyOf is the inverse of frontend; the address has n bytes.
func keyOf(key string, n int) service.Key {
	return service.Key{Addr: addrPortAt(key, 0, n, n+4), Protocol: protocolAt(key, n)}
}

func protocolAt(key string, at int) model.Protocol { return model.Protocol(key[at]) }

// addrPortAt reads an address of n bytes and a port out of a key.
func addrPortAt(key string, addr, n, port int) netip.AddrPort {
	ip, _ := netip.AddrFromSlice([]byte(key[addr : addr+n]))
	return netip.AddrPortFrom(ip, binary.BigEndian.Uint16([]byte(key[port:port+2])))
}

// frontendLength is the length of a frontend's key.
func frontendLength(family nft.Family) int { return nft.Addr.Width(family) + 8 }

func target(a netip.AddrPort) string {
	b := make([]byte, 0, 20)
	return string(appendPort(appendAddr(b, a.Addr()), a.Port()))
}

func address(a netip.Addr) string { return string(appendAddr(make([]byte, 0, 16), a)) }

func appendAddr(b []byte, a netip.Addr) []byte {
	if a.Is4() {
		ip := a.As4()
		return append(b, ip[:]...)
	}
	ip := a.As16()
	return append(b, ip[:]...)
}

func appendPort(b []byte, port uint16) []byte {
	return append(binary.BigEndian.AppendUint16(b, port), 0, 0)
}

// withSlot is the key of a slot of a frontend.
func withSlot(frontend string, slot int) string {
	b := make([]byte, 0, 28)
	return string(binary.NativeEndian.AppendUint32(append(b, frontend...), uint32(slot)))
}

// place emits what the frontend means. Each backend that is in the kernel already stays in its
// slot where it can, so that a change of one endpoint is a change of few elements.
func (m *image) place(f *service.Frontend, put emit) {
	k := frontend(f.Key())
	if f.Kind == service.ClusterIP {
		put(clusterIPs, k[:len(k)-8], "")
	}
	keeps := f.Affinity > 0
	size := sizes{0}
	if len(f.Backends) > 0 {
		size = m.draws(k, 0, 0, f.Backends, put)
	}
	var to nft.Verdict
	switch {
	case f.Inside != nil && len(f.Inside.Backends) > 0:
		to = local.where(keeps && len(f.Backends) > 0, size)
		within := m.draws(k, insideSlots, insideWeights, f.Inside.Backends, put)
		put(inside, k, string(balanceInner.where(keeps, within)))
	case f.Verdict == service.Balance && f.Masquerade:
		to = external.where(keeps, size)
	case f.Verdict == service.Balance && f.Kind == service.ClusterIP:
		to = cluster.where(keeps, size)
	case f.Verdict == service.Balance:
		to = balance.where(keeps, size)
	}
	if lengths, bound := prefixLengths(f.Sources); bound {
		to = fromLengths(lengths, to)
	}
	if to != "" {
		put(services, k, string(to))
	}
	switch f.Verdict {
	case service.Reject:
		put(unreachable, k, rejectChain)
	case service.Drop:
		put(unreachable, k, string(nft.Drop))
	}
	describe(f, k, put)
}

// describe emits what follows from the frontend alone: who may use it, and how clients are
// remembered.
func describe(f *service.Frontend, k string, put emit) {
	if _, bound := prefixLengths(f.Sources); bound {
		for _, p := range f.Sources {
			put(sources, withSlot(k, p.Bits())+address(p.Masked().Addr()), "")
		}
	}
	within := f.Inside != nil && len(f.Inside.Backends) > 0
	if f.Affinity <= 0 || len(f.Backends) == 0 && !within {
		return
	}
	g := frontend(f.Group)
	n := len(g) - 8
	put(groups, k, g[n:n+4]+g[:n]+g[n+4:]) // protocol . address . port
	put(affinity, k, string(rememberFor(f.Affinity)))
	for _, b := range f.Backends {
		put(eligible, target(b.Addr)+k, "")
	}
	if within {
		for _, b := range f.Inside.Backends {
			put(eligibleInside, target(b.Addr)+k, "")
		}
	}
}

// prefixLengths returns the lengths of the prefixes, the longest first, and false if everybody is in
// one of them.
func prefixLengths(list []netip.Prefix) (lengths []int, bound bool) {
	for _, p := range list {
		lengths = append(lengths, p.Bits())
	}
	slices.SortFunc(lengths, func(a, b int) int { return b - a })
	lengths = slices.Compact(lengths)
	everybody := len(lengths) > 0 && lengths[len(lengths)-1] == 0
	return lengths, list != nil && !everybody
}

// draws emits slots and odds, and a hairpin for each of this node's own; it returns the sizes of
// the draws.
func (m *image) draws(k string, slots, numbers int, list []service.Backend, put emit) sizes {
	for _, b := range list {
		if b.Local {
			a := address(b.Addr.Addr())
			put(hairpin, a+a, "")
		}
	}
	if even(list) {
		m.slots(k, slots, list, put)
		return sizes{len(list)}
	}
	mixed := mix(list)
	for _, t := range mixed.tiers {
		m.slots(k, slots, t, put)
		slots += len(t)
	}
	mixed.weigh(k, numbers, put)
	return mixed.sizes
}

// slots gives each backend a slot from first on.
func (m *image) slots(k string, first int, list []service.Backend, put emit) {
	have := m[backends]
	if _, known := have[withSlot(k, first)]; !known {
		fresh(k, first, list, put)
		return
	}
	waiting := make(map[string]bool, len(list))
	for _, b := range list {
		waiting[target(b.Addr)] = true
	}
	var free []string
	for i := range list {
		slot := withSlot(k, first+i)
		if t, ok := have[slot]; ok && waiting[t] {
			put(backends, slot, t)
			delete(waiting, t)
			continue
		}
		free = append(free, slot)
	}
	for _, b := range list {
		if t := target(b.Addr); waiting[t] {
			put(backends, free[0], t)
			free = free[1:]
		}
	}
}

// fresh gives backends slots in their order. All keys and values are pieces of one string.
func fresh(k string, first int, list []service.Backend, put emit) {
	n := len(k) + 4 + len(k) - 4 // a slot's key, and an address and port
	b := make([]byte, 0, n*len(list))
	for i := range list {
		b = binary.NativeEndian.AppendUint32(append(b, k...), uint32(first+i))
		b = appendPort(appendAddr(b, list[i].Addr.Addr()), list[i].Addr.Port())
	}
	for all := string(b); len(all) > 0; all = all[n:] {
		put(backends, all[:len(k)+4], all[len(k)+4:n])
	}
}

// holds emits what the image has of the frontend at k, which was programmed as old says (nil: it
// is not known how): its own elements, not those that it may share with others.
func (m *image) holds(k string, old *service.Frontend, put emit) {
	for _, s := range []set{services, inside, unreachable, groups, affinity} {
		if v, ok := m[s][k]; ok {
			put(s, k, v)
		}
	}
	for _, first := range []int{0, insideSlots} {
		for i := first; ; i++ {
			slot := withSlot(k, i)
			v, ok := m[backends][slot]
			if !ok {
				break
			}
			put(backends, slot, v)
		}
	}
	m.holdsWeights(k, 0, put)
	m.holdsWeights(k, insideWeights, put)
	if old == nil {
		return
	}
	describe(old, k, func(s set, key, _ string) {
		if v, ok := m[s][key]; ok {
			put(s, key, v)
		}
	})
}
