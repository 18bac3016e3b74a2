package apitest

import (
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/google/go-cmp/cmp"

	"github.com/zonewise/zonewise/api/v1alpha1"
)

func TestZoneRoutesAsAtARealServer(t *testing.T) {
	ctx, api := t.Context(), New()
	routes := api.Clients().ZoneRoutes.In("shop")
	created, err := routes.Create(ctx, &v1alpha1.ZoneRoute{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"},
		Spec: v1alpha1.ZoneRouteSpec{Mode: "Off"}, Status: v1alpha1.ZoneRouteStatus{Mode: "Off"}}, metav1.CreateOptions{})
	if err != nil || created.Generation != 1 || created.UID == "" || created.Status.Mode != "" {
		t.Fatalf("created %+v, %v", created, err)
	}
	step := func(what string, status bool, wantGeneration int64, change func(*v1alpha1.ZoneRoute)) *v1alpha1.ZoneRoute {
		t.Helper()
		zr, err := routes.Get(ctx, "web", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		change(zr)
		write := routes.Update
		if status {
			write = routes.UpdateStatus
		}
		got, err := write(ctx, zr, metav1.UpdateOptions{})
		if err != nil || got.Generation != wantGeneration {
			t.Fatalf("%s: generation %d, %v", what, got.Generation, err)
		}
		return got
	}
	got := step("a status", true, 1, func(zr *v1alpha1.ZoneRoute) { zr.Status.Mode, zr.Spec.Mode = "Off", "Optimal" })
	if got.Spec.Mode != "Off" || got.Status.Mode != "Off" {
		t.Errorf("a status write changed %+v", got)
	}
	got = step("a spec", false, 2, func(zr *v1alpha1.ZoneRoute) { zr.Status.Mode, zr.Spec.Mode = "Observe", "Optimal" })
	if got.Spec.Mode != "Optimal" || got.Status.Mode != "Off" {
		t.Errorf("a spec write changed %+v", got)
	}
	again := step("nothing", false, 2, func(*v1alpha1.ZoneRoute) {})
	if again.ResourceVersion != got.ResourceVersion {
		t.Errorf("version %s after %s, though nothing changed", again.ResourceVersion, got.ResourceVersion)
	}
	if _, err := routes.UpdateStatus(ctx, created, metav1.UpdateOptions{}); !apierrors.IsConflict(err) {
		t.Errorf("a write of an old object: %v", err)
	}
	if diff := cmp.Diff(map[string]int{"create": 1, "update": 2, "update status": 2}, api.ZoneRoutes.Writes()); diff != "" {
		t.Error(diff)
	}
	api.ZoneRoutes.Define(false)
	if _, err := routes.List(ctx, metav1.ListOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("of no kind: %v", err)
	}
}
