package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zonewise/zonewise/lab/machine"
)

// killPatience is how long killed processes may take to be gone.
const killPatience = 10 * time.Second

// Remove ends a lab and removes every trace of it: processes, namespaces, cgroups and files. It
// does the same whether the lab runs, has crashed or was never there.
func Remove(name string) (existed bool, err error) {
	p := PathsOf(name)
	if _, err := os.Stat(p.Dir); errors.Is(err, fs.ErrNotExist) {
		return false, machine.RemoveCgroup(p.Cgroup(), killPatience)
	}
	if err := stopRunner(p); err != nil {
		return true, err
	}
	held, err := lockWaiting(p)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil // its process, stopped in the middle of its start, has removed it itself
	}
	if err != nil {
		return true, err
	}
	defer func() { _ = held.Close() }()
	if err := held.Truncate(0); err != nil { // the process that it named is gone
		return true, err
	}
	return true, removeAll(p)
}

// Undo removes a lab from within the process that claimed and ran it.
func (c *Claim) Undo() error {
	if err := machine.LeaveCgroup(); err != nil {
		return err
	}
	return removeAll(c.paths)
}

// removeAll removes what a lab, whose lock the caller holds, has on this machine.
func removeAll(p Paths) error {
	if err := machine.RemoveCgroup(p.Cgroup(), killPatience); err != nil {
		return err
	}
	if err := os.RemoveAll(p.Dir); err != nil {
		return err
	}
	return removeEmpty()
}

// lockWaiting takes the lab's lock once whoever holds it has let go.
func lockWaiting(p Paths) (*os.File, error) {
	deadline := time.Now().Add(killPatience)
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		held, err := lock(p)
		if !errors.Is(err, ErrBusy) || time.Now().After(deadline) {
			return held, err
		}
		<-tick.C
	}
}

// stopRunner asks the process that runs the lab to stop, and waits until it has.
func stopRunner(p Paths) error {
	pid := RunnerPID(p)
	if pid == 0 {
		return nil
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("process %d: %w", pid, err)
	}
	defer func() { _ = unix.Close(fd) }()
	if !Running(p) {
		return nil // the number belongs to another process by now
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGTERM, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("process %d: %w", pid, err)
	}
	deadline := time.Now().Add(killPatience)
	poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(poll, int(max(0, time.Until(deadline).Milliseconds())))
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err == nil && n == 0:
			return unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
		}
		return err
	}
}

// removeEmpty takes away the directories of all labs once the last one is gone.
func removeEmpty() error {
	for _, dir := range []string{filepath.Join(Home(), "labs"), Home()} {
		// Home may hold what is not ours, where the user chose it.
		err := os.Remove(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.EBUSY) {
			return err
		}
	}
	return nil
}
