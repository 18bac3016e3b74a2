package nft

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/zonewise/zonewise/internal/kernel/conntrack"
	"github.com/zonewise/zonewise/internal/kernel/nft"
	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/service"
)

// step brings the addresses in before, which were what the map says, to what is wanted now.
func (a *Applier) step(before map[service.Key]service.Frontend) error {
	have, want := newImage(), newImage()
	var shared []use
	for k, old := range before {
		if old.Addr.IsValid() {
			shared = append(shared, a.share(old, -1)...)
		}
		a.have.holds(frontend(k), have)
		now, ok := a.wanted(k)
		if ok {
			a.have.place(now, want)
			shared = append(shared, a.share(now, +1)...)
		}
		if k.Protocol == model.UDP && stale(old, now) {
			a.cut[k] = true
		}
	}
	for _, u := range shared {
		if e, ok := a.have[u.set][u.key]; ok {
			have[u.set][u.key] = e
		}
		if a.uses[u] > 0 {
			want[u.set][u.key] = nft.Element{Key: u.key}
		}
	}
	d := diff(have, want, func(set, _ string) bool { return set != hairpin.Name }) // see sweep
	if _, err := a.transact(nft.NewBatch(tableName), d); err != nil {
		return err
	}
	if len(a.chains) > a.crowd && a.complete {
		if err := a.sweep(); err != nil {
			return err
		}
		a.crowd = fewChains + 2*len(a.chains)
	}
	return a.cutFlows()
}

// fewChains is how many counted chains are left alone, used or not.
const fewChains = 256

// stale tells that flows to the frontend may have become wrong: an endpoint that was served is
// gone, or there is one at last and flows that found none must be sent to it.
func stale(old, now service.Frontend) bool {
	if now.Verdict == service.Balance && old.Verdict != service.Balance {
		return true
	}
	return slices.ContainsFunc(old.Keep, func(p netip.AddrPort) bool { return !slices.Contains(now.Keep, p) })
}

// cutFlows forgets the UDP flows of the noted frontends that lead to no serving endpoint.
func (a *Applier) cutFlows() error {
	if len(a.cut) == 0 {
		return nil
	}
	keep := make(map[netip.AddrPort]map[netip.AddrPort]bool, len(a.cut))
	for k := range a.cut {
		keep[k.Addr] = map[netip.AddrPort]bool{}
		if f, ok := a.wanted(k); ok {
			for _, p := range f.Keep {
				keep[k.Addr][p] = true
			}
		}
	}
	_, err := a.flows.CutUDP(func(f conntrack.Flow) bool {
		good, ours := keep[f.To]
		return ours && !good[f.From]
	})
	if err != nil {
		return fmt.Errorf("service flows: %w", err)
	}
	clear(a.cut)
	return nil
}
