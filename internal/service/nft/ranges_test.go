package nft

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/zonewise/zonewise/internal/kernel/conntrack"
)

// A new agent hears of the ranges after it has programmed the Services. Until then those that its
// predecessor knew hold, and nothing is written if they are the same.
func TestRangesOutliveTheAgent(t *testing.T) {
	k, first := world(t)
	list := []netip.Prefix{netip.MustParsePrefix("10.100.0.0/16")}
	dropped := func() []string {
		contents, _, err := k.Read(table4)
		ok(t, err)
		return contents.Chains[unallocatedChain]
	}
	ok(t, first.Apply(nil, true))
	ok(t, first.ServiceCIDRs(list))
	want := dropped()
	if len(want) != 1 {
		t.Fatalf("rules: %q", want)
	}
	second := New(k, &conntrack.Fake{}, Options{})
	ok(t, second.Apply(nil, true))
	if got := dropped(); !slices.Equal(got, want) {
		t.Errorf("before the ranges are told: %q, want %q", got, want)
	}
	before, err := k.Generation()
	ok(t, err)
	ok(t, second.ServiceCIDRs(list))
	if after, err := k.Generation(); after != before || err != nil {
		t.Errorf("the same ranges were written again: %d, %d, %v", before, after, err)
	}
	third := New(k, &conntrack.Fake{}, Options{})
	ok(t, third.Apply(nil, true))
	ok(t, third.ServiceCIDRs(nil))
	if got := dropped(); len(got) != 0 {
		t.Errorf("no ranges any more: %q", got)
	}
}
