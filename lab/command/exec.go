package command

import (
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/zonewise/zonewise/lab/cluster"
	"github.com/zonewise/zonewise/lab/machine"
)

func newExec() *cobra.Command {
	return &cobra.Command{
		Use: "exec NODE -- COMMAND…", Short: "Run a command on a node, or in the VPC outside of the cluster (node \"region\")",
		Example: "  sudo zonewise lab exec a1 -- ip route\n  sudo zonewise lab exec region -- curl -s 192.168.1.10:30080",
		Args:    args(cobra.MinimumNArgs(2)),
		RunE: func(cmd *cobra.Command, words []string) error {
			name := labName(cmd)
			s, err := status(cmd.Context(), name)
			if err != nil {
				return err
			}
			node, isNode := findNode(s, words[0])
			var cgroup string
			var enter []string
			switch {
			case isNode && node.Power != "":
				return fmt.Errorf("node %s is not running: its instance was %s; `zonewise lab up%s` starts it again", words[0], node.Power, nameFlag(name))
			case isNode && node.PID == 0:
				return fmt.Errorf("node %s is down: the lab starts it again; see `zonewise lab logs%s %s/machine`", words[0], nameFlag(name), words[0])
			case isNode:
				// Beside the node's own programs: what is attached to the node's cgroup is meant for this one, too.
				cgroup = machine.SystemCgroup(cluster.PathsOf(name).NodeCgroup(node.Alias))
				enter = cluster.EnterArgs(node.PID, words[1:]...)
			case words[0] == "region":
				cgroup = filepath.Join(cluster.PathsOf(name).Cgroup(), "exec")
				enter = append([]string{"--net=" + s.RegionNS, "--"}, words[1:]...)
			default:
				return fmt.Errorf("%w, or region", noNode(name, words[0]))
			}
			if err := machine.EnterCgroup(cgroup); err != nil { // and it ends with the lab
				return err
			}
			run := exec.CommandContext(cmd.Context(), "nsenter", enter...)
			run.Stdin, run.Stdout, run.Stderr = cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr()
			endInside(run)
			err = run.Run()
			var exit *exec.ExitError
			if errors.As(err, &exit) {
				if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
					return exitError{128 + int(ws.Signal())} // as a shell says it; SIGPIPE is no news
				}
				return exitError{exit.ExitCode()}
			}
			if errors.Is(err, exec.ErrNotFound) {
				return fmt.Errorf("%w: install util-linux", err)
			}
			return err
		},
	}
}

func findNode(s cluster.Status, name string) (cluster.NodeStatus, bool) {
	for _, z := range s.Zones {
		for _, n := range z.Nodes {
			if n.Name == name || n.Alias == name {
				return n, true
			}
		}
	}
	return cluster.NodeStatus{}, false
}
