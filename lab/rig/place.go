package rig

import (
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

	"github.com/zonewise/zonewise/internal/kernel/bpf"
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
	home, err := bpf.OwnCgroup()
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

// makePlaces gives the world a BPF file system, and names to the pods' namespaces. Nothing is mounted:
// what the mounts of this machine are, others look at, and what is held open goes with this process.
func (w *World) makePlaces() error {
	var err error
	if w.bpf, err = bpf.NewFileSystem(); err != nil {
		return fmt.Errorf("bpf file system: %w", err)
	}
	w.BPF, w.Namespaces = fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), w.bpf.Fd()), filepath.Join(w.dir, "netns")
	if err := os.Mkdir(w.Namespaces, 0o700); err != nil {
		return err
	}
	for i, p := range w.Pods {
		if err := os.Symlink(p.NS.Path(), filepath.Join(w.Namespaces, fmt.Sprintf("pod%d", i))); err != nil {
			return fmt.Errorf("name of a namespace: %w", err)
		}
	}
	return nil
}

// sweep removes what worlds of dead processes left: directories below dir, and cgroups. All else goes
// by itself.
func sweep(dir, cgroups string) error {
	var errs []error
	for at, remove := range map[string]func(string) error{dir: os.RemoveAll, cgroups: removeCgroup} {
		entries, err := os.ReadDir(at)
		errs = append(errs, err)
		for _, e := range entries {
			if dead(e.Name()) {
				errs = append(errs, remove(filepath.Join(at, e.Name())))
			}
		}
	}
	return errors.Join(errs...)
}

// dead tells whether a name is that of a world whose process is no more.
func dead(name string) bool {
	rest, ours := strings.CutPrefix(name, prefix)
	number, _, _ := strings.Cut(rest, "-")
	pid, err := strconv.Atoi(number)
	return ours && err == nil && errors.Is(unix.Kill(pid, 0), unix.ESRCH)
}
