// Package ask asks agents, and the controller that leads, what their local APIs tell, through the API
// server, so that nothing but pods/portforward needs to be allowed and no port of a node needs to be open.
package ask

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

const (
	agentLabels     = "app.kubernetes.io/name=zonewise,app.kubernetes.io/component=agent"
	agentPort       = 9470
	addressesLabels = "app.kubernetes.io/name=zonewise,app.kubernetes.io/component=cni"
)

// Get asks the local API of the agent in a pod for a path, and returns status and body.
type Get func(ctx context.Context, pod *corev1.Pod, path string) (int, []byte, error)

// Limits bound how much is asked at once.
type Limits struct {
	Patience time.Duration // with one node; a healthy agent answers within milliseconds
	Crowd    int           // how many nodes are asked at a time
}

// Find returns the agents' pods, one a node, by node. An empty namespace or node means all.
func Find(ctx context.Context, client kubernetes.Interface, namespace, node string) ([]*corev1.Pod, error) {
	out, err := find(ctx, client, agentLabels, namespace, node)
	switch {
	case err != nil:
		return nil, fmt.Errorf("agents: %w", err)
	case len(out) > 0:
		return out, nil
	case node != "":
		return nil, fmt.Errorf("node %s: no agent runs there", node)
	}
	return nil, errors.New("no agents found; install the chart first")
}

// FindAddresses returns the pods of the daemons that get addresses for pods, one a node, by node. A cluster with
// another plugin has none: that is no error.
func FindAddresses(ctx context.Context, client kubernetes.Interface, node string) ([]*corev1.Pod, error) {
	out, err := find(ctx, client, addressesLabels, "", node)
	if err != nil {
		return nil, fmt.Errorf("daemons of zonewise-cni: %w", err)
	}
	return out, nil
}

func find(ctx context.Context, client kubernetes.Interface, labels, namespace, node string) ([]*corev1.Pod, error) {
	opts := metav1.ListOptions{LabelSelector: labels}
	if node != "" {
		opts.FieldSelector = "spec.nodeName=" + node
	}
	list, err := client.CoreV1().Pods(namespace).List(ctx, opts)
	if err != nil {
		return nil, err
	}
	return byNode(list, node), nil
}

// byNode returns the pods of a node, or of all, the one that can answer of each, by node.
func byNode(list *corev1.PodList, node string) []*corev1.Pod {
	best := map[string]*corev1.Pod{}
	for i := range list.Items {
		p := &list.Items[i]
		if p.Spec.NodeName == "" || (node != "" && p.Spec.NodeName != node) {
			continue
		}
		// while one is replaced there are two: the one that runs can answer
		if had := best[p.Spec.NodeName]; had == nil || !running(had) {
			best[p.Spec.NodeName] = p
		}
	}
	var out []*corev1.Pod
	for _, p := range best {
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b *corev1.Pod) int { return strings.Compare(a.Spec.NodeName, b.Spec.NodeName) })
	return out
}

// Running returns the pods of a namespace whose agent runs, one a node, by node. None is no error.
func Running(ctx context.Context, client kubernetes.Interface, namespace string) ([]*corev1.Pod, error) {
	list, err := client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: agentLabels})
	if err != nil {
		return nil, fmt.Errorf("agents: %w", err)
	}
	return slices.DeleteFunc(byNode(list, ""), func(p *corev1.Pod) bool { return !running(p) }), nil
}

func running(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodRunning && p.DeletionTimestamp == nil
}

// All asks every agent for the path, and returns the answers, which are JSON of a T, and an error
// for each node that gave none, both by node.
func All[T any](ctx context.Context, agents []*corev1.Pod, path string, get Get, limits Limits) ([]T, []error) {
	answers, errs := make([]*T, len(agents)), make([]error, len(agents))
	slots := make(chan struct{}, limits.Crowd)
	var wg sync.WaitGroup
	for i, pod := range agents {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			ctx, cancel := context.WithTimeout(ctx, limits.Patience)
			defer cancel()
			v, err := one[T](ctx, pod, path, get)
			if err != nil {
				errs[i] = fmt.Errorf("node %s: %w", pod.Spec.NodeName, err)
				return
			}
			answers[i] = v
		})
	}
	wg.Wait()
	var given []T
	for _, v := range answers {
		if v != nil {
			given = append(given, *v)
		}
	}
	return given, slices.DeleteFunc(errs, func(err error) bool { return err == nil })
}

func one[T any](ctx context.Context, pod *corev1.Pod, path string, get Get) (*T, error) {
	if !running(pod) {
		return nil, fmt.Errorf("agent %s/%s: %s, not running", pod.Namespace, pod.Name, strings.ToLower(string(pod.Status.Phase)))
	}
	status, body, err := get(ctx, pod, path)
	if err != nil {
		return nil, fmt.Errorf("agent %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	if status != http.StatusOK {
		return nil, fmt.Errorf("agent %s/%s: %s", pod.Namespace, pod.Name, strings.TrimSpace(string(body)))
	}
	v := new(T)
	if err := json.Unmarshal(body, v); err != nil {
		return nil, fmt.Errorf("agent %s/%s: answer: %w", pod.Namespace, pod.Name, err)
	}
	return v, nil
}
