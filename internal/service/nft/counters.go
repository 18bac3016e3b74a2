package nft

import (
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"time"

	"github.com/zonewise/zonewise/internal/kernel/nft"
	"github.com/zonewise/zonewise/internal/service"
)

// count adds this family's counters.
func (h *half) count(out map[service.Pair]service.Traffic) error {
	opened, err := h.counters(connections)
	if err != nil {
		return err
	}
	for p, c := range opened {
		out[p] = service.Traffic{Connections: c.Packets}
	}
	moved, err := h.counters(traffic)
	if err != nil {
		return err
	}
	for p, c := range moved {
		t := out[p]
		t.Packets, t.Bytes = c.Packets, c.Bytes
		out[p] = t
	}
	return nil
}

// counters reads one of the sets of counters, and clears it of what is wanted no more.
func (h *half) counters(s set) (map[service.Pair]nft.Counter, error) {
	elements, err := h.list(s)
	if err != nil {
		return nil, fmt.Errorf("service counters: %w", err)
	}
	out := make(map[service.Pair]nft.Counter, len(elements))
	var gone []nft.Element
	for _, e := range elements {
		p := h.pairOf(e.Key)
		if h.has(p) {
			out[p] = e.Counter
		} else {
			gone = append(gone, e)
		}
	}
	if !h.complete || len(gone) == 0 {
		return out, nil
	}
	b := nft.NewBatch(h.layout.table())
	b.Delete(sets[s], gone...)
	if err := h.door.write(b); err != nil {
		return nil, fmt.Errorf("service counters: %w", err)
	}
	return out, nil
}

// list reads a set that packets fill, if there is one yet.
func (h *half) list(s set) ([]nft.Element, error) {
	if h.idleFamily() && !h.there {
		return nil, nil
	}
	elements, err := h.door.Elements(h.layout.table(), sets[s])
	if errors.Is(err, syscall.ENOENT) {
		return nil, nil // nothing applied yet
	}
	return elements, err
}

// has tells that the pair is wanted.
func (h *half) has(p service.Pair) bool {
	f := h.wanted(p.Frontend)
	if f == nil {
		return false
	}
	among := func(list []service.Backend) bool {
		for i := range list {
			if list[i].Addr == p.Backend {
				return true
			}
		}
		return false
	}
	return among(f.Backends) || f.Inside != nil && among(f.Inside.Backends)
}

// pairOf returns whose counter has the key.
func (h *half) pairOf(key string) service.Pair {
	n := nft.Addr.Width(h.layout.family)
	return service.Pair{Frontend: keyOf(key, n), Backend: addrPortAt(key, n+8, n, 2*n+8)}
}

// Sticky is a client of a group of frontends.
type Sticky struct {
	Group  service.Key
	Client netip.Addr
}

// Stuck is where a client is sent, and for how long still if it does not come before.
type Stuck struct {
	Backend netip.AddrPort
	Left    time.Duration
}

// remembered reads the memory of this family.
func (h *half) remembered() (map[Sticky]Stuck, error) {
	elements, err := h.list(sticky)
	if err != nil {
		return nil, fmt.Errorf("service affinity: %w", err)
	}
	n := nft.Addr.Width(h.layout.family)
	out := make(map[Sticky]Stuck, len(elements))
	for _, e := range elements {
		// group address . group port . client . protocol : protocol . address . port
		client := addrPortAt(e.Key, n+4, n, 0).Addr()
		g := service.Key{Addr: addrPortAt(e.Key, 0, n, n), Protocol: protocolAt(e.Key, 2*n+4)}
		out[Sticky{g, client}] = Stuck{addrPortAt(e.Data, 4, n, n+4), e.Expires}
	}
	return out, nil
}
