//go:build kernel

package link

import (
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/zonewise/zonewise/internal/kernel/netns"
)

func TestKernelConforms(t *testing.T) {
	var nets [2]*Net
	var spaces [2]*netns.NS
	for i := range nets {
		spaces[i], nets[i] = space(t)
	}
	conforms(t, nets[0], nets[1], spaces[1])
}

// Rules of others are neither shown nor deleted, were they the same but for their maker.
func TestForeignRulesStay(t *testing.T) {
	ns, n := space(t)
	ours := Rule{Priority: 512, To: netip.MustParsePrefix("10.1.0.3/32")}
	run := func(args ...string) string {
		t.Helper()
		var out []byte
		err := ns.Do(func() (err error) {
			out, err = exec.Command("ip", args...).CombinedOutput()
			return err
		})
		if err != nil {
			t.Fatalf("ip %v: %v: %s", args, err, out)
		}
		return string(out)
	}
	run("rule", "add", "to", "10.1.0.3", "priority", "512", "lookup", "main")
	before := run("rule")
	if err := n.DeleteRule(ours); err != nil {
		t.Fatal(err)
	}
	if rules, err := n.Rules(); err != nil || len(rules) != 0 {
		t.Errorf("rules: %v, %v", rules, err)
	}
	if err := n.AddRule(ours); err != nil {
		t.Fatal(err)
	}
	if rules, err := n.Rules(); err != nil || len(rules) != 1 {
		t.Errorf("rules: %v, %v", rules, err)
	}
	if err := n.DeleteRule(ours); err != nil {
		t.Fatal(err)
	}
	if after := run("rule"); after != before {
		t.Errorf("from %s to %s", before, after)
	}
}

func TestUplink(t *testing.T) {
	_, here := space(t)
	far, _ := space(t)
	uplinks(t, here, far)
}

// The setting is that of the device in the namespace, and of no other.
func TestLoosen(t *testing.T) {
	ns, n := space(t)
	there, _ := space(t)
	for _, name := range []string{"a0", "a1"} {
		if err := n.Pair(Device{Name: name}, Device{Name: name}, there); err != nil {
			t.Fatal(err)
		}
	}
	read := func(device string) (value string) {
		t.Helper()
		err := ns.Do(func() error {
			b, err := os.ReadFile("/proc/sys/net/ipv4/conf/" + device + "/rp_filter")
			value = strings.TrimSpace(string(b))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
	other := read("a1")
	if err := n.Loosen("a0"); err != nil {
		t.Fatal(err)
	}
	if read("a0") != "2" || read("a1") != other {
		t.Errorf("a0 %s, a1 from %s to %s", read("a0"), other, read("a1"))
	}
}

func space(t *testing.T) (*netns.NS, *Net) {
	t.Helper()
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ns.Close() })
	n, err := At(ns)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	return ns, n
}
