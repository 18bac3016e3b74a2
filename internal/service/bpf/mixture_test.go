package bpf

import (
	"math"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/service"
)

// drawn is the share that each endpoint gets by the draws, as the programs make them.
func drawn(t target) map[address]float64 {
	out := map[address]float64{}
	give := func(n int, odds float64) {
		for _, e := range t.endpoints[:n] {
			out[e] += odds / float64(n)
		}
	}
	if t.weights == nil {
		give(len(t.endpoints), 1)
		return out
	}
	before := 0.0
	for i, d := range t.weights {
		if i == len(t.weights)-1 {
			give(int(d.N), 1-before)
			break
		}
		if limit := float64(d.Limit) / (1 << 32); limit > before {
			give(int(d.N), limit-before)
			before = limit
		}
	}
	return out
}

func TestSharesAreMet(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 5000 {
		var list []service.Backend
		sum := 0.0
		for zone := range 1 + r.IntN(8) {
			share := r.Float64()
			if zone > 0 && r.IntN(5) == 0 {
				share = 0
			}
			for range 1 + r.IntN(12) {
				a := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, byte(zone), byte(len(list))}), 80)
				list = append(list, service.Backend{Addr: a, Share: share})
				sum += share
			}
		}
		for i := range list {
			list[i].Share /= sum
		}
		r.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
		got := drawn(aim(list, model.TCP))
		for _, b := range list {
			if d := math.Abs(got[addressOf(b.Addr, model.TCP)] - b.Share); d > 1e-8 {
				t.Fatalf("%v has %v of all, want %v", b.Addr, got[addressOf(b.Addr, model.TCP)], b.Share)
			}
		}
	}
}

// More shares than there are draws: those that differ least become one, and nothing is lost.
func TestTooManyShares(t *testing.T) {
	var list []service.Backend
	for i := range 100 {
		a := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, 0, byte(i)}), 80)
		list = append(list, service.Backend{Addr: a, Share: float64(i+1) / 5050})
	}
	got, sum := drawn(aim(list, model.TCP)), 0.0
	for _, b := range list {
		have := got[addressOf(b.Addr, model.TCP)]
		sum += have
		if have < b.Share/1.5 || have > b.Share*1.5 {
			t.Errorf("%v has %v, want about %v", b.Addr, have, b.Share)
		}
	}
	if math.Abs(sum-1) > 1e-9 {
		t.Errorf("the shares sum to %v", sum)
	}
}

// All endpoints without a share, or with the same, are drawn evenly; the order given is kept.
func TestEvenShares(t *testing.T) {
	for _, share := range []float64{0, 0.5} {
		list := []service.Backend{
			{Addr: netip.MustParseAddrPort("10.1.0.2:80"), Share: share}, {Addr: netip.MustParseAddrPort("10.1.0.1:80"), Share: share},
		}
		got := aim(list, model.UDP)
		if got.weights != nil || len(got.endpoints) != 2 || got.endpoints[0] != addressOf(list[0].Addr, model.UDP) {
			t.Errorf("share %v: %+v", share, got)
		}
	}
}
