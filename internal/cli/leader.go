package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/zonewise/zonewise/internal/agent/ask"
	"github.com/zonewise/zonewise/internal/controller"
	"github.com/zonewise/zonewise/internal/controller/view"
)

// leader is the controller that leads, as who asks it sees it: it is looked for at the first
// question, and again where it does not answer.
type leader struct {
	client kubernetes.Interface
	open   ask.Open
	pod    *corev1.Pod
}

func (a access) leader() (*leader, error) {
	config, _, err := a.resolve()
	if err != nil {
		return nil, err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: %w", err)
	}
	return &leader{client: client, open: ask.Forwarder{Config: config}.Open}, nil
}

// slow is how long an answer may take that does not go on: a year of hours is read from a disk.
const slow = time.Minute

// get asks for a path, and returns the answer, which is JSON of a T.
func get[T any](ctx context.Context, l *leader, path string, query url.Values) (T, error) {
	var v T
	ctx, cancel := context.WithTimeout(ctx, slow)
	defer cancel()
	body, err := l.ask(ctx, path, query)
	if err != nil {
		return v, err
	}
	defer body.Close()
	if err := json.NewDecoder(body).Decode(&v); err != nil {
		return v, fmt.Errorf("%s: answer: %w", l.name(), err)
	}
	return v, nil
}

// ask returns the answer's body. Where it fails and another controller leads by now, that one is asked.
func (l *leader) ask(ctx context.Context, path string, query url.Values) (io.ReadCloser, error) {
	for {
		before := l.pod
		if before == nil {
			var err error
			if l.pod, err = ask.Leader(ctx, l.client, controller.Lease); err != nil {
				return nil, err
			}
		}
		body, err := l.once(ctx, path+"?"+query.Encode())
		if err == nil {
			return body, nil
		}
		failed := l.pod
		if l.pod, _ = ask.Leader(ctx, l.client, controller.Lease); l.pod == nil || l.pod.UID == failed.UID && l.pod.Name == failed.Name {
			return nil, err
		}
	}
}

func (l *leader) once(ctx context.Context, path string) (io.ReadCloser, error) {
	resp, err := l.open(ctx, l.pod, view.Port, path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", l.name(), err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp.Body, nil
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusNotFound {
		return nil, fmt.Errorf("%s: does not know /v1; it is older than this command: upgrade the chart", l.name())
	}
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
	return nil, fmt.Errorf("%s: %s", l.name(), strings.TrimSpace(string(text)))
}

func (l *leader) name() string { return "controller " + l.pod.Namespace + "/" + l.pod.Name }
