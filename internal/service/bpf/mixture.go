package bpf

import (
	"cmp"
	"math"
	"slices"

	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/service"
)

// target is what a frontend leads to: endpoints, those of one share side by side and the largest
// share first, and the draws that make the shares. weights is nil for even shares, tiers is then
// one.
type target struct {
	endpoints []address
	tiers     []int // how many endpoints each share has
	weights   *weights
}

// aim makes a target of backends. Parts are met to 2^-32.
func aim(list []service.Backend, p model.Protocol) target {
	tiers, draws := service.Mix(list, maxDraws)
	t := target{endpoints: make([]address, 0, len(list)), tiers: make([]int, 0, len(tiers))}
	for _, tier := range tiers {
		t.tiers = append(t.tiers, len(tier))
		for _, b := range tier {
			t.endpoints = append(t.endpoints, addressOf(b.Addr, p))
		}
	}
	if len(tiers) > 1 {
		t.weights = weigh(draws)
	}
	return t
}

// weigh puts the likeliest draws first, so that few are tried.
func weigh(draws []service.Draw) *weights {
	slices.SortFunc(draws, func(a, b service.Draw) int { return cmp.Or(cmp.Compare(b.Part, a.Part), cmp.Compare(a.N, b.N)) })
	var w weights
	sum := 0.0
	for i := range w {
		d := draws[min(i, len(draws)-1)]
		sum += d.Part
		w[i] = draw{uint32(d.N), uint32(min(math.Round(sum*(1<<32)), math.MaxUint32))}
		if i >= len(draws)-1 {
			w[i].Limit = 0 // the last is what remains
		}
	}
	return &w
}
