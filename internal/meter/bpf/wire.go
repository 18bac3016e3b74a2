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
	Key        key
	Generation uint32
	State      uint32
	Born       uint64 // ns since boot
}

// States of owners.
const (
	free = iota
	live
	retired
)

// way is what went one way. Headers are those that segmentation adds, not in Bytes.
type way struct{ Bytes, Packets, Headers uint64 }

type counts struct {
	Request, Response way
	Connections, Zero uint64
}

type settings struct {
	Epoch, Room, Noting uint64
	Pods                [8]byte // how names of pods' interfaces begin
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

func (o *owner) totals(c *counts) meter.Totals {
	return meter.Totals{FlowCount: c.flow(), Born: time.Duration(o.Born)}
}
