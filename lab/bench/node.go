package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/zonewise/zonewise/internal/kernel/netns"
	"github.com/zonewise/zonewise/lab/bench/driver"
	"github.com/zonewise/zonewise/lab/rig"
	"github.com/zonewise/zonewise/lab/rig/apiserver"
	"github.com/zonewise/zonewise/lab/rig/peer"
)

// node is a world with a peer on its node, an API server of its own, and drivers where they are needed.
type node struct {
	kind     peer.Kind
	load     load
	world    *rig.World
	api      *apiserver.Server
	url      string
	served   chan error
	peer     *peer.Peer
	dir      string
	cpus     cpus
	meter    string      // --meter of the agent; empty: off, so that the other benchmarks are of Services alone
	out      string      // why the peer takes part no more; empty: it does
	met      bool        // Services that remember clients have met this one
	changed  time.Time   // when the probe was last changed
	live     bool        // the probe's endpoint is one where somebody listens
	versions map[int]int // of Services' slices, where they are not the first

	servers []*driver.Process
	drivers map[place]*driver.Process

	mu      sync.Mutex
	awaited map[uint64]chan time.Duration // by version: when its bytes were written
}

// place is where a client is.
type place string

// The places. A pod and the node itself are in the world's cgroup; who is outside is not.
const (
	inPod   place = "pod"
	onNode  place = "node"
	outside place = "outside"
	// inBarePod is in the same pod, and in no cgroup of the node's: nothing is translated at its sockets.
	inBarePod place = "pod, beyond the socket"
)

// cpus are those that clients and everybody else are kept on; less than 0: any.
type cpus struct{ client, rest int }

// newNode makes a world and everything in it save the peer, which start starts.
func newNode(kind peer.Kind, l load, s *apiserver.Snapshot, c cpus) (*node, error) {
	n := &node{kind: kind, load: l, cpus: c, drivers: map[place]*driver.Process{}, awaited: map[uint64]chan time.Duration{}, versions: map[int]int{}}
	if err := n.make(s); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", kind, err), n.close())
	}
	return n, nil
}

func (n *node) make(s *apiserver.Snapshot) (err error) {
	if n.dir, err = os.MkdirTemp("", "zonewise-bench-"); err != nil {
		return err
	}
	if n.world, err = rig.New(rig.Options{Dir: n.dir}); err != nil {
		return err
	}
	if err := n.routes(); err != nil {
		return err
	}
	for i := range servers {
		p, err := n.process(n.world.Pods[len(n.world.Pods)-servers+i].NS, n.cpus.rest, "server")
		if err != nil {
			return err
		}
		n.servers = append(n.servers, p)
		if _, err := p.Do(driver.Job{Task: driver.Tell}); err != nil { // it listens before it answers
			return err
		}
	}
	return n.listen(s)
}

// listen starts the API server on the node's loopback.
func (n *node) listen(s *apiserver.Snapshot) error {
	var l net.Listener
	err := n.world.Node.Do(func() (err error) {
		l, err = net.Listen("tcp4", "127.0.0.1:0")
		return err
	})
	if err != nil {
		return err
	}
	n.url = "http://" + l.Addr().String()
	n.api = apiserver.New(s, apiserver.Options{Written: n.written})
	n.served = make(chan error, 1)
	go func() { n.served <- n.api.Serve(l) }()
	return nil
}

// routes leads endpoints' ranges to the server pods, where every address is local, and ends what is
// sent to Services that nobody does.
func (n *node) routes() error {
	pods := append(n.world.Pods[len(n.world.Pods)-servers:len(n.world.Pods):len(n.world.Pods)], n.world.Pods[1])
	for i, p := range pods {
		dst := &net.IPNet{IP: net.IPv4(10, byte(firstRange+i), 0, 0).To4(), Mask: net.CIDRMask(16, 32)}
		err := n.world.Node.Do(func() error {
			link, err := netlink.LinkByName(p.Interface)
			if err != nil {
				return err
			}
			return netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: dst, Gw: p.V4.AsSlice()})
		})
		if err == nil {
			err = p.NS.Do(func() error { return local(dst) })
		}
		if err != nil {
			return fmt.Errorf("endpoints %v: %w", dst, err)
		}
	}
	// A client learns at once that nobody does a Service: outside, its address is refused.
	_, dst, err := net.ParseCIDR(serviceRange)
	if err == nil {
		err = n.world.Outside.Do(func() error { return local(dst) })
	}
	if err != nil {
		return fmt.Errorf("services: %w", err)
	}
	// Connections end by a reset, and a client has many thousands of them: that neither the table of
	// connections nor ports run out, a closed one is forgotten after a second instead of ten.
	return n.world.Node.Do(func() error { return sysctl("net/netfilter/nf_conntrack_tcp_timeout_close", "1") })
}

// local makes every address of a network this namespace's own.
func local(dst *net.IPNet) error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	err = netlink.RouteAdd(&netlink.Route{LinkIndex: lo.Attrs().Index, Dst: dst, Type: unix.RTN_LOCAL, Table: unix.RT_TABLE_LOCAL, Scope: netlink.SCOPE_HOST})
	if err != nil {
		return err
	}
	if err := sysctl("net/core/somaxconn", "65535"); err != nil {
		return err
	}
	return sysctl("net/ipv4/ip_local_port_range", "1024 65000")
}

func sysctl(name, value string) error { return os.WriteFile("/proc/sys/"+name, []byte(value), 0) }

// process runs this program in a role, in a namespace of the world.
func (n *node) process(ns *netns.NS, cpu int, role string) (*driver.Process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return driver.Start(n.world.Command(ns, self, role, strconv.Itoa(cpu)))
}

// driver is the client at a place, started when first asked for.
func (n *node) driver(at place) (*driver.Process, error) {
	if d := n.drivers[at]; d != nil {
		return d, nil
	}
	ns := map[place]*netns.NS{inPod: n.world.Pods[0].NS, inBarePod: n.world.Pods[0].NS, onNode: n.world.Node, outside: n.world.Outside}[at]
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := n.world.Command(ns, self, "driver", strconv.Itoa(n.cpus.client))
	if at == outside || at == inBarePod {
		cmd = exec.Command(cmd.Path, cmd.Args[1:]...) // in no cgroup of the node's
	}
	d, err := driver.Start(cmd)
	if err == nil {
		n.drivers[at] = d
	}
	return d, err
}

// do has a job done by the client at a place.
func (n *node) do(at place, j driver.Job) (driver.Reply, error) {
	d, err := n.driver(at)
	if err != nil {
		return driver.Reply{}, err
	}
	r, err := d.Do(j)
	if err != nil {
		return r, fmt.Errorf("%s: %s, %w", n.kind, at, err)
	}
	return r, nil
}

// start starts the peer on the given CPU and returns when.
func (n *node) start(bin string, cpu int) (begin time.Time, err error) {
	begin = time.Now()
	n.peer, err = peer.Start(n.world, n.kind, n.url, peer.Options{Bin: bin, Dir: n.dir, Node: nodeName, CPU: cpu, Meter: n.meter})
	return begin, err
}

// targets are count addresses at which a Service, picked at random, answers; in direct worlds, one of its endpoints.
func (n *node) targets(random *rand.Rand, count int) (out []netip.AddrPort) {
	for range count {
		out = append(out, n.target(random.IntN(n.load.Services), random))
	}
	return out
}

func (n *node) target(i int, random *rand.Rand) netip.AddrPort {
	if !n.kind.Services() {
		return n.behind(i, random)
	}
	return netip.AddrPortFrom(clusterIP(i), servicePort)
}

// behind is one of a Service's endpoints.
func (n *node) behind(i int, random *rand.Rand) netip.AddrPort {
	return netip.AddrPortFrom(endpoint(i*n.load.Endpoints+random.IntN(n.load.Endpoints)), driver.AnswerPort)
}

// endpoints are count endpoints of the first so many Services: where a client goes that knows them.
func (n *node) endpoints(random *rand.Rand, count, services int) (out []netip.AddrPort) {
	for range count {
		out = append(out, n.behind(random.IntN(services), random))
	}
	return out
}

// nodePortTargets are the node ports, or the endpoints behind them.
func (n *node) nodePortTargets(random *rand.Rand) (out []netip.AddrPort) {
	for i := range min(nodePorts, n.load.Services) {
		if n.kind.Services() {
			out = append(out, netip.AddrPortFrom(netip.MustParseAddr(rig.NodeV4), uint16(firstPort+i)))
		} else {
			out = append(out, n.target(i, random))
		}
	}
	return out
}

// specialTarget is where a special Service answers.
func (n *node) specialTarget(s special) netip.AddrPort {
	if n.kind.Services() {
		return s.target()
	}
	return netip.AddrPortFrom(s.addrs[0], uint16(s.port))
}

// errTooSlow tells that a peer did not do a change in time.
var errTooSlow = errors.New("too slow")

// errNotReady tells that a peer did not do all Services in time.
var errNotReady = errors.New("not all Services answer")

// ready waits until the last Service answers, and then a number of others, and returns when they all
// did: at the socket, where that is translated, and beyond it.
func (n *node) ready(ctx context.Context, random *rand.Rand, limit time.Duration) (time.Time, error) {
	if !n.kind.Services() {
		return time.Now(), nil
	}
	targets := append([]netip.AddrPort{n.target(n.load.Services-1, random)}, n.targets(random, 32)...)
	deadline := time.Now().Add(limit)
	for _, from := range []place{inPod, inBarePod} {
		for _, t := range targets {
			if err := n.answers(ctx, from, t, deadline); errors.Is(err, errNotReady) {
				return time.Time{}, fmt.Errorf("%w within %v", errNotReady, limit)
			} else if err != nil {
				return time.Time{}, err
			}
		}
	}
	return time.Now(), nil
}

// answers waits until a Service does.
func (n *node) answers(ctx context.Context, from place, target netip.AddrPort, deadline time.Time) error {
	for {
		_, err := n.do(from, driver.Job{Task: driver.Await, Targets: []netip.AddrPort{target}, Want: driver.Open, Length: 500 * time.Millisecond, Pause: time.Millisecond})
		if err == nil {
			return nil
		}
		if ended := errors.Join(ctx.Err(), n.peer.Err()); ended != nil {
			return ended
		}
		if time.Now().After(deadline) {
			return errNotReady
		}
	}
}

// written is called when the API server has sent a change.
func (n *node) written(w apiserver.Written) {
	at := driver.Now() - time.Since(w.At)
	n.mu.Lock()
	defer n.mu.Unlock()
	if c := n.awaited[w.Version]; c != nil {
		c <- at
		delete(n.awaited, w.Version)
	}
}

// set makes a special Service's endpoints what is given, and returns when its bytes were written.
func (n *node) set(s special) (time.Duration, error) {
	sent := make(chan time.Duration, 1)
	n.mu.Lock()
	version, err := n.api.Set(triggered(s.slice(), time.Now()))
	n.awaited[version] = sent
	n.mu.Unlock()
	if err != nil {
		return 0, err
	}
	select {
	case at := <-sent:
		return at, nil
	case <-time.After(time.Minute):
		return 0, fmt.Errorf("%s: nobody watches", n.kind)
	}
}

func (n *node) close() error {
	var errs []error
	if n.peer != nil {
		errs = append(errs, n.peer.Stop())
	}
	for _, d := range n.drivers {
		errs = append(errs, d.Close())
	}
	for _, s := range n.servers {
		errs = append(errs, s.Close())
	}
	if n.api != nil {
		errs = append(errs, n.api.Close(), <-n.served)
	}
	if n.world != nil {
		errs = append(errs, n.world.Close())
	}
	return errors.Join(append(errs, os.RemoveAll(n.dir))...)
}
