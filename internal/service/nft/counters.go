package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"syscall"

	"github.com/zonewise/zonewise/internal/kernel/nft"
	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/service"
)

// Counters returns what the kernel counted for each frontend and backend that is wanted, since
// the pair came to this node; pairs without traffic are left out. Counters outlive the agent.
// Those of pairs that are wanted no more are deleted on the way.
func (a *Applier) Counters() (map[service.Pair]service.Traffic, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := map[service.Pair]service.Traffic{}
	opened, err := a.counters(connections)
	if err != nil {
		return nil, err
	}
	for p, c := range opened {
		out[p] = service.Traffic{Connections: c.Packets}
	}
	moved, err := a.counters(traffic)
	if err != nil {
		return nil, err
	}
	for p, c := range moved {
		t := out[p]
		t.Packets, t.Bytes = c.Packets, c.Bytes
		out[p] = t
	}
	return out, nil
}

// counters reads one of the sets of counters, and clears it of what is wanted no more.
func (a *Applier) counters(s nft.Set) (map[service.Pair]nft.Counter, error) {
	elements, err := a.kernel.Elements(tableName, s)
	if errors.Is(err, syscall.ENOENT) {
		return nil, nil // nothing applied yet
	}
	if err != nil {
		return nil, fmt.Errorf("service counters: %w", err)
	}
	out := make(map[service.Pair]nft.Counter, len(elements))
	var gone []nft.Element
	for _, e := range elements {
		p := pairOf(e.Key)
		if a.has(p) {
			out[p] = e.Counter
		} else {
			gone = append(gone, e)
		}
	}
	if !a.complete || len(gone) == 0 {
		return out, nil
	}
	b := nft.NewBatch(tableName)
	b.Delete(s, gone...)
	if err := a.write(b); err != nil {
		return nil, fmt.Errorf("service counters: %w", err)
	}
	return out, nil
}

// has tells that the pair is wanted.
func (a *Applier) has(p service.Pair) bool {
	f, ok := a.wanted(p.Frontend)
	if !ok {
		return false
	}
	among := func(list []service.Backend) bool {
		for _, b := range list {
			if b.Addr == p.Backend {
				return true
			}
		}
		return false
	}
	return among(f.Backends) || f.Inside != nil && among(f.Inside.Backends)
}

// pairOf returns whose counter has the key.
func pairOf(key string) service.Pair {
	at := func(addr, port int) netip.AddrPort {
		return netip.AddrPortFrom(
			netip.AddrFrom4([4]byte([]byte(key[addr:addr+4]))),
			binary.BigEndian.Uint16([]byte(key[port:port+2])))
	}
	return service.Pair{
		Frontend: service.Key{Addr: at(0, 8), Protocol: model.Protocol(key[4])},
		Backend:  at(12, 16),
	}
}
