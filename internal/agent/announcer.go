package agent

import (
	"context"
	"fmt"
	"hash/fnv"
	"log/slog"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/flowcontrol"

	"github.com/zonewise/zonewise/internal/loop"
	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/service"
)

// faultReason is the reason of our events.
const faultReason = "ZonewiseFault"

// The API server is asked twice for an event. So many events may come at once, and then one in so
// long; of more than fit in the queue the log and /v1/faults tell.
const (
	eventBurst = 20
	eventQPS   = 0.5
	eventQueue = 1000
)

// announcer makes a Kubernetes Event of a fault, once as long as it stands. Every node sees what is
// wrong with an object; the event's name is the same on all of them, so that it is made once.
type announcer struct {
	client kubernetes.Interface
	node   string
	limit  flowcontrol.RateLimiter
	loop   *loop.Loop

	mu      sync.Mutex
	waiting map[service.Fault]news
}

func newAnnouncer(client kubernetes.Interface, node string, log *slog.Logger) *announcer {
	a := &announcer{client: client, node: node, waiting: map[service.Fault]news{},
		limit: flowcontrol.NewTokenBucketRateLimiter(eventQPS, eventBurst)}
	a.loop = loop.New(a.pass, loop.Options{RetryMin: time.Second, RetryMax: time.Minute, Failed: func(err error, retry time.Duration) {
		log.Debug("events", "err", err, "retry", retry)
	}})
	return a
}

// announce takes what is new, and forgets what is gone before it was told.
func (a *announcer) announce(come []news, gone []service.Fault) {
	a.mu.Lock()
	for _, x := range gone {
		delete(a.waiting, x)
	}
	for _, x := range come {
		if len(a.waiting) < eventQueue {
			a.waiting[x.Fault] = x
		}
	}
	a.mu.Unlock()
	if len(come) > 0 {
		a.loop.Wake()
	}
}

// pass makes the events that wait. One that cannot be made does not hold up the others.
func (a *announcer) pass(ctx context.Context) error {
	var failed error
	for _, x := range a.queue() {
		if err := a.limit.Wait(ctx); err != nil {
			return err
		}
		if err := a.make(ctx, x); err != nil {
			failed = err
			continue
		}
		a.mu.Lock()
		delete(a.waiting, x.Fault)
		a.mu.Unlock()
	}
	return failed
}

func (a *announcer) queue() []news {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := make([]news, 0, len(a.waiting))
	for _, x := range a.waiting {
		out = append(out, x)
	}
	slices.SortFunc(out, func(a, b news) int { return a.Compare(b.Fault) })
	return out
}

func (a *announcer) make(ctx context.Context, x news) error {
	about, err := a.reference(ctx, x.Kind, x.Object)
	if apierrors.IsNotFound(err) {
		return nil // nothing to tell of what is gone
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", x.Kind, x.Object, err)
	}
	e := event(x, about, a.node, time.Now())
	_, err = a.client.CoreV1().Events(e.Namespace).Create(ctx, e, metav1.CreateOptions{})
	switch {
	case apierrors.IsAlreadyExists(err), apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return nil
	case err != nil:
		return fmt.Errorf("event: %w", err)
	}
	return nil
}

func event(x news, about corev1.ObjectReference, node string, now time.Time) *corev1.Event {
	h := fnv.New64a()
	fmt.Fprintf(h, "%s\x00%s", about.UID, x.Problem)
	message := x.Problem
	if x.here {
		fmt.Fprintf(h, "\x00%s", node)
		message = "On node " + node + ": " + message
	}
	namespace := about.Namespace
	if namespace == "" {
		namespace = metav1.NamespaceDefault // where events about what has no namespace go
	}
	name := about.Name
	if len(name) > 200 { // of 253 that a name may have
		name = name[:200]
	}
	at := metav1.NewTime(now)
	return &corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{Namespace: namespace, Name: fmt.Sprintf("%s.%016x", name, h.Sum64())},
		InvolvedObject: about, Type: corev1.EventTypeWarning, Reason: faultReason, Message: message,
		FirstTimestamp: at, LastTimestamp: at, Count: 1,
		Source:              corev1.EventSource{Component: "zonewise-agent", Host: node},
		ReportingController: "zonewise.io/agent", ReportingInstance: node,
	}
}

// reference names an object as events do. Its UID is what kubectl describe finds them by.
func (a *announcer) reference(ctx context.Context, kind string, name model.Name) (corev1.ObjectReference, error) {
	out := corev1.ObjectReference{APIVersion: "v1", Kind: kind, Namespace: name.Namespace, Name: name.Name}
	var object metav1.Object
	var err error
	switch kind {
	case "Service":
		object, err = a.client.CoreV1().Services(name.Namespace).Get(ctx, name.Name, metav1.GetOptions{})
	case "EndpointSlice":
		out.APIVersion = "discovery.k8s.io/v1"
		object, err = a.client.DiscoveryV1().EndpointSlices(name.Namespace).Get(ctx, name.Name, metav1.GetOptions{})
	default:
		object, err = a.client.CoreV1().Nodes().Get(ctx, name.Name, metav1.GetOptions{})
	}
	if err != nil {
		return out, err
	}
	out.UID = object.GetUID()
	return out, nil
}
