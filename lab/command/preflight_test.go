package command

import (
	"errors"
	"io/fs"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A machine that has everything, from which each case takes something away.
func goodHost() host {
	return host{
		exists: func(string) bool { return true },
		read: func(path string) ([]byte, error) {
			switch path {
			case "/proc/filesystems":
				return []byte("nodev\tproc\nnodev\toverlay\n"), nil
			case "/proc/self/mountinfo":
				return []byte("31 23 0:28 / /sys/fs/cgroup rw - cgroup2 none rw\n"), nil
			}
			return nil, fs.ErrNotExist
		},
		freeDisk: func(string) (uint64, error) { return 10 << 30, nil },
		veth:     func() error { return nil },
		nat:      func() error { return nil },
		fib:      func() error { return nil },
		inotify:  func(n int) int { return n },
		nodes:    6,
	}
}

func TestPreflight(t *testing.T) {
	if err := goodHost().check("/opt/bin", "/var/lib/zonewise"); err != nil {
		t.Fatal(err)
	}
	four := goodHost()
	four.exists = func(path string) bool { return path != "/proc/net/if_inet6" }
	if err := four.check("/opt/bin", "/var/lib/zonewise"); err != nil {
		t.Errorf("IPv6, which nobody asked for: %v", err)
	}
	without := func(missing string) func(*host) {
		return func(h *host) { h.exists = func(path string) bool { return path != missing } }
	}
	reads := func(path, content string) func(*host) {
		return func(h *host) {
			old := h.read
			h.read = func(p string) ([]byte, error) {
				if p == path {
					return []byte(content), nil
				}
				return old(p)
			}
		}
	}
	for _, c := range []struct {
		name   string
		change func(*host)
		want   string // names the thing
		mend   string
	}{
		{"runc", without("/opt/bin/runc"), "runc is not in /opt/bin", "`make build`"},
		{"coredns", without("/opt/bin/coredns"), "coredns is not in /opt/bin", "`make build`"},
		{"images", without("/opt/bin/images"), "/opt/bin/images", "`make build`"},
		{"disk", func(h *host) { h.freeDisk = func(string) (uint64, error) { return 5e6, nil } }, "disk of /var/lib/zonewise is full: 5 MB free", "ZONEWISE_LAB_HOME"},
		{"state directory", func(h *host) { h.freeDisk = func(string) (uint64, error) { return 0, unix.ENOTDIR } }, "state directory /var/lib/zonewise: not a directory", "ZONEWISE_LAB_HOME"},
		{"overlay", reads("/proc/filesystems", "nodev\tproc\n"), "CONFIG_OVERLAY_FS", "modprobe overlay"},
		{"cgroups", reads("/proc/self/mountinfo", ""), "no cgroup file system", "mount -t cgroup2"},
		{"cgroup namespaces", without("/proc/self/ns/cgroup"), "no cgroup namespaces", "use one that has"},
		{"veth", func(h *host) { h.veth = func() error { return unix.EOPNOTSUPP } }, "CONFIG_VETH", "modprobe veth"},
		{"NAT", func(h *host) { h.nat = func() error { return unix.ENOENT } }, "CONFIG_NFT_NAT", "modprobe nft_chain_nat"},
		{"fib", func(h *host) { h.fib = func() error { return unix.ENOENT } }, "CONFIG_NFT_FIB_IPV4", "modprobe nft_fib_ipv4"},
		{"IPv6", func(h *host) { h.ipv6 = true; without("/proc/net/if_inet6")(h) }, "CONFIG_IPV6", "--ip-family"},
		{"inotify", func(h *host) { h.inotify = func(int) int { return 40 } }, "fs.inotify.max_user_instances: 40 are free, a lab of 6 nodes needs 62", "sysctl -w"},
		{"inotify", func(h *host) { h.daemons, h.inotify = true, func(int) int { return 65 } }, "65 are free, a lab of 6 nodes needs 68", "sysctl -w"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := goodHost()
			c.change(&h)
			err := h.check("/opt/bin", "/var/lib/zonewise")
			if err == nil {
				t.Fatal("not noticed")
			}
			for _, want := range []string{c.want, c.mend} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not contain %q", err, want)
				}
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("more than one line: %q", err)
			}
		})
	}
}

func TestFreeDiskAboveWhatIsNotThere(t *testing.T) {
	dir := t.TempDir()
	want, err := freeDisk(dir)
	if err != nil || want == 0 {
		t.Fatalf("free %d, %v", want, err)
	}
	if got, err := freeDisk(dir + "/a/b/c"); err != nil || got == 0 {
		t.Errorf("free %d, %v", got, err)
	}
	if _, err := freeDisk("/proc/self/exe/below/a/file"); !errors.Is(err, unix.ENOTDIR) {
		t.Errorf("error %v, want %v", err, unix.ENOTDIR)
	}
}
