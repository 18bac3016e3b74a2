package nft

import (
	"maps"

	"github.com/zonewise/zonewise/internal/kernel/nft"
)

// difference is what has to change in the programmed sets.
type difference struct {
	add, del map[string][]nft.Element // by set
	chains   map[nft.Verdict]bool     // counted chains that must be made first
}

// diff compares element by element. What is only in have goes if prune says so; without prune
// it stays.
func diff(have, want image, prune func(set, key string) bool) difference {
	d := difference{add: map[string][]nft.Element{}, del: map[string][]nft.Element{}, chains: map[nft.Verdict]bool{}}
	for _, s := range programmed {
		old, goal := have[s.Name], want[s.Name]
		var add, del []nft.Element
		if prune == nil { // then an empty table is filled
			add = make([]nft.Element, 0, len(goal))
		}
		for key, e := range goal {
			o, ok := old[key]
			if ok && same(e, o) {
				continue
			}
			if ok {
				del = append(del, o)
			}
			add = append(add, e)
		}
		if prune != nil {
			for key, e := range old {
				if _, ok := goal[key]; !ok && prune(s.Name, key) {
					del = append(del, e)
				}
			}
		}
		d.add[s.Name], d.del[s.Name] = add, del
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

// writeChains queues the counted chains that are missing.
func (d difference) writeChains(b *nft.Batch, l layout, chains map[nft.Verdict]bool) {
	d.missing(chains)
	made := map[nft.Verdict]bool{}
	for v := range d.chains {
		for _, c := range l.build(v) {
			if name := nft.Verdict(c.Name); !chains[name] && !made[name] {
				made[name] = true
				addChain(b, c)
			}
		}
	}
	maps.Copy(d.chains, made)
}

// writeElements queues what goes, then what comes.
func (d difference) writeElements(b *nft.Batch) {
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
