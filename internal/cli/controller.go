package cli

import (
	"cmp"
	"context"
	"net"
	"os"
	"slices"
	"strconv"
	"sync"

	"github.com/spf13/cobra"

	"github.com/zonewise/zonewise/internal/agent/ask"
	"github.com/zonewise/zonewise/internal/controller"
	"github.com/zonewise/zonewise/internal/controller/metering/past"
	"github.com/zonewise/zonewise/internal/controller/view"
	"github.com/zonewise/zonewise/internal/meter"
	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/outlook"
	"github.com/zonewise/zonewise/internal/reflect/kube"
	"github.com/zonewise/zonewise/internal/route"
	"github.com/zonewise/zonewise/internal/version"
	"github.com/zonewise/zonewise/internal/vpc/ec2"
)

// controllerFlags are what the command line says of a controller.
type controllerFlags struct {
	level, listen, namespace, identity string
	mode, prices, webhook              string
	hints                              bool
	meterDir, meterListen, api, podIP  string
	metered, perService                bool
	collect                            bool
	clusterName                        string
	prometheus                         past.Options
	otlp                               string
	conn                               kube.Options
}

func controllerCommand() *cobra.Command {
	o := controllerFlags{conn: kube.Options{Part: "controller"}}
	c := &cobra.Command{
		Use:   "controller",
		Short: "Run the cluster side (the chart's Deployment)",
		Args:  exactly(),
		RunE:  func(c *cobra.Command, _ []string) error { return o.run(c.Context()) },
	}
	host, _ := os.Hostname()
	f := c.Flags()
	f.StringVar(&o.namespace, "namespace", cmp.Or(os.Getenv("POD_NAMESPACE"), "kube-system"), "where the lease lives, and agents run (env POD_NAMESPACE)")
	f.StringVar(&o.identity, "identity", cmp.Or(os.Getenv("POD_NAME"), host), "this replica's name (env POD_NAME)")
	f.StringVar(&o.listen, "listen", ":9471", "address of /healthz, /livez and /metrics")
	f.StringVar(&o.mode, "default-mode", string(model.Observe), "of Services of which neither ZoneRoute nor namespace says more: Optimal, Observe or Off")
	f.StringVar(&o.prices, "prices", "aws", "price of traffic between zones: aws, azure, gcp, or a file, which is read anew each minute")
	f.BoolVar(&o.hints, "hints", true, "put hints on the EndpointSlices of Optimal Services, by a webhook")
	f.StringVar(&o.webhook, "webhook-listen", ":9472", "address of that webhook")
	f.StringVar(&o.meterDir, "meter-dir", "", "where flows are kept; empty: nothing is metered")
	f.StringVar(&o.meterListen, "meter-listen", ":9473", "address to which agents report")
	f.StringVar(&o.podIP, "pod-ip", os.Getenv("POD_IP"), "where agents reach this replica (env POD_IP)")
	f.StringVar(&o.api, "api-listen", net.JoinHostPort("127.0.0.1", strconv.Itoa(view.Port)), "address of the local API, which tells what goes where")
	f.BoolVar(&o.perService, "metrics-per-service", false, "metrics of traffic for each Service and pair of zones")
	f.BoolVar(&o.collect, "collect-interfaces", false, "delete elastic interfaces of the cluster that are attached to nothing; needs --cluster-name and AWS credentials")
	f.StringVar(&o.clusterName, "cluster-name", os.Getenv("CLUSTER_NAME"), "name of the cluster in the tags of its interfaces (env CLUSTER_NAME)")
	f.StringVar(&o.prometheus.URL, "meter-prometheus", "", "URL of a Prometheus that scrapes the controllers: it is asked for what is older than an hour, which is then not kept here")
	f.StringToStringVar(&o.prometheus.Labels, "meter-prometheus-labels", nil, "labels that this cluster's series have there, such as cluster=prod")
	f.StringVar(&o.prometheus.TokenFile, "meter-prometheus-token-file", "", "file of the token that it wants")
	f.StringVar(&o.prometheus.CAFile, "meter-prometheus-ca-file", "", "file of the authorities that sign its certificate; empty: the system's")
	f.StringVar(&o.otlp, "otlp-endpoint", "", "URL of a collector that is sent all metrics each minute by OTLP over gRPC, such as http://collector:4317; https for TLS")
	connectionFlags(f, &o.conn, &o.level)
	c.AddCommand(sweepCommand())
	return c
}

// sweepCommand is what the chart runs before it is uninstalled.
func sweepCommand() *cobra.Command {
	o := controllerFlags{conn: kube.Options{Part: "controller"}}
	c := &cobra.Command{
		Use:    "sweep",
		Short:  "Stop the controller, and take away what it keeps in the cluster",
		Hidden: true,
		Args:   exactly(),
		RunE:   func(c *cobra.Command, _ []string) error { return o.sweep(c.Context()) },
	}
	f := c.Flags()
	f.StringVar(&o.namespace, "namespace", cmp.Or(os.Getenv("POD_NAMESPACE"), "kube-system"), "where the controller runs (env POD_NAMESPACE)")
	f.BoolVar(&o.hints, "hints", true, "it put hints on EndpointSlices")
	f.BoolVar(&o.metered, "meter", true, "it had a meter")
	connectionFlags(f, &o.conn, &o.level)
	return c
}

func (o controllerFlags) sweep(ctx context.Context) error {
	log, err := logger(o.level)
	if err != nil {
		return err
	}
	clients, err := kube.NewClients(o.conn)
	if err != nil {
		return err
	}
	return controller.Sweep(ctx, controller.SweepConfig{
		Client: clients, Routes: clients.ZoneRoutes, Namespace: o.namespace, Hints: o.hints, Meter: o.metered, Log: log,
	})
}

// settings checks what holds for the whole cluster.
func (o controllerFlags) settings() (outlook.Settings, error) {
	mode := model.Mode(o.mode)
	if !slices.Contains([]model.Mode{model.Optimal, model.Observe, model.Off}, mode) {
		return outlook.Settings{}, usagef("--default-mode %q: must be Optimal, Observe or Off", o.mode)
	}
	return outlook.Settings{Default: mode, Stability: route.DefaultStability()}, nil
}

func (o controllerFlags) run(ctx context.Context) error {
	log, err := logger(o.level)
	if err != nil {
		return err
	}
	settings, err := o.settings()
	if err != nil {
		return err
	}
	config, err := kube.Config(o.conn)
	if err != nil {
		return err
	}
	clients, err := kube.ClientsFor(config)
	if err != nil {
		return err
	}
	c := controller.Config{
		Client: clients, Routes: clients.ZoneRoutes, Ask: ask.Forwarder{Config: config}.Get,
		Namespace: o.namespace, Identity: o.identity, Settings: settings, Log: log,
		Prices: func() (meter.Series, error) { return readSeries(o.prices) }, OTLP: o.otlp,
	}
	if o.hints {
		c.Webhook = o.webhook
	}
	if o.collect {
		if o.clusterName == "" {
			return usagef("controller: --collect-interfaces needs --cluster-name (or env CLUSTER_NAME): other clusters' interfaces are told from ours by it")
		}
		c.Collect = o.leaks
	}
	if o.meterDir != "" {
		c.Meter = &controller.Metering{Dir: o.meterDir, Listen: o.meterListen, PodIP: o.podIP, PerService: o.perService}
		if o.prometheus.URL != "" {
			c.Meter.Past = &o.prometheus
		}
	}
	run, err := controller.New(c)
	if err != nil {
		return usageError{err}
	}
	log.Info("controller", "pod", o.identity, "version", version.Version, "mode", settings.Default, "prices", o.prices, "hints", o.hints, "meter", o.meterDir != "")
	ctx, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	wg.Go(func() { serve(ctx, o.listen, run.Handler(), log) })
	wg.Go(func() { serve(ctx, o.api, run.API(), log) })
	return run.Run(ctx)
}

func (o controllerFlags) leaks(ctx context.Context) (controller.Leaks, error) {
	account, err := ec2.OpenAccount(ctx, ec2.Options{Endpoint: os.Getenv("AWS_EC2_ENDPOINT"), Cluster: o.clusterName, Agent: version.UserAgent("controller")})
	if err != nil {
		return nil, err // not a nil *ec2.Account
	}
	return account, nil
}
