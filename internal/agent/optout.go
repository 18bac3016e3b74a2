package agent

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
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

// optedOut is the label of pods whose sockets are to be left alone.
const optedOut = "zonewise.io/socket=off"

// optOut follows the pods of this node that want no part of the socket path. Where pods may not be
// listed there are none.
type optOut struct {
	paths *paths
	pods  cache.Store
	wake  func()
}

// follow keeps the pods until ctx ends.
func (o *optOut) follow(ctx context.Context, client kubernetes.Interface, node string) {
	narrow := func(opts metav1.ListOptions) metav1.ListOptions {
		opts.LabelSelector = optedOut
		opts.FieldSelector = fields.OneTermEqualSelector("spec.nodeName", node).String()
		return opts
	}
	pods := client.CoreV1().Pods(metav1.NamespaceAll)
	lw := cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, opts metav1.ListOptions) (runtime.Object, error) {
			return pods.List(ctx, narrow(opts))
		},
		WatchFuncWithContext: func(ctx context.Context, opts metav1.ListOptions) (watch.Interface, error) {
			return pods.Watch(ctx, narrow(opts))
		},
	}, client)
	cache.NewReflectorWithOptions(lw, &corev1.Pod{}, reflect.WakingStore{Store: o.pods, Wake: o.wake}, cache.ReflectorOptions{
		// Rarely where it is forbidden; the first tries are quick.
		Backoff: &wait.Backoff{Duration: time.Second, Factor: 3, Jitter: 0.5, Steps: 10, Cap: 5 * time.Minute},
	}).RunWithContext(ctx)
}

// pass tells the socket path which pods they are.
func (o *optOut) pass(context.Context) error {
	socket, _ := o.paths.inUse()
	if socket == nil {
		return nil
	}
	if err := socket.OptOut(o.addresses()); err != nil {
		return fmt.Errorf("opt-out: %w", err)
	}
	return nil
}

// addresses are those of the pods. One in the node's network has none of its own, and cannot be told
// from the node.
func (o *optOut) addresses() []netip.Addr {
	var out []netip.Addr
	for _, object := range o.pods.List() {
		pod, ok := object.(*corev1.Pod)
		if !ok || pod.Spec.HostNetwork || pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
			continue
		}
		for _, ip := range pod.Status.PodIPs {
			if a, err := netip.ParseAddr(ip.IP); err == nil {
				out = append(out, a)
			}
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}
