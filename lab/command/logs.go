package command

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

	"github.com/spf13/cobra"

	"github.com/zonewise/zonewise/lab/cluster"
	"github.com/zonewise/zonewise/lab/component"
	"github.com/zonewise/zonewise/lab/topology"
)

// What has a log: of the lab, and of each node.
var (
	labLogs  = []string{"lab", component.Etcd, component.APIServer, component.ControllerManager, component.Scheduler, "resolver"}
	nodeLogs = []string{component.Kubelet, "containerd", "machine", component.KubeProxy}
)

func newLogs() *cobra.Command {
	var follow bool
	var tail string
	cmd := &cobra.Command{
		Use:   "logs COMPONENT",
		Short: "Show the log of a component",
		Long: "Show the log of a component: " + strings.Join(labLogs, ", ") + ",\n" +
			"or NODE/" + strings.Join(nodeLogs, ", NODE/") + " for a node such as a1.",
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, words []string) error {
			name := labName(cmd)
			from := "+1"
			if tail != "all" {
				if n, err := strconv.Atoi(tail); err != nil || n < 0 {
					return usageError{fmt.Errorf("--tail %s: use a number of lines, or all", tail)}
				}
				from = tail
			}
			p := cluster.PathsOf(name)
			c, err := cluster.LoadConfig(p)
			if err != nil {
				return explain(name, err)
			}
			path, err := logFile(p, c, words[0])
			if err != nil {
				return explain(name, err)
			}
			flags := []string{"-n", from, path}
			if follow {
				flags = append([]string{"-F"}, flags...)
			}
			run := exec.CommandContext(cmd.Context(), "tail", flags...)
			run.Stdout, run.Stderr = cmd.OutOrStdout(), cmd.ErrOrStderr()
			if err := run.Run(); err != nil && cmd.Context().Err() == nil {
				return fmt.Errorf("log %s: %w", words[0], err)
			}
			return nil
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on as the log grows")
	cmd.Flags().StringVar(&tail, "tail", "all", "show only the last `lines`")
	return cmd
}

// logFile finds the log of a component such as etcd or a1/kubelet.
func logFile(p cluster.Paths, c topology.Config, name string) (string, error) {
	path := ""
	node, service, onNode := strings.Cut(name, "/")
	switch {
	case onNode && slices.Contains(nodeLogs, service):
		t, err := topology.New(c)
		if err != nil {
			return "", err
		}
		n, ok := t.Node(node)
		if !ok {
			return "", noNode(c.Name, node)
		}
		if path = p.NodeLog(n.Alias, service); service == "machine" {
			path = filepath.Join(p.Node(n.Alias), "machine.log")
		}
	case name == "lab":
		path = filepath.Join(p.Dir, "lab.log")
	case slices.Contains(labLogs, name):
		path = p.Log(name)
	default:
		return "", fmt.Errorf("no component %q: use one of %s, or NODE/%s", name, strings.Join(labLogs, ", "), strings.Join(nodeLogs, ", NODE/"))
	}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("%s has no log: it was never started in lab %s", name, c.Name)
	} else if err != nil {
		return "", err
	}
	return path, nil
}

func noNode(lab, node string) error {
	return fmt.Errorf("lab %s has no node %s: see `zonewise lab status%s` for names and aliases", lab, node, nameFlag(lab))
}
