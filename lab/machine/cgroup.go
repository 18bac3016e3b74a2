package machine

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
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
	all, err := parseMounts(f)
	if err == nil && len(all) == 0 {
		err = errors.New("no cgroup file system is mounted: mount one at /sys/fs/cgroup")
	}
	return all, err
}

// parseMounts finds the cgroup file systems in a mountinfo: proc_pid_mountinfo(5).
func parseMounts(mountinfo io.Reader) ([]hierarchy, error) {
	var out []hierarchy
	lines := bufio.NewScanner(mountinfo)
	for lines.Scan() {
		before, after, ok := strings.Cut(lines.Text(), " - ")
		fields, tail := strings.Fields(before), strings.Fields(after)
		if !ok || len(fields) < 5 || len(tail) < 3 || tail[0] != "cgroup" && tail[0] != "cgroup2" {
			continue
		}
		h := hierarchy{mount: fields[4], kind: tail[0]}
		if slices.ContainsFunc(out, func(o hierarchy) bool { return o.mount == h.mount }) {
			continue
		}
		if h.kind == "cgroup" {
			h.options = controllers(tail[2])
		}
		out = append(out, h)
	}
	return out, lines.Err()
}

// controllers keeps of a v1 file system's options those that say which hierarchy it is.
func controllers(options string) string {
	return strings.Join(slices.DeleteFunc(strings.Split(options, ","), func(o string) bool {
		return slices.Contains([]string{"rw", "ro", "xattr", "noprefix", "clone_children", "cpuset_v2_mode"}, o) || strings.HasPrefix(o, "release_agent=")
	}), ",")
}

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
	var parents []string
	for _, part := range strings.Split(path, "/") {
		parent := dir
		parents = append(parents, parent)
		dir = filepath.Join(dir, part)
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		if h.kind == "cgroup" {
			inherit(parent, dir)
		}
	}
	// 0 means the writer, whatever its number is in this PID namespace.
	if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0"), 0); err != nil {
		return err
	}
	if h.kind == "cgroup2" {
		// Only now: a cgroup hands nothing down while a process, maybe this one, is in it.
		for _, p := range parents {
			handDown(p)
		}
	}
	return nil
}

// inherit fills a new cpuset, which is born empty and takes no process so. Best effort: a
// hierarchy without cpusets is fine.
func inherit(parent, child string) {
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

// handDown gives the children of a cgroup of version 2 its controllers. Best effort: which there
// are is the host's to say, and a controller that is missing shows where a pod asks for it.
func handDown(dir string) {
	have, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return
	}
	for _, controller := range strings.Fields(string(have)) {
		_ = os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+controller), 0)
	}
}
