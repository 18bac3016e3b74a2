package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/zonewise/zonewise/internal/agent/ask"
	"github.com/zonewise/zonewise/internal/agent/view"
	"github.com/zonewise/zonewise/internal/cli/report"
)

func nodeCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "node [NAME]",
		Short: "Show the addresses that nodes have for pods, and which limit is next",
		Long: `Show the elastic interfaces of a node, how many of their addresses pods have, how many are warm (free, for pods to come)
or cooling (released a moment ago), what the next pod will wait for, and which limit is next, with what mends it.
Without a name, one line for each node.

It asks the daemon of each node (the chart's cni.enabled) through the API server (pods/portforward). If one does not
answer, the result holds the others, the node is named on stderr, and the exit code is 1.`,
		Example: "  zonewise node\n  zonewise node ip-192-168-1-10 -o json",
		Args: func(c *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usagef("%s: unexpected argument %q", c.CommandPath(), args[1])
			}
			return nil
		},
	}
	out := outputFlag(c, "table", "json", "yaml")
	access := accessFlags(c)
	c.ValidArgsFunction = func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return access.names(nodeNames)
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		config, _, err := access.resolve()
		if err != nil {
			return err
		}
		client, err := kubernetes.NewForConfig(config)
		if err != nil {
			return fmt.Errorf("kubeconfig: %w", err)
		}
		name := ""
		if len(args) > 0 {
			name = args[0]
		}
		nodes, silent, err := askNodes(c.Context(), client, name, ask.Forwarder{Config: config}.At(view.AddressesPort))
		if err != nil {
			return err
		}
		for _, s := range silent {
			fmt.Fprintln(c.ErrOrStderr(), "zonewise: "+oneLine(s))
		}
		if err := printNodes(c.OutOrStdout(), out, name, nodes); err != nil {
			return err
		}
		if len(silent) > 0 {
			return fmt.Errorf("%d of %d nodes did not answer", len(silent), len(silent)+len(nodes))
		}
		return nil
	}
	return c
}

func printNodes(w io.Writer, out *output, name string, nodes []view.Addresses) error {
	switch {
	case len(nodes) == 0:
		return nil
	case name != "":
		return out.print(w, nodes[0], func(w io.Writer) error { return report.NodeText(w, nodes[0], time.Now()) })
	}
	all := report.MakeNodes(nodes)
	return out.print(w, all, func(w io.Writer) error { return report.NodesTable(w, all) })
}

// askNodes asks the daemon of a node, or of all.
func askNodes(ctx context.Context, client kubernetes.Interface, name string, get ask.Get) ([]view.Addresses, []error, error) {
	pods, err := ask.FindAddresses(ctx, client, name)
	switch {
	case err != nil:
		return nil, nil, err
	case len(pods) == 0 && name == "":
		return nil, nil, errors.New("no daemon of zonewise-cni found: pods get their addresses from another plugin, or from ranges of the configuration; the chart's cni.enabled installs it")
	case len(pods) == 0:
		if _, err := client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{}); err != nil {
			return nil, nil, fmt.Errorf("node %s: %w", name, err)
		}
		return nil, nil, fmt.Errorf("node %s: no daemon of zonewise-cni runs there", name)
	}
	nodes, silent := ask.All[view.Addresses](ctx, pods, "/v1/addresses", get, ask.Limits{Patience: 10 * time.Second, Crowd: 64})
	return nodes, silent, nil
}

func nodeNames(ctx context.Context, of cluster) ([]string, error) {
	all, err := of.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	var out []string
	for _, n := range all.Items {
		out = append(out, n.Name)
	}
	return out, nil
}
