package bpf

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/service"
)

// What lies in the maps, byte for byte as in c/socket.c.

// address is one of a Service or an endpoint, IPv4 as ::ffff:a.b.c.d, in network byte order.
type address struct {
	IP       [16]byte
	Port     [2]byte
	Protocol model.Protocol
	Zero     uint8
}

func addressOf(a netip.AddrPort, p model.Protocol) address {
	out := address{IP: a.Addr().As16(), Protocol: p}
	binary.BigEndian.PutUint16(out.Port[:], a.Port())
	return out
}

func (a address) addrPort() netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom16(a.IP).Unmap(), binary.BigEndian.Uint16(a.Port[:]))
}

func (a *address) is4() bool { return netip.AddrFrom16(a.IP).Is4In6() }

func (a address) key() service.Key { return service.Key{Addr: a.addrPort(), Protocol: a.Protocol} }

type frontend struct {
	ID, Count, Flags, Check uint32
	Near                    [maxNear]near
}

// near is an IPv4 endpoint beside its frontend.
type near struct {
	IP      [4]byte
	Port    [2]byte
	Zero    uint16
	Counter uint32
}

const maxNear = 2

// Flags of frontends.
const (
	weighted = 1 << iota
	hasNear
	affine
)

type slotKey struct {
	ID, Slot uint32
}

type slot struct {
	Endpoint       address
	Check, Counter uint32
}

// draw is one of the draws that make up weights: from the first N slots, if a random number is
// below Limit and was not below any before.
type draw struct {
	N, Limit uint32
}

const maxDraws = 16

type weights [maxDraws]draw

// pair is a frontend and one of its endpoints.
type pair struct {
	Service, Endpoint address
}

// memoryKey is a client of a frontend.
type memoryKey struct {
	ID     uint32
	Client [16]byte
}

// memory is a copy of nft's note of a client. Times are nanoseconds of the kernel's monotonic clock.
type memory struct {
	Endpoint             address // its port is 0 where the client asked, and is not known
	Slot, Check, Zero    uint32
	Safe, Until, Timeout uint64
}

// pod is the addresses of one; zeros: none that is its only one.
type pod struct {
	IP4   [4]byte
	IP6   [16]byte
	Check uint32
}

type settings struct {
	ConnectedUDP, Optouts uint32
	Settling              uint32 // sockets are still to be marked: see settle.go
}

// stir and what follows are the same as in c/socket.c.
func stir(h uint64, a, b uint32) uint64 {
	h = (h ^ (uint64(a)<<32 | uint64(b))) * 0x9e3779b97f4a7c15
	return h ^ h>>29
}

func (a *address) stir(h uint64) uint64 {
	word := func(i int) uint32 { return binary.LittleEndian.Uint32(a.IP[i:]) }
	h = stir(h, word(0), word(4))
	h = stir(h, word(8), word(12))
	return stir(h, uint32(binary.LittleEndian.Uint16(a.Port[:]))|uint32(a.Protocol)<<16, 0)
}

// newFrontend makes a frontend of what it shall be. What is near saves the programs a look-up.
func newFrontend(at address, p *programmed) frontend {
	slots := p.slots
	f := frontend{ID: p.id, Count: uint32(len(slots))}
	if p.affine {
		f.Flags = affine
	}
	if p.weights != nil {
		f.Flags |= weighted
	} else if !p.affine && len(slots) <= maxNear && !slices.ContainsFunc(slots, func(s seat) bool { return !s.endpoint.is4() }) {
		f.Flags = hasNear
		for i, s := range slots {
			f.Near[i] = near{IP: [4]byte(s.endpoint.IP[12:]), Port: s.endpoint.Port, Counter: s.counter}
		}
	}
	return f.sealed(&at)
}

// sealed has the right check.
func (f frontend) sealed(at *address) frontend {
	h := stir(stir(at.stir(1), f.ID, f.Count), f.Flags, 0)
	for i := range f.Near {
		ip, port := f.Near[i].words()
		h = stir(h, ip, port)
	}
	f.Check = uint32(h)
	return f
}

// words are where the endpoint is.
func (n *near) words() (ip, port uint32) {
	return binary.LittleEndian.Uint32(n.IP[:]), uint32(binary.LittleEndian.Uint16(n.Port[:]))
}

func newSlot(id uint32, s seat) slot {
	return slot{s.endpoint, uint32(stir(s.endpoint.stir(2), id, 0)), s.counter}
}

// sealed has the right check.
func (m memory) sealed(k memoryKey) memory {
	two := func(h, v uint64) uint64 { return stir(h, uint32(v), uint32(v>>32)) }
	words := func(i int) (a, b uint32) {
		return binary.LittleEndian.Uint32(k.Client[i:]), binary.LittleEndian.Uint32(k.Client[i+4:])
	}
	h := stir(m.Endpoint.stir(8), k.ID, m.Slot)
	for i := 0; i < 16; i += 8 {
		a, b := words(i)
		h = stir(h, a, b)
	}
	m.Check = uint32(two(two(two(h, m.Safe), m.Until), m.Timeout))
	return m
}

// sealed has the right check.
func (p pod) sealed(cookie uint64) pod {
	word := binary.LittleEndian.Uint32
	h := stir(stir(7, uint32(cookie), uint32(cookie>>32)), word(p.IP4[:]), 0)
	p.Check = uint32(stir(stir(h, word(p.IP6[:]), word(p.IP6[4:])), word(p.IP6[8:]), word(p.IP6[12:])))
	return p
}

// The digest of an element covers its key and its value. The digests of a table's elements, added
// up, tell whether it holds what it should, in whatever order.

func (f frontend) digest(at *address) uint64 {
	h := stir(stir(at.stir(3), f.ID, f.Count), f.Flags, f.Check)
	for i := range f.Near {
		ip, port := f.Near[i].words()
		h = stir(stir(h, ip, port), f.Near[i].Counter, 0)
	}
	return h
}

func (s *slot) digest(k slotKey) uint64 {
	return stir(stir(s.Endpoint.stir(4), k.ID, k.Slot), s.Check, s.Counter)
}

func (w *weights) digest(id uint32) uint64 {
	h := stir(5, id, 0)
	for _, d := range w {
		h = stir(h, d.N, d.Limit)
	}
	return h
}

func (p *pair) digest() uint64 { return p.Endpoint.stir(p.Service.stir(6)) }
