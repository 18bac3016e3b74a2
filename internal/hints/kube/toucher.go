package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/flowcontrol"
	"k8s.io/client-go/util/retry"
	"k8s.io/client-go/util/workqueue"

	"github.com/zonewise/zonewise/internal/hints"
	"github.com/zonewise/zonewise/internal/model"
)

const (
	writesPerSecond = 20 // of slices, all Services together
	writesAtOnce    = 20
	workers         = 4
	// echo is how long a write may take to come back through the watch before it is looked for.
	echo = time.Second
	// again is the time between two looks at all Services.
	again = 10 * time.Minute
)

// toucher has slices written whose hints are not what they should be.
type toucher struct {
	client kubernetes.Interface
	source Source
	active func() bool // the API server asks the webhook
	failed func(error) // a write that was refused, not merely lost; nil: one that passed
	log    *slog.Logger
	queue  workqueue.TypedRateLimitingInterface[model.Name]
	limit  flowcontrol.RateLimiter
}

func newToucher(client kubernetes.Interface, source Source, log *slog.Logger) *toucher {
	return &toucher{
		client: client, source: source, log: log,
		active: func() bool { return true }, failed: func(error) {},
		queue: workqueue.NewTypedRateLimitingQueue(
			workqueue.NewTypedItemExponentialFailureRateLimiter[model.Name](echo, time.Minute)),
		limit: flowcontrol.NewTokenBucketRateLimiter(writesPerSecond, writesAtOnce),
	}
}

// run works until ctx ends.
func (t *toucher) run(ctx context.Context) {
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for t.next(ctx) {
			}
		})
	}
	tick := time.NewTicker(again)
	defer tick.Stop()
	for ctx.Err() == nil {
		t.all()
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	t.queue.ShutDown()
	wg.Wait()
}

// all looks at every Service.
func (t *toucher) all() {
	for _, n := range t.source.Services() {
		t.queue.Add(n)
	}
}

func (t *toucher) next(ctx context.Context) bool {
	svc, shutdown := t.queue.Get()
	if shutdown {
		return false
	}
	defer t.queue.Done(svc)
	switch wrote, err := t.sync(ctx, svc); {
	case ctx.Err() != nil:
	case errors.Is(err, errNotYet):
		t.log.Debug("hints: not yet", "namespace", svc.Namespace, "service", svc.Name, "why", err)
		t.queue.AddAfter(svc, echo)
	case err != nil:
		t.log.Warn("hints: a slice could not be written", "namespace", svc.Namespace, "service", svc.Name, "error", err)
		t.queue.AddRateLimited(svc)
	case wrote:
		// The watch says what has become of it, and then somebody calls for the next step. If the
		// watch is slow, we look again; each time later, should the write have had no effect.
		t.queue.AddRateLimited(svc)
	default:
		t.queue.Forget(svc)
	}
	return true
}

// sync takes the next step for a Service, if there is one to take.
func (t *toucher) sync(ctx context.Context, svc model.Name) (wrote bool, err error) {
	all := t.source.Slices(svc)
	for _, v6 := range []bool{false, true} {
		var current []model.Slice
		for _, s := range all {
			if s.V6 == v6 {
				current = append(current, s)
			}
		}
		if len(current) == 0 {
			continue
		}
		w, err := t.family(ctx, svc, v6, current)
		wrote = wrote || w
		if err != nil {
			return wrote, err
		}
	}
	return wrote, nil
}

func (t *toucher) family(ctx context.Context, svc model.Name, v6 bool, current []model.Slice) (wrote bool, err error) {
	target, ours, err := t.source.Target(svc, v6, current)
	if err != nil {
		return false, fmt.Errorf("%w: %w", errNotYet, err)
	}
	deliver := ours && len(target.Set.Of) > 0
	var steps []hints.Step
	if deliver {
		steps = hints.Steps(current, target.Set, target.Clients, target.Plan)
	}
	switch {
	case deliver && len(steps) == 0:
		return false, nil
	case deliver && t.active():
		return true, t.touch(ctx, steps[0].Slice)
	}
	// Not wanted, or not right and not to be had: what upstream does holds.
	for _, s := range current {
		if Ours(s) {
			wrote = true
			if err := t.strip(ctx, s.Name); err != nil {
				return wrote, err
			}
		}
	}
	return wrote, nil
}

// errNotYet says that the tables are not complete: a slice is left alone until they are.
var errNotYet = errors.New("nothing is known yet")

// errNoHints says that a touch passed the API server without the webhook having had a say.
var errNoHints = errors.New("was written, but came back without hints")

// touch has the API server write a slice with nothing changed: the webhook does the rest, and if it
// has nothing to add, nothing is stored.
func (t *toucher) touch(ctx context.Context, name model.Name) error {
	if err := t.limit.Wait(ctx); err != nil {
		return err
	}
	s, err := t.client.DiscoveryV1().EndpointSlices(name.Namespace).Patch(ctx, name.Name, types.MergePatchType, []byte("{}"), metav1.PatchOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return nil
	case err != nil:
		if refused(err) {
			t.failed(err)
		}
		return fmt.Errorf("slice %s: %w", name, err)
	}
	t.failed(nil)
	stored, err := fromAPI(s)
	if err == nil && !Ours(stored.model()) {
		err = errNoHints
	}
	if err != nil {
		return fmt.Errorf("slice %s: %w", name, err)
	}
	return nil
}

// refused tells errors that admission or validation may be to blame for.
func refused(err error) bool {
	return apierrors.IsInternalError(err) || apierrors.IsInvalid(err) || apierrors.IsForbidden(err) || apierrors.IsBadRequest(err)
}

// strip takes our hints off a slice. The stock controller sees that and puts on what it thinks fit.
func (t *toucher) strip(ctx context.Context, name model.Name) error {
	if err := t.limit.Wait(ctx); err != nil {
		return err
	}
	_, err := stripNow(ctx, t.client, name)
	return err
}

// stripNow tells whether there was anything to take off. Hints that are not ours stay.
func stripNow(ctx context.Context, client kubernetes.Interface, name model.Name) (done bool, err error) {
	slices := client.DiscoveryV1().EndpointSlices(name.Namespace)
	err = retry.RetryOnConflict(retry.DefaultRetry, func() error {
		done = false
		live, err := slices.Get(ctx, name.Name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		} else if err != nil {
			return err
		}
		s, err := fromAPI(live)
		if err != nil || !Ours(s.model()) {
			return err
		}
		patch, err := encode(strip(s, live.ResourceVersion))
		if err != nil {
			return err
		}
		_, err = slices.Patch(ctx, name.Name, types.JSONPatchType, patch, metav1.PatchOptions{})
		done = err == nil
		return err
	})
	if err != nil {
		return false, fmt.Errorf("slice %s: %w", name, err)
	}
	return done, nil
}

// fromAPI reads an object as the webhook would.
func fromAPI(live *discoveryv1.EndpointSlice) (slice, error) {
	var s slice
	text, err := json.Marshal(live)
	if err == nil {
		err = json.Unmarshal(text, &s)
	}
	return s, err
}

// Leave takes away all that delivery keeps in a cluster, and returns how many slices had hints. No
// controller may run, or it begins again.
func Leave(ctx context.Context, client kubernetes.Interface, namespace string) (int, error) {
	if err := (registration{client: client, namespace: namespace}).remove(ctx); err != nil {
		return 0, err
	}
	count, err := Sweep(ctx, client)
	if err != nil {
		return count, err
	}
	if err := (prober{client, namespace}).clean(ctx); err != nil {
		return count, fmt.Errorf("slice %s: %w", probeName, err)
	}
	err = client.CoreV1().Secrets(namespace).Delete(ctx, SecretName, metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return count, fmt.Errorf("secret %s: %w", SecretName, err)
	}
	return count, nil
}

// Sweep takes our hints off every slice, and returns how many had any. The webhook must be gone, or
// it puts them on again.
func Sweep(ctx context.Context, client kubernetes.Interface) (int, error) {
	count, page := 0, ""
	for {
		list, err := client.DiscoveryV1().EndpointSlices("").List(ctx, metav1.ListOptions{Limit: 500, Continue: page,
			LabelSelector: discoveryv1.LabelManagedBy + "=" + managedByStock})
		if err != nil {
			return count, fmt.Errorf("slices: %w", err)
		}
		for i := range list.Items {
			s := &list.Items[i]
			if s.Annotations[Annotation] == "" {
				continue
			}
			done, err := stripNow(ctx, client, model.Name{Namespace: s.Namespace, Name: s.Name})
			if err != nil {
				return count, err
			}
			if done {
				count++
			}
		}
		if page = list.Continue; page == "" {
			return count, nil
		}
	}
}
