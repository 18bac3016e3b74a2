// Package reflect carries Kubernetes objects into the tables. Kubernetes types stop here: what
// comes out are values of package model.
//
// Each kind has one stream (list, then watch) that writes straight into the tables, so that no
// second copy of the objects is kept, and a list becomes visible as one change.
package reflect

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"github.com/zonewise/zonewise/api/v1alpha1"
	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/reflect/kube"
	"github.com/zonewise/zonewise/internal/state"
)

// Sources are the inputs that a node needs, which Run delivers by itself; make the tables with them.
var Sources = Options{}.Sources()

// ClusterSources are the inputs that the cluster side needs: what Run delivers with Routes, Pods and Namespaces.
var ClusterSources = append(Options{}.Sources(), state.Routes, state.Pods, state.Namespaces)

// The selectors spare us the objects that conversion would turn away anyway.
const (
	ourServices = "!" + labelProxyName
	ourSlices   = "!" + labelProxyName + ",!" + corev1.IsHeadlessService
)

// Options say what to follow.
type Options struct {
	Node         string           // follow this node alone; empty follows all
	Now          func() time.Time // when news arrives; nil is time.Now
	Routes       kube.ZoneRoutes  // follow ZoneRoutes; nil does not
	Pods         bool             // follow pods
	Namespaces   bool             // follow what namespaces say
	ServiceCIDRs bool             // follow the ranges of Services' addresses
}

// Sources are the inputs that Run delivers with these options.
func (o Options) Sources() []state.Source {
	out := []state.Source{state.Nodes, state.Services, state.Slices}
	if o.Routes != nil {
		out = append(out, state.Routes)
	}
	if o.Pods {
		out = append(out, state.Pods)
	}
	if o.Namespaces {
		out = append(out, state.Namespaces)
	}
	if o.ServiceCIDRs {
		out = append(out, state.ServiceCIDRs)
	}
	return out
}

// Run keeps the tables like the API server's objects until ctx ends. It retries by itself
// whatever goes wrong with the connection.
func Run(ctx context.Context, client kubernetes.Interface, tables *state.Tables, opts Options) {
	var wg sync.WaitGroup
	for _, s := range streams(client, tables, opts) {
		wg.Go(func() { s.RunWithContext(ctx) })
	}
	wg.Wait()
}

func streams(client kubernetes.Interface, tables *state.Tables, opts Options) []*cache.Reflector {
	now := opts.Now
	if now == nil {
		now = time.Now
	}
	var nodes metav1.ListOptions
	if opts.Node != "" {
		nodes.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, opts.Node).String()
	}
	core, discovery := client.CoreV1(), client.DiscoveryV1()
	services, slices := serviceStore(tables, now), sliceStore(tables, now)
	out := []*cache.Reflector{
		stream(client, core.Nodes(), nodes, &corev1.Node{}, nodeStore(tables, now)),
		stream(client, rows[*corev1.ServiceList, *corev1.Service, servedOrNot]{core.Services(""), core.RESTClient(), "services", newServiceDecoder, services},
			metav1.ListOptions{LabelSelector: ourServices}, &corev1.Service{}, services),
		stream(client, rows[*discoveryv1.EndpointSliceList, *discoveryv1.EndpointSlice, *model.Slice]{
			discovery.EndpointSlices(""), discovery.RESTClient(), "endpointslices", newSliceDecoder, slices},
			metav1.ListOptions{LabelSelector: ourSlices}, &discoveryv1.EndpointSlice{}, slices),
	}
	if opts.Routes != nil {
		store := routeStore(tables, now)
		none := func() error { return store.Replace(nil, "") }
		out = append(out, stream(client, whenDefined[*v1alpha1.ZoneRouteList]{opts.Routes.In(""), none}, metav1.ListOptions{}, &v1alpha1.ZoneRoute{}, store))
	}
	if opts.Pods {
		out = append(out, stream(client, core.Pods(""), metav1.ListOptions{FieldSelector: runningPods}, &corev1.Pod{}, podStore(tables, now)))
	}
	if opts.Namespaces {
		out = append(out, stream(client, core.Namespaces(), metav1.ListOptions{LabelSelector: v1alpha1.LabelMode},
			&corev1.Namespace{}, namespaceStore(tables, now)))
	}
	if opts.ServiceCIDRs {
		store := cidrStore(tables, now)
		none := func() error { return store.Replace(nil, "") }
		out = append(out, stream(client, whenDefined[*networkingv1.ServiceCIDRList]{client.NetworkingV1().ServiceCIDRs(), none},
			metav1.ListOptions{}, &networkingv1.ServiceCIDR{}, store))
	}
	return out
}

// whenDefined lists objects of a kind, also on a cluster that does not know it: there are none then, and
// it waits until there can be some.
type whenDefined[L runtime.Object] struct {
	api[L]
	none func() error // said each time that the API server does not know the kind
}

// untilDefined is between two looks: every agent of a cluster may be looking.
const untilDefined = 10 * time.Second

func (w whenDefined[L]) List(ctx context.Context, o metav1.ListOptions) (L, error) {
	for {
		list, err := w.api.List(ctx, o)
		if !apierrors.IsNotFound(err) {
			return list, err
		}
		var nothing L
		if err := w.none(); err != nil {
			return nothing, err
		}
		select {
		case <-time.After(untilDefined):
		case <-ctx.Done():
			return nothing, ctx.Err()
		}
	}
}

// api is the part of a typed client that a stream needs; L is the list type.
type api[L runtime.Object] interface {
	List(ctx context.Context, opts metav1.ListOptions) (L, error)
	Watch(ctx context.Context, opts metav1.ListOptions) (watch.Interface, error)
}

func stream[L runtime.Object](client kubernetes.Interface, a api[L], only metav1.ListOptions, kind runtime.Object, s cache.ReflectorStore) *cache.Reflector {
	var expected any = kind
	list := func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) { return a.List(ctx, o) }
	if r, ok := a.(interface {
		listRows(context.Context, metav1.ListOptions) (runtime.Object, error)
	}); ok {
		expected, list = nil, r.listRows // rows come, or objects
	}
	narrow := func(o metav1.ListOptions) metav1.ListOptions {
		o.FieldSelector, o.LabelSelector = only.FieldSelector, only.LabelSelector
		return o
	}
	lw := cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			return list(ctx, narrow(o))
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return a.Watch(ctx, narrow(o))
		},
	}, client)
	return cache.NewReflectorWithOptions(lw, expected, s, cache.ReflectorOptions{
		TypeDescription: fmt.Sprintf("%T", kind),
		// Sooner than client-go's default: while we wait, this node's traffic may go to
		// endpoints that are no more.
		Backoff: &wait.Backoff{Duration: 200 * time.Millisecond, Factor: 2, Jitter: 0.5, Steps: 10, Cap: 15 * time.Second},
	})
}

func nodeStore(t *state.Tables, now func() time.Time) *store[*corev1.Node, model.Node] {
	return &store[*corev1.Node, model.Node]{
		tables: t, now: now, source: state.Nodes, convert: Node,
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

// servedOrNot is a Service, or one that there is nothing to do for.
type servedOrNot struct {
	*model.Service
	not *unserved
}

type unserved struct {
	name model.Name
	why  string
}

func serviceStore(t *state.Tables, now func() time.Time) *store[*corev1.Service, servedOrNot] {
	seen := newKnown()
	return &store[*corev1.Service, servedOrNot]{
		tables: t, now: now, source: state.Services,
		convert: func(s *corev1.Service) (servedOrNot, bool) {
			if out, ok := Service(s); ok {
				seen.service(&out)
				return servedOrNot{Service: &out}, true
			}
			why := Unserved(s)
			return servedOrNot{not: &unserved{name(s), why}}, why != ""
		},
		put: func(tx *state.Tx, s servedOrNot) {
			if s.not != nil {
				tx.PutUnserved(s.not.name, s.not.why)
			} else {
				tx.AdoptService(s.Service)
			}
		},
		remove: (*state.Tx).DeleteService,
		have: func(s *state.Snapshot) (out []model.Name) {
			for v := range s.Services() {
				out = append(out, v.Name)
			}
			for n := range s.AllUnserved() {
				out = append(out, n)
			}
			return out
		},
	}
}

func sliceStore(t *state.Tables, now func() time.Time) *store[*discoveryv1.EndpointSlice, *model.Slice] {
	seen := newKnown()
	return &store[*discoveryv1.EndpointSlice, *model.Slice]{
		tables: t, now: now, source: state.Slices,
		convert: func(s *discoveryv1.EndpointSlice) (*model.Slice, bool) {
			out, ok := Slice(s)
			seen.slice(&out)
			return &out, ok
		},
		put: (*state.Tx).AdoptSlice, remove: (*state.Tx).DeleteSlice,
		have: func(s *state.Snapshot) (out []model.Name) {
			for v := range s.AllSlices() {
				out = append(out, v.Name)
			}
			return out
		},
	}
}

func routeStore(t *state.Tables, now func() time.Time) *store[*v1alpha1.ZoneRoute, model.ZoneRoute] {
	return &store[*v1alpha1.ZoneRoute, model.ZoneRoute]{
		tables: t, now: now, source: state.Routes,
		convert: func(zr *v1alpha1.ZoneRoute) (model.ZoneRoute, bool) { return Route(zr), true },
		put:     (*state.Tx).PutRoute, remove: (*state.Tx).DeleteRoute,
		have: func(s *state.Snapshot) (out []model.Name) {
			for r := range s.Routes() {
				out = append(out, r.Name)
			}
			return out
		},
	}
}

func podStore(t *state.Tables, now func() time.Time) *store[*corev1.Pod, model.Pod] {
	return &store[*corev1.Pod, model.Pod]{
		tables: t, now: now, source: state.Pods, convert: Pod,
		put: (*state.Tx).PutPod, remove: (*state.Tx).DeletePod,
		have: func(s *state.Snapshot) (out []model.Name) {
			for p := range s.Pods() {
				out = append(out, p.Name)
			}
			return out
		},
	}
}

func namespaceStore(t *state.Tables, now func() time.Time) *store[*corev1.Namespace, said] {
	return &store[*corev1.Namespace, said]{
		tables: t, now: now, source: state.Namespaces, convert: namespaceMode,
		put:    func(tx *state.Tx, n said) { tx.PutNamespace(n.name, n.mode) },
		remove: func(tx *state.Tx, n model.Name) { tx.DeleteNamespace(n.Name) },
		have: func(s *state.Snapshot) (out []model.Name) {
			for n := range s.Namespaces() {
				out = append(out, model.Name{Name: n})
			}
			return out
		},
	}
}
