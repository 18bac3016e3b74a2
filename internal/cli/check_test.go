package cli

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
)

func TestGather(t *testing.T) {
	var objects []runtime.Object
	for _, n := range []string{"n1", "n2", "n3", "n4"} {
		objects = append(objects, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: n}})
		if n != "n4" {
			objects = append(objects, &corev1.Pod{
				ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "agent-" + n,
					Labels: map[string]string{"app.kubernetes.io/name": "zonewise", "app.kubernetes.io/component": "agent"}},
				Spec: corev1.PodSpec{NodeName: n}, Status: corev1.PodStatus{Phase: corev1.PodRunning},
			})
		}
	}
	asked := map[string][]string{}
	got, err := gather(t.Context(), fake.NewClientset(objects...), func(_ context.Context, p *corev1.Pod, path string) (int, []byte, error) {
		n := p.Spec.NodeName
		switch {
		case path == "/v1/faults":
			asked[path] = append(asked[path], n)
			return 200, []byte(`{"node":"` + n + `","faults":[{"kind":"Service","name":"web"}]}`), nil
		case n == "n1":
			return 200, []byte(`{"node":"n1","ready":true}`), nil
		case n == "n2":
			return 0, nil, errors.New("connection refused")
		}
		return 200, []byte(`{"node":"n3","faults":1}`), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"n1", "n2", "n3", "n4"}, got.Nodes); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]string{"n2": "agent kube-system/agent-n2: connection refused"}, got.Silent); diff != "" {
		t.Error(diff)
	}
	if len(got.Status) != 2 || len(got.Faults) != 1 || len(asked["/v1/faults"]) != 1 || asked["/v1/faults"][0] != "n3" {
		t.Errorf("%+v; asked %v", got, asked)
	}
	if _, err := gather(t.Context(), fake.NewClientset(), nil); err == nil {
		t.Error("no agents at all, and no error")
	}
}
