package command

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/google/nftables"

	"github.com/zonewise/zonewise/lab/cluster"
	"github.com/zonewise/zonewise/lab/region"
)

// Free disk that a lab needs for logs, etcd and what pods write.
const needDisk = 1 << 30

// preflight checks what a lab needs of this machine, before anything is made. Each error names the
// thing and the mend.
func preflight() error {
	return errors.Join(checkDisk(), checkFilesystems(), checkNetwork(), checkInotify())
}

func checkDisk() error {
	dir := cluster.Home()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("state directory: %w: choose another with ZONEWISE_LAB_HOME", err)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return fmt.Errorf("state directory %s: %w", dir, err)
	}
	if free := fs.Bavail * uint64(fs.Bsize); free < needDisk {
		_ = os.Remove(dir) // if it is ours and empty
		return fmt.Errorf("disk of %s is full: %d MB free, a lab needs %d MB: free some, or choose another place with ZONEWISE_LAB_HOME", dir, free/1e6, needDisk/1_000_000)
	}
	return nil
}

func checkFilesystems() error {
	known, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		return err
	}
	if !strings.Contains(string(known), "\toverlay\n") {
		return errors.New("this kernel has no overlayfs (CONFIG_OVERLAY_FS): load it with `modprobe overlay`")
	}
	if _, err := os.Stat("/sys/fs/cgroup"); err != nil {
		return errors.New("no cgroups at /sys/fs/cgroup: mount them, or start the machine with systemd")
	}
	return nil
}

// checkNetwork tries out, in a namespace of its own, what the fabric and the dataplane need.
func checkNetwork() error {
	thread, err := region.NewThread()
	if err != nil {
		return fmt.Errorf("network namespaces (CONFIG_NET_NS): %w", err)
	}
	defer thread.Close()
	return thread.Do(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "check0"
		if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "check1"}); err != nil {
			return fmt.Errorf("this kernel makes no veth pairs (CONFIG_VETH): load them with `modprobe veth`: %w", err)
		}
		conn, err := nftables.New()
		if err != nil {
			return fmt.Errorf("nf_tables: %w", err)
		}
		table := conn.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "check"})
		conn.AddChain(&nftables.Chain{
			Name: "nat", Table: table, Type: nftables.ChainTypeNAT, Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityNATDest,
		})
		if err := conn.Flush(); err != nil {
			return fmt.Errorf("this kernel has no nf_tables NAT (CONFIG_NF_TABLES, CONFIG_NFT_NAT): load it with `modprobe nft_chain_nat`: %w", err)
		}
		return nil
	})
}

// A node's kubelet, runtime and pods watch files; the kernel's default allows too few watchers for
// several labs, which shows as "too many open files" much later.
const needInotify = 128

func checkInotify() error {
	data, err := os.ReadFile("/proc/sys/fs/inotify/max_user_instances")
	if err != nil {
		return nil // not this kernel's way to limit them
	}
	var have int
	if _, err := fmt.Sscan(string(data), &have); err == nil && have < needInotify {
		return fmt.Errorf("fs.inotify.max_user_instances is %d, a lab needs %d: raise it with `sysctl -w fs.inotify.max_user_instances=8192`", have, needInotify)
	}
	return nil
}
