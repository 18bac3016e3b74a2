package bpf

import (
	"cmp"
	"math"
	"slices"

	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/service"
)

// negligible is where a share, or a difference, is rounding.
const negligible = 1e-9

// target is what a frontend leads to: endpoints, those of one share side by side and the largest
// share first, and the draws that make the shares. weights is nil for even shares, tiers is then
// one.
type target struct {
	endpoints []address
	tiers     []int // how many endpoints each share has
	weights   *weights
}

// aim makes a target of backends. Any shares are a mixture of even draws, each from the first n
// slots for some n: where the share per endpoint falls from p to p' after slot n, the draw from n
// slots has the part (p-p')·n of all. Parts are met to 2^-32.
func aim(list []service.Backend, p model.Protocol) target {
	tiers, shares := tiersOf(list)
	t := target{endpoints: make([]address, 0, len(list)), tiers: make([]int, 0, len(tiers))}
	for _, tier := range tiers {
		t.tiers = append(t.tiers, len(tier))
		for _, b := range tier {
			t.endpoints = append(t.endpoints, addressOf(b.Addr, p))
		}
	}
	if len(tiers) == 1 {
		return t
	}
	t.weights = weigh(t.tiers, shares)
	return t
}

// weigh turns shares per endpoint into draws, the likeliest first, so that few are tried.
func weigh(tiers []int, shares []float64) *weights {
	type part struct {
		n    uint32
		odds float64
	}
	var parts []part
	n, whole := 0, 0.0
	for i, size := range tiers {
		n += size
		next := 0.0
		if i+1 < len(tiers) {
			next = shares[i+1]
		}
		parts = append(parts, part{uint32(n), (shares[i] - next) * float64(n)})
		whole += parts[i].odds
	}
	slices.SortFunc(parts, func(a, b part) int { return cmp.Or(cmp.Compare(b.odds, a.odds), cmp.Compare(a.n, b.n)) })
	var w weights
	sum := 0.0
	for i := range w {
		p := parts[min(i, len(parts)-1)]
		sum += p.odds
		w[i] = draw{p.n, uint32(min(math.Round(sum/whole*(1<<32)), math.MaxUint32))}
		if i >= len(parts)-1 {
			w[i].Limit = 0 // the last is what remains
		}
	}
	return &w
}

// tiersOf groups backends by share. Shares that are all the same, or all missing, are one group;
// a backend without a share beside others is none. Beyond maxDraws the two groups that differ
// least become one, until they are few enough.
func tiersOf(list []service.Backend) ([][]service.Backend, []float64) {
	largest, least := 0.0, math.Inf(1)
	for _, b := range list {
		largest, least = max(largest, b.Share), min(least, b.Share)
	}
	if largest-least <= largest*negligible {
		return [][]service.Backend{list}, []float64{1}
	}
	sorted := slices.DeleteFunc(slices.Clone(list), func(b service.Backend) bool { return b.Share <= largest*negligible })
	slices.SortStableFunc(sorted, func(a, b service.Backend) int { return cmp.Compare(b.Share, a.Share) })
	var tiers [][]service.Backend
	var shares []float64
	for i, b := range sorted {
		if i > 0 && sorted[i-1].Share-b.Share <= largest*negligible {
			tiers[len(tiers)-1] = append(tiers[len(tiers)-1], b)
			continue
		}
		tiers, shares = append(tiers, []service.Backend{b}), append(shares, b.Share)
	}
	for len(tiers) > maxDraws {
		i := closest(shares)
		a, b := float64(len(tiers[i])), float64(len(tiers[i+1]))
		shares[i] = (a*shares[i] + b*shares[i+1]) / (a + b)
		tiers[i] = append(tiers[i], tiers[i+1]...)
		tiers, shares = slices.Delete(tiers, i+1, i+2), slices.Delete(shares, i+1, i+2)
	}
	return tiers, shares
}

// closest is the first of the two neighbours that differ least, as a ratio.
func closest(shares []float64) int {
	best := 0
	for i := range len(shares) - 1 {
		if shares[i]*shares[best+1] < shares[best]*shares[i+1] {
			best = i
		}
	}
	return best
}
