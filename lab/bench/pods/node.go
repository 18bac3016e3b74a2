// Package pods starts pods on one node as a container runtime does, as far as their addresses go: a node with a cloud under
// it, somebody who gives addresses (ours, or Amazon's VPC CNI), and a plugin that is called for each pod. No kubelet and no
// containerd are in what is measured.
package pods

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/zonewise/zonewise/lab/region"
	"github.com/zonewise/zonewise/lab/region/ec2"
	"github.com/zonewise/zonewise/lab/region/ec2/wire"
	"github.com/zonewise/zonewise/lab/region/imds"
	"github.com/zonewise/zonewise/lab/rig/apiserver"
	"github.com/zonewise/zonewise/lab/topology"
)

// Cloud is how the cloud under a node behaves.
type Cloud struct {
	AttachTime time.Duration // from an interface's attachment until it is there
	Latency    time.Duration // before every answer of the API
	Describe   wire.Rate     // of calls that change nothing; the zero value has no limit
	Mutate     wire.Rate     // of calls that change something
}

// Node is an instance of the cloud that has booted a moment ago: the region and the API server are this process.
type Node struct {
	topo    topology.Topology
	node    topology.Node
	records *ec2.Cloud
	fabric  *region.Fabric
	dir     string // for configuration and logs
	holder  *exec.Cmd
	end     func() error // lets the holder go
	net     *os.File     // namespaces of the node
	mounts  *os.File
	api     *apiserver.Server
	servers []*http.Server

	mu      sync.Mutex
	calls   map[string]int
	changed time.Time // when a call changed something last
}

// New makes a node of an instance type.
func New(dir, instanceType string, c Cloud) (*Node, error) {
	topo, err := topology.New(topology.Config{
		Name: "bench", InstanceType: instanceType, CNI: topology.CNIZonewise, Zones: topology.Spread(1, 1), CrossZoneLatency: "0s",
	})
	if err != nil {
		return nil, err
	}
	n := &Node{topo: topo, node: topo.Zones[0].Nodes[0], dir: dir, calls: map[string]int{}}
	if err := n.make(c); err != nil {
		return nil, fmt.Errorf("node: %w", errors.Join(err, n.Close()))
	}
	return n, nil
}

func (n *Node) make(c Cloud) (err error) {
	if n.fabric, err = region.New(n.topo); err != nil {
		return err
	}
	zone := n.topo.Zones[0]
	n.records, err = ec2.Open(ec2.Blueprint{
		Name: n.topo.Name, Region: n.topo.Region, VPC: n.topo.VPC, Kept: []netip.Prefix{n.topo.ControlPlane},
		Subnets: []ec2.NewSubnet{{Zone: zone.Name, CIDR: zone.Subnet}},
	}, ec2.Options{AttachTime: c.AttachTime, DetachTime: c.AttachTime})
	if err != nil {
		return err
	}
	instance, err := n.records.Launch(ec2.Launch{
		Node: n.node.Alias, Type: n.node.Instance.Type, Subnet: zone.Subnet, DNSName: n.node.Name, Address: n.node.Address,
	})
	if err != nil {
		return err
	}
	if err := n.boot(); err != nil {
		return err
	}
	if err := n.fabric.Apply(n.records.Delivery()); err != nil {
		return err
	}
	if err := n.fabric.Attach(n.node, n.holder.Process.Pid); err != nil {
		return err
	}
	go n.follow(n.records.Changes())
	return n.serve(c, instance.ID)
}

// follow makes the network obey the records, until there is none.
func (n *Node) follow(changes <-chan struct{}) {
	for range changes {
		if n.fabric.Apply(n.records.Delivery()) != nil {
			return
		}
	}
}

// boot makes the node's namespaces, which live as long as a process in them. Of its files only /run is its own.
func (n *Node) boot() error {
	n.holder = exec.Command("cat")
	n.holder.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS}
	in, err := n.holder.StdinPipe()
	if err != nil {
		return err
	}
	if err := n.holder.Start(); err != nil {
		return err
	}
	n.end = func() error { return errors.Join(in.Close(), n.holder.Wait()) }
	for kind, into := range map[string]**os.File{"net": &n.net, "mnt": &n.mounts} {
		if *into, err = os.Open(fmt.Sprintf("/proc/%d/ns/%s", n.holder.Process.Pid, kind)); err != nil {
			return err
		}
	}
	return n.In(func() error {
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return fmt.Errorf("make mounts private: %w", err)
		}
		for target, kind := range map[string]string{"/run": "tmpfs", "/sys": "sysfs"} {
			if err := unix.Mount(kind, target, kind, 0, ""); err != nil {
				return fmt.Errorf("mount %s: %w", target, err)
			}
		}
		return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0)
	})
}

// In calls on a thread of its own that is in the node's namespaces; what is started there is in them, too.
func (n *Node) In(call func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_FS)
		if err == nil {
			err = unix.Setns(int(n.net.Fd()), unix.CLONE_NEWNET)
		}
		if err == nil {
			err = unix.Setns(int(n.mounts.Fd()), unix.CLONE_NEWNS)
		}
		if err == nil {
			err = call()
		}
		result <- err
	}()
	return <-result
}

// Path is where a file of the node's own is seen from outside.
func (n *Node) Path(file string) string {
	return fmt.Sprintf("/proc/%d/root%s", n.holder.Process.Pid, file)
}

// serve answers for the cloud, for the instance's metadata, and for a Kubernetes that knows of this one Node.
func (n *Node) serve(c Cloud, instance string) error {
	faults := wire.Faults{Latency: c.Latency, Describe: c.Describe, Mutate: c.Mutate}
	cloud := wire.New(n.records, wire.Options{Faults: faults, Called: n.called})
	n.api = apiserver.New(nil, apiserver.Options{})
	_, err := n.api.Set(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: n.node.Name, Labels: map[string]string{corev1.LabelTopologyZone: n.node.Zone}},
		Spec:   corev1.NodeSpec{ProviderID: "aws:///" + n.node.Zone + "/" + instance},
		Status: corev1.NodeStatus{Capacity: corev1.ResourceList{corev1.ResourcePods: *resource.NewQuantity(int64(n.node.MaxPods), resource.DecimalSI)}}})
	if err != nil {
		return err
	}
	var listeners [3]net.Listener
	for i, at := range []netip.AddrPort{netip.AddrPortFrom(n.topo.EC2, 80), netip.AddrPortFrom(n.topo.API, 80)} {
		if err := n.fabric.Thread.Do(func() (err error) {
			listeners[i], err = net.Listen("tcp4", at.String())
			return err
		}); err != nil {
			return err
		}
	}
	if err := n.In(func() (err error) {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		metadata := netip.MustParseAddr("169.254.169.254")
		address := &netlink.Addr{IPNet: &net.IPNet{IP: metadata.AsSlice(), Mask: net.CIDRMask(32, 32)}, Scope: unix.RT_SCOPE_LINK}
		if err := netlink.AddrReplace(lo, address); err != nil {
			return err
		}
		listeners[2], err = net.Listen("tcp4", netip.AddrPortFrom(metadata, 80).String())
		return err
	}); err != nil {
		return fmt.Errorf("metadata: %w", err)
	}
	for i, handler := range []http.Handler{cloud, n.api, imds.New(n.records, instance, 0)} {
		server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
		n.servers = append(n.servers, server)
		go func() { _ = server.Serve(listeners[i]) }()
	}
	return nil
}

func (n *Node) called(c wire.Call) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.calls[c.Action]++
	if changes(c.Action) {
		n.changed = c.At
	}
}

func changes(action string) bool {
	return slices.Contains([]string{"CreateNetworkInterface", "AttachNetworkInterface", "AssignPrivateIpAddresses", "UnassignPrivateIpAddresses",
		"DetachNetworkInterface", "DeleteNetworkInterface", "ModifyNetworkInterfaceAttribute"}, action)
}

// Calls is how often the cloud's API was asked.
func (n *Node) Calls() (sum int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.calls {
		sum += c
	}
	return sum
}

// calm is for how long nobody has changed anything at the cloud.
func (n *Node) calm() time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	return time.Since(n.changed)
}

// Addresses is how many the node has for pods, on interfaces that are there.
func (n *Node) Addresses() (sum int) {
	for _, i := range n.records.Delivery().Instances {
		for _, v := range i.Interfaces {
			sum += len(v.Addresses) - 1
		}
	}
	return sum
}

// owns tells whether the cloud delivers an address to the node, for a pod.
func (n *Node) owns(a netip.Addr) bool {
	for _, i := range n.records.Delivery().Instances {
		for _, v := range i.Interfaces {
			if slices.Contains(v.Addresses, a) && a != v.Primary {
				return true
			}
		}
	}
	return false
}

// environment is what programs of AWS's find the cloud by, and those of Kubernetes the API server.
func (n *Node) environment() ([]string, error) {
	kubeconfig := filepath.Join(n.dir, "kubeconfig")
	text := fmt.Sprintf(`apiVersion: v1
kind: Config
clusters: [{name: bench, cluster: {server: "http://%s"}}]
contexts: [{name: bench, context: {cluster: bench}}]
current-context: bench
`, netip.AddrPortFrom(n.topo.API, 80))
	if err := os.WriteFile(kubeconfig, []byte(text), 0o600); err != nil {
		return nil, err
	}
	keys, endpoint := n.records.Records().Credentials, "http://"+n.topo.EC2.String()
	return []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + n.dir, "KUBECONFIG=" + kubeconfig, "CLUSTER_NAME=" + n.topo.Name,
		"AWS_REGION=" + n.topo.Region, "AWS_ACCESS_KEY_ID=" + keys.AccessKeyID, "AWS_SECRET_ACCESS_KEY=" + keys.SecretAccessKey,
		"AWS_ENDPOINT_URL=" + endpoint, "AWS_EC2_ENDPOINT=" + endpoint,
	}, nil
}

// Close takes the node away, with all that is in it.
func (n *Node) Close() error {
	var errs []error
	for _, s := range n.servers {
		errs = append(errs, s.Close())
	}
	if n.api != nil {
		errs = append(errs, n.api.Close())
	}
	for _, f := range []*os.File{n.net, n.mounts} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	if n.end != nil {
		errs = append(errs, n.end())
	}
	if n.fabric != nil {
		n.fabric.Close()
	}
	return errors.Join(errs...)
}
