package addresses

import (
	"context"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"github.com/zonewise/zonewise/internal/reflect"
)

// nodeFacts is what is to be known of a Node. The zero value is that of one that has not been read.
type nodeFacts struct {
	maxPods             int // as kubelet says
	cordoned            bool
	labels, annotations map[string]string
}

// nodeWatch follows this node's Node. Nothing waits for it: while the API server is away, what was read last holds.
type nodeWatch struct {
	client kubernetes.Interface
	name   string
	store  cache.Store
	wake   func()

	mu   sync.Mutex
	last *nodeFacts
}

func newNodeWatch(client kubernetes.Interface, name string, wake func()) *nodeWatch {
	return &nodeWatch{client: client, name: name, wake: wake, store: cache.NewStore(cache.DeletionHandlingMetaNamespaceKeyFunc)}
}

func (w *nodeWatch) run(ctx context.Context) {
	nodes, one := w.client.CoreV1().Nodes(), fields.OneTermEqualSelector("metadata.name", w.name).String()
	lw := cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, opts metav1.ListOptions) (runtime.Object, error) {
			opts.FieldSelector = one
			return nodes.List(ctx, opts)
		},
		WatchFuncWithContext: func(ctx context.Context, opts metav1.ListOptions) (watch.Interface, error) {
			opts.FieldSelector = one
			return nodes.Watch(ctx, opts)
		},
	}, w.client)
	cache.NewReflectorWithOptions(lw, &corev1.Node{}, reflect.WakingStore{Store: w.store, Wake: w.changed}, cache.ReflectorOptions{
		Backoff: &wait.Backoff{Duration: time.Second, Factor: 2, Jitter: 0.5, Steps: 10, Cap: time.Minute},
	}).RunWithContext(ctx)
}

// changed wakes the loop only for what it looks at: kubelet writes the Node every few minutes for other reasons.
func (w *nodeWatch) changed() {
	for _, object := range w.store.List() {
		if n, ok := object.(*corev1.Node); ok && n.Name == w.name {
			now := read(n)
			w.mu.Lock()
			before := w.last
			w.last = &now
			w.mu.Unlock()
			if before == nil || before.maxPods != now.maxPods || before.cordoned != now.cordoned {
				w.wake()
			}
		}
	}
}

func read(n *corev1.Node) nodeFacts {
	out := nodeFacts{maxPods: int(n.Status.Capacity.Pods().Value()), labels: n.Labels, annotations: n.Annotations}
	for _, t := range n.Spec.Taints {
		out.cordoned = out.cordoned || t.Key == corev1.TaintNodeUnschedulable && t.Effect == corev1.TaintEffectNoSchedule
	}
	return out
}

func (w *nodeWatch) facts() nodeFacts {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.last == nil {
		return nodeFacts{}
	}
	return *w.last
}

func (w *nodeWatch) known() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.last != nil
}
