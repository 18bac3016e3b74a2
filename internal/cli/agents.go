package cli

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

	"github.com/zonewise/zonewise/internal/agent/view"
	"github.com/zonewise/zonewise/internal/model"
)

const (
	agentLabels = "app.kubernetes.io/name=zonewise,app.kubernetes.io/component=agent"
	agentPort   = 9470
	// patience with one node. A healthy agent answers within milliseconds.
	patience = 10 * time.Second
	// crowd is how many nodes are asked at a time.
	crowd = 64
)

// get asks the local API of the agent in a pod for a path, and returns status and body.
type get func(ctx context.Context, pod *corev1.Pod, path string) (int, []byte, error)

// findAgents returns the agents' pods, one a node, by node. An empty node means all.
func findAgents(ctx context.Context, client kubernetes.Interface, node string) ([]*corev1.Pod, error) {
	opts := metav1.ListOptions{LabelSelector: agentLabels}
	if node != "" {
		opts.FieldSelector = "spec.nodeName=" + node
	}
	list, err := client.CoreV1().Pods("").List(ctx, opts)
	if err != nil {
		return nil, fmt.Errorf("agents: %w", err)
	}
	byNode := map[string]*corev1.Pod{}
	for i := range list.Items {
		p := &list.Items[i]
		if p.Spec.NodeName == "" || (node != "" && p.Spec.NodeName != node) {
			continue
		}
		// while one is replaced there are two: the one that runs can answer
		if had := byNode[p.Spec.NodeName]; had == nil || !running(had) {
			byNode[p.Spec.NodeName] = p
		}
	}
	var out []*corev1.Pod
	for _, p := range byNode {
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b *corev1.Pod) int { return strings.Compare(a.Spec.NodeName, b.Spec.NodeName) })
	switch {
	case len(out) > 0:
		return out, nil
	case node != "":
		return nil, fmt.Errorf("node %s: no agent runs there", node)
	}
	return nil, errors.New("no agents found; install the chart first")
}

func running(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodRunning && p.DeletionTimestamp == nil
}

// askAll asks every agent about the Service, and returns the answers and an error for each node
// that gave none, both by node.
func askAll(ctx context.Context, agents []*corev1.Pod, name model.Name, ask get) ([]view.Service, []error) {
	views, errs := make([]*view.Service, len(agents)), make([]error, len(agents))
	slots := make(chan struct{}, crowd)
	var wg sync.WaitGroup
	for i, pod := range agents {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			ctx, cancel := context.WithTimeout(ctx, patience)
			defer cancel()
			v, err := askOne(ctx, pod, name, ask)
			if err != nil {
				errs[i] = fmt.Errorf("node %s: %w", pod.Spec.NodeName, err)
				return
			}
			views[i] = v
		})
	}
	wg.Wait()
	var answers []view.Service
	for _, v := range views {
		if v != nil {
			answers = append(answers, *v)
		}
	}
	return answers, slices.DeleteFunc(errs, func(err error) bool { return err == nil })
}

func askOne(ctx context.Context, pod *corev1.Pod, name model.Name, ask get) (*view.Service, error) {
	if !running(pod) {
		return nil, fmt.Errorf("agent %s/%s: %s, not running", pod.Namespace, pod.Name, strings.ToLower(string(pod.Status.Phase)))
	}
	status, body, err := ask(ctx, pod, "/v1/services/"+name.Namespace+"/"+name.Name)
	if err != nil {
		return nil, fmt.Errorf("agent %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	if status != http.StatusOK {
		return nil, fmt.Errorf("agent %s/%s: %s", pod.Namespace, pod.Name, strings.TrimSpace(string(body)))
	}
	v := new(view.Service)
	if err := json.Unmarshal(body, v); err != nil {
		return nil, fmt.Errorf("agent %s/%s: answer: %w", pod.Namespace, pod.Name, err)
	}
	return v, nil
}
