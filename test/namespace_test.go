//go:build story

package test

import (
	"fmt"
	"os/exec"
	"path/filepath"

	"github.com/rogpeppe/go-internal/testscript"
)

// story is what a running story keeps from line to line.
type story struct {
	dir       string // its own, and longer there than its $WORK
	namespace string
	env       []string // variables that the next line finds
}

type storyKey struct{}

// open gives a story a namespace and a kubeconfig that points there. Both end with the story;
// the end of the namespace is not waited for.
func (l storyLab) open(e *testscript.Env) error {
	t := e.T().(inTurn)
	s := &story{dir: t.TempDir(), namespace: "story-" + filepath.Base(t.Name())}
	e.Values[storyKey{}] = s
	e.Setenv("LAB", l.name)
	e.Setenv("AWAY", fmt.Sprint(int(awayFor.Seconds())))
	e.Setenv("HOME", s.dir)
	e.Setenv("KUBECONFIG", filepath.Join(s.dir, "kubeconfig"))
	e.Setenv("NO_COLOR", "1")
	s.env = e.Vars
	if _, err := s.run("zonewise lab kubeconfig --name $LAB >$KUBECONFIG && chmod 600 $KUBECONFIG"); err != nil {
		return err
	}
	t.Cleanup(func() {
		if t.Failed() {
			out, err := s.run(evidence)
			t.Logf("what is there now (%v):\n%s", err, out)
		}
		for _, line := range []string{
			"kubectl delete namespace " + s.namespace + " --wait=false",
			// What is in no namespace would trouble the stories that follow.
			"kubectl delete mutatingadmissionpolicies,mutatingadmissionpolicybindings -l made-by=story",
		} {
			if _, err := s.run(line); err != nil {
				t.Error(err)
			}
		}
	})
	// Pods are refused until the namespace's service account is there.
	_, err := s.run("kubectl create namespace " + s.namespace +
		" && kubectl config set-context --current --namespace=" + s.namespace +
		" && kubectl wait --for=create serviceaccount/default --timeout=30s")
	return err
}

// evidence is what one looks at first when a story fails.
const evidence = `kubectl get pods,services,endpointslices -o wide
kubectl get events --sort-by=.lastTimestamp
kubectl -n kube-system get pods -o wide
kubectl -n kube-system logs -l app.kubernetes.io/name=zonewise --prefix --tail=10
kubectl get certificatesigningrequests
zonewise check
zonewise top zones --since 5m --once
zonewise lab logs --name $LAB --tail 10 lab`

// run is a line of the harness itself.
func (s *story) run(line string) ([]byte, error) {
	cmd := exec.Command("bash", "-c", line)
	cmd.Dir, cmd.Env = s.dir, s.env
	out, err := cmd.CombinedOutput()
	if err != nil {
		return out, fmt.Errorf("%s: %w\n%s", line, err, out)
	}
	return out, nil
}
