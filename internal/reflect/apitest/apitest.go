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

	"github.com/zonewise/zonewise/api/v1alpha1"
	"github.com/zonewise/zonewise/internal/reflect/kube"
	"github.com/zonewise/zonewise/internal/state"
)

// API is a fake clientset, with ZoneRoutes beside it.
type API struct {
	*fake.Clientset
	ZoneRoutes *Routes

	mu      sync.Mutex
	missing map[string]bool
	ready   chan struct{}
}

// New returns an API that holds the objects.
func New(objects ...runtime.Object) *API {
	routes := newRoutes()
	var others []runtime.Object
	for _, o := range objects {
		if zr, ok := o.(*v1alpha1.ZoneRoute); ok {
			must(routes.add(zr.DeepCopy()))
		} else {
			others = append(others, o)
		}
	}
	a := &API{
		Clientset: fake.NewClientset(others...), ZoneRoutes: routes,
		missing: map[string]bool{"nodes": true, "services": true, "endpointslices": true},
		ready:   make(chan struct{}),
	}
	a.PrependWatchReactor("*", a.watch)
	routes.PrependWatchReactor("*", a.watch)
	return a
}

// Clients are the API's clients, as kube.NewClients makes them of a real one.
func (a *API) Clients() kube.Clients { return kube.Clients{Interface: a, ZoneRoutes: a.ZoneRoutes} }

// Expect makes Watched wait for more resources: "zoneroutes", "pods", "namespaces". Call it before
// anybody watches.
func (a *API) Expect(resources ...string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, r := range resources {
		a.missing[r] = true
	}
}

// Watched waits until nodes, services and slices, and what else is expected, are all being watched.
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
	tracker := a.Tracker()
	if action.GetResource().Resource == v1alpha1.Resource {
		tracker = a.ZoneRoutes.tracker
	}
	w, err := tracker.Watch(action.GetResource(), action.GetNamespace(), opts)
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

// must is for mistakes of a test, which nobody can mend while it runs.
func must(err error) {
	if err != nil {
		panic(err)
	}
}
