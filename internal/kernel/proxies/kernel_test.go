//go:build kernel

package proxies

import (
	"fmt"
	"os"
	"os/exec"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"
	"github.com/vishvananda/netlink"

	"github.com/zonewise/zonewise/internal/kernel/netns"
)

// node is a namespace in which to look.
type node struct {
	*testing.T
	ns *netns.NS
}

func newNode(t *testing.T) node {
	t.Helper()
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	return node{t, ns}
}

func (n node) in(f func() error) {
	n.Helper()
	if err := n.ns.Do(f); err != nil {
		n.Fatal(err)
	}
}

func (n node) want(found ...Found) {
	n.Helper()
	var got []Found
	n.in(func() (err error) {
		got, err = Look()
		return err
	})
	if diff := cmp.Diff(found, got); diff != "" {
		n.Error(diff)
	}
}

func (n node) iptables(program, table, chain string) {
	n.Helper()
	n.in(func() error {
		out, err := exec.Command(program, "-t", table, "-N", chain).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s: %w: %s", program, err, out)
		}
		return nil
	})
}

func TestLook(t *testing.T) {
	n := newNode(t)
	c, err := nftables.New(nftables.WithNetNSFd(n.ns.FD()))
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
	n.want()
	// The kubelet and others have tables of the same names.
	table(nftables.TableFamilyIPv4, "nat", "KUBE-KUBELET-CANARY", "POSTROUTING")
	table(nftables.TableFamilyINet, "kube-proxy")
	n.want()
	table(nftables.TableFamilyIPv4, "nat", "KUBE-SERVICES")
	table(nftables.TableFamilyIPv6, "kube-proxy")
	n.want(Found{"kube-proxy, mode iptables", "chain KUBE-SERVICES of table ip nat", "kube-proxy --cleanup"},
		Found{"kube-proxy, mode nftables", "table ip6 kube-proxy", "nft delete table ip6 kube-proxy"})
}

// The kernel's tables of before nftables, and a kube-proxy that has them beside ipvs.
func TestLookAtLegacyTables(t *testing.T) {
	n := newNode(t)
	n.want()
	n.in(func() error {
		for _, l := range legacies() {
			if names, err := os.ReadFile("/proc/thread-self/net/" + l.names); err != nil || len(names) > 0 {
				t.Errorf("to look made a table: %s: %q, %v", l.names, names, err)
			}
		}
		return nil
	})
	for _, program := range []string{"iptables-legacy", "ip6tables-legacy"} {
		n.iptables(program, "filter", "KUBE-SERVICES")
		n.iptables(program, "nat", "KUBE-KUBELET-CANARY")
		n.iptables(program, "nat", "KUBE-SERVICES-2")
	}
	n.want()
	found := func(who string) []Found {
		return []Found{{who, "chain KUBE-SERVICES of table nat, ip6tables-legacy", "kube-proxy --cleanup"},
			{who, "chain KUBE-SERVICES of table nat, iptables-legacy", "kube-proxy --cleanup"}}
	}
	n.iptables("ip6tables-legacy", "nat", "KUBE-SERVICES")
	n.want(found("kube-proxy, mode iptables")[:1]...)
	n.iptables("iptables-legacy", "nat", "KUBE-SERVICES")
	n.want(found("kube-proxy, mode iptables")...)
	n.in(func() error {
		return netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "kube-ipvs0"}, PeerName: "other"})
	})
	const ipvs = "kube-proxy, mode ipvs"
	n.want(append(found(ipvs), Found{ipvs, "device kube-ipvs0", "kube-proxy --cleanup"})...)
}
