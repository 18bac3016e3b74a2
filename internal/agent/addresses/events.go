package addresses

import (
	"context"
	"fmt"
	"hash/fnv"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/flowcontrol"

	"github.com/zonewise/zonewise/internal/loop"
	"github.com/zonewise/zonewise/internal/vpc"
)

// waitReason is the reason of our events.
const waitReason = "WaitingForAddress"

const (
	// patient is how long a pod waits before an event tells of it: a call of the cloud takes as long.
	patient = 3 * time.Second
	// A full node may have hundreds of waiting pods, and the API server is asked twice for each event.
	eventBurst, eventQPS = 20, 0.5
)

// announcer makes an event on a pod that waits, which says for what and how to mend it: one for each pod and limit.
type announcer struct {
	client kubernetes.Interface
	node   string
	limit  flowcontrol.RateLimiter
	loop   *loop.Loop
	log    *slog.Logger

	mu   sync.Mutex
	due  map[vpc.Owner]vpc.Next
	told map[vpc.Owner]string // the kind that was told
}

func newAnnouncer(client kubernetes.Interface, node string, log *slog.Logger) *announcer {
	a := &announcer{client: client, node: node, log: log, due: map[vpc.Owner]vpc.Next{}, told: map[vpc.Owner]string{},
		limit: flowcontrol.NewTokenBucketRateLimiter(eventQPS, eventBurst)}
	a.loop = loop.New(a.pass, loop.Options{RetryMin: time.Second, RetryMax: time.Minute, Failed: func(err error, retry time.Duration) {
		log.Debug("events", "err", err, "retry", retry)
	}})
	return a
}

// waiting takes who waits now. Who waits no more is forgotten.
func (a *announcer) waiting(tickets []vpc.Ticket, next vpc.Next) {
	now := time.Now()
	waits := map[vpc.Owner]bool{}
	a.mu.Lock()
	for _, t := range tickets {
		if t.Pod == "" || now.Sub(t.Since) < patient || !t.Until.After(now) {
			continue
		}
		waits[t.Owner] = true
		if a.told[t.Owner] != kind(next) {
			a.due[t.Owner] = next
		}
	}
	for o := range a.due {
		if !waits[o] {
			delete(a.due, o)
		}
	}
	if len(tickets) == 0 {
		clear(a.told)
	}
	wake := len(a.due) > 0
	a.mu.Unlock()
	if wake {
		a.loop.Wake()
	}
}

// pass makes the events that are due. One that cannot be made does not hold up the others.
func (a *announcer) pass(ctx context.Context) error {
	a.mu.Lock()
	due := map[vpc.Owner]vpc.Next{}
	for o, n := range a.due {
		due[o] = n
	}
	a.mu.Unlock()
	var failed error
	for owner, next := range due {
		if err := a.limit.Wait(ctx); err != nil {
			return err
		}
		if err := a.make(ctx, owner, next); err != nil {
			failed = err
			continue
		}
		a.mu.Lock()
		delete(a.due, owner)
		a.told[owner] = kind(next)
		a.mu.Unlock()
	}
	return failed
}

func (a *announcer) make(ctx context.Context, owner vpc.Owner, next vpc.Next) error {
	pod, err := a.client.CoreV1().Pods(owner.Namespace).Get(ctx, owner.Pod, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil // nothing to tell of what is gone
	}
	if err != nil {
		return fmt.Errorf("pod %s: %w", owner, err)
	}
	_, err = a.client.CoreV1().Events(owner.Namespace).Create(ctx, event(pod, a.node, next, time.Now()), metav1.CreateOptions{})
	switch {
	case apierrors.IsAlreadyExists(err), apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return nil
	case err != nil:
		return fmt.Errorf("event: %w", err)
	}
	return nil
}

func event(pod *corev1.Pod, node string, next vpc.Next, now time.Time) *corev1.Event {
	h := fnv.New64a()
	fmt.Fprintf(h, "%s\x00%s", pod.UID, kind(next))
	name := pod.Name
	if len(name) > 200 { // of 253 that a name may have
		name = name[:200]
	}
	at, kindOf := metav1.NewTime(now), corev1.EventTypeWarning
	if next.Coming {
		kindOf = corev1.EventTypeNormal
	}
	return &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: fmt.Sprintf("%s.%016x", name, h.Sum64())},
		InvolvedObject: corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID,
			ResourceVersion: pod.ResourceVersion},
		Type: kindOf, Reason: waitReason, Message: message(next), FirstTimestamp: at, LastTimestamp: at, Count: 1,
		Source:              corev1.EventSource{Component: "zonewise-cni", Host: node},
		ReportingController: "zonewise.io/cni", ReportingInstance: node,
	}
}

// kind is the same for what need not be told to a pod twice.
func kind(n vpc.Next) string {
	if n.Coming {
		return "coming"
	}
	return n.Mend
}

// message says first which limit it is, and then what to do.
func message(n vpc.Next) string {
	if n.Coming {
		return fmt.Sprintf("No free address yet: waits for %s.", n.Waits)
	}
	return fmt.Sprintf("No free address: %s. Mend: %s. The pod starts by itself then.", n.Limit, n.Mend)
}
