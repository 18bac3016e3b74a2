//go:build kernel

package proxies

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"

	"github.com/zonewise/zonewise/internal/kernel/netns"
)

func TestLook(t *testing.T) {
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	c, err := nftables.New(nftables.WithNetNSFd(ns.FD()))
	if err != nil {
		t.Fatal(err)
	}
	table := func(family nftables.TableFamily, name string, chains ...string) {
		t.Helper()
		made := c.AddTable(&nftables.Table{Family: family, Name: name})
		for _, chain := range chains {
			c.AddChain(&nftables.Chain{Table: made, Name: chain})
		}
		if err := c.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	want := func(found ...Found) {
		t.Helper()
		got, err := Look(ns.FD())
		if diff := cmp.Diff(found, got); diff != "" || err != nil {
			t.Error(diff, err)
		}
	}
	want()
	// The kubelet and others have tables of the same names.
	table(nftables.TableFamilyIPv4, "nat", "KUBE-KUBELET-CANARY", "POSTROUTING")
	table(nftables.TableFamilyINet, "kube-proxy")
	want()
	table(nftables.TableFamilyIPv4, "nat", "KUBE-SERVICES")
	table(nftables.TableFamilyIPv6, "kube-proxy")
	want(Found{"kube-proxy, mode iptables", "chain KUBE-SERVICES of table ip nat", "kube-proxy --cleanup"},
		Found{"kube-proxy, mode nftables", "table ip6 kube-proxy", "nft delete table ip6 kube-proxy"})
}
