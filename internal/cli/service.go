package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/zonewise/zonewise/internal/agent/ask"
	"github.com/zonewise/zonewise/internal/agent/view"
	"github.com/zonewise/zonewise/internal/cli/report"
	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/version"
)

func serviceCommand() *cobra.Command {
	var node string
	c := &cobra.Command{
		Use:     "service NAME",
		Aliases: []string{"svc"},
		Short:   "Show what a Service resolves to on every node, and why",
		Long: `Show what a Service resolves to on every node: the endpoints that the node's kernel sends
connections to, the share of each, what the kernel counted, and the reason.

It asks the agent of each node through the API server (pods/portforward). If a node's agent does
not answer, the result holds the others, the node is named on stderr, and the exit code is 1.`,
		Example: "  zonewise service web\n  zonewise service kube-dns -n kube-system --node ip-192-168-1-10 -o json",
		Args:    exactly("NAME"),
	}
	c.Flags().StringVar(&node, "node", "", "ask this node alone")
	out := outputFlag(c, "table", "json", "yaml")
	access := accessFlags(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		config, namespace, err := access.resolve()
		if err != nil {
			return err
		}
		client, err := kubernetes.NewForConfig(config)
		if err != nil {
			return fmt.Errorf("kubeconfig: %w", err)
		}
		name := model.Name{Namespace: namespace, Name: args[0]}
		if err := checkService(c.Context(), client, name); err != nil {
			return err
		}
		agents, err := ask.Find(c.Context(), client, "", node)
		if err != nil {
			return err
		}
		views, silent := ask.All[view.Service](c.Context(), agents, "/v1/services/"+name.Namespace+"/"+name.Name,
			ask.Forwarder{Config: config}.Get, ask.Limits{Patience: 10 * time.Second, Crowd: 64})
		for _, s := range silent {
			fmt.Fprintln(c.ErrOrStderr(), "zonewise: "+oneLine(s))
		}
		if len(views) > 0 {
			result := report.Merge(name, views)
			if err := out.print(c.OutOrStdout(), result, func(w io.Writer) error { return report.Table(w, result) }); err != nil {
				return err
			}
		}
		if len(silent) > 0 {
			return fmt.Errorf("%d of %d nodes did not answer", len(silent), len(agents))
		}
		return nil
	}
	return c
}

// checkService says what is wrong with a name before any node is asked about it.
func checkService(ctx context.Context, client kubernetes.Interface, name model.Name) error {
	s, err := client.CoreV1().Services(name.Namespace).Get(ctx, name.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return fmt.Errorf("service %s: not found", name)
	case err != nil:
		return fmt.Errorf("service %s: %w", name, err)
	case s.Spec.Type == corev1.ServiceTypeExternalName:
		return fmt.Errorf("service %s: of type ExternalName: a name in DNS, which no node routes", name)
	case s.Spec.ClusterIP == corev1.ClusterIPNone:
		return fmt.Errorf("service %s: headless: clients reach its pods directly, no node routes it", name)
	}
	return nil
}

// access is the part of kubectl's flags that makes sense here.
type access struct {
	flags *genericclioptions.ConfigFlags
}

func accessFlags(c *cobra.Command) access {
	all := genericclioptions.NewConfigFlags(true)
	some := &genericclioptions.ConfigFlags{KubeConfig: all.KubeConfig, Context: all.Context, Namespace: all.Namespace,
		Impersonate: all.Impersonate, ImpersonateGroup: all.ImpersonateGroup, Timeout: all.Timeout}
	some.AddFlags(c.Flags())
	return access{some.WithWrapConfigFn(func(c *rest.Config) *rest.Config {
		c.UserAgent = version.UserAgent("cli")
		c.QPS = -1
		return c
	})}
}

func (a access) resolve() (*rest.Config, string, error) {
	loader := a.flags.ToRawKubeConfigLoader()
	namespace, _, err := loader.Namespace()
	if err != nil {
		return nil, "", fmt.Errorf("kubeconfig: %w", err)
	}
	// client-go would try localhost:8080 where nothing is configured, which tells nobody anything.
	if raw, err := loader.RawConfig(); err == nil && len(raw.Clusters) == 0 && os.Getenv("KUBERNETES_SERVICE_HOST") == "" {
		return nil, "", errors.New("kubeconfig: none found; set KUBECONFIG, or use: zonewise lab kubeconfig")
	}
	config, err := a.flags.ToRESTConfig()
	if err != nil {
		return nil, "", fmt.Errorf("kubeconfig: %w", err)
	}
	return config, namespace, nil
}
