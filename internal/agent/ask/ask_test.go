package ask

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/zonewise/zonewise/internal/agent/view"
)

func agentPod(name, node string, phase corev1.PodPhase) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: name,
			Labels: map[string]string{"app.kubernetes.io/name": "zonewise", "app.kubernetes.io/component": "agent"}},
		Spec:   corev1.PodSpec{NodeName: node},
		Status: corev1.PodStatus{Phase: phase},
	}
}

func TestFind(t *testing.T) {
	stranger := agentPod("other", "n3", corev1.PodRunning)
	stranger.Labels = nil
	client := fake.NewClientset(stranger,
		agentPod("b", "n2", corev1.PodRunning), agentPod("a", "n1", corev1.PodRunning),
		agentPod("a-old", "n1", corev1.PodFailed), agentPod("unplaced", "", corev1.PodPending))
	find := func(node string) string {
		pods, err := Find(t.Context(), client, "", node)
		if err != nil {
			return err.Error()
		}
		var out []string
		for _, p := range pods {
			out = append(out, p.Spec.NodeName+"="+p.Name)
		}
		return strings.Join(out, " ")
	}
	for node, want := range map[string]string{"": "n1=a n2=b", "n2": "n2=b", "n3": "node n3: no agent runs there"} {
		if got := find(node); got != want {
			t.Errorf("node %q: %q, want %q", node, got, want)
		}
	}
	if _, err := Find(t.Context(), fake.NewClientset(), "", ""); err == nil || !strings.Contains(err.Error(), "install the chart") {
		t.Error(err)
	}
}

func TestAllNamesWhoDoesNotAnswer(t *testing.T) {
	agents := []*corev1.Pod{
		agentPod("a", "n1", corev1.PodRunning), agentPod("b", "n2", corev1.PodRunning),
		agentPod("c", "n3", corev1.PodPending), agentPod("d", "n4", corev1.PodRunning), agentPod("e", "n5", corev1.PodRunning),
	}
	ask := func(_ context.Context, p *corev1.Pod, path string) (int, []byte, error) {
		switch p.Spec.NodeName {
		case "n2":
			return 0, nil, errors.New("connection refused")
		case "n4":
			return 503, []byte("waiting for node n4 to register\n"), nil
		case "n5":
			return 200, []byte("<html>"), nil
		}
		return 200, fmt.Appendf(nil, `{"schema":"zonewise.node-service/v1","node":%q,"name":%q}`, p.Spec.NodeName, path), nil
	}
	views, silent := All[view.Service](t.Context(), agents, "/v1/services/default/web", ask, Limits{Patience: time.Minute, Crowd: 2})
	if len(views) != 1 || views[0].Node != "n1" || views[0].Name != "/v1/services/default/web" {
		t.Errorf("views %+v", views)
	}
	want := []string{
		"node n2: agent kube-system/b: connection refused",
		"node n3: agent kube-system/c: pending, not running",
		"node n4: agent kube-system/d: waiting for node n4 to register",
		"node n5: agent kube-system/e: answer: invalid character '<' looking for beginning of value",
	}
	var got []string
	for _, err := range silent {
		got = append(got, err.Error())
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
