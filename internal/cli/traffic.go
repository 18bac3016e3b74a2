package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/zonewise/zonewise/internal/cli/report"
)

// trafficFlags say which traffic is meant.
type trafficFlags struct {
	access                        access
	all                           bool
	service, zone, workload, node string
	since                         age
}

func addTrafficFlags(c *cobra.Command, since string) *trafficFlags {
	f := &trafficFlags{since: newAge(since)}
	flags := c.Flags()
	flags.Var(&f.since, "since", "how far back to look: 30s, 10m, 24h, 7d")
	flags.BoolVarP(&f.all, "all-namespaces", "A", false, "traffic of all namespaces; so it is without -n, too")
	flags.StringVar(&f.service, "service", "", "traffic to this Service: web, or shop/web")
	flags.StringVar(&f.zone, "zone", "", "traffic from or to this zone")
	flags.StringVar(&f.workload, "workload", "", "traffic from or to this workload: deployment/web, or shop/deployment/web")
	flags.StringVar(&f.node, "node", "", "traffic from or to this node")
	f.access = accessFlags(c)
	complete(c, "namespace", f.access.completeNamespaces)
	complete(c, "service", f.completeServices)
	complete(c, "zone", f.access.completeZones)
	complete(c, "node", f.access.completeNodes)
	return f
}

// namespace is the one that was asked for; empty means all.
func (f *trafficFlags) namespace() string {
	if f.all {
		return ""
	}
	return *f.access.flags.Namespace
}

// query is what the controller is asked for.
func (f *trafficFlags) query() (url.Values, error) {
	namespace, service, workload := f.namespace(), f.service, f.workload
	within := func(flag, of, whole string) error {
		if namespace != "" && namespace != of {
			return usagef("--%s %s: not in namespace %s", flag, whole, namespace)
		}
		namespace = of
		return nil
	}
	if ns, name, ok := strings.Cut(service, "/"); ok {
		service = name
		if err := within("service", ns, f.service); err != nil {
			return nil, err
		}
	}
	if ns, name, ok := strings.Cut(workload, "/"); ok && strings.Contains(name, "/") {
		workload = name
		if err := within("workload", ns, f.workload); err != nil {
			return nil, err
		}
	}
	q := url.Values{"since": {f.since.Duration.String()}}
	for key, value := range map[string]string{"namespace": namespace, "service": service, "zone": f.zone, "workload": workload, "node": f.node} {
		if value != "" {
			q.Set(key, value)
		}
	}
	return q, nil
}

// nothing says why there is nothing to show, and what to do about it.
func (f *trafficFlags) nothing(q url.Values) error {
	var filters []string
	for _, key := range []string{"namespace", "service", "zone", "workload", "node"} {
		if v := q.Get(key); v != "" {
			filters = append(filters, key+" "+v)
		}
	}
	if len(filters) > 0 {
		return fmt.Errorf("no traffic of %s in the last %s; look further back with --since, or at less with fewer filters", strings.Join(filters, ", "), f.since.text)
	}
	return fmt.Errorf("no traffic was reported in the last %s; agents report every 10 s to 60 s: wait, or see zonewise check", f.since.text)
}

// notes writes what qualifies an answer.
func notes(c *cobra.Command, all []string) {
	for _, n := range all {
		fmt.Fprintf(c.ErrOrStderr(), "zonewise: note: %s\n", oneLine(errors.New(n)))
	}
}

// place is how much a terminal shows at once; where there is none there is no end.
func place(w io.Writer) report.Place {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return report.Place{}
	}
	width, height, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return report.Place{}
	}
	return report.Place{Width: width, Height: height}
}

func complete(c *cobra.Command, flag string, by cobra.CompletionFunc) {
	if err := c.RegisterFlagCompletionFunc(flag, by); err != nil {
		panic(err) // a flag of ours, once
	}
}

func (f *trafficFlags) completeServices(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return f.access.names(func(ctx context.Context, of cluster) ([]string, error) {
		all, err := of.CoreV1().Services(f.namespace()).List(ctx, metav1.ListOptions{})
		if err != nil {
			return nil, err
		}
		var out []string
		for _, s := range all.Items {
			if f.namespace() == "" {
				out = append(out, s.Namespace+"/"+s.Name)
			} else {
				out = append(out, s.Name)
			}
		}
		return out, nil
	})
}

func (a access) completeZones(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return a.nodes(func(n corev1.Node) string { return n.Labels[corev1.LabelTopologyZone] })
}

func (a access) completeNodes(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return a.nodes(func(n corev1.Node) string { return n.Name })
}

func (a access) nodes(name func(corev1.Node) string) ([]string, cobra.ShellCompDirective) {
	return a.names(func(ctx context.Context, of cluster) ([]string, error) {
		all, err := of.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
		if err != nil {
			return nil, err
		}
		var out []string
		for _, n := range all.Items {
			if s := name(n); s != "" {
				out = append(out, s)
			}
		}
		slices.Sort(out)
		return slices.Compact(out), nil
	})
}
