package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"github.com/spf13/cobra"

	daemon "github.com/zonewise/zonewise/internal/agent/addresses"
	"github.com/zonewise/zonewise/internal/agent/view"
	"github.com/zonewise/zonewise/internal/kernel/link"
	kernelnft "github.com/zonewise/zonewise/internal/kernel/nft"
	"github.com/zonewise/zonewise/internal/reflect/kube"
	"github.com/zonewise/zonewise/internal/version"
	"github.com/zonewise/zonewise/internal/vpc"
	"github.com/zonewise/zonewise/internal/vpc/ec2"
	"github.com/zonewise/zonewise/internal/vpc/files"
	vpclink "github.com/zonewise/zonewise/internal/vpc/link"
)

// addressesFlags are what the command line says of the daemon that gets addresses.
type addressesFlags struct {
	node, listen, level  string
	dir, binDir, confDir string
	endpoint, metadata   string
	cleanup, stay        bool
	conn                 kube.Options
}

func addressesCommand() *cobra.Command {
	o := addressesFlags{conn: kube.Options{Part: "cni"}}
	c := &cobra.Command{
		Use:   "addresses",
		Short: "Get a node's pods their addresses from the cloud (the chart's DaemonSet zonewise-cni)",
		Long: `Get a node's pods addresses of the VPC, as Amazon VPC CNI does: from elastic interfaces of the instance. It needs
CAP_NET_ADMIN in the node's network namespace, and the permissions of the policy AmazonEKS_CNI_Policy.

How much is kept ready, and how packets leave, is said by environment variables of upstream's names: WARM_ENI_TARGET,
WARM_IP_TARGET, MINIMUM_IP_TARGET, WARM_PREFIX_TARGET, ENABLE_PREFIX_DELEGATION, MAX_ENI, IP_COOLDOWN_PERIOD,
AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG, ENI_CONFIG_LABEL_DEF, AWS_VPC_K8S_CNI_EXTERNALSNAT, AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS,
ENABLE_IPv4, ENABLE_IPv6, ENABLE_SUBNET_DISCOVERY, AWS_MANAGE_ENIS_NON_SCHEDULABLE, AWS_VPC_ENI_MTU, ADDITIONAL_ENI_TAGS,
CLUSTER_NAME.
Stopping it changes nothing for pods: those that run go on, and others start as long as there are free addresses.`,
		Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error { return o.run(c.Context()) },
	}
	f := c.Flags()
	f.StringVar(&o.node, "node", os.Getenv("NODE_NAME"), "name of the node that this runs on (env NODE_NAME)")
	f.StringVar(&o.listen, "listen", net.JoinHostPort("127.0.0.1", strconv.Itoa(view.AddressesPort)), "address of the local API; it has no access control of its own")
	f.StringVar(&o.dir, "state-dir", files.DefaultDir, "folder of leases.json and pool.json, which the plugin knows, too; it lives until the machine starts anew")
	f.StringVar(&o.binDir, "cni-bin-dir", "", "folder in which the container runtime looks for plugins, to put ours there; empty: somebody else does")
	f.StringVar(&o.confDir, "cni-conf-dir", "", "folder of the runtime's network configurations, likewise")
	f.StringVar(&o.endpoint, "ec2-endpoint", os.Getenv("AWS_EC2_ENDPOINT"), "URL of the EC2 API (env AWS_EC2_ENDPOINT or AWS_ENDPOINT_URL_EC2); empty: the region's")
	f.StringVar(&o.metadata, "metadata-endpoint", "", "URL of the instance's metadata service (env AWS_EC2_METADATA_SERVICE_ENDPOINT); empty: http://169.254.169.254")
	f.BoolVar(&o.cleanup, "cleanup", false, "take rules, routes, NAT and plugin off this node, and exit; pods of other interfaces than the primary are cut off")
	f.BoolVar(&o.stay, "stay", false, "after --cleanup, do nothing until stopped, instead of exiting")
	connectionFlags(f, &o.conn, &o.level)
	return c
}

func (o addressesFlags) run(ctx context.Context) error {
	if o.node == "" && !o.cleanup {
		return usagef("addresses: --node is missing (or env NODE_NAME)")
	}
	if (o.binDir == "") != (o.confDir == "") {
		return usagef("addresses: --cni-bin-dir and --cni-conf-dir: one without the other; the runtime needs both")
	}
	settings, err := vpc.ParseSettings(os.Getenv)
	if err != nil {
		return usagef("addresses: %w", err)
	}
	log, err := logger(o.level)
	if err != nil {
		return err
	}
	host, err := link.Here()
	if err != nil {
		return err
	}
	defer host.Close()
	if o.cleanup {
		return o.clean(ctx, host, log)
	}
	client, err := kube.Client(o.conn)
	if err != nil {
		return err
	}
	for _, note := range settings.Notes {
		log.Warn("settings", "note", note)
	}
	c := daemon.Config{Node: o.node, Client: client, Settings: settings, Dir: o.dir, Host: host, Tables: kernelnft.Dial(0), Log: log,
		Open: func(ctx context.Context, called daemon.Called) (daemon.Cloud, error) {
			return o.cloud(ctx, settings, called)
		},
		Get: func(ctx context.Context, path string) ([]byte, error) {
			return client.CoreV1().RESTClient().Get().AbsPath(path).SetHeader("Accept", "application/json").DoRaw(ctx)
		}}
	if o.binDir != "" {
		if c.Install, err = o.plugin(settings); err != nil {
			return err
		}
	}
	run, err := daemon.New(c)
	if err != nil {
		return err
	}
	log.Info("addresses", "node", o.node, "version", version.Version)
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	wg.Go(func() { serve(ctx, o.listen, run.Handler(), log) })
	return run.Run(ctx)
}

func (o addressesFlags) cloud(ctx context.Context, settings vpc.Settings, called daemon.Called) (daemon.Cloud, error) {
	cloud, err := ec2.Open(ctx, ec2.Options{Endpoint: o.endpoint, Metadata: o.metadata, Cluster: settings.Cluster, Tags: settings.Tags,
		Agent: version.UserAgent("cni"), Called: called})
	if err != nil {
		return nil, err // not a nil *ec2.Cloud
	}
	return cloud, nil
}

func (o addressesFlags) plugin(settings vpc.Settings) (func() error, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("plugin: %w", err)
	}
	plugin := filepath.Join(filepath.Dir(program), daemon.PluginName)
	if _, err := os.Stat(plugin); err != nil {
		return nil, fmt.Errorf("plugin: %w; it comes with %s, into the same folder", err, filepath.Base(program))
	}
	return daemon.Plugin{Executable: plugin, BinDir: o.binDir, ConfDir: o.confDir, MTU: settings.MTU}.Install, nil
}

// clean is what is done before another plugin takes over.
func (o addressesFlags) clean(ctx context.Context, host *link.Net, log *slog.Logger) error {
	var errs []error
	if o.binDir != "" {
		errs = append(errs, daemon.Plugin{BinDir: o.binDir, ConfDir: o.confDir}.Remove())
	}
	errs = append(errs, vpclink.Apply(host, kernelnft.Dial(0), vpclink.Host{}))
	if err := errors.Join(errs...); err != nil {
		return err
	}
	log.Info("nothing of ours is left in the kernel but the wires of pods")
	if o.stay {
		<-ctx.Done()
	}
	return nil
}
