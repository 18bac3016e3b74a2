package nft

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"syscall"

	"github.com/zonewise/zonewise/internal/kernel/nft"
)

// fewChains is how many counted chains are left alone, used or not.
const fewChains = 256

// idle is what nothing leads to: numbers that no frontend has, and counted chains.
type idle struct {
	numbers map[string]bool
	chains  map[nft.Verdict]bool
}

func (i idle) none() bool { return len(i.numbers)+len(i.chains) == 0 }

// sweep deletes what nothing uses any more, in a transaction after the one that ended its use: a
// packet that is on its way may still need it. That is hairpins, which do nothing unless an endpoint
// reaches itself; and counted chains with their numbers, of which a packet finds one by the other: these go
// when the sweep before found them idle too.
func (h *half) sweep() error {
	d := &difference{}
	for key := range h.have[hairpin] {
		if h.uses[use{hairpin, key}] == 0 {
			d.del[hairpin] = append(d.del[hairpin], nft.Element{Key: key})
		}
	}
	gone := h.idleTwice()
	if len(d.del[hairpin]) == 0 && gone.none() {
		return nil
	}
	for _, s := range meanings {
		for number, v := range h.have[s] {
			if gone.numbers[number] {
				d.del[s] = append(d.del[s], s.element(number, v))
			}
		}
	}
	b := nft.NewBatch(h.layout.table())
	d.writeElements(b)
	dropChains(b, gone.chains)
	err := h.door.write(b)
	if errors.Is(err, syscall.EBUSY) {
		return nil // a kernel before 6.2 holds on to a chain for a moment longer: next time
	}
	if err != nil {
		h.forgetKernel()
		return fmt.Errorf("service table: sweep: %w", err)
	}
	d.enter(h.have)
	for number := range gone.numbers {
		h.numbers.forget(number)
		delete(h.idled.numbers, number)
	}
	for v := range gone.chains {
		delete(h.chains, v)
		delete(h.idled.chains, v)
	}
	return nil
}

// idleTwice returns what is idle and was at the sweep before, and not between the two. What else is idle
// may still go to a chain, which stays then.
func (h *half) idleTwice() idle {
	now := h.idle()
	gone := idle{maps.Clone(now.numbers), maps.Clone(now.chains)}
	keep := func(v nft.Verdict) {
		for _, c := range h.layout.build(v) {
			delete(gone.chains, nft.Verdict(c.Name))
		}
	}
	for _, s := range meanings {
		for number, v := range h.have[s] {
			if now.numbers[number] && !h.idled.numbers[number] {
				delete(gone.numbers, number)
				keep(nft.Verdict(v))
			}
		}
	}
	for v := range now.chains {
		if !h.idled.chains[v] {
			keep(v)
		}
	}
	h.idled = now
	return gone
}

func (h *half) idle() idle {
	led := map[string]bool{}
	for _, s := range []set{services, inside, unreachable, affinity} {
		for _, value := range h.have[s] {
			led[value] = true
		}
	}
	out := idle{map[string]bool{}, maps.Clone(h.chains)}
	for _, s := range meanings {
		for number, v := range h.have[s] {
			if !led[valueOf(number)] {
				out.numbers[number] = true
				continue
			}
			for _, c := range h.layout.build(nft.Verdict(v)) {
				delete(out.chains, nft.Verdict(c.Name))
			}
		}
	}
	return out
}

// dropChains queues the end of chains, lb-N last: the others go there.
func dropChains(b *nft.Batch, chains map[nft.Verdict]bool) {
	names := make([]string, 0, len(chains))
	for v := range chains {
		names = append(names, string(v))
	}
	slices.SortFunc(names, func(x, y string) int { return strings.Compare(rank(x), rank(y)) })
	for _, name := range names {
		b.FlushChain(name)
	}
	for _, name := range names {
		b.DelChain(name)
	}
}

// rank sorts lb- chains behind all others.
func rank(name string) string {
	if strings.HasPrefix(name, string(balance)) {
		return "1" + name
	}
	return "0" + name
}
