package routes

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/zonewise/zonewise/api/v1alpha1"
	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/reflect"
)

// The kinds of writes.
const (
	create = "create"
	remove = "delete"
	write  = "status"
)

var errUndefined = errors.New("the API server does not know ZoneRoutes: the chart's definitions are missing")

// job is one write.
type job struct {
	name   model.Name
	kind   string
	uid    string            // of the ZoneRoute that is meant
	status model.RouteStatus // if the kind is write
	before model.RouteStatus
}

// write makes as many writes as the limit allows, the most urgent first. What fails is planned
// again after a while: by then something else may be wanted.
func (k *Keeper) write(ctx context.Context, now time.Time) {
	var jobs []job
	for _, j := range k.pending {
		jobs = append(jobs, j)
	}
	slices.SortFunc(jobs, byUrgency)
	var chosen []job
	for _, j := range jobs {
		if j.kind == create && now.Before(k.unknown) {
			continue
		}
		if !k.limit.TryAccept() {
			break
		}
		chosen = append(chosen, j)
	}
	errs := k.perform(ctx, chosen)
	failed := 0
	var first error
	for i, j := range chosen {
		delete(k.pending, j.name)
		k.metrics.writes.WithLabelValues(j.kind, outcome(errs[i])).Inc()
		if errs[i] == nil {
			k.done(j, now)
			continue
		}
		if errors.Is(errs[i], errUndefined) {
			k.unknown = now.Add(undefined)
			k.again(j.name, k.unknown)
		} else {
			k.again(j.name, now.Add(k.backoff(j.name)))
		}
		if failed++; first == nil {
			first = fmt.Errorf("zoneroute %s: %s: %w", j.name, j.kind, errs[i])
		}
	}
	if first != nil && ctx.Err() == nil && now.Sub(k.told) >= quiet {
		k.told = now
		k.Log.Warn("zoneroutes", "err", first, "failed", failed)
	}
}

// perform makes writes, several at a time, and returns what became of each.
func (k *Keeper) perform(ctx context.Context, jobs []job) []error {
	errs := make([]error, len(jobs))
	slots := make(chan struct{}, writers)
	var wg sync.WaitGroup
	for i, j := range jobs {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			ctx, cancel := context.WithTimeout(ctx, patience)
			defer cancel()
			errs[i] = k.one(ctx, j)
		})
	}
	wg.Wait()
	return errs
}

func outcome(err error) string {
	if err != nil {
		return "error"
	}
	return "ok"
}

// backoff doubles from a second to a minute.
func (k *Keeper) backoff(name model.Name) time.Duration {
	n := k.failures[name]
	k.failures[name] = n + 1
	return time.Second << min(n, 6)
}

func (k *Keeper) done(j job, now time.Time) {
	delete(k.failures, j.name)
	if j.kind != write {
		k.held[j.name] = held{had: j.kind == remove, until: now.Add(echo)}
		k.again(j.name, now.Add(echo))
		return
	}
	k.written[j.name] = written{j.uid, j.status, now.Add(echo)}
	k.again(j.name, now.Add(echo))
	k.say(j)
}

func (k *Keeper) one(ctx context.Context, j job) error {
	switch j.kind {
	case create:
		return k.create(ctx, j)
	case remove:
		return k.remove(ctx, j)
	}
	patch, err := statusPatch(j)
	if err != nil {
		return err
	}
	_, err = k.Routes.In(j.name.Namespace).Patch(ctx, j.name.Name, types.JSONPatchType, patch, metav1.PatchOptions{}, "status")
	return err
}

// statusPatch replaces the status of one object, and of no other that has its name by then. It
// takes one request, and cannot meet a conflict: nobody but the leader writes the status, and it
// says which generation of the spec it is about.
func statusPatch(j job) ([]byte, error) {
	type operation struct {
		Op    string `json:"op"`
		Path  string `json:"path"`
		Value any    `json:"value"`
	}
	return json.Marshal([]operation{
		{"test", "/metadata/uid", j.uid},
		{"add", "/status", reflect.Status(j.status)},
	})
}

// create makes a ZoneRoute that says nothing, and that goes with its Service.
func (k *Keeper) create(ctx context.Context, j job) error {
	svc, err := k.Client.CoreV1().Services(j.name.Namespace).Get(ctx, j.name.Name, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("service: %w", err)
	}
	_, err = k.Routes.In(j.name.Namespace).Create(ctx, &v1alpha1.ZoneRoute{ObjectMeta: metav1.ObjectMeta{
		Namespace: j.name.Namespace,
		Name:      j.name.Name,
		Labels:    map[string]string{reflect.LabelManagedBy: reflect.ManagedBy},
		OwnerReferences: []metav1.OwnerReference{{
			APIVersion: "v1", Kind: "Service", Name: svc.Name, UID: svc.UID,
		}},
	}}, metav1.CreateOptions{})
	switch {
	case apierrors.IsAlreadyExists(err):
		return nil // somebody was faster; the watch brings it
	case apierrors.IsNotFound(err):
		return errUndefined
	}
	return err
}

// remove takes a ZoneRoute away, unless the watch will bring that it is another by now.
func (k *Keeper) remove(ctx context.Context, j job) error {
	_, err := removeUntouched(ctx, k.Routes, j.name, j.uid)
	return err
}

// say makes an event of each condition that has another reason now. What a new ZoneRoute begins
// with is news only if nothing can be planned.
func (k *Keeper) say(j job) {
	about := &corev1.ObjectReference{
		APIVersion: v1alpha1.GroupVersion.String(), Kind: "ZoneRoute",
		Namespace: j.name.Namespace, Name: j.name.Name, UID: types.UID(j.uid),
	}
	for _, c := range j.status.Conditions {
		was := condition(j.before, c.Type)
		grave := c.Status == no && c.Reason != "Off" && c.Reason != "Observing" && c.Reason != "NothingPlanned"
		if was.Reason == c.Reason || was.Reason == "" && !(grave && c.Type == Planned) {
			continue
		}
		kind := corev1.EventTypeNormal
		if grave {
			kind = corev1.EventTypeWarning
		}
		k.Recorder.Event(about, kind, c.Reason, fmt.Sprintf("%s: %s", c.Type, c.Message))
	}
}
