package cli

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/zonewise/zonewise/internal/agent"
	"github.com/zonewise/zonewise/internal/reflect/kube"
	"github.com/zonewise/zonewise/internal/version"
)

// agentFlags are what the command line says of an agent.
type agentFlags struct {
	level, listen, healthz, node, honour string
	podInterface, socket                 string
	cgroup, bpffs, namespaces, conntrack string
	nodePorts                            []string
	masqueradeAll, countBytes            bool
	cleanup, stay                        bool
	meter, stateDir, namespace           string
	clusterCIDRs                         []string
	blocks                               map[string]string
	audit, closeWait                     time.Duration
	conn                                 kube.Options
}

// What --honour may be.
const (
	honourPlan  = "plan"
	honourHints = "hints"
)

// What --socket and --meter may be.
const (
	wantAuto    = "auto"
	wantOff     = "off"
	wantRequire = "require"
)

func agentCommand() *cobra.Command {
	o := agentFlags{conn: kube.Options{Part: "agent"}}
	c := &cobra.Command{
		Use:   "agent",
		Short: "Run a node's service dataplane (the chart's DaemonSet)",
		Long: `Run a node's service dataplane. It needs CAP_NET_ADMIN in the node's network namespace; the socket
path and the meter also CAP_BPF and CAP_PERFMON, and the former CAP_SYS_ADMIN to end UDP sockets of pods whose
endpoint is gone.
Stopping it leaves what it programmed in place; so an upgrade interrupts nothing.`,
		Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error { return o.run(c.Context()) },
	}
	f := c.Flags()
	f.StringVar(&o.node, "node", os.Getenv("NODE_NAME"), "name of the node that this runs on (env NODE_NAME)")
	f.StringVar(&o.listen, "listen", "127.0.0.1:9470", "address of the local API; it has no access control of its own")
	f.StringVar(&o.healthz, "healthz-address", "0.0.0.0:10256", "address of /healthz and /livez for load balancers, as kube-proxy's; empty: none")
	f.DurationVar(&o.audit, "audit", 2*time.Second, "time between two looks at what is in the kernel")
	f.StringVar(&o.podInterface, "pod-interface", "eni", "prefix of the names of interfaces to this node's pods")
	f.StringVar(&o.honour, "honour", honourPlan, "what chooses endpoints: plan (weights of ZoneRoutes, else hints) or hints (as kube-proxy does)")
	f.StringSliceVar(&o.nodePorts, "nodeport-addresses", []string{"primary"}, "where node ports answer: primary, or ranges of the node's addresses")
	f.BoolVar(&o.countBytes, "count-bytes", false, "count the bytes of connections that nft translates, for zonewise service; each packet costs some 0.4 µs more")
	f.BoolVar(&o.masqueradeAll, "masquerade-all", false, "give every connection to a cluster address the node's own address; there is no socket path then")
	f.StringVar(&o.socket, "socket", wantAuto, "translate where connections start: auto (where the kernel can), off (and take away what is there) or require")
	f.StringVar(&o.cgroup, "cgroup", "/sys/fs/cgroup", "where cgroup v2 is mounted, or the hybrid hierarchy that has it")
	f.StringVar(&o.bpffs, "bpffs", "/sys/fs/bpf", "where a BPF file system is mounted: what is pinned there outlives the agent")
	f.StringVar(&o.namespaces, "netns-dir", "/run/netns", "folder of the pods' network namespaces, for ending UDP sockets whose endpoint is gone; empty: the node's own alone")
	f.StringVar(&o.meter, "meter", wantAuto, "count traffic by Service and zone pair: auto (where the kernel can), off (and take away what is there) or require")
	f.StringVar(&o.stateDir, "state-dir", "/run/zonewise", "folder that lives until the machine starts anew: reports that no controller has taken yet, and the certificate for it")
	f.StringVar(&o.namespace, "namespace", cmp.Or(os.Getenv("POD_NAMESPACE"), "kube-system"), "namespace of the controller that takes reports (env POD_NAMESPACE)")
	f.StringSliceVar(&o.clusterCIDRs, "cluster-cidrs", nil, "ranges of the cluster's own addresses: one that no pod or node is known to have is unknown, not outside")
	f.StringToStringVar(&o.blocks, "blocks", nil, "names of ranges outside, NAME=RANGE;RANGE,...: what goes there is told by name")
	f.DurationVar(&o.closeWait, "conntrack-tcp-timeout-close-wait", time.Hour, "least time that connections closed by one side are kept translated; 0 leaves the kernel's")
	f.StringVar(&o.conntrack, "conntrack-settings", "/proc/sys/net/netfilter", "folder of the kernel's settings of connection tracking")
	f.BoolVar(&o.cleanup, "cleanup", false, "take everything of ours out of this node's kernel, and exit")
	f.BoolVar(&o.stay, "stay", false, "after --cleanup, do nothing until stopped, instead of exiting")
	connectionFlags(f, &o.conn, &o.level)
	return c
}

// check says what is wrong with the flags before anything is touched.
func (o agentFlags) check() error {
	switch {
	case o.node == "" && !o.cleanup:
		return usagef("agent: --node is missing (or env NODE_NAME)")
	case o.honour != honourPlan && o.honour != honourHints:
		return usagef("agent: --honour=%s: neither %s nor %s", o.honour, honourPlan, honourHints)
	case o.socket != wantAuto && o.socket != wantOff && o.socket != wantRequire:
		return usagef("agent: --socket=%s: must be %s, %s or %s", o.socket, wantAuto, wantOff, wantRequire)
	case o.socket == wantRequire && o.masqueradeAll && !o.cleanup:
		return usagef("agent: --socket=%s and --masquerade-all exclude each other: what is led at the socket is not masqueraded", wantRequire)
	}
	if _, err := agent.ParseNodePortAddresses(o.nodePorts); err != nil {
		return usagef("agent: --nodeport-addresses: %w", err)
	}
	return o.checkMeter()
}

func (o agentFlags) run(ctx context.Context) error {
	if err := o.check(); err != nil {
		return err
	}
	log, err := logger(o.level)
	if err != nil {
		return err
	}
	if o.cleanup {
		return o.clean(ctx, log)
	}
	client, err := kube.NewClients(o.conn)
	if err != nil {
		return err
	}
	if o.honour == honourHints {
		client.ZoneRoutes = nil
	}
	c := agent.Config{Node: o.node, Client: client, Routes: client.ZoneRoutes, Log: log, Audit: o.audit,
		Addresses: addresses, Others: otherProxies}
	if c.NodePorts, err = agent.ParseNodePortAddresses(o.nodePorts); err != nil {
		return err
	}
	if err := o.paths(&c); err != nil {
		return err
	}
	if err := o.metering(&c); err != nil { // after the paths: it reads what the socket path has pinned
		return err
	}
	run, err := agent.New(c)
	if err != nil {
		return err
	}
	if o.closeWait > 0 {
		if err := agent.RaiseCloseWait(o.conntrack, o.closeWait); err != nil {
			log.Warn("connections closed by one side may be forgotten early", "err", err)
		}
	}
	log.Info("agent", "node", o.node, "honour", o.honour, "socket", c.Socket != nil, "meter", c.Meter != nil, "version", version.Version)
	var wg sync.WaitGroup
	wg.Go(func() { serve(ctx, o.listen, run.Handler(), log) })
	if o.healthz != "" {
		wg.Go(func() { serve(ctx, o.healthz, run.HealthHandler(), log) })
	}
	run.Run(ctx)
	wg.Wait()
	return nil
}

// clean is what is done before another proxy takes over for good.
func (o agentFlags) clean(ctx context.Context, log *slog.Logger) error {
	if err := o.removeMeter(); err != nil {
		return err
	}
	if err := o.removeSocket(); err != nil {
		return fmt.Errorf("socket path: %w", err)
	}
	if err := o.nft(&cutter{}).Remove(); err != nil {
		return fmt.Errorf("nft path: %w", err)
	}
	log.Info("nothing of ours is left in the kernel")
	if o.stay {
		<-ctx.Done()
	}
	return nil
}
