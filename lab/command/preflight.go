package command

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/zonewise/zonewise/lab/cluster"
	"github.com/zonewise/zonewise/lab/region"
)

// preflight checks what a lab needs of this machine, before anything is made.
func preflight(nodes int, ipv6, daemons bool) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	here := host{
		exists:   func(path string) bool { _, err := os.Stat(path); return err == nil },
		read:     os.ReadFile,
		freeDisk: freeDisk,
		veth:     tryVeth,
		nat:      tryNAT,
		fib:      tryFib,
		inotify:  tryInotify,
		nodes:    nodes,
		ipv6:     ipv6,
		daemons:  daemons,
	}
	return here.check(filepath.Dir(self), cluster.Home(), cluster.Cache())
}

// host is what preflight asks of a machine.
type host struct {
	exists   func(path string) bool
	read     func(path string) ([]byte, error)
	freeDisk func(dir string) (bytes uint64, err error)
	veth     func() error // tries to make a pair
	nat      func() error // tries to make an nf_tables chain that translates addresses
	fib      func() error // tries to make an nf_tables rule that asks for routes
	inotify  func(n int) (got int)
	nodes    int // of the lab
	ipv6     bool
	daemons  bool // nodes have the daemon that gets addresses for pods, which watches files, too
}

// Programs that a lab runs, beside its own.
var programs = []string{"zonewise", "zonewise-cni", "containerd", "containerd-shim-runc-v2", "ctr", "runc", "coredns"}

const (
	// Free disk for logs, etcd, unpacked images and what pods write.
	needDisk = 1 << 30
	// A node's kubelet and runtime watch files, as does the control plane; the kernel's default of 128
	// watchers is too few for several labs, which shows as "too many open files" much later.
	nodeInotify, planeInotify = 8, 14
)

// check returns the first thing that is missing, as one line that names it and the mend.
func (h host) check(binDir string, stateDirs ...string) error {
	for _, check := range []func() error{
		func() error { return h.programs(binDir) },
		func() error { return h.disk(stateDirs) },
		h.kernel,
		h.watchers,
	} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func (h host) programs(binDir string) error {
	for _, name := range programs {
		if !h.exists(filepath.Join(binDir, name)) {
			return fmt.Errorf("%s is not in %s beside zonewise-lab: run `make build`, and keep what it makes together", name, binDir)
		}
	}
	if dir := filepath.Join(binDir, "images"); !h.exists(dir) {
		return fmt.Errorf("the images are not in %s: run `make build`, and keep what it makes together", dir)
	}
	return nil
}

func (h host) disk(dirs []string) error {
	for _, dir := range dirs {
		free, err := h.freeDisk(dir)
		if err != nil {
			return fmt.Errorf("state directory %s: %w: choose another place with ZONEWISE_LAB_HOME", dir, err)
		}
		if free < needDisk {
			return fmt.Errorf("disk of %s is full: %d MB free, a lab needs %d MB: free some, or choose another place with ZONEWISE_LAB_HOME",
				dir, free/1e6, needDisk/1_000_000)
		}
	}
	return nil
}

func (h host) kernel() error {
	known, err := h.read("/proc/filesystems")
	if err != nil {
		return err
	}
	if !strings.Contains(string(known), "\toverlay\n") {
		return errors.New("this kernel has no overlayfs (CONFIG_OVERLAY_FS): load it with `modprobe overlay`")
	}
	mounts, err := h.read("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	if !strings.Contains(string(mounts), " - cgroup") {
		return errors.New("no cgroup file system is mounted at /sys/fs/cgroup: mount it with `mount -t cgroup2 none /sys/fs/cgroup`")
	}
	for _, ns := range []string{"net", "mnt", "pid", "uts", "ipc", "cgroup"} {
		if !h.exists("/proc/self/ns/" + ns) {
			return fmt.Errorf("this kernel has no %s namespaces (CONFIG_NAMESPACES and below): use one that has", ns)
		}
	}
	if h.ipv6 && !h.exists("/proc/net/if_inet6") {
		return errors.New("this kernel has no IPv6 (CONFIG_IPV6), or it was started with ipv6.disable=1: start it without, or leave --ip-family at ipv4")
	}
	if err := h.veth(); err != nil {
		return fmt.Errorf("this kernel makes no veth pairs (CONFIG_VETH): load them with `modprobe veth`: %w", err)
	}
	if err := h.nat(); err != nil {
		return fmt.Errorf("this kernel has no nf_tables NAT (CONFIG_NF_TABLES, CONFIG_NFT_NAT): load it with `modprobe nft_chain_nat`: %w", err)
	}
	if err := h.fib(); err != nil {
		return fmt.Errorf("this kernel's nf_tables cannot ask for routes (CONFIG_NFT_FIB_IPV4, CONFIG_NFT_FIB_IPV6): load that with `modprobe nft_fib_ipv4 nft_fib_ipv6`: %w", err)
	}
	return nil
}

func (h host) watchers() error {
	const key = "fs.inotify.max_user_instances"
	need := planeInotify + h.nodes*nodeInotify
	if h.daemons {
		need += h.nodes
	}
	if got := h.inotify(need); got < need {
		return fmt.Errorf("%s: %d are free, a lab of %d nodes needs %d: raise it with `sysctl -w %s=8192`, or take another lab down",
			key, got, h.nodes, need, key)
	}
	return nil
}

// freeDisk is what a directory has to offer, or, where it is not there yet, the next one above it.
func freeDisk(dir string) (uint64, error) {
	for {
		var of unix.Statfs_t
		err := unix.Statfs(dir, &of)
		if err == nil {
			return of.Bavail * uint64(of.Bsize), nil
		}
		if parent := filepath.Dir(dir); errors.Is(err, fs.ErrNotExist) && parent != dir {
			dir = parent
			continue
		}
		return 0, err
	}
}

// tryInotify makes up to n watchers of files, and returns how many it could make.
func tryInotify(n int) int {
	var made []int
	defer func() {
		for _, fd := range made {
			_ = unix.Close(fd)
		}
	}()
	for len(made) < n {
		fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
		if err != nil {
			break
		}
		made = append(made, fd)
	}
	return len(made)
}

// tryVeth, tryNAT and tryFib make what the fabric and the dataplane need, in a namespace that ends with them.
func tryVeth() error {
	return inNamespace(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "check0"
		return netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "check1"})
	})
}

func tryNAT() error {
	return inNamespace(func() error {
		conn, err := nftables.New()
		if err != nil {
			return err
		}
		table := conn.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "check"})
		conn.AddChain(&nftables.Chain{
			Name: "nat", Table: table, Type: nftables.ChainTypeNAT, Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityNATDest,
		})
		return conn.Flush()
	})
}

func tryFib() error {
	return inNamespace(func() error {
		conn, err := nftables.New()
		if err != nil {
			return err
		}
		table := conn.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "check"})
		chain := conn.AddChain(&nftables.Chain{
			Name: "fib", Table: table, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityRaw,
		})
		conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
			&expr.Fib{Register: 1, FlagSADDR: true, FlagIIF: true, ResultOIF: true},
		}})
		return conn.Flush()
	})
}

func inNamespace(try func() error) error {
	thread, err := region.NewThread()
	if err != nil {
		return err
	}
	defer thread.Close()
	return thread.Do(try)
}
