package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
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
	others func(error) // a write that is refused without our hints, too
	log    *slog.Logger
	queue  workqueue.TypedRateLimitingInterface[model.Name]
	limit  flowcontrol.RateLimiter

	mu      sync.Mutex
	blocked map[model.Name]bool // slices that others heard of, until a write passes
}

func newToucher(client kubernetes.Interface, source Source, log *slog.Logger) *toucher {
	return &toucher{
		client: client, source: source, log: log,
		active: func() bool { return true }, failed: func(error) {}, others: func(error) {}, blocked: map[model.Name]bool{},
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
			t.refusal(ctx, name, err)
		}
		return fmt.Errorf("slice %s: %w", name, err)
	}
	t.failed(nil)
	t.block(name, false)
	stored, err := fromAPI(s)
	if err == nil && !Ours(stored.model()) {
		err = errNoHints
	}
	if err != nil {
		return fmt.Errorf("slice %s: %w", name, err)
	}
	return nil
}

// refusal finds out who is to blame for a write that was refused: if what the stock controller would
// write, without hints, is refused as well, others are.
func (t *toucher) refusal(ctx context.Context, name model.Name, err error) {
	_, plain := patchPlain(ctx, t.client, name, true)
	if !refused(plain) {
		t.failed(err)
		return
	}
	if t.block(name, true) {
		t.others(fmt.Errorf("slice %s: %w", name, plain))
	}
}

// block keeps whether a slice is refused, and tells whether that is news.
func (t *toucher) block(name model.Name, is bool) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	news := t.blocked[name] != is
	if is {
		t.blocked[name] = true
	} else {
		delete(t.blocked, name)
	}
	return news
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
	_, err := patchPlain(ctx, t.client, name, false)
	return err
}

// patchPlain takes our hints off a slice, and tells whether there were any; those of others stay. As
// a trial it stores nothing, has our webhook say nothing, and is made whether there are hints or not.
func patchPlain(ctx context.Context, client kubernetes.Interface, name model.Name, trial bool) (done bool, err error) {
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
		ours := Ours(s.model())
		if err != nil || !ours && !trial {
			return err
		}
		var steps []operation
		if ours {
			steps = strip(s, live.ResourceVersion)
		}
		options := metav1.PatchOptions{}
		if trial {
			options.DryRun = []string{metav1.DryRunAll}
			steps = append(steps, annotate(live.Annotations))
		}
		patch, err := encode(steps)
		if err != nil {
			return err
		}
		_, err = slices.Patch(ctx, name.Name, types.JSONPatchType, patch, options)
		done = err == nil
		return err
	})
	if err != nil {
		return false, fmt.Errorf("slice %s: %w", name, err)
	}
	return done, nil
}

// annotate returns what adds plainAnnotation to annotations.
func annotate(had map[string]string) operation {
	if len(had) == 0 {
		return operation{Op: "add", Path: "/metadata/annotations", Value: map[string]string{plainAnnotation: ""}}
	}
	return operation{Op: "add", Path: "/metadata/annotations/" + strings.ReplaceAll(plainAnnotation, "/", "~1"), Value: ""}
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
