package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/zonewise/zonewise/lab/region"
	"github.com/zonewise/zonewise/lab/topology"
)

// restConfig reaches the API server as the administrator, from inside the region.
func (l *Lab) restConfig() *rest.Config {
	admin := l.credentials.users["admin"]
	return &rest.Config{
		Host:            apiURL(l.topo),
		TLSClientConfig: rest.TLSClientConfig{CAData: l.credentials.ca.CertPEM(), CertData: admin.Cert, KeyData: admin.Key},
		Dial:            l.dial,
		QPS:             -1,
		UserAgent:       "zonewise-lab",
	}
}

// dial connects from the region's namespace. The address must be literal.
func (l *Lab) dial(ctx context.Context, network, address string) (net.Conn, error) {
	var conn net.Conn
	err := region.In(l.fabric.Thread.NS(), func() (err error) {
		conn, err = (&net.Dialer{}).DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

const pollInterval = 25 * time.Millisecond

// poll asks until the answer is yes, something that is needed has ended, or ctx has. Its error says
// what was waited for, and what the last answer was.
func poll(ctx context.Context, ended <-chan error, what string, ask func(context.Context) (bool, error)) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	last := errors.New("no answer")
	for {
		yes, err := ask(ctx)
		if yes {
			return nil
		}
		if err != nil && ctx.Err() == nil {
			last = err
		}
		select {
		case err := <-ended:
			return err
		case <-ctx.Done():
			return fmt.Errorf("waiting until %s: %w", what, last)
		case <-tick.C:
		}
	}
}

// waitAPI waits until the API server answers that it is ready.
func (l *Lab) waitAPI(ctx context.Context) error {
	transport, err := rest.TransportFor(l.client)
	if err != nil {
		return err
	}
	client := &http.Client{Transport: transport}
	return poll(ctx, l.ended, "the API server is ready", func(ctx context.Context) (bool, error) {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, apiURL(l.topo)+"/readyz", nil)
		if err != nil {
			return false, err
		}
		response, err := client.Do(request)
		if err != nil {
			return false, err
		}
		defer func() { _ = response.Body.Close() }()
		return response.StatusCode == http.StatusOK, fmt.Errorf("readyz: %s", response.Status)
	})
}

// waitNodes waits until every node is Ready. Where there is no CNI plugin yet none can be, and it is enough
// that their kubelets report.
func (l *Lab) waitNodes(ctx context.Context) error {
	client, err := kubernetes.NewForConfig(l.client)
	if err != nil {
		return err
	}
	return poll(ctx, l.ended, "every node is Ready", func(ctx context.Context) (bool, error) {
		nodes, err := client.CoreV1().Nodes().List(ctx, metav1.ListOptions{ResourceVersion: "0"})
		if err != nil {
			return false, err
		}
		ready := map[string]bool{}
		for _, n := range nodes.Items {
			ready[n.Name] = (nodeReady(n) || l.topo.CNI == topology.CNINone) && l.fresh(n)
		}
		err = unready(l.topo.Nodes(), ready)
		return err == nil, err
	})
}

// unready names a node that is not Ready, and its log; nil if all are.
func unready(nodes []topology.Node, ready map[string]bool) error {
	n, last := 0, ""
	for _, node := range nodes {
		if ready[node.Name] {
			n++
		} else {
			last = node.Alias
		}
	}
	if last == "" {
		return nil
	}
	return fmt.Errorf("%d of %d nodes are Ready, %s is not: see `zonewise lab logs %s/kubelet`", n, len(nodes), last, last)
}

func nodeReady(n corev1.Node) bool {
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// fresh tells whether the node has reported since this start of the lab: a resumed lab remembers
// nodes that were Ready when it went down.
func (l *Lab) fresh(n corev1.Node) bool {
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return !c.LastHeartbeatTime.Time.Before(l.started.Truncate(time.Second)) // it counts in whole seconds
		}
	}
	return false
}
