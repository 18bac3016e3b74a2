package command

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/zonewise/zonewise/lab/cluster"
	"github.com/zonewise/zonewise/lab/machine"
	"github.com/zonewise/zonewise/lab/topology"
)

func newDown() *cobra.Command {
	return &cobra.Command{
		Use: "down", Short: "Remove a lab and every trace of it, also after a crash", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			name := labName(cmd)
			if err := needRoot(cmd); err != nil {
				return err
			}
			show := newProgress(cmd.ErrOrStderr())
			show.start("Removing lab " + name)
			begin := time.Now()
			existed, err := cluster.Remove(name)
			if err != nil {
				show.fail()
				return err
			}
			show.done(time.Since(begin))
			if !existed {
				show.say("There was no lab %s.", name)
			}
			return nil
		},
	}
}

func newStatus() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use: "status", Short: "Show zones, nodes, ports, and what crossed zones", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if output != "table" && output != "json" {
				return usageError{fmt.Errorf("-o %s: use table or json", output)}
			}
			s, err := status(cmd.Context(), labName(cmd))
			if err != nil {
				return err
			}
			if output == "json" {
				return printJSON(cmd.OutOrStdout(), s)
			}
			return printStatus(cmd.OutOrStdout(), s)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "table", "table or json")
	return cmd
}

func printJSON(w io.Writer, v any) error {
	encode := json.NewEncoder(w)
	encode.SetIndent("", "  ")
	return encode.Encode(v)
}

func printStatus(out io.Writer, s cluster.Status) error {
	fmt.Fprintf(out, "Lab %s (%s), proxy %s\n", s.Name, s.Version, s.Proxy)
	fmt.Fprintf(out, "API         %s  (export KUBECONFIG=%s)\n", s.API, s.Kubeconfig)
	fmt.Fprintf(out, "Started     API %.1f s, nodes %.1f s, DNS %.1f s; %d MB of memory\n", s.Boot.API, s.Boot.Nodes, s.Boot.DNS, s.MemoryBytes/1e6)
	fmt.Fprintf(out, "Latency between zones: %s\n\n", s.Latency)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ZONE\tSUBNET\tNODE\tALIAS\tTYPE\tMAX-PODS")
	for _, z := range s.Zones {
		for _, n := range z.Nodes {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%d\n", z.Name, z.Subnet, n.Name, n.Alias, n.InstanceType, n.MaxPods)
		}
	}
	fmt.Fprintln(w, "\nFROM\tTO\tBYTES\tPACKETS")
	for _, c := range s.CrossZone {
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\n", c.From, c.To, c.Bytes, c.Packets)
	}
	if len(s.NodePorts) > 0 {
		fmt.Fprintln(w, "\nSERVICE\tNODE-PORT\tNODE\tON THIS HOST")
	}
	for _, p := range s.NodePorts {
		fmt.Fprintf(w, "%s/%s\t%d/%s\t%s\t%s\n", p.Namespace, p.Service, p.Port, p.Protocol, p.Node, p.Listen)
	}
	return w.Flush()
}

func newList() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use: "list", Short: "List the labs of this machine", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			names, err := cluster.Names()
			if err != nil {
				return err
			}
			type row struct {
				Name    string `json:"name"`
				Running bool   `json:"running"`
			}
			rows := []row{}
			for _, n := range names {
				rows = append(rows, row{n, cluster.Running(cluster.PathsOf(n))})
			}
			switch output {
			case "json":
				return printJSON(cmd.OutOrStdout(), map[string]any{"schema": "zonewise.labs/v1", "labs": rows})
			case "table":
			default:
				return usageError{fmt.Errorf("-o %s: use table or json", output)}
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "NAME\tSTATE")
			for _, r := range rows {
				state := "stopped"
				if r.Running {
					state = "running"
				}
				fmt.Fprintf(w, "%s\t%s\n", r.Name, state)
			}
			return w.Flush()
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "table", "table or json")
	return cmd
}

func newKubeconfig() *cobra.Command {
	return &cobra.Command{
		Use: "kubeconfig", Short: "Print a lab's kubeconfig", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			name := labName(cmd)
			p := cluster.PathsOf(name)
			if _, err := cluster.LoadConfig(p); err != nil {
				return explain(name, err)
			}
			data, err := os.ReadFile(p.Kubeconfig())
			if errors.Is(err, os.ErrNotExist) {
				return explain(name, cluster.ErrNotRunning)
			}
			if err != nil {
				return explain(name, err)
			}
			_, err = cmd.OutOrStdout().Write(data)
			return err
		},
	}
}

func newLoad() *cobra.Command {
	return &cobra.Command{
		Use: "load FILE.tar…", Short: "Give a lab images from archives: OCI layouts, or what `docker save` writes",
		Args: args(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, files []string) error {
			name := labName(cmd)
			if _, err := status(cmd.Context(), name); err != nil {
				return err
			}
			show := newProgress(cmd.ErrOrStderr())
			for _, file := range files {
				full, err := filepath.Abs(file)
				if err != nil {
					return err
				}
				show.start("Loading " + filepath.Base(file))
				begin := time.Now()
				names, err := cluster.LoadImage(cmd.Context(), name, full)
				if err != nil {
					show.fail()
					return explain(name, err)
				}
				show.done(time.Since(begin))
				for _, n := range names {
					fmt.Fprintln(cmd.OutOrStdout(), n)
				}
			}
			return nil
		},
	}
}

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
			pid, isNode := nodePID(s, words[0])
			var enter []string
			switch {
			case isNode:
				enter = cluster.EnterArgs(pid, words[1:]...)
			case words[0] == "region":
				// It ends with the lab, as what runs on a node does.
				if err := machine.EnterCgroup(filepath.Join(cluster.PathsOf(name).Cgroup(), "exec")); err != nil {
					return err
				}
				enter = append([]string{"--net=" + s.RegionNS, "--"}, words[1:]...)
			default:
				return fmt.Errorf("lab %s has no node %s: use a name or an alias of `zonewise lab status`, or region", name, words[0])
			}
			run := exec.CommandContext(cmd.Context(), "nsenter", enter...)
			run.Stdin, run.Stdout, run.Stderr = cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr()
			endInside(run)
			err = run.Run()
			var exit *exec.ExitError
			if errors.As(err, &exit) && exit.ExitCode() >= 0 {
				return exitError{exit.ExitCode()}
			}
			return err
		},
	}
}

func nodePID(s cluster.Status, name string) (int, bool) {
	for _, z := range s.Zones {
		for _, n := range z.Nodes {
			if n.Name == name || n.Alias == name {
				return n.PID, true
			}
		}
	}
	return 0, false
}

func newLogs() *cobra.Command {
	var follow bool
	var tail string
	cmd := &cobra.Command{
		Use:   "logs COMPONENT",
		Short: "Show the log of a component",
		Long: "Show the log of a component: lab, etcd, kube-apiserver, kube-controller-manager, kube-scheduler,\n" +
			"resolver, or NODE/kubelet, NODE/containerd, NODE/machine for a node such as a1.",
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, words []string) error {
			name := labName(cmd)
			c, err := cluster.LoadConfig(cluster.PathsOf(name))
			if err != nil {
				return explain(name, err)
			}
			path, err := logFile(cluster.PathsOf(name), c, words[0])
			if err != nil {
				return err
			}
			flags := []string{"-n", tail}
			if tail == "all" {
				flags = []string{"-n", "+1"}
			}
			if follow {
				flags = append(flags, "-F")
			}
			run := exec.CommandContext(cmd.Context(), "tail", append(flags, path)...)
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

func logFile(p cluster.Paths, c topology.Config, component string) (string, error) {
	node, service, onNode := strings.Cut(component, "/")
	path := p.Log(component)
	switch {
	case component == "lab":
		path = filepath.Join(p.Dir, "lab.log")
	case onNode:
		t, err := topology.New(c)
		if err != nil {
			return "", err
		}
		n, ok := t.Node(node)
		if !ok {
			return "", fmt.Errorf("lab %s has no node %s", c.Name, node)
		}
		path = p.NodeLog(n.Alias, filepath.Base(service))
		if service == "machine" {
			path = filepath.Join(p.Node(n.Alias), "machine.log")
		}
	}
	if _, err := os.Stat(path); err != nil || strings.Contains(service, "/") {
		return "", fmt.Errorf("no log of %q: see `zonewise lab logs --help` for the components", component)
	}
	return path, nil
}
