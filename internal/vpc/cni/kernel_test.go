//go:build kernel

package cni

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	klink "github.com/zonewise/zonewise/internal/kernel/link"
	"github.com/zonewise/zonewise/internal/kernel/netns"
	"github.com/zonewise/zonewise/internal/vpc"
	"github.com/zonewise/zonewise/internal/vpc/files"
	"github.com/zonewise/zonewise/internal/vpc/link"
)

// host is a node in a network namespace of its own, with the plugin on it as a program.
type host struct {
	*testing.T
	ns   *netns.NS
	net  *klink.Net
	dir  string
	pool string
	ipv6 string // prefix of the pods' second addresses, if any
	wait string // not empty: addresses come from the cloud, and who gets none waits so long
}

func space(t *testing.T) (*netns.NS, *klink.Net) {
	t.Helper()
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	n, err := klink.At(ns)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		n.Close()
		_ = ns.Close()
	})
	return ns, n
}

func newHost(t *testing.T) *host {
	h := &host{T: t, dir: t.TempDir(), pool: "192.168.1.11-192.168.1.27"}
	h.ns, h.net = space(t)
	// A namespace without any address has no table of local ones, and takes every address for a
	// broadcast; no node is like that.
	ensure(t, h.net, klink.Device{Name: "lo", Up: true})
	forward := func() error { return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644) }
	if err := h.ns.Do(forward); err != nil {
		t.Fatal(err)
	}
	return h
}

// command is the plugin, about to be started for the verb and the pod.
func (h *host) command(verb, pod, sandbox string, extra ...string) *exec.Cmd {
	c := exec.Command("/proc/self/exe")
	c.Env = append([]string{
		"CNI_COMMAND=" + verb, "CNI_CONTAINERID=" + pod, "CNI_IFNAME=eth0", "CNI_PATH=/opt/cni/bin",
		"CNI_NETNS=" + sandbox, "CNI_ARGS=K8S_POD_NAMESPACE=default;K8S_POD_NAME=" + pod,
	}, extra...)
	c.Stdin = strings.NewReader(h.config(nil))
	return c
}

func (h *host) config(valid []types.GCAttachment) string {
	pool := map[string]any{"ranges": []string{h.pool}, "ipv6": h.ipv6}
	if h.wait != "" {
		pool = map[string]any{"from": "cloud", "wait": h.wait}
	}
	data, err := json.Marshal(map[string]any{
		"cniVersion": "1.1.0", "name": "zonewise", "type": TypeName, "stateDir": h.dir, "pool": pool,
		"cni.dev/valid-attachments": valid,
	})
	if err != nil {
		h.Fatal(err)
	}
	return string(data)
}

// run runs the plugin on the node; the error has what the plugin said on stdout.
func (h *host) run(c *exec.Cmd) (*types100.Result, error) {
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, os.Stderr
	if err := h.ns.Do(c.Run); err != nil {
		return nil, fmt.Errorf("%w: %s", err, &out)
	}
	if out.Len() == 0 {
		return nil, nil
	}
	r, err := types100.NewResult(out.Bytes())
	if err != nil {
		return nil, err
	}
	return types100.NewResultFromResult(r)
}

func (h *host) call(verb, pod, sandbox string) (*types100.Result, error) {
	return h.run(h.command(verb, pod, sandbox))
}

func (h *host) must(verb, pod, sandbox string) *types100.Result {
	h.Helper()
	r, err := h.call(verb, pod, sandbox)
	if err != nil {
		h.Fatalf("%s %s: %v", verb, pod, err)
	}
	return r
}

// pod makes a pod and returns its namespace and address.
func (h *host) pod(name string) (*netns.NS, *klink.Net, netip.Addr) {
	h.Helper()
	ns, n := space(h.T)
	return ns, n, addrOf(h.must("ADD", name, ns.Path()))
}

func addrOf(r *types100.Result) netip.Addr {
	a, _ := netip.AddrFromSlice(r.IPs[0].Address.IP.To4())
	return a
}

// nothingLeft finds no device but the loopback, no route, no lease.
func (h *host) nothingLeft() {
	h.Helper()
	devices, err := h.net.List()
	if err != nil || len(devices) != 1 || len(devices[0].Routes) != 0 {
		h.Errorf("left over: %v, %v", devices, err)
	}
	if held := h.leases(); len(held) > 0 {
		h.Errorf("left over: %v", held)
	}
	files, _ := filepath.Glob(filepath.Join(h.dir, "*"))
	if len(files) > 2 {
		h.Errorf("left over: %v", files)
	}
}

func (h *host) leases() []vpc.Lease {
	h.Helper()
	data, err := os.ReadFile(filepath.Join(h.dir, "leases.json"))
	if err != nil {
		h.Fatal(err)
	}
	l, err := files.DecodeLeases(data)
	if err != nil {
		h.Fatal(err)
	}
	return l.Held
}

// change writes other leases.
func (h *host) change(to func(vpc.Leases) vpc.Leases) {
	h.Helper()
	d, err := files.Open(h.dir)
	if err != nil {
		h.Fatal(err)
	}
	defer d.Close()
	l, err := d.ReadLeases(func() (vpc.Leases, error) { return vpc.Leases{}, errors.New("rebuilt without need") })
	if err == nil {
		err = d.WriteLeases(to(l))
	}
	if err != nil {
		h.Fatal(err)
	}
}

const patience = 10 * time.Second

// greet connects from one namespace to a listener in the other, and returns the peer's address as
// the listener sees it.
func greet(t *testing.T, from, to *netns.NS, address netip.Addr) string {
	t.Helper()
	var l net.Listener
	err := to.Do(func() (err error) {
		l, err = net.Listen("tcp", netip.AddrPortFrom(address, 0).String())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = io.WriteString(c, c.RemoteAddr().(*net.TCPAddr).IP.String())
	}()
	var said []byte
	err = from.Do(func() error {
		c, err := net.DialTimeout("tcp", l.Addr().String(), patience)
		if err != nil {
			return err
		}
		defer c.Close()
		if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
			return err
		}
		said, err = io.ReadAll(c)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return string(said)
}

// ping sends an ICMP echo request and waits for the reply.
func ping(t *testing.T, from *netns.NS, to netip.Addr) {
	t.Helper()
	err := from.Do(func() error {
		c, err := net.DialTimeout("ip4:icmp", to.String(), patience)
		if err != nil {
			return err
		}
		defer c.Close()
		if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
			return err
		}
		// Type 8, code 0, checksum of the rest, identifier 1, sequence 1.
		if _, err := c.Write([]byte{8, 0, 0xf7, 0xfd, 0, 1, 0, 1}); err != nil {
			return err
		}
		b := make([]byte, 64)
		n, err := c.Read(b)
		if err == nil && (n < 28 || b[20] != 0) { // after the IP header
			err = fmt.Errorf("reply %x", b[:n])
		}
		return err
	})
	if err != nil {
		t.Fatalf("ping %s: %v", to, err)
	}
}

func TestPodsReachEachOtherAndTheWorld(t *testing.T) {
	h := newHost(t)
	a, _, aIP := h.pod("a")
	b, _, bIP := h.pod("b")
	ping(t, a, bIP)
	if peer := greet(t, a, b, bIP); peer != aIP.String() {
		t.Errorf("b sees %s, a has %s", peer, aIP)
	}

	// A router beyond the node, which knows that the pool is behind the node.
	world, n := space(t)
	if err := h.net.Pair(klink.Device{Name: "up0", MAC: klink.MAC{2, 1}}, klink.Device{Name: "up1", MAC: klink.MAC{2, 2}}, world); err != nil {
		t.Fatal(err)
	}
	nodeIP, worldIP := netip.MustParseAddr("192.168.1.10"), netip.MustParseAddr("203.0.113.1")
	ensure(t, h.net, klink.Device{Name: "up0", Up: true, Addresses: []netip.Prefix{netip.PrefixFrom(nodeIP, 24)}, Routes: []klink.Route{
		{To: netip.PrefixFrom(worldIP, 32)},
		{To: netip.MustParsePrefix("0.0.0.0/0"), Via: worldIP},
	}})
	ensure(t, n, klink.Device{Name: "up1", Up: true, Addresses: []netip.Prefix{netip.PrefixFrom(worldIP, 32)}, Routes: []klink.Route{
		{To: netip.PrefixFrom(nodeIP, 32)},
		{To: netip.MustParsePrefix("192.168.1.0/24"), Via: nodeIP},
	}})
	ping(t, a, worldIP)
	if peer := greet(t, a, world, worldIP); peer != aIP.String() {
		t.Errorf("the world sees %s, a has %s", peer, aIP)
	}
	if peer := greet(t, world, b, bIP); peer != worldIP.String() {
		t.Errorf("b sees %s, the world has %s", peer, worldIP)
	}
	if peer := greet(t, h.ns, b, bIP); peer != nodeIP.String() {
		t.Errorf("b sees %s, the node has %s", peer, nodeIP)
	}
}

// The second address works as the first does, from the moment that ADD has answered.
func TestPodsOfBothFamilies(t *testing.T) {
	h := newHost(t)
	h.ipv6 = "fd00:192:168:1:1::/80"
	forward := func() error { return os.WriteFile("/proc/sys/net/ipv6/conf/all/forwarding", []byte("1"), 0o644) }
	if err := h.ns.Do(forward); err != nil {
		t.Fatal(err)
	}
	nodeIP := netip.MustParseAddr("fd00:192:168:1::10")
	ensure(t, h.net, klink.Device{Name: "lo", Up: true, Addresses: []netip.Prefix{netip.PrefixFrom(nodeIP, 128)}})
	a, _, aIPv4 := h.pod("a")
	b, _, bIPv4 := h.pod("b")
	aIP, bIP := netip.MustParseAddr("fd00:192:168:1:1::192.168.1.11"), netip.MustParseAddr("fd00:192:168:1:1::192.168.1.12")
	for _, c := range []struct {
		from, to *netns.NS
		listen   netip.Addr
		want     netip.Addr
	}{
		{a, b, bIP, aIP}, {b, a, aIP, bIP}, {a, b, bIPv4, aIPv4}, {h.ns, b, bIP, nodeIP}, {a, h.ns, nodeIP, aIP},
	} {
		if peer := greet(t, c.from, c.to, c.listen); peer != c.want.String() {
			t.Errorf("at %s the peer is %s, want %s", c.listen, peer, c.want)
		}
	}
	h.must("CHECK", "a", a.Path())
	if again := h.must("ADD", "a", a.Path()); len(again.IPs) != 2 {
		t.Errorf("again: %s", again.IPs)
	}
	h.must("DEL", "b", b.Path())
	if err := os.Remove(filepath.Join(h.dir, "leases.json")); err != nil { // and made anew from the wires
		t.Fatal(err)
	}
	h.must("STATUS", "", "")
	if held := h.leases(); len(held) != 1 || held[0].Address != aIPv4 || held[0].IPv6 != aIP {
		t.Errorf("made anew: %v", held)
	}
	h.must("DEL", "a", a.Path())
	h.nothingLeft()
}

func ensure(t *testing.T, n *klink.Net, d klink.Device) {
	t.Helper()
	if err := n.Ensure(d); err != nil {
		t.Fatal(err)
	}
}

func TestTwice(t *testing.T) {
	h := newHost(t)
	ns, _, ip := h.pod("a")
	before, _ := h.net.List()
	if again := addrOf(h.must("ADD", "a", ns.Path())); again != ip {
		t.Errorf("had %s, now %s", ip, again)
	}
	after, _ := h.net.List()
	if fmt.Sprint(before) != fmt.Sprint(after) {
		t.Errorf("from %v to %v", before, after)
	}
	h.must("CHECK", "a", ns.Path())
	h.must("STATUS", "", "")
	for range 2 {
		h.must("DEL", "a", ns.Path())
		h.nothingLeft()
	}
	h.must("DEL", "a", "/proc/self/no-such-namespace")
	h.must("DEL", "a", "")
}

func TestDelWithoutNamespace(t *testing.T) {
	h := newHost(t)
	ns, n, _ := h.pod("a")
	n.Close()
	path := ns.Path()
	if err := ns.Close(); err != nil { // the kernel takes the wire away when it gets to it
		t.Fatal(err)
	}
	h.must("DEL", "a", path+"-gone")
	h.nothingLeft()
}

func TestCheckSeesWhatIsMissing(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(host, pod *klink.Net, w link.Wiring) error
		want  string
	}{
		"host route": {func(host, _ *klink.Net, w link.Wiring) error {
			return host.Ensure(klink.Device{Name: "lo", Up: true, Routes: w.Host.Routes}) // led elsewhere
		}, "no route 192.168.1.11/32"},
		"neighbour": {func(_, pod *klink.Net, w link.Wiring) error {
			return pod.Ensure(klink.Device{Name: "eth0", Neighbours: []klink.Neighbour{{Address: link.Gateway}}})
		}, "no neighbour 169.254.1.1"},
		"pod's route": {func(_, pod *klink.Net, w link.Wiring) error {
			return pod.Unroute("eth0", w.Pod.Routes[1])
		}, "no route default via 169.254.1.1"},
		"pod's end": {func(_, pod *klink.Net, _ link.Wiring) error {
			return pod.Delete("eth0")
		}, "no such device"},
		"other route of the wire": {func(host, _ *klink.Net, w link.Wiring) error {
			return host.Unroute(w.Host.Name, w.Host.Routes[0])
		}, "no route 192.168.1.11/32"},
		"wire": {func(host, _ *klink.Net, w link.Wiring) error {
			return host.Delete(w.Host.Name)
		}, "no such device"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			ns, pod, _ := h.pod("a")
			h.must("CHECK", "a", ns.Path())
			if err := c.spoil(h.net, pod, link.Plan(h.leases()[0], 1500)); err != nil {
				t.Fatal(err)
			}
			if _, err := h.call("CHECK", "a", ns.Path()); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			h.must("ADD", "a", ns.Path()) // mends it
			h.must("CHECK", "a", ns.Path())
		})
	}
}

func TestManyAtOnce(t *testing.T) {
	h := newHost(t)
	h.pool = "192.168.1.0/24"
	const pods = 50
	var spaces []*netns.NS
	for range pods {
		ns, _ := space(t)
		spaces = append(spaces, ns)
	}
	all := func(verb string) (addrs []string) {
		var mu sync.Mutex
		var wg sync.WaitGroup
		begun := time.Now()
		for i, ns := range spaces {
			wg.Go(func() {
				r, err := h.call(verb, fmt.Sprint("p", i), ns.Path())
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					t.Errorf("%s %d: %v", verb, i, err)
				} else if r != nil {
					addrs = append(addrs, addrOf(r).String())
				}
			})
		}
		wg.Wait()
		t.Logf("%d x %s at once: %v", pods, verb, time.Since(begun))
		return addrs
	}
	addrs := all("ADD")
	slices.Sort(addrs)
	if n := len(slices.Compact(addrs)); n != pods {
		t.Fatalf("%d addresses for %d pods", n, pods)
	}
	all("CHECK")
	all("DEL")
	h.nothingLeft()
}

// Killed after the lease was written and before the wire was made: the address is held by nobody,
// and GC, or a DEL, or a second ADD, finds it.
func TestKilledBetweenLeaseAndWire(t *testing.T) {
	for name, mend := range map[string]func(h *host, ns *netns.NS){
		"GC": func(h *host, _ *netns.NS) {
			c := h.command("GC", "", "")
			c.Stdin = strings.NewReader(h.config([]types.GCAttachment{{ContainerID: "other", IfName: "eth0"}}))
			if _, err := h.run(c); err != nil {
				h.Fatal(err)
			}
		},
		"DEL": func(h *host, ns *netns.NS) { h.must("DEL", "a", ns.Path()) },
		"ADD": func(h *host, ns *netns.NS) {
			h.must("ADD", "a", ns.Path())
			h.must("CHECK", "a", ns.Path())
			h.must("DEL", "a", ns.Path())
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			h.pool = "192.168.1.11" // one address: if it leaks, the next pod has none
			ns, _ := space(t)
			h.killed("ADD", "pair", "a", ns)
			if held := h.leases(); len(held) != 1 {
				t.Fatalf("leases: %v", held)
			}
			other, _ := space(t)
			if _, err := h.call("ADD", "other", other.Path()); err == nil {
				t.Fatal("the address of an ADD under way was given away")
			}
			mend(h, ns)
			h.must("ADD", "other", other.Path())
			h.must("DEL", "other", other.Path())
			h.nothingLeft()
		})
	}
}

// killed starts a call and kills it when it is about to do something.
func (h *host) killed(verb, at, pod string, ns *netns.NS) {
	h.Helper()
	c := h.command(verb, pod, ns.Path(), "TEST_HANG="+at)
	stderr, err := c.StderrPipe()
	if err != nil {
		h.Fatal(err)
	}
	if err := h.ns.Do(c.Start); err != nil {
		h.Fatal(err)
	}
	if _, err := io.ReadFull(stderr, make([]byte, len(said))); err != nil {
		h.Fatal(err)
	}
	if err := c.Process.Kill(); err != nil {
		h.Fatal(err)
	}
	_ = c.Wait() // it was killed: that is no news
}

// GC keeps what is valid, and takes wires that no lease tells of.
func TestGC(t *testing.T) {
	h := newHost(t)
	kept, _, _ := h.pod("kept")
	h.pod("gone")
	h.pod("forgotten")
	// A lease lost with its wire still there.
	h.change(func(l vpc.Leases) vpc.Leases {
		return vpc.Release(l, vpc.Key{Container: "forgotten", Interface: "eth0"}, time.Now())
	})
	gc := h.command("GC", "", "")
	gc.Stdin = strings.NewReader(h.config([]types.GCAttachment{{ContainerID: "kept", IfName: "eth0"}}))
	if _, err := h.run(gc); err != nil {
		t.Fatal(err)
	}
	h.must("CHECK", "kept", kept.Path())
	if wired, err := link.Wired(h.net); err != nil || len(wired) != 1 || len(h.leases()) != 1 {
		t.Errorf("wired %v, leased %v, %v", wired, h.leases(), err)
	}
	h.must("DEL", "kept", kept.Path())
	h.nothingLeft()
}

func TestLeasesAreRebuiltFromTheKernel(t *testing.T) {
	h := newHost(t)
	ns, _, ip := h.pod("a")
	before := h.leases()
	if err := os.WriteFile(filepath.Join(h.dir, "leases.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	h.must("CHECK", "a", ns.Path())
	after := h.leases()
	if len(after) != 1 || after[0].Key != before[0].Key || after[0].Owner != before[0].Owner || after[0].Address != ip {
		t.Errorf("from %v to %v", before, after)
	}
}

// The wire takes the MTU of the node's uplink.
func TestMTU(t *testing.T) {
	h := newHost(t)
	world, _ := space(t)
	up := klink.Device{Name: "up0", MTU: 9001, MAC: klink.MAC{2, 1}}
	if err := h.net.Pair(up, klink.Device{Name: "up1", MTU: 9001, MAC: klink.MAC{2, 2}}, world); err != nil {
		t.Fatal(err)
	}
	gw := netip.MustParseAddr("192.168.1.1")
	ensure(t, h.net, klink.Device{Name: "up0", Up: true, Routes: []klink.Route{
		{To: netip.PrefixFrom(gw, 32)}, {To: netip.MustParsePrefix("0.0.0.0/0"), Via: gw},
	}})
	_, pod, _ := h.pod("a")
	d, err := pod.Read("eth0")
	if err != nil || d.MTU != 9001 {
		t.Errorf("pod: %v, %v", d, err)
	}
}

// What a pod's start and end cost: wall clock and processor time of the plugin's process, and for
// comparison those of a process that does nothing.
func BenchmarkAddDel(b *testing.B) {
	h := benchHost(b)
	pod, err := netns.New()
	if err != nil {
		b.Fatal(err)
	}
	defer pod.Close()
	verbs := []string{"VERSION", "ADD", "ADD", "CHECK", "DEL"}
	names := []string{"start", "add", "again", "check", "del"}
	wall, cpu := make([]time.Duration, len(verbs)), make([]time.Duration, len(verbs))
	for b.Loop() {
		for i, verb := range verbs {
			c := h.command(verb, "a", pod.Path())
			begun := time.Now()
			if err := h.ns.Do(c.Run); err != nil {
				b.Fatal(err)
			}
			wall[i] += time.Since(begun)
			cpu[i] += c.ProcessState.UserTime() + c.ProcessState.SystemTime()
		}
	}
	for i, name := range names {
		b.ReportMetric(float64(wall[i].Microseconds())/float64(b.N), "µs/"+name)
		b.ReportMetric(float64(cpu[i].Microseconds())/float64(b.N), "cpu-µs/"+name)
	}
}

func benchHost(b *testing.B) *host {
	ns, err := netns.New()
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = ns.Close() })
	dir, err := os.MkdirTemp("/run", "zonewise-bench") // where leases are kept in life
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = os.RemoveAll(dir) })
	return &host{ns: ns, dir: dir, pool: "192.168.1.11-192.168.1.27"}
}
