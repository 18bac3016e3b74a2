package nft

import (
	"maps"

	"github.com/zonewise/zonewise/internal/kernel/nft"
)

// difference is what has to change in the programmed sets.
type difference struct {
	add, del [programmed][]nft.Element
	chains   map[nft.Verdict]bool // counted chains that must be made first
}

// diff compares element by element. What is only in have goes if prune says so, but not what is shared:
// see sweep.
func diff(have, want *image, prune func(s set, key string) bool) *difference {
	d := &difference{chains: map[nft.Verdict]bool{}}
	for s := range programmed {
		old, goal := have[s], want[s]
		var add, del []nft.Element
		for key, v := range goal {
			o, ok := old[key]
			if ok && v == o {
				continue
			}
			if ok {
				del = append(del, s.element(key, o))
			}
			add = append(add, s.element(key, v))
		}
		for key, v := range old {
			if _, ok := goal[key]; !ok && !s.shared() && prune(s, key) {
				del = append(del, s.element(key, v))
			}
		}
		d.add[s], d.del[s] = add, del
	}
	return d
}

// missing notes the counted chains that the added verdicts need and the table lacks.
func (d *difference) missing(chains map[nft.Verdict]bool) {
	for s := range programmed {
		if !s.verdicts() {
			continue
		}
		for _, e := range d.add[s] {
			if e.Verdict != nft.Drop && e.Verdict != rejectChain && !chains[e.Verdict] {
				d.chains[e.Verdict] = true
			}
		}
	}
}

// writeChains queues the counted chains that are missing.
func (d *difference) writeChains(b *nft.Batch, l layout, chains map[nft.Verdict]bool) {
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

// ahead takes out of the difference what must be there before the rest comes.
func (d *difference) ahead() *difference {
	out := &difference{chains: d.chains}
	for s := range programmed {
		if s.verdicts() {
			out.add[s], out.del[s], d.add[s], d.del[s] = d.add[s], d.del[s], nil, nil
		}
	}
	d.chains = nil
	return out
}

// writeElements queues what goes, then what comes.
func (d *difference) writeElements(b *nft.Batch) {
	for s := range programmed {
		b.Delete(sets[s], d.del[s]...)
	}
	for s := range programmed {
		b.Add(sets[s], d.add[s]...)
	}
}

// enter brings the image up to the kernel.
func (d *difference) enter(m *image) {
	for s := range programmed {
		for _, e := range d.del[s] {
			delete(m[s], e.Key)
		}
		for _, e := range d.add[s] {
			m[s][e.Key] = s.value(e)
		}
	}
}

func addChain(b *nft.Batch, c chain) {
	b.AddChain(c.Chain)
	for _, r := range c.rules {
		b.AddRule(c.Name, r)
	}
}
