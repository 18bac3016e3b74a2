package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/zonewise/zonewise/internal/agent/ask"
	"github.com/zonewise/zonewise/internal/agent/view"
	"github.com/zonewise/zonewise/internal/cli/report"
)

func checkCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "check",
		Short: "Ask every node how it serves, and say what deserves a look",
		Long: `Ask the agent of every node how it serves: by which paths, and why not by the other; what is wrong
with which object; whether another proxy's rules are there, too; whether pods get addresses, and when a subnet will have
none. Each finding comes with what mends it.

It asks through the API server (pods/portforward). Exit code 3 if there are findings.`,
		Example: "  zonewise check\n  zonewise check -o json",
		Args:    exactly(),
	}
	out := outputFlag(c, "table", "json", "yaml")
	access := accessFlags(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		config, _, err := access.resolve()
		if err != nil {
			return err
		}
		client, err := kubernetes.NewForConfig(config)
		if err != nil {
			return fmt.Errorf("kubeconfig: %w", err)
		}
		forward := ask.Forwarder{Config: config}
		answers, err := gather(c.Context(), client, forward.Get)
		if err != nil {
			return err
		}
		if err := gatherAddresses(c.Context(), client, forward.At(view.AddressesPort), &answers); err != nil {
			return err
		}
		result := report.MakeCheck(answers)
		if err := out.print(c.OutOrStdout(), result, func(w io.Writer) error { return report.CheckText(w, result) }); err != nil {
			return err
		}
		if n := len(result.Findings); n > 0 {
			return findings(n)
		}
		return nil
	}
	return c
}

// gather asks the cluster for its nodes, and each node's agent how it is.
func gather(ctx context.Context, client kubernetes.Interface, get ask.Get) (report.Answers, error) {
	out := report.Answers{Silent: map[string]string{}, Now: time.Now()}
	nodes, err := client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return out, fmt.Errorf("nodes: %w", err)
	}
	for _, n := range nodes.Items {
		out.Nodes = append(out.Nodes, n.Name)
	}
	agents, err := ask.Find(ctx, client, "", "")
	if err != nil {
		return out, err
	}
	limits := ask.Limits{Patience: 10 * time.Second, Crowd: 64}
	var silent []error
	out.Status, silent = ask.All[view.Status](ctx, agents, "/v1/status", get, limits)
	// Errors come in the order of the agents, one for each that gave no answer.
	var faulty []*corev1.Pod
	for _, pod := range agents {
		i := slices.IndexFunc(out.Status, func(s view.Status) bool { return s.Node == pod.Spec.NodeName })
		switch {
		case i < 0 && len(silent) > 0:
			out.Silent[pod.Spec.NodeName] = oneLine(inner(silent[0]))
			silent = silent[1:]
		case i >= 0 && out.Status[i].Faults > 0:
			faulty = append(faulty, pod)
		}
	}
	var wrong []error
	out.Faults, wrong = ask.All[view.Faults](ctx, faulty, "/v1/faults", get, limits)
	return out, errors.Join(wrong...)
}

// gatherAddresses asks the daemons that get addresses for pods, where there are any.
func gatherAddresses(ctx context.Context, client kubernetes.Interface, get ask.Get, into *report.Answers) error {
	pods, err := ask.FindAddresses(ctx, client, "")
	if err != nil {
		return err
	}
	var silent []error
	into.Addresses, silent = ask.All[view.Addresses](ctx, pods, "/v1/addresses", get, ask.Limits{Patience: 10 * time.Second, Crowd: 64})
	into.NoAddresses = map[string]string{}
	for _, pod := range pods {
		if len(silent) > 0 && !slices.ContainsFunc(into.Addresses, func(v view.Addresses) bool { return v.Name == pod.Spec.NodeName }) {
			into.NoAddresses[pod.Spec.NodeName] = oneLine(inner(silent[0]))
			silent = silent[1:]
		}
	}
	return nil
}

// inner is an error without the node in front of it.
func inner(err error) error {
	if in := errors.Unwrap(err); in != nil {
		return in
	}
	return err
}
