package nft

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"syscall"

	"github.com/zonewise/zonewise/internal/kernel/conntrack"
	"github.com/zonewise/zonewise/internal/kernel/nft"
	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/service"
)

// attempt changes what is wanted and writes the difference. If the kernel refuses, nothing has
// changed, neither there nor here.
func (h *half) attempt(changed plans) error {
	before := h.touched(changed)
	old := make(plans, len(changed))
	for name, frontends := range changed {
		old[name] = h.want[name]
		h.replace(name, frontends)
	}
	err := h.step(before)
	if !refuses(err) {
		return err
	}
	for k, was := range before {
		if now := h.wanted(k); now != nil {
			h.share(now, -1, nil)
		}
		if was != nil {
			h.share(was, +1, nil)
		}
	}
	for name, frontends := range old {
		delete(h.refused, name)
		h.replace(name, frontends)
	}
	return err
}

// touched returns what is wanted now at every address that the change is about.
func (h *half) touched(changed plans) map[service.Key]*service.Frontend {
	before := map[service.Key]*service.Frontend{}
	for name, frontends := range changed {
		for _, list := range [][]service.Frontend{h.want[name], frontends} {
			for i := range list {
				before[list[i].Key()] = h.wanted(list[i].Key())
			}
		}
	}
	return before
}

// step brings the addresses in before, which were what the map says, to what is wanted now.
func (h *half) step(before map[service.Key]*service.Frontend) error {
	have, want := newImage(), newImage()
	for _, s := range meanings {
		have[s] = h.have[s]
	}
	put := h.numbers.numbered(want.put)
	var shared []use
	for k, old := range before {
		if old != nil {
			h.share(old, -1, &shared)
		}
		h.have.holds(frontend(k), old, have.put)
		now := h.wanted(k)
		if now != nil {
			h.have.place(now, put)
			h.share(now, +1, &shared)
		}
		if k.Protocol == model.UDP && stale(old, now) {
			h.cut[k] = true
		}
	}
	for _, u := range shared {
		if _, ok := h.have[u.set][u.key]; ok {
			have.put(u.set, u.key, "")
		}
		if h.uses[u] > 0 {
			want.put(u.set, u.key, "")
		}
	}
	d := diff(have, want, func(set, string) bool { return true })
	_, err := h.transact(nft.NewBatch(h.layout.table()), d)
	return err
}

// transact writes what is in the batch and the difference. Chains that are new, and their numbers, come
// in a transaction before the elements that lead to them: a packet that is under way decides once
// which generation of rules it sees, and at each look-up anew which elements.
func (h *half) transact(b *nft.Batch, d *difference) (wrote bool, err error) {
	d.writeChains(b, h.layout, h.chains)
	repairs := b.Len()
	first := d.ahead()
	if first.writeElements(b); b.Len() > repairs || len(first.chains) > 0 {
		if err := h.commit(b, first); err != nil {
			return false, err
		}
		wrote, b = true, nft.NewBatch(h.layout.table())
	}
	d.writeElements(b)
	return wrote || b.Len() > 0, h.commit(b, d)
}

// commit writes the batch and, if the kernel took it, the image. If the kernel refused it all is as
// before; after any other error nothing is known.
func (h *half) commit(b *nft.Batch, d *difference) error {
	if b.Len() == 0 {
		return nil
	}
	if err := h.door.write(b); err != nil {
		if !refuses(err) {
			h.forgetKernel()
		}
		return fmt.Errorf("service table: %w", err)
	}
	d.enter(h.have)
	for v := range d.chains {
		h.chains[v] = true
	}
	for s := range programmed {
		if _, ok := s.meaning(); ok {
			for _, e := range d.add[s] {
				delete(h.idled.numbers, numberIn(e.Data))
			}
		}
	}
	return nil
}

// refuses tells that the kernel took offence at something in a transaction, which another Service
// may be free of.
func refuses(err error) bool {
	return slices.ContainsFunc([]syscall.Errno{
		syscall.EINVAL, syscall.EEXIST, syscall.ENOENT, syscall.ENFILE, syscall.ENOSPC, syscall.EMLINK, syscall.ELOOP,
		syscall.ERANGE, syscall.EOPNOTSUPP, syscall.EOVERFLOW, syscall.ENAMETOOLONG, syscall.E2BIG, syscall.EBUSY,
	}, func(e syscall.Errno) bool { return errors.Is(err, e) })
}

// bring changes what is wanted as far as the kernel takes it. What it does not is found by halving.
func (h *half) bring(changed plans) error {
	err := h.attempt(changed)
	if !refuses(err) {
		return err
	}
	names := sortedNames(changed)
	if len(names) > 1 {
		for _, part := range [][]model.Name{names[:len(names)/2], names[len(names)/2:]} {
			some := make(plans, len(part))
			for _, n := range part {
				some[n] = changed[n]
			}
			if err := h.bring(some); err != nil {
				return err
			}
		}
		return nil
	}
	only := names[0]
	// What it had before would soon be wrong.
	if gone := h.attempt(plans{only: nil}); gone != nil {
		h.forgetKernel()
		return gone
	}
	if h.refused[only] = (refusal{changed[only], err}); len(h.refused) > mostRefused {
		return fmt.Errorf("more than %d Services, the last: %w", mostRefused, err)
	}
	return nil
}

const (
	// mostRefused is how many Services may be refused before it is the kernel that is at fault.
	mostRefused = 1000
	// fewRefused is how many are tried again at a time.
	fewRefused = 32
)

// again tries what was refused: some of it, always others, when it is much.
func (h *half) again() error {
	if len(h.refused) == 0 || h.have == nil || !h.there {
		return nil
	}
	retry := make(plans, len(h.refused))
	for name, r := range h.refused {
		if len(retry) < fewRefused && h.sound(r.frontends) == nil {
			retry[name] = r.frontends
		}
	}
	for name := range retry {
		delete(h.refused, name)
	}
	if len(retry) == 0 {
		return nil
	}
	if err := h.bring(retry); err != nil {
		h.forgetKernel()
		return err
	}
	return h.tidy()
}

func sortedNames(p plans) []model.Name {
	out := make([]model.Name, 0, len(p))
	for n := range p {
		out = append(out, n)
	}
	slices.SortFunc(out, model.Name.Compare)
	return out
}

// stale tells that flows to the frontend may have become wrong: an endpoint that was served is
// gone, or there is one at last and flows that found none must be sent to it.
func stale(old, now *service.Frontend) bool {
	if old == nil {
		return now != nil && now.Verdict == service.Balance
	}
	if now == nil {
		return len(old.Keep) > 0
	}
	if now.Verdict == service.Balance && old.Verdict != service.Balance {
		return true
	}
	return slices.ContainsFunc(old.Keep, func(p netip.AddrPort) bool { return !slices.Contains(now.Keep, p) })
}

// cutFlows forgets the UDP flows of the noted frontends that lead to no serving endpoint.
func (h *half) cutFlows() error {
	if len(h.cut) == 0 {
		return nil
	}
	keep := make(map[netip.AddrPort]map[netip.AddrPort]bool, len(h.cut))
	for k := range h.cut {
		keep[k.Addr] = map[netip.AddrPort]bool{}
		if f := h.wanted(k); f != nil {
			for _, p := range f.Keep {
				keep[k.Addr][p] = true
			}
		}
	}
	_, err := h.flows.CutUDP(h.layout.family == nft.IPv6, func(f conntrack.Flow) bool {
		good, ours := keep[f.To]
		return ours && !good[f.From]
	})
	if err != nil {
		return fmt.Errorf("service flows: %w", err)
	}
	clear(h.cut)
	return nil
}
