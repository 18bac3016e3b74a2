package rig

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zonewise/zonewise/internal/kernel/netns"
)

// prefix begins every name that a world leaves on the machine; the process's number follows.
const prefix = "zonewise-rig-"

// patience is how long processes that were killed may take to go.
const patience = 5 * time.Second

// Command is a program that will run in the namespace and in the world's cgroup. Nsenter becomes
// the program, so that the process's number is the program's.
func (w *World) Command(ns *netns.NS, name string, args ...string) *exec.Cmd {
	cmd := exec.Command("nsenter", append([]string{"--net=" + ns.Path(), "--", name}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(w.cgroup.Fd())}
	return cmd
}

// Enter puts this process, with all of its threads, into the world's cgroup. Close takes it out.
func (w *World) Enter() error {
	if w.home != "" {
		return nil
	}
	home, err := ownCgroup()
	if err != nil {
		return fmt.Errorf("rig: %w", err)
	}
	if err := join(w.Cgroup); err != nil {
		return fmt.Errorf("rig: %w", err)
	}
	w.home = filepath.Join(filepath.Dir(w.Cgroup), home)
	return nil
}

func (w *World) leave() error {
	if w.home == "" {
		return nil
	}
	err := join(w.home)
	if err == nil {
		w.home = ""
	}
	return err
}

func join(cgroup string) error {
	return os.WriteFile(filepath.Join(cgroup, "cgroup.procs"), []byte(strconv.Itoa(os.Getpid())), 0)
}

// ownCgroup is the path of this process's cgroup below the mount of version 2.
func ownCgroup() (string, error) {
	all, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(all)) {
		if path, ok := strings.CutPrefix(line, "0::"); ok {
			return strings.TrimSpace(path), nil
		}
	}
	return "", errors.New("this process is in no cgroup of version 2")
}

// cgroup2 is where cgroups of version 2 are mounted.
func cgroup2() (string, error) {
	all, err := mounts()
	if err != nil {
		return "", err
	}
	for _, m := range all {
		if m.kind == "cgroup2" {
			return m.at, nil
		}
	}
	return "", errors.New("no cgroup file system of version 2 is mounted")
}

func (w *World) makeCgroup(mount string) error {
	w.Cgroup = filepath.Join(mount, w.name)
	if err := os.Mkdir(w.Cgroup, 0o755); err != nil {
		return err
	}
	f, err := os.Open(w.Cgroup)
	w.cgroup = f
	return err
}

func (w *World) removeCgroup() error {
	if w.cgroup == nil {
		return nil
	}
	err := w.cgroup.Close()
	w.cgroup = nil
	return errors.Join(err, removeCgroup(w.Cgroup))
}

// removeCgroup kills what is in a cgroup and in those below it, and removes them all.
func removeCgroup(path string) error {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := os.WriteFile(filepath.Join(path, "cgroup.kill"), []byte("1"), 0); err != nil {
		return err
	}
	var all []string
	err := filepath.WalkDir(path, func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			all = append(all, p)
		}
		return err
	})
	if err != nil {
		return err
	}
	slices.Reverse(all) // those below come first
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for _, p := range all {
		for {
			err := unix.Rmdir(p)
			if err == nil || errors.Is(err, unix.ENOENT) {
				break
			}
			if !errors.Is(err, unix.EBUSY) {
				return fmt.Errorf("%s: %w", p, err)
			}
			select {
			case <-tick.C: // processes that were killed are still on their way out
			case <-deadline:
				return fmt.Errorf("%s: %w", p, err)
			}
		}
	}
	return nil
}

// makeMounts gives the world a BPF file system, and names to the pods' namespaces.
func (w *World) makeMounts() error {
	w.BPF, w.Namespaces = filepath.Join(w.dir, "bpf"), filepath.Join(w.dir, "netns")
	for _, dir := range []string{w.BPF, w.Namespaces} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			return err
		}
	}
	if err := unix.Mount("bpf", w.BPF, "bpf", 0, ""); err != nil {
		return fmt.Errorf("bpf file system: %w", err)
	}
	for i, p := range w.Pods {
		at := filepath.Join(w.Namespaces, fmt.Sprintf("pod%d", i))
		if err := os.WriteFile(at, nil, 0o600); err != nil {
			return err
		}
		if err := unix.Mount(p.NS.Path(), at, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("name of a namespace: %w", err)
		}
	}
	return nil
}

// removeMounts takes away every mount below a directory, the youngest first.
func removeMounts(dir string) error {
	all, err := mounts()
	if err != nil {
		return err
	}
	slices.Reverse(all)
	for _, m := range all {
		if strings.HasPrefix(m.at, dir+"/") {
			if err := unix.Unmount(m.at, unix.MNT_DETACH); err != nil {
				return fmt.Errorf("%s: %w", m.at, err)
			}
		}
	}
	return nil
}

type mount struct{ at, kind string }

// mounts lists this process's, the oldest first: proc_pid_mountinfo(5).
func mounts() ([]mount, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out []mount
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		before, after, ok := strings.Cut(lines.Text(), " - ")
		fields, tail := strings.Fields(before), strings.Fields(after)
		if ok && len(fields) > 4 && len(tail) > 0 {
			out = append(out, mount{fields[4], tail[0]})
		}
	}
	return out, lines.Err()
}

// sweep removes what worlds of dead processes left: mounts wherever they are, directories below dir,
// cgroups. Namespaces go by themselves.
func sweep(dir, cgroups string) error {
	all, err := mounts()
	if err != nil {
		return err
	}
	gone := map[string]bool{}
	for _, m := range all {
		if at := worldOf(m.at); dead(filepath.Base(at)) {
			gone[at] = true
		}
	}
	for _, at := range []string{dir, cgroups} {
		entries, err := os.ReadDir(at)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if dead(e.Name()) {
				gone[filepath.Join(at, e.Name())] = true
			}
		}
	}
	for at := range gone {
		if filepath.Dir(at) == cgroups {
			err = errors.Join(err, removeCgroup(at))
		} else {
			err = errors.Join(err, removeMounts(at), os.RemoveAll(at))
		}
	}
	return err
}

// worldOf is the world's own directory in a path.
func worldOf(path string) string {
	for ; path != "/" && path != "."; path = filepath.Dir(path) {
		if strings.HasPrefix(filepath.Base(path), prefix) {
			return path
		}
	}
	return path
}

// dead tells whether a name is that of a world whose process is no more.
func dead(name string) bool {
	rest, ours := strings.CutPrefix(name, prefix)
	number, _, _ := strings.Cut(rest, "-")
	pid, err := strconv.Atoi(number)
	return ours && err == nil && errors.Is(unix.Kill(pid, 0), unix.ESRCH)
}
