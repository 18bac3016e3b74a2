package cni

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	klink "github.com/zonewise/zonewise/internal/kernel/link"
	"github.com/zonewise/zonewise/internal/kernel/netns"
	"github.com/zonewise/zonewise/internal/vpc/files"
)

// fakeMachine is a node without a kernel.
type fakeMachine struct {
	spaces netns.Fake
	nets   klink.Fake
}

func (m *fakeMachine) Open(path string) (*netns.NS, error) { return m.spaces.Open(path) }
func (m *fakeMachine) Here() (network, error)              { return m.nets.Here(), nil }
func (m *fakeMachine) At(ns *netns.NS) (network, error)    { return m.nets.At(ns), nil }

// node is the plugin on such a node, with three addresses.
type node struct {
	fakeMachine
	dir   string
	clock time.Time
	now   func() time.Time // nil: the clock stands
	extra map[string]any   // further fields of the configuration
}

func newNode(dir string) *node {
	return &node{dir: dir, clock: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
}

func (n *node) call(verb string, pod int) (*types100.Result, error) {
	var out bytes.Buffer
	p := plugin{out: &out, now: n.now, machine: n}
	if p.now == nil {
		p.now = func() time.Time { return n.clock }
	}
	conf := map[string]any{"cniVersion": "1.1.0", "name": "zonewise", "type": TypeName, "stateDir": n.dir,
		"pool": map[string]any{"ranges": []string{"10.0.0.1-10.0.0.3"}}}
	for k, v := range n.extra {
		conf[k] = v
	}
	data, err := json.Marshal(conf)
	if err != nil {
		return nil, err
	}
	args := &skel.CmdArgs{
		ContainerID: fmt.Sprint("c", pod), Netns: fmt.Sprint("/pod", pod), IfName: "eth0",
		Args: fmt.Sprint("K8S_POD_NAMESPACE=default;K8S_POD_NAME=p", pod), StdinData: data,
	}
	verbs := map[string]func(call) error{"ADD": p.add, "DEL": p.del, "CHECK": p.check, "GC": p.gc, "STATUS": p.status}
	if err := p.verb(verbs[verb])(args); err != nil || out.Len() == 0 {
		return nil, err
	}
	r, err := types100.NewResult(out.Bytes())
	if err != nil {
		return nil, err
	}
	return types100.NewResultFromResult(r)
}

func (n *node) must(t *testing.T, verb string, pod int) *types100.Result {
	t.Helper()
	r, err := n.call(verb, pod)
	if err != nil {
		t.Fatalf("%s %d: %v", verb, pod, err)
	}
	return r
}

func ip(r *types100.Result) string { return r.IPs[0].Address.String() }

func TestAddTellsWhatThePodHas(t *testing.T) {
	n := newNode(t.TempDir())
	n.spaces.Add("/pod1")
	r := n.must(t, "ADD", 1)
	if ip(r) != "10.0.0.1/32" || *r.IPs[0].Interface != 1 || r.IPs[0].Gateway.String() != "169.254.1.1" {
		t.Errorf("ips: %+v", r.IPs)
	}
	if len(r.Interfaces) != 2 || r.Interfaces[0].Sandbox != "" || r.Interfaces[1].Sandbox != "/pod1" ||
		r.Interfaces[1].Name != "eth0" || !strings.HasPrefix(r.Interfaces[0].Name, "eni") {
		t.Errorf("interfaces: %v", r.Interfaces)
	}
	if len(r.Routes) != 1 || r.Routes[0].Dst.String() != "0.0.0.0/0" {
		t.Errorf("routes: %v", r.Routes)
	}
	if again := n.must(t, "ADD", 1); ip(again) != ip(r) {
		t.Errorf("again: %s", ip(again))
	}
	n.must(t, "CHECK", 1)
	n.extra = map[string]any{"prevResult": r}
	n.must(t, "CHECK", 1)
	r.IPs[0].Address.IP[3] = 9
	if _, err := n.call("CHECK", 1); err == nil || !strings.Contains(err.Error(), "prevResult") {
		t.Errorf("check against another result: %v", err)
	}
}

// With a prefix for IPv6 the pod has two addresses, IPv4's first, and CHECK misses each.
func TestAddGivesBothFamilies(t *testing.T) {
	n := newNode(t.TempDir())
	n.spaces.Add("/pod1")
	n.extra = map[string]any{"pool": map[string]any{"ranges": []string{"10.0.0.1-10.0.0.3"}, "ipv6": "fd00:192:168:1:1::/80"}}
	r := n.must(t, "ADD", 1)
	var got []string
	for i, ip := range r.IPs {
		got = append(got, fmt.Sprint(ip.Address.String(), " via ", ip.Gateway, ", ", r.Routes[i].Dst.String(), " via ", r.Routes[i].GW))
	}
	want := []string{
		"10.0.0.1/32 via 169.254.1.1, 0.0.0.0/0 via 169.254.1.1",
		"fd00:192:168:1:1:0:a00:1/128 via fe80::1, ::/0 via fe80::1",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if diff := cmp.Diff(r, n.must(t, "ADD", 1)); diff != "" {
		t.Errorf("again: %s", diff)
	}
	n.extra["prevResult"] = r
	n.must(t, "CHECK", 1)
	r.IPs = r.IPs[:1]
	if _, err := n.call("CHECK", 1); err == nil || !strings.Contains(err.Error(), "leases fd00:192:168:1:1:0:a00:1, which prevResult does not have") {
		t.Errorf("check against a result of IPv4 alone: %v", err)
	}
	delete(n.extra, "prevResult")
	n.must(t, "DEL", 1)
	delete(n.extra, "pool")
	if r := n.must(t, "ADD", 1); len(r.IPs) != 1 {
		t.Errorf("without the prefix: %s", r.IPs)
	}
}

func TestErrorsHaveCodes(t *testing.T) {
	n := newNode(t.TempDir())
	code := func(verb string) uint {
		_, err := n.call(verb, 1)
		coded, _ := errors.AsType[*types.Error](err)
		if coded == nil {
			return 0
		}
		return coded.Code
	}
	if got := code("ADD"); got != types.ErrInvalidNetNS {
		t.Errorf("without a namespace: %d", got)
	}
	if got := code("DEL"); got != 0 {
		t.Errorf("DEL without a namespace: %d", got)
	}
	if got := code("STATUS"); got != 0 {
		t.Errorf("STATUS: %d", got)
	}
	n.extra = map[string]any{"mtu": 1}
	if got := code("ADD"); got != types.ErrInvalidNetworkConfig {
		t.Errorf("bad configuration: %d", got)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	n.extra = map[string]any{"stateDir": file}
	if got := code("STATUS"); got != types.ErrPluginNotAvailable {
		t.Errorf("no place for leases: %d", got)
	}
}

// A full pool refuses, until a pod goes: by DEL, or with its namespace and without a word.
func TestFullPool(t *testing.T) {
	n := newNode(t.TempDir())
	for i := range 4 {
		n.spaces.Add(fmt.Sprint("/pod", i))
	}
	for i := range 3 {
		n.must(t, "ADD", i)
	}
	refused := func() {
		t.Helper()
		if _, err := n.call("ADD", 3); err == nil || !strings.Contains(err.Error(), "all 3 addresses of the pool") {
			t.Fatalf("full pool: %v", err)
		}
	}
	refused()
	n.must(t, "STATUS", 0) // the node is well: only its pool is full
	n.must(t, "DEL", 1)
	if r := n.must(t, "ADD", 3); ip(r) != "10.0.0.2/32" {
		t.Errorf("got %s", ip(r))
	}
	n.must(t, "DEL", 3)
	n.must(t, "ADD", 1)
	n.nets.Vanish("/pod0")
	refused() // it may be an ADD that is under way
	n.clock = n.clock.Add(grace)
	if r := n.must(t, "ADD", 3); ip(r) != "10.0.0.1/32" {
		t.Errorf("got %s", ip(r))
	}
}

// The wires tell who has what when the file is gone or broken.
func TestLeasesAreRebuiltFromWires(t *testing.T) {
	for name, spoil := range map[string]func(path string) error{
		"removed": os.Remove,
		"broken":  func(path string) error { return os.WriteFile(path, []byte("{"), 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t.TempDir())
			n.spaces.Add("/pod1")
			n.spaces.Add("/pod2")
			first := n.must(t, "ADD", 1)
			if err := spoil(filepath.Join(n.dir, "leases.json")); err != nil {
				t.Fatal(err)
			}
			if r := n.must(t, "ADD", 2); ip(r) == ip(first) {
				t.Errorf("%s was given twice", ip(r))
			}
			n.must(t, "CHECK", 1)
			n.must(t, "CHECK", 2)
		})
	}
}

// In any order, with the kernel failing now and then: no address has two pods, what the runtime
// was told is what is there, and when all pods are gone nothing is left.
func TestPluginInAnyOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dir := memoryDir(t)
		defer os.RemoveAll(dir)
		n := newNode(dir)
		has := map[int]string{} // what the runtime was told
		some := rapid.IntRange(0, 4)
		begin := func(t *rapid.T) int {
			i := some.Draw(t, "pod")
			n.spaces.Add(fmt.Sprint("/pod", i))
			n.nets.Fail = nil
			if at := rapid.IntRange(-8, 5).Draw(t, "fails at"); at >= 0 {
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
					if was, ok := has[i]; ok && was != ip(r) {
						t.Fatalf("pod %d had %s, now %s", i, was, ip(r))
					}
					has[i] = ip(r)
				}
			},
			"del": func(t *rapid.T) {
				i := begin(t)
				if _, err := n.call("DEL", i); err == nil {
					delete(has, i)
				}
			},
			"gc": func(t *rapid.T) {
				begin(t)
				valid := []types.GCAttachment{}
				for i := range has {
					valid = append(valid, types.GCAttachment{ContainerID: fmt.Sprint("c", i), IfName: "eth0"})
				}
				n.extra = map[string]any{"cni.dev/valid-attachments": valid}
				_, _ = n.call("GC", 0)
				n.extra = nil
			},
			"": func(t *rapid.T) { n.invariant(t, has) },
		})
		n.empty(t)
	})
}

// memoryDir is a directory that fsync costs nothing in, if there is one, as /run is in life.
func memoryDir(t *rapid.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "zonewise-cni")
	if err != nil {
		dir, err = os.MkdirTemp("", "zonewise-cni")
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// empty takes all pods away and finds that nothing is left of them.
func (n *node) empty(t *rapid.T) {
	for i := range 5 {
		if _, err := n.call("DEL", i); err != nil {
			t.Fatal(err)
		}
	}
	devices, err := n.nets.Here().List()
	if err != nil || len(devices) > 0 {
		t.Fatalf("left over: %v, %v", devices, err)
	}
	data, err := os.ReadFile(filepath.Join(n.dir, "leases.json"))
	if err != nil {
		t.Fatal(err)
	}
	if leases, err := files.DecodeLeases(data); err != nil || len(leases.Held) > 0 {
		t.Fatalf("left over: %s, %v", data, err)
	}
}

func (n *node) invariant(t *rapid.T, has map[int]string) {
	n.nets.Fail = nil
	given := map[string]int{}
	for i, ip := range has {
		if other, twice := given[ip]; twice {
			t.Fatalf("pods %d and %d have %s", i, other, ip)
		}
		given[ip] = i
	}
	if n.spaces.Opened() != 0 {
		t.Fatalf("%d namespaces left open", n.spaces.Opened())
	}
}
