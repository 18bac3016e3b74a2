package kube

import (
	"context"
	"encoding/json"
	"fmt"

	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/zonewise/zonewise/internal/model"
)

// Leave takes away all that delivery keeps in a cluster, and returns how many slices had hints. No
// controller may run, or it begins again.
func Leave(ctx context.Context, client kubernetes.Interface, namespace string) (int, error) {
	if err := (registration{client: client, namespace: namespace}).remove(ctx); err != nil {
		return 0, err
	}
	count, err := Sweep(ctx, client)
	if err != nil {
		return count, err
	}
	if err := (prober{client, namespace}).clean(ctx); err != nil {
		return count, fmt.Errorf("slice %s: %w", probeName, err)
	}
	err = client.CoreV1().Secrets(namespace).Delete(ctx, SecretName, metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return count, fmt.Errorf("secret %s: %w", SecretName, err)
	}
	return count, nil
}

// Sweep takes our hints off every slice, and returns how many had any. The webhook must be gone, or
// it puts them on again.
func Sweep(ctx context.Context, client kubernetes.Interface) (int, error) {
	count, page := 0, ""
	for {
		list, err := client.DiscoveryV1().EndpointSlices("").List(ctx, metav1.ListOptions{Limit: 500, Continue: page,
			LabelSelector: discoveryv1.LabelManagedBy + "=" + managedByStock})
		if err != nil {
			return count, fmt.Errorf("slices: %w", err)
		}
		for i := range list.Items {
			s := &list.Items[i]
			if s.Annotations[Annotation] == "" {
				continue
			}
			done, err := patchPlain(ctx, client, model.Name{Namespace: s.Namespace, Name: s.Name}, false)
			if err != nil {
				return count, err
			}
			if done {
				count++
			} else if err := unmark(ctx, client, s); err != nil {
				return count, err
			}
		}
		if page = list.Continue; page == "" {
			return count, nil
		}
	}
}

// unmark takes our mark off a slice whose hints are not ours, or gone.
func unmark(ctx context.Context, client kubernetes.Interface, s *discoveryv1.EndpointSlice) error {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]any{Annotation: nil}}})
	if err != nil {
		return err
	}
	_, err = client.DiscoveryV1().EndpointSlices(s.Namespace).Patch(ctx, s.Name, types.MergePatchType, patch, metav1.PatchOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("slice %s/%s: %w", s.Namespace, s.Name, err)
	}
	return nil
}
