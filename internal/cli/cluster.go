package cli

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/zonewise/zonewise/internal/reflect/dump"
)

// lists are what a plan is made of, as the API server names it.
var lists = []struct {
	path     string
	optional bool // a cluster may not know it
}{
	{path: "/api/v1/nodes"},
	{path: "/api/v1/services"},
	{path: "/apis/discovery.k8s.io/v1/endpointslices"},
	{path: "/api/v1/pods"},
	{path: "/api/v1/namespaces"},
	{path: "/apis/zonewise.io/v1alpha1/zoneroutes", optional: true},
}

// readCluster reads the cluster as a file is read: lists in JSON, one after another.
func readCluster(ctx context.Context, config *rest.Config) (dump.Dump, error) {
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return dump.Dump{}, fmt.Errorf("kubeconfig: %w", err)
	}
	r, w := io.Pipe()
	defer r.Close()
	go func() { w.CloseWithError(writeLists(ctx, client.CoreV1().RESTClient(), w)) }()
	d, err := dump.Read(r)
	if err != nil {
		return d, fmt.Errorf("cluster: %w", err)
	}
	return d, nil
}

func writeLists(ctx context.Context, client rest.Interface, w io.Writer) error {
	for _, l := range lists {
		body, err := client.Get().AbsPath(l.path).SetHeader("Accept", "application/json").Stream(ctx)
		if l.optional && apierrors.IsNotFound(err) {
			continue
		}
		name := l.path[strings.LastIndexByte(l.path, '/')+1:]
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		_, err = io.Copy(w, body)
		body.Close()
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// patience is how long completion waits for a cluster.
const patience = 2 * time.Second

// completeServices offers the Services of the namespace.
func (in *inputFlags) completeServices(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 || in.file == "-" {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	names, err := in.serviceNames(ctx, c)
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

func (in *inputFlags) serviceNames(ctx context.Context, c *cobra.Command) ([]string, error) {
	var names []string
	if in.file != "" {
		facts, err := in.read(c)
		for _, s := range facts.chosen() {
			names = append(names, s.Name.Name)
		}
		return names, err
	}
	client, namespace, err := in.access.client()
	if err != nil {
		return nil, err
	}
	all, err := client.CoreV1().Services(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	for _, s := range all.Items {
		names = append(names, s.Name)
	}
	return names, nil
}

// cluster is what a completion asks.
type cluster = kubernetes.Interface

// names offers what a cluster says in time.
func (a access) names(of func(context.Context, cluster) ([]string, error)) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	client, _, err := a.client()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	out, err := of(ctx, client)
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

// completeNamespaces offers the namespaces of the cluster.
func (a access) completeNamespaces(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return a.names(func(ctx context.Context, of cluster) ([]string, error) {
		all, err := of.CoreV1().Namespaces().List(ctx, metav1.ListOptions{})
		if err != nil {
			return nil, err
		}
		var out []string
		for _, n := range all.Items {
			out = append(out, n.Name)
		}
		return out, nil
	})
}

func (a access) client() (kubernetes.Interface, string, error) {
	config, namespace, err := a.resolve()
	if err != nil {
		return nil, "", err
	}
	client, err := kubernetes.NewForConfig(config)
	return client, namespace, err
}
