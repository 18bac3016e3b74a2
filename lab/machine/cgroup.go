package machine

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// hierarchy is one mounted cgroup file system: several on hosts with cgroup v1, one on pure v2.
type hierarchy struct {
	mount   string // on the host, e.g. /sys/fs/cgroup/memory
	kind    string // cgroup or cgroup2
	options string // v1: controllers or name=…, for mounting it anew
}

// hierarchies lists the host's cgroup mounts.
func hierarchies() ([]hierarchy, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	var out []hierarchy
	seen := map[string]bool{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		before, after, ok := strings.Cut(lines.Text(), " - ")
		fields, tail := strings.Fields(before), strings.Fields(after)
		if !ok || len(fields) < 5 || len(tail) < 3 || seen[fields[4]] || !strings.HasPrefix(tail[0], "cgroup") {
			continue
		}
		seen[fields[4]] = true
		h := hierarchy{mount: fields[4], kind: tail[0]}
		if h.kind == "cgroup" {
			h.options = strings.TrimPrefix(strings.TrimPrefix(tail[2], "rw"), ",")
		}
		out = append(out, h)
	}
	if len(out) == 0 {
		return nil, errors.New("no cgroup file system is mounted: mount one at /sys/fs/cgroup")
	}
	return out, nil
}

// CgroupOf is the cgroup, below every hierarchy's root, that holds all of a lab.
func CgroupOf(lab string) string { return "zonewise-" + lab }

// EnterCgroup moves the calling process into a cgroup of every hierarchy, making it where needed.
func EnterCgroup(path string) error {
	all, err := hierarchies()
	if err != nil {
		return err
	}
	for _, h := range all {
		if err := h.enter(path); err != nil {
			return fmt.Errorf("cgroup %s: %w", filepath.Join(h.mount, path), err)
		}
	}
	return nil
}

// LeaveCgroup moves the calling process to the root of every hierarchy.
func LeaveCgroup() error {
	all, err := hierarchies()
	if err != nil {
		return err
	}
	for _, h := range all {
		if err := os.WriteFile(filepath.Join(h.mount, "cgroup.procs"), []byte("0"), 0); err != nil {
			return fmt.Errorf("leave cgroup of %s: %w", h.mount, err)
		}
	}
	return nil
}

func (h hierarchy) enter(path string) error {
	dir := h.mount
	for _, part := range strings.Split(path, "/") {
		parent := dir
		dir = filepath.Join(dir, part)
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		h.inherit(parent, dir)
	}
	// 0 means the writer, whatever its number is in this PID namespace.
	return os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0"), 0)
}

// inherit makes a new cgroup usable: a cpuset is born empty, and v2 gives a child only the
// controllers that its parent hands down. Both are best effort: a hierarchy without them is fine.
func (h hierarchy) inherit(parent, child string) {
	if h.kind == "cgroup2" {
		handDown(parent)
		return
	}
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		have, err := os.ReadFile(filepath.Join(child, file))
		if err != nil || strings.TrimSpace(string(have)) != "" {
			continue
		}
		if value, err := os.ReadFile(filepath.Join(parent, file)); err == nil {
			_ = os.WriteFile(filepath.Join(child, file), value, 0)
		}
	}
}

func handDown(dir string) {
	have, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return
	}
	for _, controller := range strings.Fields(string(have)) {
		_ = os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+controller), 0)
	}
}

// Processes lists the processes in a cgroup and below it, in any hierarchy.
func Processes(path string) ([]int, error) {
	all, err := hierarchies()
	if err != nil {
		return nil, err
	}
	seen := map[int]bool{}
	var out []int
	for _, h := range all {
		_ = filepath.WalkDir(filepath.Join(h.mount, path), func(p string, d fs.DirEntry, err error) error {
			if err != nil || !d.IsDir() {
				return nil // a cgroup that went away meanwhile has no processes
			}
			data, _ := os.ReadFile(filepath.Join(p, "cgroup.procs"))
			for _, line := range strings.Fields(string(data)) {
				var pid int
				if _, err := fmt.Sscan(line, &pid); err == nil && pid > 0 && !seen[pid] {
					seen[pid] = true
					out = append(out, pid)
				}
			}
			return nil
		})
	}
	return out, nil
}

// RemoveCgroup kills whatever is left in a cgroup and removes it, with all below, from every
// hierarchy. It waits up to patience for killed processes to go.
func RemoveCgroup(path string, patience time.Duration) error {
	all, err := hierarchies()
	if err != nil {
		return err
	}
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		pids, err := Processes(path)
		if err != nil {
			return err
		}
		for _, pid := range pids {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		var left error
		for _, h := range all {
			if err := removeTree(filepath.Join(h.mount, path)); err != nil {
				left = err
			}
		}
		if left == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("cgroup %s: %w", path, left)
		}
		<-tick.C
	}
}

// removeTree removes a cgroup directory, children first. Its files go with it.
func removeTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeTree(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	if err := unix.Rmdir(dir); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove %s: %w", dir, err)
	}
	return nil
}
