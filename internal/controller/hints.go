package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/record"

	"github.com/zonewise/zonewise/internal/controller/routes"
	"github.com/zonewise/zonewise/internal/hints/kube"
	"github.com/zonewise/zonewise/internal/loop"
	"github.com/zonewise/zonewise/internal/model"
)

// delivery is how hints reach EndpointSlices: every replica answers the API server's questions, and
// the leader has it ask.
type delivery struct {
	client    kubernetes.Interface
	namespace string
	listen    string // of the webhook
	log       *slog.Logger
	source    *routes.Source
	recorder  record.EventRecorder
	keys      *kube.Keys
	handler   *kube.Handler

	mu      sync.Mutex
	current *kube.Deliverer // nil while another replica leads
}

func newDelivery(c Config, source *routes.Source, recorder record.EventRecorder) *delivery {
	return &delivery{
		client: c.Client, namespace: c.Namespace, listen: c.Webhook, log: c.Log, source: source, recorder: recorder,
		keys: kube.NewKeys(c.Client, c.Namespace, kube.Host(c.Namespace), c.Log), handler: kube.NewHandler(kube.NewPlanner(source), c.Log),
	}
}

// serve answers the API server until ctx ends.
func (d *delivery) serve(ctx context.Context) {
	var wg sync.WaitGroup
	wg.Go(func() { d.keys.Run(ctx) })
	wg.Go(func() {
		loop.New(d.serveOnce, loop.Options{RetryMin: 200 * time.Millisecond, RetryMax: 10 * time.Second,
			Failed: func(err error, retry time.Duration) { d.log.Error("webhook", "err", err, "retry", retry) },
		}).Run(ctx)
	})
	wg.Wait()
}

func (d *delivery) serveOnce(ctx context.Context) error {
	var c net.ListenConfig
	listener, err := c.Listen(ctx, "tcp", d.listen)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	s := d.keys.Server(d.handler)
	stop := context.AfterFunc(ctx, func() { _ = s.Close() })
	defer stop()
	if err := s.ServeTLS(listener, "", ""); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", d.listen, err)
	}
	return nil
}

// lead delivers until ctx ends. Changed hears when the standing has become another.
func (d *delivery) lead(ctx context.Context, changed func()) {
	about := &corev1.ObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Namespace: d.namespace, Name: "zonewise-controller"}
	now := kube.New(kube.Config{
		Client: d.client, Namespace: d.namespace, Source: d.source, Handler: d.handler, Keys: d.keys, Log: d.log, Changed: changed,
		Say: func(warning bool, reason, message string) {
			kind, level := corev1.EventTypeNormal, slog.LevelInfo
			if warning {
				kind, level = corev1.EventTypeWarning, slog.LevelWarn
			}
			d.log.Log(ctx, level, "hints: "+message, "reason", reason)
			d.recorder.Event(about, kind, reason, message)
		},
	})
	d.set(now)
	defer d.set(nil)
	now.Run(ctx)
}

func (d *delivery) set(now *kube.Deliverer) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.current = now
}

func (d *delivery) get() *kube.Deliverer {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.current
}

// Standing is part of routes.Delivery.
func (d *delivery) Standing() (routes.Standing, string) {
	now := d.get()
	if now == nil {
		return routes.Trying, ""
	}
	return standing(now.Status())
}

// standing returns the reason alone, for a message has figures in it, which would be written to every
// ZoneRoute. While slices cannot be written by anybody (WritesFail), those that are hinted stay so.
func standing(s kube.Status) (routes.Standing, string) {
	if s.Delivering {
		return routes.Delivering, ""
	}
	switch s.Reason {
	case "", kube.Trying, kube.Idle: // idle: nobody knew yet that it is needed
		return routes.Trying, ""
	}
	return routes.Withdrawn, s.Reason
}

// Look is part of routes.Delivery.
func (d *delivery) Look(svc model.Name) {
	if now := d.get(); now != nil {
		now.Look(svc)
	}
}
