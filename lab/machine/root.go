package machine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// A machine's root directory: its own /etc, /var, /run and so on, the host's programs read-only,
// and fresh views of processes, devices and cgroups. Every path is the one that it would be on a
// machine of its own, and nothing of the host's is written.

// Where things lie inside a machine.
const (
	binDir    = "/lab/bin"
	imagesDir = "/lab/images"
)

var ownDirs = []string{
	"dev", "etc/cni/net.d", "etc/containerd/certs.d/_default", "etc/kubernetes/pki", "etc/zonewise", "home", "lab/bin", "lab/images",
	"mnt", "opt/cni/bin", "proc", "root", "run", "srv", "sys", "tmp", "usr",
	"var/cache", "var/lib/kubelet", "var/log/pods", "var/tmp",
}

// Files that programs expect in /etc, and that are the same on every machine of a host.
var hostEtc = []string{
	"passwd", "group", "nsswitch.conf", "services", "protocols", "os-release", "localtime",
	"ld.so.cache", "ld.so.conf", "login.defs", "bash.bashrc", "profile", "mime.types",
}

// makeRoot writes the files of a machine's root directory. It may be there already: a lab that is
// resumed keeps its nodes' disks.
func makeRoot(s Spec) error {
	for _, d := range ownDirs {
		if err := os.MkdirAll(filepath.Join(s.Root, d), 0o755); err != nil {
			return err
		}
	}
	for _, d := range []string{"tmp", "var/tmp"} {
		if err := os.Chmod(filepath.Join(s.Root, d), 0o1777); err != nil {
			return err
		}
	}
	if err := emptyDir(filepath.Join(s.Root, "tmp")); err != nil { // as a reboot does; /run is in memory
		return err
	}
	for _, l := range []string{"bin", "sbin", "lib", "lib32", "lib64", "libx32"} {
		target, err := os.Readlink("/" + l)
		if err != nil {
			continue // this host has no such link; where it has a directory, /usr was never merged
		}
		if err := replaceLink(strings.TrimPrefix(target, "/"), filepath.Join(s.Root, l)); err != nil {
			return err
		}
	}
	if err := replaceLink("../run", filepath.Join(s.Root, "var/run")); err != nil {
		return err
	}
	for _, name := range hostEtc {
		data, err := os.ReadFile("/etc/" + name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(s.Root, "etc", name), data, 0o644); err != nil {
			return err
		}
	}
	names := " " + s.Hostname + " " + strings.SplitN(s.Hostname, ".", 2)[0] + "\n"
	hosts := "127.0.0.1 localhost\n" + s.Address + names
	if s.IPv6 != "" {
		hosts += "::1 localhost\n" + s.IPv6 + names
	}
	for name, content := range map[string]string{
		"hostname":    s.Hostname + "\n",
		"hosts":       hosts,
		"resolv.conf": "nameserver " + s.Resolver + "\n",
		"mtab":        "",
	} {
		if err := os.WriteFile(filepath.Join(s.Root, "etc", name), []byte(content), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// enterRoot mounts what a machine sees and makes its root directory the root. The caller has a
// mount namespace of its own.
func enterRoot(s Spec) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	cgroups, err := hierarchies() // of the host: after this, its mounts are out of sight
	if err != nil {
		return err
	}
	at := func(p string) string { return filepath.Join(s.Root, p) }
	mounts := []struct {
		source, target, kind string
		flags                uintptr
		options              string
	}{
		{s.Root, s.Root, "", unix.MS_BIND, ""},
		{"/usr", at("usr"), "", unix.MS_BIND | unix.MS_REC, ""},
		{"", at("usr"), "", unix.MS_REMOUNT | unix.MS_BIND | unix.MS_RDONLY, ""},
		{s.BinDir, at(binDir), "", unix.MS_BIND, ""},
		{"", at(binDir), "", unix.MS_REMOUNT | unix.MS_BIND | unix.MS_RDONLY, ""},
		{s.Images, at(imagesDir), "", unix.MS_BIND, ""},
		{"", at(imagesDir), "", unix.MS_REMOUNT | unix.MS_BIND | unix.MS_RDONLY, ""},
		{"/dev", at("dev"), "", unix.MS_BIND | unix.MS_REC, ""},
		{"tmpfs", at("dev/shm"), "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=1777"},
		{"proc", at("proc"), "proc", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
		{"sysfs", at("sys"), "sysfs", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
		{"tmpfs", at("run"), "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=0755"},
	}
	for _, m := range mounts {
		if err := unix.Mount(m.source, m.target, m.kind, m.flags, m.options); err != nil {
			return fmt.Errorf("mount %s: %w", m.target, err)
		}
	}
	if err := mountCgroups(cgroups, at("sys/fs/cgroup")); err != nil {
		return err
	}
	if err := unix.Mount("bpf", at("sys/fs/bpf"), "bpf", 0, ""); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("mount bpf: %w", err)
	}
	for _, d := range []string{"/etc/ssl", "/etc/alternatives"} {
		if _, err := os.Stat(d); err != nil {
			continue
		}
		if err := os.MkdirAll(at(d), 0o755); err != nil {
			return err
		}
		if err := unix.Mount(d, at(d), "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mount %s: %w", d, err)
		}
	}
	return pivot(s.Root)
}

// mountCgroups shows the machine its own cgroups: the calling thread's cgroup namespace makes the
// machine's cgroup the root of each hierarchy.
func mountCgroups(all []hierarchy, target string) error {
	if len(all) == 1 && all[0].kind == "cgroup2" {
		if err := unix.Mount("cgroup2", target, "cgroup2", 0, ""); err != nil {
			return fmt.Errorf("mount cgroup2: %w", err)
		}
		return nil
	}
	if err := unix.Mount("tmpfs", target, "tmpfs", 0, "mode=0755"); err != nil {
		return fmt.Errorf("mount %s: %w", target, err)
	}
	for _, h := range all {
		dir := filepath.Join(target, filepath.Base(h.mount))
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(h.kind, dir, h.kind, 0, h.options); err != nil {
			return fmt.Errorf("mount %s (%s): %w", dir, h.options, err)
		}
	}
	return nil
}

func pivot(root string) error {
	if err := os.Chdir(root); err != nil {
		return err
	}
	// pivot_root(".", ".") stacks the old root on the new one; the unmount takes it off.
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("leave old root: %w", err)
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	// Pods may ask for mounts that propagate, as on any node.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("make mounts shared: %w", err)
	}
	for _, d := range []string{"/run/containerd", "/run/zonewise", "/run/netns"} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	return nil
}

func emptyDir(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

func replaceLink(target, path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.Symlink(target, path)
}
