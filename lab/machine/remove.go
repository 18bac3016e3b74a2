package machine

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Processes lists the processes in a cgroup and below it, in any hierarchy.
func Processes(path string) ([]int, error) {
	all, err := hierarchies()
	if err != nil {
		return nil, err
	}
	seen := map[int]bool{}
	for _, h := range all {
		_ = filepath.WalkDir(filepath.Join(h.mount, path), func(dir string, d fs.DirEntry, err error) error {
			if err != nil || !d.IsDir() {
				return nil // a cgroup that went away meanwhile has no processes
			}
			data, _ := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
			for _, line := range strings.Fields(string(data)) {
				// 0 stands for a process that this PID namespace does not see.
				if pid, err := strconv.Atoi(line); err == nil && pid > 0 {
					seen[pid] = true
				}
			}
			return nil
		})
	}
	return slices.Sorted(maps.Keys(seen)), nil
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
