// Package proxies sees what kube-proxy left on a node: two proxies that answer for the same addresses
// do so side by side, and one that is gone goes on answering with endpoints of yesterday.
package proxies

import (
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/google/nftables"
)

// Found is what one proxy left.
type Found struct {
	Who  string // kube-proxy, and its mode
	What string // table ip kube-proxy
	Mend string // the command that takes it away once that proxy does not run any more
}

// cleanup is what each mode of kube-proxy can do about its own.
const cleanup = "kube-proxy --cleanup"

// Look returns what is in the caller's network namespace, or in the one of the descriptor if that is not 0.
func Look(netns int) ([]Found, error) {
	var options []nftables.ConnOption
	if netns != 0 {
		options = append(options, nftables.WithNetNSFd(netns))
	}
	c, err := nftables.New(options...)
	if err != nil {
		return nil, fmt.Errorf("nft: %w", err)
	}
	tables, err := c.ListTables()
	if err != nil {
		return nil, fmt.Errorf("nft tables: %w", err)
	}
	var out []Found
	for _, t := range tables {
		family := map[nftables.TableFamily]string{nftables.TableFamilyIPv4: "ip", nftables.TableFamilyIPv6: "ip6"}[t.Family]
		switch {
		case family == "":
		case t.Name == "kube-proxy":
			out = append(out, Found{"kube-proxy, mode nftables", "table " + family + " kube-proxy",
				"nft delete table " + family + " kube-proxy"})
		case t.Name == "nat":
			there, err := hasChain(c, t, "KUBE-SERVICES")
			if err != nil {
				return nil, fmt.Errorf("nft table %s nat: %w", family, err)
			}
			if there {
				out = append(out, Found{"kube-proxy, mode iptables", "chain KUBE-SERVICES of table " + family + " nat", cleanup})
			}
		}
	}
	if netns == 0 {
		if _, err := net.InterfaceByName("kube-ipvs0"); err == nil {
			out = append(out, Found{"kube-proxy, mode ipvs", "device kube-ipvs0", cleanup})
		}
	}
	slices.SortFunc(out, func(a, b Found) int { return strings.Compare(a.What, b.What) })
	return out, nil
}

func hasChain(c *nftables.Conn, t *nftables.Table, name string) (bool, error) {
	chains, err := c.ListChainsOfTableFamily(t.Family)
	return slices.ContainsFunc(chains, func(had *nftables.Chain) bool { return had.Table.Name == t.Name && had.Name == name }), err
}
