package controller

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	k8stesting "k8s.io/client-go/testing"

	"github.com/zonewise/zonewise/api/v1alpha1"
	"github.com/zonewise/zonewise/internal/reflect/apitest"
)

// scaled has the API keep the scale of the controller's Deployment; its pod goes a while after zero is asked for.
func scaled(api *apitest.API, replicas *int32, lingers time.Duration) {
	api.PrependReactor("get", "deployments", func(k8stesting.Action) (bool, runtime.Object, error) {
		if *replicas < 0 {
			return true, nil, apierrors.NewNotFound(schema.GroupResource{Resource: "deployments"}, deploymentName)
		}
		return true, &autoscalingv1.Scale{ObjectMeta: metav1.ObjectMeta{Name: deploymentName}, Spec: autoscalingv1.ScaleSpec{Replicas: *replicas}}, nil
	})
	api.PrependReactor("update", "deployments", func(a k8stesting.Action) (bool, runtime.Object, error) {
		scale := a.(k8stesting.UpdateAction).GetObject().(*autoscalingv1.Scale)
		*replicas = scale.Spec.Replicas
		time.AfterFunc(lingers, func() {
			_ = api.Tracker().Delete(schema.GroupVersionResource{Version: "v1", Resource: "pods"}, "ns", "zonewise-controller-1")
		})
		return true, scale, nil
	})
}

func TestSweep(t *testing.T) {
	for name, c := range map[string]struct {
		lingers time.Duration
		took    time.Duration
		warns   bool
	}{
		"pods end":         {3 * time.Second, 3 * time.Second, false},
		"a node is dead":   {time.Hour, stopPatience, true},
		"pods end at once": {0, 0, false},
	} {
		t.Run(name, func(t *testing.T) { synctest.Test(t, func(t *testing.T) { sweeps(t, c.lingers, c.took, c.warns) }) })
	}
}

func sweeps(t *testing.T, lingers, took time.Duration, warns bool) {
	pod := object[corev1.Pod](t, `metadata: {namespace: ns, name: zonewise-controller-1, labels: {app.kubernetes.io/name: zonewise, app.kubernetes.io/component: controller}}`)
	ours := object[v1alpha1.ZoneRoute](t, `metadata: {namespace: shop, name: web, labels: {app.kubernetes.io/managed-by: zonewise}}`)
	touched := object[v1alpha1.ZoneRoute](t, `
metadata: {namespace: shop, name: api, labels: {app.kubernetes.io/managed-by: zonewise}}
spec: {mode: Off}`)
	theirs := object[v1alpha1.ZoneRoute](t, `metadata: {namespace: shop, name: db}`)
	authority := object[corev1.Secret](t, `metadata: {namespace: ns, name: zonewise-meter}`)
	api := apitest.New(pod, ours, touched, theirs, authority, &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: Lease}})
	replicas := int32(1)
	scaled(api, &replicas, lingers)
	var log bytes.Buffer
	config := SweepConfig{Client: api, Routes: api.ZoneRoutes, Namespace: "ns", Hints: true, Meter: true, Log: slog.New(slog.NewTextHandler(&log, nil))}
	begin := time.Now()
	if err := Sweep(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(begin); d < took-stopPoll || d > took+stopPoll {
		t.Errorf("it took %v, want about %v", d, took)
	}
	if warned := strings.Contains(log.String(), "level=WARN"); replicas != 0 || warned != warns {
		t.Errorf("%d replicas, log:\n%s", replicas, log.String())
	}
	list, err := api.ZoneRoutes.In("").List(t.Context(), metav1.ListOptions{})
	if err != nil || len(list.Items) != 2 {
		t.Errorf("ZoneRoutes: %v, error %v", list, err)
	}
	for _, zr := range list.Items {
		if zr.Name == "web" {
			t.Error("the ZoneRoute that we made is still there")
		}
	}
	if leases, _ := api.CoordinationV1().Leases("").List(t.Context(), metav1.ListOptions{}); len(leases.Items) != 0 {
		t.Error("the Lease is still there")
	}
	if secrets, _ := api.CoreV1().Secrets("").List(t.Context(), metav1.ListOptions{}); len(secrets.Items) != 0 {
		t.Error("the meter's authority is still there")
	}
	if !strings.Contains(log.String(), "zoneroutes=1") {
		t.Errorf("log:\n%s", log.String())
	}
	replicas = -1
	_ = api.Tracker().Delete(schema.GroupVersionResource{Version: "v1", Resource: "pods"}, "ns", "zonewise-controller-1")
	if err := Sweep(t.Context(), config); err != nil {
		t.Errorf("when all is gone: %v", err)
	}
}
