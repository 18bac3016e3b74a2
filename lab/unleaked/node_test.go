//go:build kernel

package unleaked

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/zonewise/zonewise/internal/kernel/link"
	"github.com/zonewise/zonewise/internal/kernel/netns"
	"github.com/zonewise/zonewise/lab/region"
	"github.com/zonewise/zonewise/lab/region/ec2"
	"github.com/zonewise/zonewise/lab/region/ec2/wire"
	"github.com/zonewise/zonewise/lab/region/imds"
	"github.com/zonewise/zonewise/lab/rig/apiserver"
	"github.com/zonewise/zonewise/lab/topology"
)

// bin is where make build puts programs.
var bin = flag.String("bin", "../../bin", "folder of the programs")

// soon is how long anything may take that is not measured.
const soon = 30 * time.Second

// until waits for something, and fails with what it was when that takes too long.
func until(t *testing.T, what string, reached func() error) {
	t.Helper()
	begin := time.Now()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := reached()
		if err == nil {
			return
		}
		if time.Since(begin) > soon {
			t.Fatalf("%s: not within %v: %v", what, soon, err)
		}
		<-tick.C
	}
}

// node is an instance of the region on which the daemon and the plugin run.
type node struct {
	*testing.T
	place    topology.Node
	fabric   *region.Fabric
	cloud    *ec2.Cloud
	instance string
	gate     *gate
	ns       *netns.NS
	net      *link.Net
	dir      string // of leases and pool
	plugins  string // folder into which the daemon puts the plugin
	program  string
	settings []string // environment of the daemon
	conn     string   // kubeconfig

	mu     sync.Mutex
	daemon *exec.Cmd
	ended  chan struct{}
	starts int
}

// behind is how far the cloud's clock is behind ours: what it says of the past is older by so much. An interface
// that was attached a moment ago may then be given back.
const behind = 3 * time.Minute

// newNode makes a region with one running node. The daemon is not started.
func newNode(t *testing.T, settings ...string) *node {
	t.Helper()
	topo, err := topology.New(topology.Config{CNI: topology.CNIZonewise, Zones: topology.Spread(1, 1)})
	if err != nil {
		t.Fatal(err)
	}
	n := &node{T: t, place: topo.Nodes()[0], plugins: t.TempDir(), settings: settings}
	if n.program, err = filepath.Abs(filepath.Join(*bin, "zonewise")); err != nil {
		t.Fatal(err)
	}
	// As in life: in memory, where a file is on the disk at once.
	if n.dir, err = os.MkdirTemp("/run", "zonewise-unleaked"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		n.kill()
		if t.Failed() {
			t.Log(n.said())
		}
		_ = os.RemoveAll(n.dir)
	})
	if n.fabric, err = region.New(topo); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.fabric.Close)
	n.launch(topo)
	n.attach()
	n.serve(topo)
	return n
}

// launch makes the region's records, with the node's instance, and the fabric deliver what they say.
func (n *node) launch(topo topology.Topology) {
	n.Helper()
	zone := topo.Zones[0]
	b := ec2.Blueprint{Name: topo.Name, Region: topo.Region, VPC: topo.VPC, Kept: []netip.Prefix{topo.ControlPlane},
		Subnets: []ec2.NewSubnet{{Zone: zone.Name, CIDR: zone.Subnet}}}
	var err error
	if n.cloud, err = ec2.Open(b, ec2.Options{AttachTime: 100 * time.Millisecond, DetachTime: 100 * time.Millisecond,
		Now: func() time.Time { return time.Now().Add(-behind) }}); err != nil {
		n.Fatal(err)
	}
	i, err := n.cloud.Launch(ec2.Launch{Node: n.place.Alias, Type: n.place.Instance.Type, Subnet: zone.Subnet, DNSName: n.place.Name, Address: n.place.Address})
	if err != nil {
		n.Fatal(err)
	}
	n.instance = i.ID
	if err := n.fabric.Apply(n.cloud.Delivery()); err != nil {
		n.Fatal(err)
	}
	done, changes := n.Context().Done(), n.cloud.Changes()
	var following sync.WaitGroup
	following.Go(func() {
		for {
			select {
			case <-done:
				return
			case <-changes:
			}
			if err := n.fabric.Apply(n.cloud.Delivery()); err != nil {
				n.Errorf("the network does not follow: %v", err)
			}
		}
	})
	n.Cleanup(following.Wait) // the context ends before
}

// attach gives the node a place in the fabric: that of a process which waits for the end of its input.
func (n *node) attach() {
	n.Helper()
	keeper := exec.Command("cat")
	keeper.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
	in, err := keeper.StdinPipe()
	if err == nil {
		err = keeper.Start()
	}
	if err != nil {
		n.Fatal(err)
	}
	n.Cleanup(func() { _ = in.Close(); _ = keeper.Wait() })
	if n.ns, err = netns.Open(fmt.Sprintf("/proc/%d/ns/net", keeper.Process.Pid)); err != nil {
		n.Fatal(err)
	}
	n.Cleanup(func() { _ = n.ns.Close() })
	if n.net, err = link.At(n.ns); err != nil {
		n.Fatal(err)
	}
	n.Cleanup(n.net.Close)
	if err := n.fabric.Attach(n.place, keeper.Process.Pid); err != nil {
		n.Fatal(err)
	}
	if err := n.ns.Do(func() error { return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644) }); err != nil {
		n.Fatal(err)
	}
}

// serve answers what the daemon asks: the API of the cloud in the VPC, and on the node metadata and Kubernetes.
func (n *node) serve(topo topology.Topology) {
	n.Helper()
	n.gate = &gate{next: wire.New(n.cloud, wire.Options{})}
	var api, meta, kube net.Listener
	err := n.fabric.Thread.Do(func() (err error) {
		api, err = net.Listen("tcp4", netip.AddrPortFrom(topo.EC2, 80).String())
		return err
	})
	if err == nil {
		err = n.ns.Do(func() error {
			lo, err := netlink.LinkByName("lo")
			if err != nil {
				return err
			}
			own := &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(169, 254, 169, 254), Mask: net.CIDRMask(32, 32)}, Scope: unix.RT_SCOPE_LINK}
			if err := netlink.AddrReplace(lo, own); err != nil {
				return err
			}
			if meta, err = net.Listen("tcp4", "169.254.169.254:80"); err != nil {
				return err
			}
			kube, err = net.Listen("tcp4", "127.0.0.1:0")
			return err
		})
	}
	if err != nil {
		n.Fatal(err)
	}
	for l, handler := range map[net.Listener]http.Handler{api: n.gate, meta: imds.New(n.cloud, n.instance, 0)} {
		s := &http.Server{Handler: handler}
		go func() { _ = s.Serve(l) }()
		n.Cleanup(func() { _ = s.Close() })
	}
	snapshot, err := apiserver.Prepare(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: n.place.Name}, Status: corev1.NodeStatus{
		Capacity: corev1.ResourceList{corev1.ResourcePods: *resource.NewQuantity(17, resource.DecimalSI)}}})
	if err != nil {
		n.Fatal(err)
	}
	kubernetes := apiserver.New(snapshot, apiserver.Options{})
	served := make(chan error, 1)
	go func() { served <- kubernetes.Serve(kube) }()
	n.Cleanup(func() {
		if err := errors.Join(kubernetes.Close(), <-served); err != nil {
			n.Error(err)
		}
	})
	n.conn = filepath.Join(n.TempDir(), "kubeconfig")
	text := fmt.Sprintf(`{"apiVersion": "v1", "kind": "Config", "current-context": "x", "contexts": [{"name": "x", "context": {"cluster": "x"}}],
		"clusters": [{"name": "x", "cluster": {"server": "http://%s"}}]}`, kube.Addr())
	if err := os.WriteFile(n.conn, []byte(text), 0o600); err != nil {
		n.Fatal(err)
	}
	n.settings = append(n.settings, "AWS_EC2_ENDPOINT=http://"+topo.EC2.String(), "CLUSTER_NAME=unleaked", "PATH="+os.Getenv("PATH"))
}

// start starts the daemon. The first puts the plugin where the runtime looks, as each does in life.
func (n *node) start() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.begin()
}

func (n *node) begin() {
	args := []string{"addresses", "--node", n.place.Name, "--kubeconfig", n.conn, "--state-dir", n.dir}
	if n.starts == 0 {
		args = append(args, "--cni-bin-dir", n.plugins, "--cni-conf-dir", n.plugins)
	}
	log, err := os.OpenFile(filepath.Join(n.plugins, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		n.Error(err)
		return
	}
	defer log.Close()
	d := exec.Command(n.program, args...)
	d.Env, d.Stdout, d.Stderr = n.settings, log, log
	if err := n.ns.Do(d.Start); err != nil {
		n.Error(err)
		return
	}
	ended := make(chan struct{})
	go func() { _ = d.Wait(); close(ended) }()
	n.daemon, n.ended = d, ended
	n.starts++
}

// kill ends the daemon as the kernel does when there is no memory. It is fine if it has ended.
func (n *node) kill() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.end()
}

func (n *node) end() {
	if n.daemon != nil {
		_ = n.daemon.Process.Kill()
		<-n.ended
		n.daemon = nil
	}
}

// again kills the daemon and starts another, and does something in between.
func (n *node) again(between func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.end()
	if between != nil {
		between()
	}
	n.begin()
}

// said is the end of the daemon's log.
func (n *node) said() string {
	text, _ := os.ReadFile(filepath.Join(n.plugins, "log"))
	return string(text[max(0, len(text)-4000):])
}

// ready waits until the plugin is there and has something to give.
func (n *node) ready() {
	n.Helper()
	until(n.T, "daemon ready", func() error {
		_, err := os.Stat(filepath.Join(n.plugins, "zonewise-cni"))
		if _, pool := os.Stat(filepath.Join(n.dir, "pool.json")); err == nil {
			err = pool
		}
		if err != nil {
			return fmt.Errorf("%w\n%s", err, n.said())
		}
		return nil
	})
}

// gate is before the API of the cloud.
type gate struct {
	next *wire.Server

	mu     sync.Mutex
	action string              // that is waited for; empty: none
	other  func([]byte) []byte // makes answers others; nil does not
	done   bool                // what happens, happens after the call was carried out, and not before
	then   func()
	calls  map[string]int
}

// at makes something happen once, when an action is asked for: before it is carried out, or after, and then no
// answer comes. The channel is closed when it has happened.
func (g *gate) at(action string, done bool, then func()) <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	happened := make(chan struct{})
	g.action, g.done, g.then = action, done, func() { then(); close(happened) }
	return happened
}

func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	form, _ := url.ParseQuery(string(body))
	r.Body = io.NopCloser(bytes.NewReader(body))
	action := form.Get("Action")
	g.mu.Lock()
	if g.calls == nil {
		g.calls = map[string]int{}
	}
	g.calls[action]++
	other := g.other
	hit, done, then := err == nil && action != "" && action == g.action, g.done, g.then
	if hit {
		g.action = ""
	}
	g.mu.Unlock()
	if hit {
		if done {
			g.next.ServeHTTP(httptest.NewRecorder(), r)
		}
		then()
		panic(http.ErrAbortHandler) // net/http's way to close a connection without an answer
	}
	if other == nil {
		g.next.ServeHTTP(w, r)
		return
	}
	answer := httptest.NewRecorder()
	g.next.ServeHTTP(answer, r)
	w.Header().Set("Content-Type", answer.Header().Get("Content-Type"))
	w.WriteHeader(answer.Code)
	_, _ = w.Write(other(answer.Body.Bytes())) // who went away needs no answer
}

// speak makes the API's answers others from now on.
func (g *gate) speak(other func([]byte) []byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.other = other
}

// asked are the calls so far, by action.
func (g *gate) asked() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return strings.TrimPrefix(fmt.Sprint(g.calls), "map")
}
