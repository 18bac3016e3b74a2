package nft

import (
	"maps"
	"slices"
	"strings"

	"github.com/zonewise/zonewise/internal/kernel/nft"
)

// difference is what has to change in the programmed sets.
type difference struct {
	add, del map[string][]nft.Element // by set
	chains   map[nft.Verdict]bool     // counted chains that must be made first
}

// diff compares element by element. What is only in have goes if prune says so.
func diff(have, want image, prune func(set, key string) bool) difference {
	d := difference{add: map[string][]nft.Element{}, del: map[string][]nft.Element{}, chains: map[nft.Verdict]bool{}}
	for _, s := range programmed {
		for key, e := range have[s.Name] {
			if w, ok := want[s.Name][key]; ok && !same(e, w) || !ok && prune(s.Name, key) {
				d.del[s.Name] = append(d.del[s.Name], e)
			}
		}
		for key, e := range want[s.Name] {
			if h, ok := have[s.Name][key]; !ok || !same(e, h) {
				d.add[s.Name] = append(d.add[s.Name], e)
			}
		}
		byKey := func(a, b nft.Element) int { return strings.Compare(a.Key, b.Key) }
		slices.SortFunc(d.add[s.Name], byKey)
		slices.SortFunc(d.del[s.Name], byKey)
	}
	return d
}

// missing notes the counted chains that the added verdicts need and the table lacks.
func (d difference) missing(chains map[nft.Verdict]bool) {
	for _, list := range d.add {
		for _, e := range list {
			if e.Verdict != "" && e.Verdict != nft.Drop && e.Verdict != rejectChain && !chains[e.Verdict] {
				d.chains[e.Verdict] = true
			}
		}
	}
}

// write queues the difference: chains, then what goes, then what comes.
func (d difference) write(b *nft.Batch, l layout, chains map[nft.Verdict]bool) {
	d.missing(chains)
	made := maps.Clone(chains)
	if made == nil {
		made = map[nft.Verdict]bool{}
	}
	for _, v := range slices.Sorted(maps.Keys(d.chains)) {
		for _, c := range l.build(v) {
			if !made[nft.Verdict(c.Name)] {
				made[nft.Verdict(c.Name)] = true
				d.chains[nft.Verdict(c.Name)] = true
				addChain(b, c)
			}
		}
	}
	for _, s := range programmed {
		b.Delete(s, d.del[s.Name]...)
	}
	for _, s := range programmed {
		b.Add(s, d.add[s.Name]...)
	}
}

// enter brings the image up to the kernel.
func (d difference) enter(m image) {
	for set, list := range d.del {
		for _, e := range list {
			delete(m[set], e.Key)
		}
	}
	for set, list := range d.add {
		for _, e := range list {
			m[set][e.Key] = e
		}
	}
}

func addChain(b *nft.Batch, c chain) {
	b.AddChain(c.Chain)
	for _, r := range c.rules {
		b.AddRule(c.Name, r)
	}
}
