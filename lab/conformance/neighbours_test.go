//go:build kernel

package conformance

import (
	"bytes"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/zonewise/zonewise/internal/service/nft"
)

// neighbours are what others have on a node: a firewall, another network plugin's chains with sets
// and counters, and rules of iptables, in the tables that its two programs use.
const neighbours = `
table inet firewall {
	set banned { type ipv4_addr; flags interval; elements = { 203.0.113.64/26, 198.51.100.200 } }
	map owners { type ipv4_addr : verdict; elements = { 192.0.2.1 : drop } }
	chain input {
		type filter hook input priority filter; policy accept;
		ip saddr @banned drop
		tcp dport 22 ct state new limit rate 10/minute accept
	}
	chain forward {
		type filter hook forward priority filter; policy accept;
		ip daddr vmap @owners
		ct state invalid counter drop
	}
}
table ip cni-other {
	chain pods { ip daddr 10.9.0.0/16 return; ip saddr 10.9.0.0/16 masquerade; }
	chain postrouting { type nat hook postrouting priority srcnat; policy accept; jump pods; }
	chain ports { type nat hook prerouting priority dstnat; policy accept; tcp dport 8443 dnat to 10.9.0.7:443; }
}
table ip6 cni-other {
	chain postrouting { type nat hook postrouting priority srcnat; policy accept; ip6 saddr fd00:9::/64 masquerade; }
}
table ip kube-proxy {
	comment "another node's leftover, or a proxy that is still to go"
	map service-ips { type ipv4_addr . inet_proto . inet_service : verdict; }
	chain services { ip daddr . meta l4proto . th dport vmap @service-ips; }
	chain nat-prerouting { type nat hook prerouting priority dstnat; policy accept; jump services; }
}
`

// legacy are commands that leave rules in the tables of iptables, by its newer and its older program.
var legacy = []string{
	"-t nat -N KUBE-SERVICES", "-t nat -A PREROUTING -j KUBE-SERVICES",
	"-t nat -A KUBE-SERVICES -d 10.101.0.1/32 -p tcp -m tcp --dport 443 -j MARK --set-xmark 0x4000/0x4000",
	"-N OTHER-FORWARD", "-A FORWARD -j OTHER-FORWARD", "-A OTHER-FORWARD -s 10.9.0.0/16 -j ACCEPT",
	"-t mangle -A PREROUTING -p tcp --dport 9999 -j MARK --set-mark 7",
}

// TestNeighbours lives a whole life beside them: their tables are the same to the byte throughout.
func TestNeighbours(t *testing.T) {
	for _, p := range paths {
		t.Run(string(p), func(t *testing.T) {
			s := newStage(t, p)
			s.each(func(a applier) error { return a.Remove() })
			cmd := s.world.Command(s.world.Node, "nft", "-f", "-")
			cmd.Stdin = strings.NewReader(neighbours)
			run(t, cmd)
			programs := iptables()
			for _, program := range programs {
				for _, rule := range legacy {
					run(t, s.world.Command(s.world.Node, program, strings.Fields(rule)...))
				}
			}
			before := s.others(t, programs)
			same := func(when string) {
				t.Helper()
				for what, text := range s.others(t, programs) {
					if text != before[what] {
						t.Errorf("%s: %s was\n%s\nand is\n%s", when, what, before[what], text)
					}
				}
			}

			one, local := svc(1, balanced, external, sticky(long)), svc(2, balanced, external, externalLocal, internalLocal)
			s.set(one, local, s.behind(one, on("pod2 remote")...), s.behind(local, on("pod3 other")...))
			s.apply()
			s.ranges("10.100.0.0/16", "fd00:10:100::/112")
			same("programmed")
			s.reachAll(t, "pod0", clusterIP(2), "pod3", kept)
			s.reachAll(t, "stranger", balancer(2), "pod3", kept)
			s.reachAll(t, "stranger", left(nodeAt(2)), "pod3", kept)
			same("used")
			s.set(s.behind(one, on("pod4")...), svc(2, nodePort))
			same("updated")
			for _, damage := range []string{"delete table ip zonewise", "flush table ip6 zonewise"} {
				run(t, s.world.Command(s.world.Node, "nft", strings.Fields(damage)...))
				s.each(func(a applier) error { _, err := a.Audit(); return err })
				same(damage + ", and repaired")
			}
			s.reach(t, "pod0", clusterIP(2), "pod3 other", kept)
			s.start(nft.Options{})
			s.apply()
			same("another agent")
			s.each(func(a applier) error { return a.Remove() })
			same("removed")
			if out := run(t, s.world.Command(s.world.Node, "nft", "list", "tables")); bytes.Contains(out, []byte("zonewise")) {
				t.Errorf("left behind:\n%s", out)
			}
		})
	}
}

// iptables are the programs of that name that this machine has: the newer one keeps its rules in
// nf_tables, the older one does not.
func iptables() []string {
	var out []string
	for _, name := range []string{"iptables-nft", "iptables-legacy"} {
		if path, err := exec.LookPath(name); err == nil {
			out = append(out, path)
		}
	}
	return out
}

// others are the tables that are not ours, as their own programs print them: with handles, and
// without the counts of packets that their rules saw.
func (s *stage) others(t *testing.T, programs []string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for name := range strings.Lines(string(run(t, s.world.Command(s.world.Node, "nft", "list", "tables")))) {
		if name = strings.TrimSpace(name); !strings.Contains(name, "zonewise") {
			out[name] = string(run(t, s.world.Command(s.world.Node, "nft", append([]string{"-a", "-s", "list"}, strings.Fields(name)...)...)))
		}
	}
	for _, program := range programs {
		for _, table := range []string{"filter", "nat", "mangle"} {
			out[fmt.Sprint(program, " ", table)] = string(run(t, s.world.Command(s.world.Node, program, "-t", table, "-S")))
		}
	}
	return out
}

func run(t *testing.T, cmd *exec.Cmd) []byte {
	t.Helper()
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v\n%s", cmd.Args[2:], err, errs.Bytes())
	}
	return out
}
