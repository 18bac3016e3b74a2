//go:build kernel

package nft_test

import (
	"io"
	"strings"
	"testing"

	kernelnft "github.com/zonewise/zonewise/internal/kernel/nft"
	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/service"
)

// gettingBy is what layout 5 had where it let direct flows get by conntrack.
const gettingBy = `
add set ip zonewise service-addresses { type ipv4_addr; }
add set ip zonewise tracked { type ipv4_addr; size 65536; flags dynamic,timeout; }
add element ip zonewise tracked { 192.168.1.11 timeout 7d }
add chain ip zonewise untracked-flow
add rule ip zonewise untracked-flow ip saddr @tracked accept comment "who was translated"
add rule ip zonewise untracked-flow ip daddr @tracked accept comment "answers to who was translated"
add rule ip zonewise untracked-flow ip daddr @service-addresses accept comment "to Services"
add rule ip zonewise untracked-flow fib daddr type local accept comment "to this node"
add rule ip zonewise untracked-flow notrack comment "not tracked"
add chain ip zonewise untracked-to
add rule ip zonewise untracked-to ip daddr 192.168.0.0/16 goto untracked-flow
add chain ip zonewise track
add rule ip zonewise track update @tracked { ip saddr timeout 7d } comment "remember who is translated"
add chain ip zonewise client
add rule ip zonewise client ip saddr 192.168.0.0/16 goto track
add chain ip zonewise untracked { type filter hook prerouting priority -300; }
add rule ip zonewise untracked ip saddr 192.168.0.0/16 goto untracked-to comment "from 192.168.0.0/16"
insert rule ip zonewise opened jump client comment "who is translated"
insert rule ip zonewise forward ct status dnat ct original ip saddr @tracked update @tracked { ip saddr timeout 7d } comment "who is still translated"
insert rule ip zonewise forward ct state untracked accept comment "not tracked"
add chain ip zonewise layout-5
delete chain ip zonewise layout-6
`

// What let flows get by conntrack goes, and no flow with it: neither one that got by nor one that was translated.
func TestUpgradeFromALayoutWithTooMuch(t *testing.T) {
	w := newWorld(t)
	w.serveAll(t)
	newDataplane(t, w).apply(nil)
	w.nft(t, strings.ReplaceAll(strings.TrimSpace(gettingBy), "\n", "; "))
	s := svc{name: "web", ip: "10.100.0.7", endpoints: fourEndpoints[2:3]}
	want := map[model.Name][]service.Frontend{s.id(): s.plan()}
	open := map[string]io.ReadWriter{}
	begin := func(addr string) {
		t.Helper()
		c, err := w.dial(w.podB, "tcp4", addr, 20*dialTimeout)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		got, err := read(c)
		must(t, got, err)
		open[addr] = c
	}
	alive := func(step string) {
		t.Helper()
		for addr, c := range open {
			line := step + "\n"
			buf := make([]byte, len(line))
			if _, err := io.WriteString(c, line); err != nil {
				t.Fatalf("%s: %s: %v", step, addr, err)
			}
			if _, err := io.ReadFull(c, buf); err != nil || string(buf) != line {
				t.Errorf("%s: %s: %q %v", step, addr, buf, err)
			}
		}
	}
	begin(target(otherIP))
	if n := strings.Count(w.nft(t, "list", "ruleset"), "untracked"); n < 5 {
		t.Fatalf("%d times untracked in the table that is to be upgraded", n)
	}
	door := &counting{Conn: kernelnft.Dial(w.node.FD())}
	d := newDataplaneOn(t, w, door)
	d.apply(want)
	begin("10.100.0.7:80")
	alive("after the upgrade")
	rules := w.nft(t, "list", "ruleset")
	for _, gone := range []string{"track", "service-addresses", "chain client", "layout-5"} {
		if strings.Contains(rules, gone) {
			t.Errorf("%s is still there: %s", gone, rules)
		}
	}
	before := door.commits
	d.apply(want)
	if door.commits != before {
		t.Error("there was something left to do")
	}
	alive("and later")
}
