package service_test

import (
	"math"
	"net/netip"
	"testing"

	"pgregory.net/rapid"

	"github.com/zonewise/zonewise/internal/service"
)

// The draws of a mixture, taken together, give each backend its share.
func TestMixGivesTheShares(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		list := make([]service.Backend, rapid.IntRange(1, 12).Draw(t, "backends"))
		sum := 0.0
		for i := range list {
			list[i].Addr = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), 80)
			list[i].Share = float64(rapid.IntRange(0, 5).Draw(t, "share"))
			sum += list[i].Share
		}
		if sum == 0 {
			sum = float64(len(list)) // all missing: even
			for i := range list {
				list[i].Share = 1
			}
		}
		tiers, draws := service.Mix(list, 16)
		if len(tiers) != len(draws) {
			t.Fatalf("%d tiers, %d draws", len(tiers), len(draws))
		}
		got, place := map[netip.AddrPort]float64{}, 0
		for _, tier := range tiers {
			for _, b := range tier {
				for _, d := range draws {
					if place < d.N {
						got[b.Addr] += d.Part / float64(d.N)
					}
				}
				place++
			}
		}
		for _, b := range list {
			if want := b.Share / sum; math.Abs(got[b.Addr]-want) > 1e-9 {
				t.Fatalf("%v gets %v, want %v of %v", b.Addr, got[b.Addr], want, list)
			}
		}
		if few, _ := service.Mix(list, 2); len(few) > 2 {
			t.Fatalf("%d tiers, at most 2 were wanted", len(few))
		}
	})
}
