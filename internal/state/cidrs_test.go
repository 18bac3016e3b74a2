package state

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// The ranges of all objects together, in order, each once; a change of them is news about them alone.
func TestServiceCIDRs(t *testing.T) {
	tb := New()
	prefixes := func(texts ...string) []netip.Prefix {
		var out []netip.Prefix
		for _, s := range texts {
			out = append(out, netip.MustParsePrefix(s))
		}
		return out
	}
	for _, step := range []struct {
		what string
		do   func(*Tx)
		news bool
		want []netip.Prefix
		of   []string
	}{
		{"nothing yet", func(*Tx) {}, false, nil, nil},
		{"both families", func(tx *Tx) { tx.PutServiceCIDR("kubernetes", prefixes("fd00:1::/112", "10.96.0.0/16")) }, true,
			prefixes("10.96.0.0/16", "fd00:1::/112"), []string{"kubernetes"}},
		{"the same again", func(tx *Tx) { tx.PutServiceCIDR("kubernetes", prefixes("fd00:1::/112", "10.96.0.0/16")) }, false,
			prefixes("10.96.0.0/16", "fd00:1::/112"), []string{"kubernetes"}},
		{"one more, which says a range again", func(tx *Tx) { tx.PutServiceCIDR("extra", prefixes("10.97.0.0/16", "10.96.0.0/16")) }, true,
			prefixes("10.96.0.0/16", "10.97.0.0/16", "fd00:1::/112"), []string{"extra", "kubernetes"}},
		{"the first goes", func(tx *Tx) { tx.DeleteServiceCIDR("kubernetes") }, true,
			prefixes("10.96.0.0/16", "10.97.0.0/16"), []string{"extra"}},
		{"it is gone already", func(tx *Tx) { tx.DeleteServiceCIDR("kubernetes") }, false,
			prefixes("10.96.0.0/16", "10.97.0.0/16"), []string{"extra"}},
	} {
		seen := tb.Snapshot().Revision()
		tb.Update(noon, step.do)
		s := tb.Snapshot()
		if diff := cmp.Diff(step.want, s.ServiceCIDRs(), cmpopts.EquateComparable(netip.Prefix{})); diff != "" {
			t.Errorf("%s: %s", step.what, diff)
		}
		if diff := cmp.Diff(step.of, slices.Collect(s.ServiceCIDRNames())); diff != "" {
			t.Errorf("%s: %s", step.what, diff)
		}
		if c := s.Changes(seen); c.CIDRs != step.news || len(c.Nodes)+len(c.Services) != 0 {
			t.Errorf("%s: changes %+v", step.what, c)
		}
		tb.Forget(s.Revision())
		if s := tb.Snapshot(); s.Changes(s.Revision()).CIDRs {
			t.Errorf("%s: news without end", step.what)
		}
	}
}
