package ask

import (
	"strings"
	"testing"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
)

func TestLeader(t *testing.T) {
	controller := func(namespace, name string, phase corev1.PodPhase) *corev1.Pod {
		p := agentPod(name, "n1", phase)
		p.Namespace, p.Labels["app.kubernetes.io/component"] = namespace, "controller"
		return p
	}
	lease := func(namespace, holder string) *coordinationv1.Lease {
		return &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "leads"}, Spec: coordinationv1.LeaseSpec{HolderIdentity: &holder}}
	}
	a, b := controller("ours", "a", corev1.PodRunning), controller("ours", "b", corev1.PodRunning)
	for _, c := range []struct {
		name, want string
		objects    []runtime.Object
	}{
		{"the holder", "ours/b", []runtime.Object{a, b, lease("ours", "b")}},
		{"another namespace has a controller that never led", "ours/a", []runtime.Object{controller("old", "a", corev1.PodRunning), a, b, lease("ours", "a")}},
		{"an agent of the holder's name", "no controller found", []runtime.Object{agentPod("a", "n1", corev1.PodRunning), lease("kube-system", "a")}},
		{"no lease yet", "no controller leads; try again in some seconds, or look: kubectl -n ours get pods", []runtime.Object{a, b}},
		{"given up", "no controller leads", []runtime.Object{a, b, lease("ours", "")}},
		{"its pod is gone", "no controller leads", []runtime.Object{a, b, lease("ours", "c")}},
		{"it failed", "controller ours/c leads, and is not running: failed", []runtime.Object{a, controller("ours", "c", corev1.PodFailed), lease("ours", "c")}},
	} {
		got := ""
		if p, err := Leader(t.Context(), fake.NewClientset(c.objects...), "leads"); err != nil {
			got = err.Error()
		} else {
			got = p.Namespace + "/" + p.Name
		}
		if !strings.HasPrefix(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}
