package command

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"helm.sh/helm/v4/pkg/strvals"

	"github.com/zonewise/zonewise/lab/cluster"
	"github.com/zonewise/zonewise/lab/install"
	"github.com/zonewise/zonewise/lab/topology"
)

type upFlags struct {
	file         string
	zones        int
	perZone      int
	instanceType string
	ipFamily     string
	cni          string
	proxy        string
	set          []string
	wait         time.Duration
	offline      bool
}

func newUp() *cobra.Command {
	var f upFlags
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Start a lab, or go on with one that was interrupted",
		Long: "Start a lab, or go on with one that was interrupted: its API objects, certificates and nodes' disks\n" +
			"are kept, its pods are started anew.",
		Example: "  sudo zonewise lab up\n  sudo zonewise lab up --name big --zones 4 --nodes-per-zone 3\n" +
			"  sudo zonewise lab up -f lab.yaml",
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return up(cmd, f) },
	}
	flags := cmd.Flags()
	flags.StringVarP(&f.file, "file", "f", "", "read the lab from `lab.yaml`; flags that are given override it")
	flags.IntVar(&f.zones, "zones", 3, "number of zones")
	flags.IntVar(&f.perZone, "nodes-per-zone", 2, "number of nodes in each zone")
	flags.StringVar(&f.instanceType, "instance-type", "t3.medium", "instance `type` of the nodes: what they report, and how many pods they hold")
	flags.StringVar(&f.ipFamily, "ip-family", topology.IPFamilyIPv4, "addresses of nodes, pods and Services: ipv4, dual for IPv4 and IPv6, or ipv6")
	flags.StringVar(&f.cni, "cni", topology.CNIZonewise, "where pods' addresses come from: zonewise, the cloud's API; static, a range for each node; none: a plugin that you install")
	flags.StringVar(&f.proxy, "proxy", topology.ProxyZonewise, "what programs Services on the nodes: zonewise or kube-proxy")
	flags.StringArrayVar(&f.set, "set", nil, "a `value` of the product's chart, as for helm: agent.honour=hints; may be given several times")
	flags.DurationVar(&f.wait, "wait", 2*time.Minute, "give up after this time")
	flags.BoolVar(&f.offline, "offline", false, "never ask a registry for an image")
	for flag, values := range map[string][]string{
		"cni":       {topology.CNIStatic, topology.CNIZonewise, topology.CNINone},
		"proxy":     {topology.ProxyZonewise, topology.ProxyKubeProxy},
		"ip-family": {topology.IPFamilyIPv4, topology.IPFamilyDual, topology.IPFamilyIPv6},
	} {
		if err := cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)); err != nil {
			panic(err) // the flag was made above
		}
	}
	return cmd
}

func up(cmd *cobra.Command, f upFlags) error {
	config, err := f.config(cmd)
	if err != nil {
		return err
	}
	if err := needRoot(cmd); err != nil {
		return err
	}
	return startLab(cmd.Context(), config, f.wait, newProgress(cmd.ErrOrStderr()))
}

// config is lab.yaml, else the lab that exists, else the default; overridden by the flags that were
// given.
func (f upFlags) config(cmd *cobra.Command) (topology.Config, error) {
	flags := cmd.Flags()
	var c topology.Config
	if f.wait <= 0 {
		return c, usageError{fmt.Errorf("--wait %s: give it some time, such as 2m", f.wait)}
	}
	if f.file != "" {
		data, err := os.ReadFile(f.file)
		if err != nil {
			return c, fmt.Errorf("lab file: %w", err)
		}
		if c, err = topology.Parse(data); err != nil {
			return c, fmt.Errorf("%s: %w", f.file, err)
		}
	}
	if flags.Changed("name") || c.Name == "" {
		c.Name = labName(cmd)
	}
	if f.file == "" {
		if have, err := cluster.LoadConfig(cluster.PathsOf(c.Name)); err == nil {
			c = have
		}
	}
	if flags.Changed("zones") || flags.Changed("nodes-per-zone") {
		if f.zones < 1 || f.perZone < 1 {
			return c, usageError{errors.New("--zones and --nodes-per-zone: a lab needs at least one of each")}
		}
		c.Zones = topology.Spread(f.zones, f.perZone)
	}
	if flags.Changed("instance-type") {
		c.InstanceType = f.instanceType
	}
	if flags.Changed("ip-family") {
		if c.IPFamily = f.ipFamily; f.ipFamily == topology.IPFamilyIPv4 {
			c.VPCIPv6, c.ServiceCIDRIPv6 = "", "" // of a file, or a lab that exists
		}
	}
	if flags.Changed("cni") {
		if c.CNI = f.cni; f.cni == topology.CNIStatic {
			c = c.WithoutCloud() // of a file, or a lab that exists
		}
	}
	if flags.Changed("proxy") {
		c.Proxy = f.proxy
	}
	for _, s := range f.set {
		values, err := strvals.Parse(s)
		if err != nil {
			return c, usageError{fmt.Errorf("--set %s: %w", s, err)}
		}
		if values, err = install.Plain(values); err != nil {
			return c, usageError{fmt.Errorf("--set %s: %w", s, err)}
		}
		c.Values = install.Merge(c.Values, values)
	}
	if flags.Changed("offline") {
		c.Offline = f.offline
	}
	if _, err := topology.New(c); err != nil {
		if f.file != "" {
			return c, fmt.Errorf("%s: %w", f.file, err)
		}
		return c, usageError{err}
	}
	return c.WithDefaults(), nil
}

func nodesOf(c topology.Config) int {
	n := 0
	for _, z := range c.Zones {
		n += z.Nodes
	}
	return n
}

// startLab starts a lab and shows its steps. If the lab runs already, it starts what of its nodes does not.
func startLab(ctx context.Context, c topology.Config, wait time.Duration, show *progress) error {
	p := cluster.PathsOf(c.Name)
	have, err := cluster.LoadConfig(p)
	switch {
	case errors.Is(err, cluster.ErrNotFound):
	case err != nil:
		return err
	case !cluster.Same(have, c):
		return explain(c.Name, cluster.ErrDifferent)
	case cluster.Running(p):
		s, err := cluster.GetStatus(ctx, c.Name)
		if errors.Is(err, cluster.ErrNotRunning) {
			err = cluster.ErrBusy // it has a process, which does not answer yet, or no more
		}
		if err != nil {
			return explain(c.Name, err)
		}
		show.say("Lab %s is running already.", c.Name)
		nodes, err := cluster.Restore(ctx, c.Name)
		if err != nil {
			return explain(c.Name, err)
		}
		if len(nodes) > 0 {
			show.say("Starting nodes again that were stopped or terminated: %s.", strings.Join(nodes, ", "))
		}
		hints(s, show)
		return nil
	}
	if err := preflight(nodesOf(c), c.IPFamily != topology.IPFamilyIPv4, c.CNI == topology.CNIZonewise); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	show.say("Starting lab %s: %d zones, %s.", c.Name, len(c.Zones), c.Region)
	for _, note := range c.Notes() {
		show.say("Note: %s.", note)
	}
	if err := runInBackground(ctx, c, wait, show); err != nil {
		return err
	}
	s, err := status(context.WithoutCancel(ctx), c.Name)
	if err != nil {
		return err
	}
	hints(s, show)
	return nil
}

// hints end a start: what there is, and the one command to go on with.
func hints(s cluster.Status, show *progress) {
	show.say("API after %.1f s, nodes after %.1f s%s; %d MB of memory.", s.Boot.API, s.Boot.Nodes, dnsText(s.Boot, ", DNS after %.1f s"), s.MemoryBytes/1e6)
	if s.CNI == topology.CNINone {
		show.say("There is no CNI plugin: nodes become Ready, and pods start, when you install one. The cloud's API is at %s in the VPC.", s.Cloud.VPCEndpoint)
	}
	show.say("Use it:\n\n    export KUBECONFIG=%s\n    kubectl get nodes -L topology.kubernetes.io/zone\n", s.Kubeconfig)
}
