package cli

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/zonewise/zonewise/internal/cli/report"
)

func cniPod(node string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "cni-" + node,
			Labels: map[string]string{"app.kubernetes.io/name": "zonewise", "app.kubernetes.io/component": "cni"}},
		Spec: corev1.PodSpec{NodeName: node}, Status: corev1.PodStatus{Phase: corev1.PodRunning},
	}
}

func answerNodes(_ context.Context, p *corev1.Pod, path string) (int, []byte, error) {
	switch {
	case path != "/v1/addresses":
		return 404, nil, nil
	case p.Spec.NodeName == "n2":
		return 0, nil, errors.New("connection refused")
	}
	return 200, []byte(`{"schema":"zonewise.node/v1","name":"` + p.Spec.NodeName + `","zone":"a","pods":3}`), nil
}

func TestAskNodes(t *testing.T) {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n9"}}
	client := fake.NewClientset(cniPod("n1"), cniPod("n2"), node)
	nodes, silent, err := askNodes(t.Context(), client, "", answerNodes)
	if err != nil || len(nodes) != 1 || nodes[0].Name != "n1" || nodes[0].Pods != 3 {
		t.Errorf("got %+v, %v", nodes, err)
	}
	if len(silent) != 1 || !strings.Contains(silent[0].Error(), "node n2: agent kube-system/cni-n2: connection refused") {
		t.Errorf("silent: %v", silent)
	}
	for name, want := range map[string]string{"n9": "node n9: no daemon of zonewise-cni runs there", "n7": `node n7: nodes "n7" not found`} {
		if _, _, err := askNodes(t.Context(), client, name, answerNodes); err == nil || err.Error() != want {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, _, err := askNodes(t.Context(), fake.NewClientset(), "", answerNodes); err == nil || !strings.Contains(err.Error(), "cni.enabled installs it") {
		t.Errorf("where there is no such plugin: %v", err)
	}
}

// One node is one object, all are a list: scripts rely on it.
func TestPrintNodes(t *testing.T) {
	nodes, _, err := askNodes(t.Context(), fake.NewClientset(cniPod("n1"), cniPod("n3")), "", answerNodes)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"n1": `"schema": "zonewise.node/v1",`, "": `"schema": "zonewise.nodes/v1",`} {
		var b bytes.Buffer
		if err := printNodes(&b, &output{format: "json"}, name, nodes); err != nil {
			t.Fatal(err)
		}
		if second := strings.Split(b.String(), "\n")[1]; strings.TrimSpace(second) != want {
			t.Errorf("%q: got %s", name, second)
		}
	}
}

// A check asks the daemons, where there are any, and says which do not answer.
func TestGatherAddresses(t *testing.T) {
	var a report.Answers
	if err := gatherAddresses(t.Context(), fake.NewClientset(), answerNodes, &a); err != nil || len(a.Addresses)+len(a.NoAddresses) > 0 {
		t.Errorf("without daemons: %+v, %v", a, err)
	}
	err := gatherAddresses(t.Context(), fake.NewClientset(cniPod("n1"), cniPod("n2"), cniPod("n3")), answerNodes, &a)
	if err != nil || len(a.Addresses) != 2 || a.NoAddresses["n2"] != "agent kube-system/cni-n2: connection refused" || len(a.NoAddresses) != 1 {
		t.Errorf("got %+v, %v", a, err)
	}
}
