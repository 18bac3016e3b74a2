package nft

import (
	"math"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/zonewise/zonewise/internal/service"
)

func backend(i int, share float64) service.Backend {
	return service.Backend{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 80), Share: share}
}

// drawn works out what packets get from a mixture, as the rules do it: tosses in turn, then an
// even draw.
func drawn(m mixture) map[netip.AddrPort]float64 {
	var slots []service.Backend
	for _, t := range m.tiers {
		slots = append(slots, t...)
	}
	out := map[netip.AddrPort]float64{}
	rest := 1.0
	even := func(n int, part float64) {
		for _, b := range slots[:n] {
			out[b.Addr] += part / float64(n)
		}
	}
	for d, o := range m.odds {
		for l, c := range o {
			p := rest * float64(c) / math.Pow(4, float64(l+1))
			even(m.sizes[d], p)
			rest -= p
		}
	}
	even(m.sizes[len(m.sizes)-1], rest)
	return out
}

func TestMixtureMeetsTheShares(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	most := 0
	worst := 0.0
	for range 20_000 {
		zones := 1 + r.IntN(8)
		var list []service.Backend
		sum := 0.0
		for z := range zones {
			n, share := 1+r.IntN(12), r.Float64()
			if r.IntN(5) == 0 {
				share = 0
			}
			if z == 0 {
				share += .1
			}
			for range n {
				list = append(list, backend(len(list), share))
				sum += share
			}
		}
		for i := range list {
			list[i].Share /= sum
		}
		r.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
		m := mix(list)
		got := drawn(m)
		for _, b := range list {
			worst = max(worst, math.Abs(got[b.Addr]-b.Share))
			if b.Share == 0 && got[b.Addr] != 0 {
				t.Fatalf("a share of %g for one without any: %+v", got[b.Addr], m)
			}
		}
		if len(m.odds) != len(m.sizes)-1 {
			t.Fatalf("%d draws, %d odds", len(m.sizes), len(m.odds))
		}
		n := 0
		for _, o := range m.odds {
			for _, c := range o {
				n += c
			}
		}
		most = max(most, n/max(1, len(m.odds)))
	}
	if worst > 1./(1<<16) {
		t.Errorf("off by %g", worst)
	}
	if most > 25 {
		t.Errorf("%d elements for a draw", most)
	}
}

func TestMixtureOfTheSame(t *testing.T) {
	for _, share := range []float64{0, 1. / 3} {
		m := mix([]service.Backend{backend(1, share), backend(2, share), backend(3, share)})
		if m.sizes.String() != "3" || len(m.odds) != 0 {
			t.Errorf("share %g: %+v", share, m)
		}
	}
}

// More different shares than maxTiers are averaged, and the sum stays.
func TestMixtureOfVeryMany(t *testing.T) {
	var list []service.Backend
	for i := range 100 {
		list = append(list, backend(i, (100+float64(i))/(100*100+99*50)))
	}
	m := mix(list)
	if len(m.tiers) != maxTiers {
		t.Fatalf("%d tiers", len(m.tiers))
	}
	sum := 0.0
	for a, share := range drawn(m) {
		want := list[a.Addr().As4()[3]].Share
		if math.Abs(share-want) > want*.1 {
			t.Errorf("%s: %g, want about %g", a, share, want)
		}
		sum += share
	}
	if math.Abs(sum-1) > 1e-9 {
		t.Errorf("sum %g", sum)
	}
}

func TestSizesAreReadAsWritten(t *testing.T) {
	for _, s := range []sizes{{0}, {3}, {3, 11}, {1, 20, 300}} {
		if got, ok := parseSizes(s.String()); !ok || got.String() != s.String() {
			t.Errorf("%v became %v", s, got)
		}
	}
	for _, bad := range []string{"", "-", "3-", "x"} {
		if s, ok := parseSizes(bad); ok {
			t.Errorf("%q: %v", bad, s)
		}
	}
}
