package nft

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/zonewise/zonewise/internal/kernel/nft"
	"github.com/zonewise/zonewise/internal/service"
	memory "github.com/zonewise/zonewise/internal/service/affinity" // affinity is a set
)

// Notes is AffinityTable by the words of the affinity room.
func (a *Applier) Notes() (map[memory.Client]memory.Note, error) {
	table, err := a.AffinityTable()
	if err != nil {
		return nil, err
	}
	out := make(map[memory.Client]memory.Note, len(table))
	for s, stuck := range table {
		out[memory.Client{Group: s.Group, Addr: s.Client}] = memory.Note{Backend: stuck.Backend, Left: stuck.Left}
	}
	return out, nil
}

// Renew writes notes. It returns the clients that get none: their note has come, gone or changed
// meanwhile, its endpoint has left, or there is no room.
func (a *Applier) Renew(list []memory.Renewal) (refused map[memory.Client]bool, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	refused = map[memory.Client]bool{}
	err = a.each(func(h *half) error {
		var own []memory.Renewal
		for _, r := range list {
			switch {
			case !h.mine(r.Client.Addr):
			case h.serves(r.Group, r.Backend):
				own = append(own, r)
			default: // who comes now is sent elsewhere, and that must not be overwritten
				refused[r.Client] = true
			}
		}
		return h.renew(own, refused)
	})
	return refused, err
}

// serves tells that the endpoint is wanted at one of the group's frontends. The group has the name of its
// first, which is of the same Service.
func (h *half) serves(group service.Key, backend netip.AddrPort) bool {
	return slices.ContainsFunc(h.want[h.owners[group]], func(f service.Frontend) bool {
		return f.Group == group && h.has(service.Pair{Frontend: f.Key(), Backend: backend})
	})
}

// renew writes the notes in one transaction, or each in its own if that is refused. Kernels before
// 6.12 do not change the time of an element that is there; so it is deleted and added.
func (h *half) renew(list []memory.Renewal, refused map[memory.Client]bool) error {
	if len(list) == 0 {
		return nil
	}
	b := nft.NewBatch(h.layout.table())
	for _, r := range list {
		e := noteOf(r)
		if r.There {
			b.Delete(sets[sticky], nft.Element{Key: e.Key})
		}
		b.Add(sets[sticky], e)
	}
	err := h.door.write(b)
	switch {
	case err == nil:
		return nil
	case !refuses(err):
		return fmt.Errorf("service affinity: %w", err)
	case len(list) == 1:
		refused[list[0].Client] = true
		return nil
	}
	var errs []error
	for i := range list {
		errs = append(errs, h.renew(list[i:i+1], refused))
	}
	return errors.Join(errs...)
}

// noteOf is the element of sticky that remembered reads.
func noteOf(r memory.Renewal) nft.Element {
	group := address(r.Group.Addr.Addr())
	k := appendPort([]byte(group), r.Group.Addr.Port())
	k = append(appendAddr(k, r.Addr), byte(r.Group.Protocol), 0, 0, 0)
	return nft.Element{
		Key: string(k), Data: string([]byte{byte(r.Group.Protocol), 0, 0, 0}) + target(r.Backend), Expires: r.Left,
	}
}
