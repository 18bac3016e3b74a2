package command

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// stopTime is what a command in a node has after SIGTERM.
const stopTime = 5 * time.Second

// endInside makes the end of the context end what nsenter runs. In a node that is a child of nsenter
// in another PID namespace, which would outlive it.
func endInside(nsenter *exec.Cmd) {
	nsenter.Cancel = func() error {
		inside := children(nsenter.Process.Pid)
		if len(inside) == 0 { // nsenter has become the command itself
			return nsenter.Process.Signal(unix.SIGTERM)
		}
		for _, pid := range inside {
			if err := unix.Kill(pid, unix.SIGTERM); err != nil {
				return fmt.Errorf("stop process %d: %w", pid, err)
			}
		}
		return nil
	}
	nsenter.WaitDelay = stopTime
}

// children lists the processes that a process has started and that run still.
func children(pid int) (found []int) {
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, list := range lists {
		data, err := os.ReadFile(list)
		if err != nil {
			continue // that thread has ended
		}
		for _, word := range strings.Fields(string(data)) {
			if child, err := strconv.Atoi(word); err == nil {
				found = append(found, child)
			}
		}
	}
	return found
}
