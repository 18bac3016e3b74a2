package routes

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/reflect"
	"github.com/zonewise/zonewise/internal/reflect/kube"
)

// Sweep takes away the ZoneRoutes that a controller made and nobody gave an intent, and returns how
// many there were. No controller may run, or it makes them anew.
func Sweep(ctx context.Context, routes kube.ZoneRoutes) (int, error) {
	count, page := 0, ""
	for {
		list, err := routes.In("").List(ctx, metav1.ListOptions{Limit: 500, Continue: page,
			LabelSelector: reflect.LabelManagedBy + "=" + reflect.ManagedBy})
		if apierrors.IsNotFound(err) {
			return count, nil // the definition is gone, and all ZoneRoutes with it
		} else if err != nil {
			return count, fmt.Errorf("zoneroutes: %w", err)
		}
		for i := range list.Items {
			name := model.Name{Namespace: list.Items[i].Namespace, Name: list.Items[i].Name}
			gone, err := removeUntouched(ctx, routes, name, string(list.Items[i].UID))
			if err != nil {
				return count, fmt.Errorf("zoneroute %s: %w", name, err)
			}
			if gone {
				count++
			}
		}
		if page = list.Continue; page == "" {
			return count, nil
		}
	}
}

// removeUntouched takes a ZoneRoute away that we made, unless it has been given an intent meanwhile.
func removeUntouched(ctx context.Context, routes kube.ZoneRoutes, name model.Name, uid string) (gone bool, err error) {
	in := routes.In(name.Namespace)
	zr, err := in.Get(ctx, name.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if string(zr.UID) != uid || !untouched(reflect.Route(zr)) {
		return false, nil
	}
	err = in.Delete(ctx, name.Name, metav1.DeleteOptions{
		Preconditions: &metav1.Preconditions{UID: &zr.UID, ResourceVersion: &zr.ResourceVersion},
	})
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	return err == nil, err
}
