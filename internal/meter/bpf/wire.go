package bpf

import (
	"encoding/binary"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zonewise/zonewise/internal/meter"
	"github.com/zonewise/zonewise/internal/model"
)

// What lies in the maps, byte for byte as in c/meter.c.

// socketAddress and what follows are the socket path's (kernel/bpf/c/sockets.h): IPv4 as ::ffff:a.b.c.d,
// in network byte order.
type (
	socketAddress struct {
		IP       [16]byte
		Port     [2]byte
		Protocol model.Protocol
		Zero     uint8
	}
	socketPlace struct {
		Cookie            uint64
		Service, Endpoint socketAddress
	}
)

func socketAddressOf(a netip.AddrPort, p model.Protocol) socketAddress {
	out := socketAddress{IP: a.Addr().As16(), Protocol: p}
	binary.BigEndian.PutUint16(out.Port[:], a.Port())
	return out
}

func (a socketAddress) addrPort() netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom16(a.IP).Unmap(), binary.BigEndian.Uint16(a.Port[:]))
}

// dialledPlaces is how many flows of before there was a meter are kept.
const dialledPlaces = 65536

// front is what a client dialled.
type front struct {
	IP    [16]byte
	Port  [2]byte
	Zero  uint16
	Check uint32
}

// ends are a connection's, as they are before any translation.
type ends struct {
	client, server netip.AddrPort
	protocol       model.Protocol
}

// key is what packets are counted by. Addresses of IPv4 are in the first four bytes.
type key struct {
	Client, Server, Front [16]byte
	FrontPort, Port       [2]byte // in network byte order
	Protocol              model.Protocol
	Family                uint8
	Side                  meter.Side
	Masqueraded           uint8
	Cgroup                uint64
}

// owner is whose a counter is.
type owner struct {
	Key   key
	State uint32
	Zero  uint32
	Born  uint64 // ns since boot
}

// States of owners.
const (
	free = iota
	live
	retired
)

// way is what went one way. Headers are those that segmentation adds, not in Bytes. Last is when it was
// counted last, in jiffies.
type way struct{ Bytes, Packets, Headers, Last uint64 }

type counts struct {
	Request     way
	Connections uint64
	Zero        [3]uint64
	Response    way
	Zeros       [4]uint64
}

// settings are what stays as it is while programs run.
type settings struct {
	Room, Noting, Second, Seed uint64
	Pods, PodsMask             [8]byte // how names of pods' interfaces begin
}

// Reasons why packets have no counter; each has elements of others for every side, and for requests and responses.
const (
	untracked = iota
	full
	reasons
)

const (
	sides = 4
	ways  = 2
)

func (k *key) addr(b [16]byte) netip.Addr {
	if k.Family == unix.AF_INET6 {
		return netip.AddrFrom16(b)
	}
	return netip.AddrFrom4([4]byte(b[:4]))
}

// meter returns the key in the room's words.
func (k *key) meter() meter.Key {
	out := meter.Key{
		Client: k.addr(k.Client), Server: netip.AddrPortFrom(k.addr(k.Server), binary.BigEndian.Uint16(k.Port[:])),
		Protocol: k.Protocol, Side: k.Side, Masqueraded: k.Masqueraded != 0, Cgroup: k.Cgroup,
	}
	if k.Front != [16]byte{} {
		out.Dialled = netip.AddrPortFrom(k.addr(k.Front), binary.BigEndian.Uint16(k.FrontPort[:]))
	}
	return out
}

func (c *counts) flow() model.FlowCount {
	return model.FlowCount{
		Connections:  c.Connections,
		RequestBytes: c.Request.Bytes, RequestPackets: c.Request.Packets, RequestExtra: c.Request.Headers,
		ResponseBytes: c.Response.Bytes, ResponsePackets: c.Response.Packets, ResponseExtra: c.Response.Headers,
	}
}

// totals are what a counter holds.
func (o *owner) totals(c *counts, now ticks) meter.Totals {
	t := meter.Totals{FlowCount: c.flow(), Born: time.Duration(o.Born)}
	if last := max(c.Request.Last, c.Response.Last); last > 0 {
		t.Last = now.at(last)
	}
	return t
}

// ticks is an instant of the clock of programs, and what it is on the clock that nobody sets.
type ticks struct {
	jiffies uint64
	since   time.Duration
	each    time.Duration
}

func (t ticks) at(jiffies uint64) time.Duration {
	return t.since - time.Duration(t.jiffies-min(jiffies, t.jiffies))*t.each
}

// stir and what follows are the same as in c/meter.c.
func stir(h, a uint64) uint64 {
	h = (h ^ a) * 0x9e3779b97f4a7c15
	return h ^ h>>29
}

func (e *ends) stir() uint64 {
	a, b, family, words := e.client.Addr(), e.server.Addr(), uint64(unix.AF_INET), 1
	if a.Is6() {
		family, words = unix.AF_INET6, 4
	}
	port := func(p uint16) uint64 { return uint64(p>>8 | p<<8) }
	h := port(e.client.Port())<<32 | port(e.server.Port())<<16 | uint64(e.protocol)<<8 | family
	x, y := packed(a), packed(b)
	for i := range words {
		h = stir(h, word(x, i)<<32|word(y, i))
	}
	return h
}

// packed has IPv4 in the first four bytes.
func packed(a netip.Addr) (out [16]byte) {
	copy(out[:], a.AsSlice())
	return out
}

func word(ip [16]byte, i int) uint64 { return uint64(binary.LittleEndian.Uint32(ip[4*i:])) }

// frontOf is what the ends' client dialled, as it is found by whose it is.
func frontOf(dialled netip.AddrPort, whose uint64) front {
	f := front{IP: packed(dialled.Addr())}
	binary.BigEndian.PutUint16(f.Port[:], dialled.Port())
	h := stir(whose, word(f.IP, 0)<<32|word(f.IP, 1))
	h = stir(h, word(f.IP, 2)<<32|word(f.IP, 3))
	f.Check = uint32(stir(h, uint64(binary.LittleEndian.Uint16(f.Port[:])))) | 1
	return f
}
