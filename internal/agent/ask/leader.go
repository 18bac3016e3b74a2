package ask

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

const controllerLabels = "app.kubernetes.io/name=zonewise,app.kubernetes.io/component=controller"

// Open asks a port of a pod for a path, and returns an answer whose body may go on.
type Open func(ctx context.Context, pod *corev1.Pod, port int, path string) (*http.Response, error)

// Leader returns the pod of the controller that leads: whom the Lease beside the controller's pods names.
func Leader(ctx context.Context, client kubernetes.Interface, lease string) (*corev1.Pod, error) {
	list, err := client.CoreV1().Pods("").List(ctx, metav1.ListOptions{LabelSelector: controllerLabels})
	if err != nil {
		return nil, fmt.Errorf("controller: %w", err)
	}
	if len(list.Items) == 0 {
		return nil, errors.New("no controller found; install the chart with its controller first")
	}
	asked := map[string]bool{}
	for i := range list.Items {
		namespace := list.Items[i].Namespace
		if asked[namespace] {
			continue
		}
		asked[namespace] = true
		holder, err := holder(ctx, client, namespace, lease)
		if err != nil {
			return nil, err
		}
		if p := named(list, namespace, holder); p != nil {
			if !running(p) {
				return nil, fmt.Errorf("controller %s/%s leads, and is not running: %s; another one takes over within seconds",
					p.Namespace, p.Name, strings.ToLower(string(p.Status.Phase)))
			}
			return p, nil
		}
	}
	return nil, fmt.Errorf("no controller leads; try again in some seconds, or look: kubectl -n %s get pods -l %s",
		list.Items[0].Namespace, controllerLabels)
}

// holder returns who holds the Lease; empty if nobody does.
func holder(ctx context.Context, client kubernetes.Interface, namespace, lease string) (string, error) {
	l, err := client.CoordinationV1().Leases(namespace).Get(ctx, lease, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return "", nil
	case err != nil:
		return "", fmt.Errorf("lease %s/%s: %w", namespace, lease, err)
	case l.Spec.HolderIdentity == nil:
		return "", nil
	}
	return *l.Spec.HolderIdentity, nil
}

func named(list *corev1.PodList, namespace, name string) *corev1.Pod {
	for i := range list.Items {
		if p := &list.Items[i]; p.Namespace == namespace && p.Name == name {
			return p
		}
	}
	return nil
}
