// Package apitest is a Kubernetes API for tests: client-go's fake, with the one thing it lacks,
// a way to know that somebody watches. The fake forgets what changes between a list and the
// watch that follows it, so a test must not change anything before that.
package apitest

import (
	"context"
	"sync"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"
	k8stesting "k8s.io/client-go/testing"

	"github.com/zonewise/zonewise/internal/state"
)

// API is a fake clientset.
type API struct {
	*fake.Clientset

	mu      sync.Mutex
	missing map[string]bool
	ready   chan struct{}
}

// New returns an API that holds the objects.
func New(objects ...runtime.Object) *API {
	a := &API{
		Clientset: fake.NewClientset(objects...),
		missing:   map[string]bool{"nodes": true, "services": true, "endpointslices": true},
		ready:     make(chan struct{}),
	}
	a.PrependWatchReactor("*", a.watch)
	return a
}

// Watched waits until nodes, services and slices are all being watched.
func (a *API) Watched(t testing.TB) {
	t.Helper()
	select {
	case <-a.ready:
	case <-t.Context().Done():
		t.Fatal("nobody watches")
	}
}

func (a *API) watch(action k8stesting.Action) (bool, watch.Interface, error) {
	var opts metav1.ListOptions
	if w, ok := action.(k8stesting.WatchActionImpl); ok {
		opts = w.ListOptions
	}
	w, err := a.Tracker().Watch(action.GetResource(), action.GetNamespace(), opts)
	a.mu.Lock()
	defer a.mu.Unlock()
	if resource := action.GetResource().Resource; a.missing[resource] {
		delete(a.missing, resource)
		if len(a.missing) == 0 {
			close(a.ready)
		}
	}
	return true, w, err
}

// Until waits for the tables to be as a test wants them.
func Until(ctx context.Context, t testing.TB, tables *state.Tables, want func(*state.Snapshot) bool) *state.Snapshot {
	t.Helper()
	for {
		s := tables.Snapshot()
		if want(s) {
			return s
		}
		select {
		case <-s.Changed():
		case <-ctx.Done():
			t.Fatal("the tables never came to be as wanted")
		}
	}
}
