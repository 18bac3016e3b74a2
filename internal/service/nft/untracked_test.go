package nft

import (
	"errors"
	"net/netip"
	"slices"
	"testing"

	"github.com/zonewise/zonewise/internal/kernel/conntrack"
	"github.com/zonewise/zonewise/internal/kernel/nft"
)

// blind is a flow table that cannot be read at first.
type blind struct {
	conntrack.Fake
	failures int
}

func (b *blind) Translated(v6 bool) ([]netip.Addr, error) {
	if b.failures--; b.failures >= 0 {
		return nil, errors.New("no answer")
	}
	return b.Fake.Translated(v6)
}

// Nothing gets by conntrack before all are entered whose flows are translated already.
func TestNothingIsUntrackedTooSoon(t *testing.T) {
	k, f := &nft.Fake{}, &blind{failures: 2}
	in, other, out := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("172.16.0.1")
	f.Clients = []netip.Addr{in, out, in, netip.MustParseAddr("fd00::1")}
	a := New(k, f, Options{Untracked: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}})
	rules := func() []string {
		t.Helper()
		c, there, err := k.Read(table4)
		if err != nil || !there {
			t.Fatal(there, err)
		}
		return c.Chains[untrackedChain]
	}
	entered := func() (out []netip.Addr) {
		t.Helper()
		list, err := k.Elements(table4, sets[tracked])
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			ip, _ := netip.AddrFromSlice([]byte(e.Key))
			if out = append(out, ip); e.Expires != trackedFor {
				t.Errorf("%s is entered for %s", ip, e.Expires)
			}
		}
		return out
	}
	for _, try := range []func() error{func() error { return a.Apply(nil, true) }, func() error { _, err := a.Audit(); return err }} {
		if err := try(); err == nil || len(rules()) > 0 {
			t.Errorf("flows get by although nobody knows which are translated: %v %v", rules(), err)
		}
	}
	if repaired, err := a.Audit(); err != nil || repaired || len(rules()) != 1 || !slices.Equal(entered(), []netip.Addr{in}) {
		t.Errorf("rules %v, entered %v, repaired %v: %v", rules(), entered(), repaired, err)
	}
	// What is damaged stops all of it, until it is repaired and all are entered anew.
	b := nft.NewBatch(table4)
	b.FlushChain(openedChain)
	f.Clients = append(f.Clients, other)
	if err := k.Commit(b); err != nil {
		t.Fatal(err)
	}
	if repaired, err := a.Audit(); err != nil || !repaired || len(rules()) != 1 || len(entered()) != 2 {
		t.Errorf("rules %v, entered %v, repaired %v: %v", rules(), entered(), repaired, err)
	}
}
