package cni

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"pgregory.net/rapid"

	klink "github.com/zonewise/zonewise/internal/kernel/link"
	"github.com/zonewise/zonewise/internal/vpc"
	"github.com/zonewise/zonewise/internal/vpc/files"
)

// cloudNode is a node that gets its addresses from the cloud: so many interfaces with two each.
func cloudNode(t testing.TB, dir string, interfaces int) *node {
	n := newNode(dir)
	n.extra = map[string]any{"pool": map[string]any{"from": "cloud", "wait": "10s"}}
	n.supply(t, supplyOf(interfaces))
	return n
}

func supplyOf(interfaces int) vpc.Supply {
	s := vpc.Supply{VPC: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/16")}, Why: "the node is full; use a larger type"}
	for n := range interfaces {
		i := vpc.Interface{
			ID: fmt.Sprint("eni-", n), Device: fmt.Sprint("eth", n), Index: n, Primary: n == 0, Table: n + 1,
			Subnet: netip.MustParsePrefix("10.0.0.0/16"), Gateway: netip.MustParseAddr("10.0.0.1"),
			Address: netip.AddrFrom4([4]byte{10, 0, byte(n), 10}),
		}
		for k := range 2 {
			i.Addresses = append(i.Addresses, netip.AddrFrom4([4]byte{10, 0, byte(n), byte(11 + k)}))
		}
		s.Interfaces = append(s.Interfaces, i)
	}
	s.Interfaces[0].Table = 254
	return s
}

// supply is what the daemon does.
func (n *node) supply(t testing.TB, s vpc.Supply) {
	t.Helper()
	dir, err := files.Open(n.dir)
	if err == nil {
		err = errors.Join(dir.WritePool(s), dir.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (n *node) leases(t testing.TB) vpc.Leases {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(n.dir, files.Leases))
	if err != nil {
		t.Fatal(err)
	}
	l, err := files.DecodeLeases(data)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func (n *node) rules(t testing.TB) []string {
	t.Helper()
	rules, err := n.nets.Here().Rules()
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, r := range rules {
		out = append(out, r.String())
	}
	return out
}

// Pods of the primary interface have one rule, those of others two; they go with the pod.
func TestCloudPodsHaveRules(t *testing.T) {
	n := cloudNode(t, t.TempDir(), 2)
	for i := range 3 {
		n.spaces.Add(fmt.Sprint("/pod", i))
		n.must(t, "ADD", i)
		n.must(t, "ADD", i)
		n.must(t, "CHECK", i)
	}
	want := []string{
		"512: from all to 10.0.0.11 lookup main", "512: from all to 10.0.0.12 lookup main",
		"512: from all to 10.0.1.11 lookup main", "1536: from 10.0.1.11 lookup 2",
	}
	if got := n.rules(t); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	rules, _ := n.nets.Here().Rules()
	if err := n.nets.Here().DeleteRule(rules[3]); err != nil {
		t.Fatal(err)
	}
	if _, err := n.call("CHECK", 2); err == nil || !strings.Contains(err.Error(), "no rule 1536") {
		t.Errorf("check: %v", err)
	}
	n.must(t, "ADD", 2)
	n.must(t, "DEL", 0)
	n.extra["cni.dev/valid-attachments"] = []types.GCAttachment{{ContainerID: "c2", IfName: "eth0"}}
	n.must(t, "GC", 0)
	if got := n.rules(t); !slices.Equal(got, want[2:]) {
		t.Errorf("after DEL and GC: got %q, want %q", got, want[2:])
	}
	n.must(t, "DEL", 2)
	if got := n.rules(t); len(got) > 0 {
		t.Errorf("left over: %q", got)
	}
}

// What the daemon has not written, or not well, is said as soon as somebody asks; pods can go all the same.
func TestCloudWithoutPool(t *testing.T) {
	n := cloudNode(t, t.TempDir(), 1)
	n.spaces.Add("/pod0")
	n.spaces.Add("/pod1")
	n.must(t, "ADD", 0)
	n.must(t, "STATUS", 0)
	pool := filepath.Join(n.dir, files.Pool)
	for content, want := range map[string]string{
		"":                                "DaemonSet zonewise-cni",
		"{":                               "remove it",
		`{"schema":"zonewise.pool/v2"}`:   "same version",
		`{"schema":"zonewise.pool/v1"}, `: "remove it",
	} {
		if err := os.Remove(pool); err != nil {
			t.Fatal(err)
		}
		if content != "" {
			if err := os.WriteFile(pool, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		for _, verb := range []string{"ADD", "STATUS"} {
			_, err := n.call(verb, 1)
			if err == nil || !strings.Contains(err.Error(), pool) || !strings.Contains(err.Error(), want) {
				t.Errorf("%s with pool %q: %v", verb, content, err)
			}
			coded, _ := errors.AsType[*types.Error](err)
			if verb == "STATUS" && (coded == nil || coded.Code != types.ErrPluginNotAvailable) {
				t.Errorf("STATUS: %v", err)
			}
		}
		n.must(t, "DEL", 1)
		if err := os.WriteFile(pool, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	n.must(t, "DEL", 0)
	if l := n.leases(t); len(l.Held)+len(l.Waiting) > 0 {
		t.Errorf("left over: %v", l)
	}
}

// A full pool that does not grow refuses at once, with the words of the daemon, and is no reason for the
// node to be unready.
func TestCloudFullPool(t *testing.T) {
	n := cloudNode(t, t.TempDir(), 1)
	for i := range 3 {
		n.spaces.Add(fmt.Sprint("/pod", i))
	}
	n.must(t, "ADD", 0)
	n.must(t, "ADD", 1)
	if _, err := n.call("ADD", 2); !errors.Is(err, vpc.ErrExhausted) && (err == nil || !strings.Contains(err.Error(), "use a larger type")) {
		t.Errorf("got %v", err)
	}
	n.must(t, "STATUS", 0)
	if w := n.leases(t).Waiting; len(w) > 0 {
		t.Errorf("waits: %v", w)
	}
}

// Who waits leaves a ticket, and gets an address as soon as the daemon has one.
func TestCloudPodsWaitForThePoolToGrow(t *testing.T) {
	n := cloudNode(t, t.TempDir(), 1)
	s := supplyOf(1)
	s.Grows = true
	n.supply(t, s)
	const pods = 4
	for i := range pods {
		n.spaces.Add(fmt.Sprint("/pod", i))
	}
	watch, err := files.Follow(n.dir, files.Leases)
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Close()
	n.must(t, "ADD", 0)
	n.must(t, "ADD", 1)
	type answer struct {
		*types100.Result
		error
	}
	answers := make(chan answer)
	for i := 2; i < pods; i++ {
		go func() {
			r, err := n.call("ADD", i)
			answers <- answer{r, err}
		}()
	}
	for len(n.leases(t).Waiting) < pods-2 {
		<-watch.Changed
	}
	for _, w := range n.leases(t).Waiting {
		if w.Namespace != "default" || !strings.HasPrefix(w.Pod, "p") || w.Until.Sub(w.Since) != 10*time.Second {
			t.Errorf("ticket: %+v", w)
		}
	}
	s = supplyOf(2)
	s.Grows = true
	n.supply(t, s)
	got := map[string]bool{}
	for range pods - 2 {
		a := <-answers
		if a.error != nil {
			t.Fatal(a.error)
		}
		got[ip(a.Result)] = true
	}
	if !got["10.0.1.11/32"] || !got["10.0.1.12/32"] {
		t.Errorf("got %v", got)
	}
	if w := n.leases(t).Waiting; len(w) > 0 {
		t.Errorf("still waiting: %v", w)
	}
}

// Nobody answers: the pod is told which limit bites, and no ticket stays.
func TestCloudWaitEnds(t *testing.T) {
	n := cloudNode(t, t.TempDir(), 1)
	s := supplyOf(1)
	s.Grows, s.Why = true, "subnet subnet-1 has no free address; add a CIDR to the VPC"
	n.supply(t, s)
	n.extra["pool"] = map[string]any{"from": "cloud", "wait": "20ms"}
	for i := range 3 {
		n.spaces.Add(fmt.Sprint("/pod", i))
	}
	n.must(t, "ADD", 0)
	n.must(t, "ADD", 1)
	_, err := n.call("ADD", 2)
	coded, _ := errors.AsType[*types.Error](err)
	if coded == nil || coded.Code != types.ErrTryAgainLater || !strings.Contains(err.Error(), "pod default/p2: waited 20ms") ||
		!strings.Contains(err.Error(), s.Why) {
		t.Errorf("got %v", err)
	}
	if w := n.leases(t).Waiting; len(w) > 0 {
		t.Errorf("still waiting: %v", w)
	}
}

// The ticket of an ADD that was killed goes with GC.
func TestCloudTicketOfNobody(t *testing.T) {
	n := cloudNode(t, t.TempDir(), 1)
	n.spaces.Add("/pod0")
	n.must(t, "ADD", 0)
	dir, err := files.Open(n.dir)
	if err != nil {
		t.Fatal(err)
	}
	l := n.leases(t)
	l = vpc.Wait(l, vpc.Key{Container: "killed", Interface: "eth0"}, vpc.Owner{}, time.Now(), time.Now().Add(time.Minute))
	if err := errors.Join(dir.WriteLeases(l), dir.Close()); err != nil {
		t.Fatal(err)
	}
	n.extra["cni.dev/valid-attachments"] = []types.GCAttachment{{ContainerID: "c0", IfName: "eth0"}}
	n.must(t, "GC", 0)
	if l := n.leases(t); len(l.Waiting) > 0 || len(l.Held) != 1 {
		t.Errorf("left over: %+v", l)
	}
}

// An address rests for the cooldown; who waits for it gets it then, without any change of the files.
func TestCloudWaitsForARestedAddress(t *testing.T) {
	n := cloudNode(t, t.TempDir(), 1)
	s := supplyOf(1)
	s.Cooldown = 30 * time.Millisecond
	n.supply(t, s)
	for i := range 3 {
		n.spaces.Add(fmt.Sprint("/pod", i))
	}
	n.now = time.Now
	n.must(t, "ADD", 0)
	n.must(t, "ADD", 1)
	n.must(t, "DEL", 0)
	released := n.leases(t).Resting[0].At
	r := n.must(t, "ADD", 2)
	if rested := time.Since(released); ip(r) != "10.0.0.11/32" || rested < s.Cooldown {
		t.Errorf("got %s after %s", ip(r), rested)
	}
}

// In any order, with the kernel failing now and then and the supply changing: rules are exactly those of
// who has an address, and when all pods are gone nothing is left.
func TestCloudInAnyOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dir := memoryDir(t)
		defer os.RemoveAll(dir)
		n := newNode(dir)
		n.extra = map[string]any{"pool": map[string]any{"from": "cloud", "wait": "0s"}}
		write := func(s vpc.Supply) {
			d, err := files.Open(dir)
			if err == nil {
				err = errors.Join(d.WritePool(s), d.Close())
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		write(supplyOf(2))
		some := rapid.IntRange(0, 4)
		has, wired := map[int]string{}, map[int]string{}
		begin := func(t *rapid.T) int {
			i := some.Draw(t, "pod")
			n.spaces.Add(fmt.Sprint("/pod", i))
			n.nets.Fail = nil
			if at := rapid.IntRange(-8, 12).Draw(t, "fails at"); at >= 0 {
				n.nets.Fail = func(string) error {
					if at--; at == -1 {
						return errors.New("flaky")
					}
					return nil
				}
			}
			return i
		}
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				i := begin(t)
				if r, err := n.call("ADD", i); err == nil {
					has[i], wired[i] = ip(r), ip(r)
				}
			},
			"del": func(t *rapid.T) {
				i := begin(t)
				delete(wired, i)
				if _, err := n.call("DEL", i); err == nil {
					delete(has, i)
				}
			},
			"supply": func(t *rapid.T) {
				s := supplyOf(rapid.IntRange(1, 3).Draw(t, "interfaces"))
				s.Grows = rapid.Bool().Draw(t, "grows")
				s.Interfaces[len(s.Interfaces)-1].Draining = rapid.Bool().Draw(t, "draining")
				write(s)
			},
			"": func(t *rapid.T) {
				n.invariant(t, has)
				rules, err := n.nets.Here().Rules()
				if err != nil {
					t.Fatal(err)
				}
				for _, ip := range wired {
					pod := netip.MustParsePrefix(ip)
					if !slices.ContainsFunc(rules, func(r klink.Rule) bool { return r.Priority == 512 && r.To == pod }) {
						t.Fatalf("%s has no rule: %v", ip, rules)
					}
				}
			},
		})
		n.nets.Fail = nil
		n.empty(t)
		if rules, err := n.nets.Here().Rules(); err != nil || len(rules) > 0 {
			t.Fatalf("left over: %v, %v", rules, err)
		}
	})
}
