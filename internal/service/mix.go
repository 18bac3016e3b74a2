package service

import (
	"cmp"
	"math"
	"slices"
)

// negligible is where a share, or a difference, is rounding.
const negligible = 1e-9

// Draw is an even draw from the first N backends of a mixture, and its part of all draws.
type Draw struct {
	N    int
	Part float64
}

// Mix makes shares out of even draws. Backends come in tiers of one share each, the largest first; then
// any shares are a mixture of even draws, each from the first n backends for some n: where the share
// per backend falls from p to p' after the n-th, the draw from n has the part (p-p')·n of all. There is
// one draw for each tier, in their order; their parts sum to 1.
//
// Shares that are all the same, or all missing, are one tier, in the order of the list; a backend
// without a share beside others is in none. Beyond most tiers the two that differ least become one,
// until they are few enough.
func Mix(list []Backend, most int) (tiers [][]Backend, draws []Draw) {
	tiers, shares := tiersOf(list, most)
	n, whole := 0, 0.0
	for i, t := range tiers {
		n += len(t)
		next := 0.0
		if i+1 < len(tiers) {
			next = shares[i+1]
		}
		draws = append(draws, Draw{n, (shares[i] - next) * float64(n)})
		whole += draws[i].Part
	}
	for i := range draws {
		draws[i].Part /= whole
	}
	return tiers, draws
}

func tiersOf(list []Backend, most int) (tiers [][]Backend, shares []float64) {
	largest, least := 0.0, math.Inf(1)
	for _, b := range list {
		largest, least = max(largest, b.Share), min(least, b.Share)
	}
	if largest-least <= largest*negligible {
		return [][]Backend{list}, []float64{1}
	}
	sorted := slices.DeleteFunc(slices.Clone(list), func(b Backend) bool { return b.Share <= largest*negligible })
	slices.SortStableFunc(sorted, func(a, b Backend) int { return cmp.Compare(b.Share, a.Share) })
	for i, b := range sorted {
		if i > 0 && sorted[i-1].Share-b.Share <= largest*negligible {
			tiers[len(tiers)-1] = append(tiers[len(tiers)-1], b)
			continue
		}
		tiers, shares = append(tiers, []Backend{b}), append(shares, b.Share)
	}
	for len(tiers) > most {
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
