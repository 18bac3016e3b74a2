package cli

import (
	"cmp"
	"context"
	"os"
	"sync"

	"github.com/spf13/cobra"

	"github.com/zonewise/zonewise/internal/controller"
	"github.com/zonewise/zonewise/internal/reflect/kube"
	"github.com/zonewise/zonewise/internal/version"
)

func controllerCommand() *cobra.Command {
	var level, listen, namespace, identity string
	conn := kube.Options{Part: "controller"}
	c := &cobra.Command{
		Use:   "controller",
		Short: "Run the cluster side (the chart's Deployment)",
		Args:  exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			log, err := logger(level)
			if err != nil {
				return err
			}
			client, err := kube.Client(conn)
			if err != nil {
				return err
			}
			run, err := controller.New(controller.Config{Client: client, Namespace: namespace, Identity: identity, Log: log})
			if err != nil {
				return usageError{err}
			}
			log.Info("controller", "pod", identity, "version", version.Version)
			ctx, stop := context.WithCancel(c.Context())
			var wg sync.WaitGroup
			defer wg.Wait()
			defer stop()
			wg.Go(func() { serve(ctx, listen, run.Handler(), log) })
			return run.Run(ctx)
		},
	}
	host, _ := os.Hostname()
	f := c.Flags()
	f.StringVar(&namespace, "namespace", cmp.Or(os.Getenv("POD_NAMESPACE"), "kube-system"), "where the lease lives (env POD_NAMESPACE)")
	f.StringVar(&identity, "identity", cmp.Or(os.Getenv("POD_NAME"), host), "this replica's name (env POD_NAME)")
	f.StringVar(&listen, "listen", ":9471", "address of /healthz, /livez and /metrics")
	connectionFlags(f, &conn, &level)
	return c
}
