// Package proxies sees what kube-proxy left on a node: two proxies that answer for the same addresses
// do so side by side, and one that is gone goes on answering with endpoints of yesterday.
package proxies

import (
	"errors"
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

// services is the chain that kube-proxy begins with where it uses iptables.
const services = "KUBE-SERVICES"

// cleanup is what each mode of kube-proxy can do about its own.
const cleanup = "kube-proxy --cleanup"

// Look returns what is in the network namespace of the calling thread. With an error that is what
// could be seen.
func Look() ([]Found, error) {
	iptables := "kube-proxy, mode iptables"
	var out []Found
	if _, err := net.InterfaceByName("kube-ipvs0"); err == nil {
		iptables = "kube-proxy, mode ipvs" // it has a few chains, too
		out = append(out, Found{iptables, "device kube-ipvs0", cleanup})
	}
	var errs []error
	for _, l := range legacies() {
		there, err := l.hasChain("nat", services)
		if there {
			out = append(out, Found{iptables, "chain " + services + " of table nat, " + l.program, cleanup})
		}
		errs = append(errs, err)
	}
	found, err := tables(iptables)
	errs = append(errs, err)
	out = append(out, found...)
	slices.SortFunc(out, func(a, b Found) int { return strings.Compare(a.What, b.What) })
	return out, errors.Join(errs...)
}

// tables looks at those of nftables, where today's iptables has its chains as well.
func tables(iptables string) (out []Found, err error) {
	c, err := nftables.New()
	if err != nil {
		return nil, fmt.Errorf("nft: %w", err)
	}
	all, err := c.ListTables()
	if err != nil {
		return nil, fmt.Errorf("nft tables: %w", err)
	}
	for _, t := range all {
		family := map[nftables.TableFamily]string{nftables.TableFamilyIPv4: "ip", nftables.TableFamilyIPv6: "ip6"}[t.Family]
		switch {
		case family == "":
		case t.Name == "kube-proxy":
			out = append(out, Found{"kube-proxy, mode nftables", "table " + family + " kube-proxy",
				"nft delete table " + family + " kube-proxy"})
		case t.Name == "nat":
			there, err := hasChain(c, t, services)
			if err != nil {
				return out, fmt.Errorf("nft table %s nat: %w", family, err)
			}
			if there {
				out = append(out, Found{iptables, "chain " + services + " of table " + family + " nat", cleanup})
			}
		}
	}
	return out, nil
}

func hasChain(c *nftables.Conn, t *nftables.Table, name string) (bool, error) {
	chains, err := c.ListChainsOfTableFamily(t.Family)
	return slices.ContainsFunc(chains, func(had *nftables.Chain) bool { return had.Table.Name == t.Name && had.Name == name }), err
}
