package nft

import (
	"cmp"
	"encoding/binary"
	"math"
	"slices"

	"github.com/zonewise/zonewise/internal/service"
)

// Shares are made out of even draws (service.Mix). Backends are put into slots tier by tier. The draws
// are tried one after another, the rarest first; each but the last is made with the odds that remain
// to it, at most 1/2, which are data of the frontend (the set weights).
//
// Odds P are made by tosses: toss l succeeds for c out of 4^l numbers, and P = 1-Π(1-c/4^l). Each
// c is the largest that keeps the product within P, the last is the nearest: so P is met to 2^-17,
// and shares to 2^-16. A draw takes 12 numbers on average. (8^l has fewer tosses and 17 numbers,
// which a cold start pays for; 2^l has 7 and twice the tosses, which connections pay for.)

const (
	tosses   = 8
	tossBits = 2 // toss l is one of 2^(2·l) numbers
	maxTiers = 16
	// tossNumbers is how many numbers a draw takes on average.
	tossNumbers = 12
	tossRange   = tosses * tossBits // bits that all tosses fit into
	// insideWeights sets the numbers of insiders' tosses apart.
	insideWeights = 1 << 30
	// negligible is where a share, or a difference, is rounding.
	negligible = 1e-9
)

// odds are the c of each toss.
type odds [tosses]int

func oddsOf(p float64) odds {
	var out odds
	for l := range out {
		of := float64(int(1) << (tossBits * (l + 1)))
		c := math.Floor(p * of)
		if l == tosses-1 {
			c = math.Round(p * of)
		}
		out[l] = int(c)
		p = (p - c/of) / (1 - c/of)
	}
	return out
}

// mixture is a list of backends as draws.
type mixture struct {
	tiers [][]service.Backend // backends of one share each, the largest first
	sizes sizes
	odds  []odds // of all draws but the last
}

// even tells that all shares are the same.
func even(list []service.Backend) bool {
	for i := range list {
		if math.Abs(list[i].Share-list[0].Share) > list[0].Share*negligible {
			return false
		}
	}
	return true
}

func mix(list []service.Backend) mixture {
	tiers, draws := service.Mix(list, maxTiers)
	m := mixture{tiers: tiers}
	slices.SortFunc(draws, func(a, b service.Draw) int { return cmp.Or(cmp.Compare(a.Part, b.Part), cmp.Compare(a.N, b.N)) })
	whole := 1.0
	for i, d := range draws {
		if i == len(draws)-1 {
			m.sizes = append(m.sizes, d.N)
			break
		}
		if o := oddsOf(d.Part / whole); o != (odds{}) {
			m.sizes, m.odds = append(m.sizes, d.N), append(m.odds, o)
			whole -= d.Part
		}
	}
	return m
}

// toss is the first number of a toss in the key of weights.
func toss(base, draw, l int) int { return base + (draw*tosses+l)<<tossRange }

// weigh emits the odds of the frontend's draws. All keys are pieces of one string.
func (m mixture) weigh(k string, base int, put emit) {
	n, b := len(k)+4, []byte(nil)
	for d, o := range m.odds {
		for l, c := range o {
			for i := range c {
				b = binary.NativeEndian.AppendUint32(append(b, k...), uint32(toss(base, d, l)+i))
			}
		}
	}
	for all := string(b); len(all) > 0; all = all[n:] {
		put(weights, all[:n], "")
	}
}

// holdsWeights emits what the image has of a frontend's odds. Numbers of a toss count up from its
// first; a draw has at least one.
func (m *image) holdsWeights(k string, base int, put emit) {
	have := m[weights]
	if len(have) == 0 {
		return
	}
	for d, more := 0, true; more; d++ {
		more = false
		for l := range tosses {
			for i := 0; ; i++ {
				key := withSlot(k, toss(base, d, l)+i)
				if _, ok := have[key]; !ok {
					break
				}
				put(weights, key, "")
				more = true
			}
		}
	}
}
