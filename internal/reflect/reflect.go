// Package reflect carries Kubernetes objects into the tables. Kubernetes types stop here: what
// comes out are values of package model.
//
// Each kind has one stream (list, then watch) that writes straight into the tables, so that no
// second copy of the objects is kept, and a list becomes visible as one change.
package reflect

import (
	"context"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/state"
)

// Sources are the inputs that Run delivers; make the tables with them.
var Sources = []state.Source{state.Nodes, state.Services, state.Slices}

// The selectors spare us the objects that conversion would turn away anyway.
const (
	ourServices = "!" + labelProxyName
	ourSlices   = "!" + labelProxyName + ",!" + corev1.IsHeadlessService
)

// Options say what to follow.
type Options struct {
	Node string           // follow this node alone; empty follows all
	Now  func() time.Time // when news arrives; nil is time.Now
}

// Run keeps the tables like the API server's objects until ctx ends. It retries by itself
// whatever goes wrong with the connection.
func Run(ctx context.Context, client kubernetes.Interface, tables *state.Tables, opts Options) {
	now := opts.Now
	if now == nil {
		now = time.Now
	}
	var nodes metav1.ListOptions
	if opts.Node != "" {
		nodes.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, opts.Node).String()
	}
	core, discovery := client.CoreV1(), client.DiscoveryV1()
	streams := []*cache.Reflector{
		stream(client, core.Nodes(), nodes, &corev1.Node{}, nodeStore(tables, now)),
		stream(client, core.Services(""), metav1.ListOptions{LabelSelector: ourServices},
			&corev1.Service{}, serviceStore(tables, now)),
		stream(client, discovery.EndpointSlices(""), metav1.ListOptions{LabelSelector: ourSlices},
			&discoveryv1.EndpointSlice{}, sliceStore(tables, now)),
	}
	var wg sync.WaitGroup
	for _, s := range streams {
		wg.Go(func() { s.RunWithContext(ctx) })
	}
	wg.Wait()
}

// api is the part of a typed client that a stream needs; L is the list type.
type api[L runtime.Object] interface {
	List(ctx context.Context, opts metav1.ListOptions) (L, error)
	Watch(ctx context.Context, opts metav1.ListOptions) (watch.Interface, error)
}

func stream[L runtime.Object](client kubernetes.Interface, a api[L], only metav1.ListOptions, kind runtime.Object, s cache.ReflectorStore) *cache.Reflector {
	narrow := func(o metav1.ListOptions) metav1.ListOptions {
		o.FieldSelector, o.LabelSelector = only.FieldSelector, only.LabelSelector
		return o
	}
	lw := cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			return a.List(ctx, narrow(o))
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return a.Watch(ctx, narrow(o))
		},
	}, client)
	return cache.NewReflectorWithOptions(lw, kind, s, cache.ReflectorOptions{
		// Sooner than client-go's default: while we wait, this node's traffic may go to
		// endpoints that are no more.
		Backoff: &wait.Backoff{Duration: 200 * time.Millisecond, Factor: 2, Jitter: 0.5, Steps: 10, Cap: 15 * time.Second},
	})
}

func nodeStore(t *state.Tables, now func() time.Time) *store[*corev1.Node, model.Node] {
	return &store[*corev1.Node, model.Node]{
		tables: t, now: now, source: state.Nodes, convert: node,
		put:    (*state.Tx).PutNode,
		remove: func(tx *state.Tx, n model.Name) { tx.DeleteNode(n.Name) },
		have: func(s *state.Snapshot) (out []model.Name) {
			for n := range s.Nodes() {
				out = append(out, model.Name{Name: n.Name})
			}
			return out
		},
	}
}

func serviceStore(t *state.Tables, now func() time.Time) *store[*corev1.Service, model.Service] {
	return &store[*corev1.Service, model.Service]{
		tables: t, now: now, source: state.Services, convert: service,
		put: (*state.Tx).PutService, remove: (*state.Tx).DeleteService,
		have: func(s *state.Snapshot) (out []model.Name) {
			for v := range s.Services() {
				out = append(out, v.Name)
			}
			return out
		},
	}
}

func sliceStore(t *state.Tables, now func() time.Time) *store[*discoveryv1.EndpointSlice, model.Slice] {
	return &store[*discoveryv1.EndpointSlice, model.Slice]{
		tables: t, now: now, source: state.Slices, convert: endpointSlice,
		put: (*state.Tx).PutSlice, remove: (*state.Tx).DeleteSlice,
		have: func(s *state.Snapshot) (out []model.Name) {
			for v := range s.AllSlices() {
				out = append(out, v.Name)
			}
			return out
		},
	}
}
