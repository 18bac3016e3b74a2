package cli

import (
	"os"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/zonewise/zonewise/internal/agent"
	"github.com/zonewise/zonewise/internal/kernel/conntrack"
	kernelnft "github.com/zonewise/zonewise/internal/kernel/nft"
	"github.com/zonewise/zonewise/internal/reflect/kube"
	"github.com/zonewise/zonewise/internal/service/nft"
	"github.com/zonewise/zonewise/internal/version"
)

func agentCommand() *cobra.Command {
	var level, listen, node, podInterface, honour string
	var audit time.Duration
	conn := kube.Options{Part: "agent"}
	c := &cobra.Command{
		Use:   "agent",
		Short: "Run a node's service dataplane (the chart's DaemonSet)",
		Long: `Run a node's service dataplane. It needs CAP_NET_ADMIN in the node's network namespace.
Stopping it leaves what it programmed in place; so an upgrade interrupts nothing.`,
		Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			if node == "" {
				return usagef("agent: --node is missing (or env NODE_NAME)")
			}
			if honour != honourPlan && honour != honourHints {
				return usagef("agent: --honour=%s: neither %s nor %s", honour, honourPlan, honourHints)
			}
			log, err := logger(level)
			if err != nil {
				return err
			}
			client, err := kube.NewClients(conn)
			if err != nil {
				return err
			}
			if honour == honourHints {
				client.ZoneRoutes = nil
			}
			applier := nft.New(kernelnft.Dial(0), conntrack.Conn{}, nft.Options{PodInterface: podInterface})
			run, err := agent.New(agent.Config{Node: node, Client: client, Routes: client.ZoneRoutes, Applier: applier, Log: log, Audit: audit})
			if err != nil {
				return err
			}
			log.Info("agent", "node", node, "honour", honour, "version", version.Version)
			var wg sync.WaitGroup
			wg.Go(func() { serve(c.Context(), listen, run.Handler(), log) })
			run.Run(c.Context())
			wg.Wait()
			return nil
		},
	}
	f := c.Flags()
	f.StringVar(&node, "node", os.Getenv("NODE_NAME"), "name of the node that this runs on (env NODE_NAME)")
	f.StringVar(&listen, "listen", "127.0.0.1:9470", "address of the local API; it has no access control of its own")
	f.DurationVar(&audit, "audit", 2*time.Second, "time between two looks at what is in the kernel")
	f.StringVar(&podInterface, "pod-interface", "eni", "prefix of the names of interfaces to this node's pods")
	f.StringVar(&honour, "honour", honourPlan, "what chooses endpoints: plan (weights of ZoneRoutes, else hints) or hints (as kube-proxy does)")
	connectionFlags(f, &conn, &level)
	return c
}

// What --honour may be.
const (
	honourPlan  = "plan"
	honourHints = "hints"
)
