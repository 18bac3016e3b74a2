// Package component runs one upstream component in this process, unchanged: the lab's program
// starts itself again under a role for each, so that every component can be killed, paused and
// measured on its own.
package component

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"os/signal"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/embed"
	"golang.org/x/sys/unix"
	_ "k8s.io/client-go/plugin/pkg/client/auth" // kubectl's sign-in plugins
	"k8s.io/component-base/cli"
	"k8s.io/component-base/logs"
	kubectl "k8s.io/kubectl/pkg/cmd"
	kubectlutil "k8s.io/kubectl/pkg/cmd/util"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	kubeproxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
)

// Roles that Run knows. Arguments are those of the upstream program, except for etcd (its data
// directory and client URL) and the kubelet (a file, see KubeletSpec).
const (
	Etcd              = "etcd"
	APIServer         = "kube-apiserver"
	ControllerManager = "kube-controller-manager"
	Scheduler         = "kube-scheduler"
	KubeProxy         = "kube-proxy"
	Kubelet           = "kubelet"
)

// Run runs a component until it ends and returns the process's exit code.
func Run(role string, args []string) int {
	switch role {
	case Etcd:
		return exit(role, runEtcd(args))
	case Kubelet:
		return exit(role, runKubelet(args))
	case APIServer:
		return upstream(apiserver.NewAPIServerCommand(), args)
	case ControllerManager:
		return upstream(controllermanager.NewControllerManagerCommand(), args)
	case Scheduler:
		return upstream(scheduler.NewSchedulerCommand(), args)
	case KubeProxy:
		// It has no handler of its own: the signal itself ends it.
		signal.Reset(unix.SIGTERM, unix.SIGINT)
		return upstream(kubeproxy.NewProxyCommand(), args)
	}
	return exit(role, fmt.Errorf("no such component"))
}

// Kubectl answers as kubectl with the process's arguments. It does not return on an error.
func Kubectl() int {
	logs.GlogSetter(kubectl.GetLogVerbosity(os.Args))
	if err := cli.RunNoErrOutput(kubectl.NewDefaultKubectlCommand()); err != nil {
		kubectlutil.CheckErr(err)
	}
	return 0
}

func upstream(command *cobra.Command, args []string) int {
	command.SetArgs(args)
	return cli.Run(command)
}

func exit(role string, err error) int {
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", role, err)
		return 1
	}
	return 0
}

// runEtcd serves one member from args[0] at args[1]. Nothing is synced to disk: a lab may lose its
// last moments with the machine, and starts in half the time.
func runEtcd(args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("want a data directory and a client URL, not %q", args)
	}
	client, err := url.Parse(args[1])
	if err != nil {
		return err
	}
	peer, err := url.Parse("http://127.0.0.1:2380")
	if err != nil {
		return err
	}
	c := embed.NewConfig()
	c.Dir = args[0]
	c.LogLevel = "warn"
	c.UnsafeNoFsync = true
	c.ListenClientUrls, c.AdvertiseClientUrls = []url.URL{*client}, []url.URL{*client}
	c.ListenPeerUrls, c.AdvertisePeerUrls = []url.URL{*peer}, []url.URL{*peer}
	c.InitialCluster = c.InitialClusterFromName(c.Name)
	// Alone in its cluster, it need not wait long for others before it leads.
	c.TickMs, c.ElectionMs = 20, 200
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer stop()
	server, err := embed.StartEtcd(c)
	if err != nil {
		return err
	}
	defer server.Close()
	select {
	case err := <-server.Err():
		return err
	case <-ctx.Done():
		return nil
	}
}
