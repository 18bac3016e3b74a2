package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
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
		return false, machine.RemoveCgroup(machine.CgroupOf(name), killPatience)
	}
	if err := stopRunner(p); err != nil {
		return true, err
	}
	if err := machine.RemoveCgroup(machine.CgroupOf(name), killPatience); err != nil {
		return true, err
	}
	held, err := lock(p)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil // its process, stopped in the middle of its start, has removed it itself
	}
	if err != nil {
		return true, err
	}
	defer func() { _ = held.Close() }()
	if err := os.RemoveAll(p.Dir); err != nil {
		return true, fmt.Errorf("remove %s: %w", p.Dir, err)
	}
	return true, removeEmpty()
}

// Abandon removes a lab from within the process that ran it and holds its lock.
func Abandon(p Paths) error {
	if err := machine.LeaveCgroup(); err != nil {
		return err
	}
	if err := machine.RemoveCgroup(machine.CgroupOf(filepath.Base(p.Dir)), killPatience); err != nil {
		return err
	}
	if err := os.RemoveAll(p.Dir); err != nil {
		return err
	}
	return removeEmpty()
}

// stopRunner asks the process that runs the lab to stop, and waits until it has.
func stopRunner(p Paths) error {
	pid, err := runnerPID(p)
	if err != nil || pid == 0 {
		return err
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	if held, err := lock(p); err == nil {
		return held.Close() // nobody holds the lock: the number belongs to another process by now
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGTERM, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return err
	}
	poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(poll, int(killPatience.Milliseconds()))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err == nil && n == 0 {
			return unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
		}
		return err
	}
}

// runnerPID reads who runs the lab from its lock; 0 if nobody ever did.
func runnerPID(p Paths) (int, error) {
	data, err := os.ReadFile(p.Lock())
	if errors.Is(err, fs.ErrNotExist) || len(strings.TrimSpace(string(data))) == 0 {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(data)))
}

// Hold takes the lab's lock for this process and says so in it. Close lets go.
func Hold(p Paths) (*os.File, error) {
	f, err := lock(p)
	if err != nil {
		return nil, err
	}
	if err := f.Truncate(0); err != nil {
		return nil, err
	}
	_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return f, err
}

// Running tells whether some process runs the lab.
func Running(p Paths) bool {
	if _, err := os.Stat(p.Lock()); err != nil {
		return false
	}
	f, err := lock(p)
	if err != nil {
		return errors.Is(err, errBusy)
	}
	_ = f.Close()
	return false
}

// removeEmpty takes away the directories of all labs once the last one is gone.
func removeEmpty() error {
	names, err := Names()
	if err != nil || len(names) > 0 {
		return err
	}
	for _, dir := range []string{filepath.Join(Home(), "labs"), Home()} {
		// Home may hold what is not ours, where the user chose it.
		if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTEMPTY) {
			return err
		}
	}
	return nil
}
