//go:build kernel

package nft_test

import (
	"encoding/json"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/zonewise/zonewise/internal/model"
)

// People look at the table with nft. Debian's 1.0.6 aborts on some rules that the kernel takes.
func TestNftListsTheTable(t *testing.T) {
	w := newWorld(t)
	w.serveAll(t)
	d := newDataplane(t, w)
	d.apply(nil)
	both := []model.Endpoint{endpoint(podAIP, "n1"), endpoint(remoteIP, "n2")}
	d.update("web", svc{name: "web", ip: "10.100.0.7", nodePort: 30080, endpoints: both}.plan())
	d.update("local", svc{name: "local", ip: "10.100.0.8", nodePort: 30081, endpoints: both[:1],
		change: func(s *model.Service) { s.ExternalLocal = true }}.plan())
	d.update("none", svc{name: "none", ip: "10.100.0.9"}.plan())
	got, err := w.ask(w.podB, "10.100.0.8:80")
	must(t, got, err)

	whole := w.nft(t, "list", "ruleset")
	for _, want := range []string{
		"table ip zonewise {",
		"type ipv4_addr . inet_proto . inet_service : mark . mark",
		"type mark : verdict",
		`meta mark vmap @ways comment "services, by number"`,
		"type ipv4_addr . inet_proto . inet_service . mark : ipv4_addr . inet_service",
		`comment "what answers at an address, protocol and port: by the numbers in ways"`,
		"10.100.0.7 . tcp . 80 . 0x00000001 : ",
		"192.168.1.10 . tcp . 30081 . 0x00100000 : 192.168.1.11 . 8080",
		"10.100.0.9 . tcp . 80 : " + numberOf(t, whole, "reject"),
		"10.100.0.8 . tcp . 80 . 192.168.1.11 . 8080 counter packets 1 ",
		`dnat ip to ip daddr . meta l4proto . th dport . numgen random mod 2 map @backends comment "one of 2"`,
		"ct original ip daddr . meta l4proto . ct original proto-dst . ct reply ip saddr . ct reply proto-src counter",
		`iifname "eni*" goto inside`,
		"meta mark set meta mark | 0x00004000",
	} {
		if !strings.Contains(whole, want) {
			t.Errorf("nothing like this in it: %s", want)
		}
	}
	readable(t, whole)
	if t.Failed() {
		t.Log(whole)
	}
	if one := w.nft(t, "list", "map", "ip", "zonewise", "services"); !strings.Contains(one, "192.168.1.10 . tcp . 30080 : "+numberOf(t, whole, "ext-2")) {
		t.Errorf("the map of Services: %s", one)
	}
	if out := w.nft(t, "-j", "list", "ruleset"); !json.Valid([]byte(out)) {
		t.Errorf("no JSON: %s", out)
	}
}

// numberOf returns which number goes to a chain.
func numberOf(t *testing.T, rules, chain string) string {
	t.Helper()
	number := regexp.MustCompile(`(0x[0-9a-f]{8}) : goto ` + regexp.QuoteMeta(chain) + `\s*[,}]`).FindStringSubmatch(rules)
	if number == nil {
		t.Fatalf("no number goes to %s", chain)
	}
	return "0x00000000 . " + number[1]
}

// readable fails the test if nft did not understand a part of what it lists.
func readable(t *testing.T, rules string) {
	t.Helper()
	rules = strings.ReplaceAll(rules, "ct state invalid", "")
	for _, sign := range []string{"invalid", "unknown"} {
		if strings.Contains(rules, sign) {
			t.Errorf("nft could not read a part of it:\n%s", rules)
		}
	}
}

// nft runs the program in the node, and fails the test when it is missing or fails.
func (w world) nft(t testing.TB, args ...string) string {
	t.Helper()
	var out []byte
	w.in(t, w.node, func() (err error) {
		var complaints strings.Builder
		c := exec.Command("nft", args...)
		c.Stderr = &complaints // it has no JSON for one kind of statement, and says so
		if out, err = c.Output(); err != nil {
			t.Logf("nft %s: %s", strings.Join(args, " "), complaints.String())
		}
		return err
	})
	return string(out)
}
