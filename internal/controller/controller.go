// Package controller wires the cluster side: all nodes, Services and endpoints go into tables, and
// one replica, the leader, watches over what the nodes make of them.
package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"

	"github.com/zonewise/zonewise/internal/loop"
	"github.com/zonewise/zonewise/internal/reflect"
	"github.com/zonewise/zonewise/internal/state"
)

// Lease is the name of the object by which the replicas agree on a leader.
const Lease = "zonewise-controller"

// Config is what a controller needs. All of it is required.
type Config struct {
	Client    kubernetes.Interface
	Namespace string // where the Lease lives
	Identity  string // this replica's name, unique among the replicas
	Log       *slog.Logger
}

// Controller is one replica.
type Controller struct {
	config  Config
	tables  *state.Tables
	watcher *watcher
	metrics *metrics
}

// New returns a controller that has not begun.
func New(c Config) (*Controller, error) {
	if c.Namespace == "" || c.Identity == "" {
		return nil, errors.New("namespace and identity: both are needed for the lease")
	}
	tables := state.New(reflect.Sources...)
	w := &watcher{tables: tables, log: c.Log, settle: settle}
	return &Controller{config: c, tables: tables, watcher: w, metrics: newMetrics(w)}, nil
}

// Handler serves /healthz, which is well once this replica knows the cluster, and /metrics.
func (c *Controller) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		if missing := c.tables.Snapshot().Missing(); len(missing) > 0 {
			http.Error(w, fmt.Sprintf("waiting for the API server to list %v", missing), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.Handle("GET /metrics", promhttp.HandlerFor(c.metrics.registry, promhttp.HandlerOpts{}))
	return mux
}

// Run follows the cluster, and leads whenever it is this replica's turn, until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	elector, err := c.elector()
	if err != nil {
		return fmt.Errorf("lease %s/%s: %w", c.config.Namespace, Lease, err)
	}
	var wg sync.WaitGroup
	wg.Go(func() { reflect.Run(ctx, c.config.Client, c.tables, reflect.Options{}) })
	wg.Go(func() {
		for ctx.Err() == nil {
			elector.Run(ctx) // returns when leadership is lost, too
		}
	})
	wg.Wait()
	return nil
}

func (c *Controller) elector() (*leaderelection.LeaderElector, error) {
	return leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Name: Lease,
		Lock: &resourcelock.LeaseLock{
			LeaseMeta:  metav1.ObjectMeta{Namespace: c.config.Namespace, Name: Lease},
			Client:     c.config.Client.CoordinationV1(),
			LockConfig: resourcelock.ResourceLockConfig{Identity: c.config.Identity},
		},
		LeaseDuration:   15 * time.Second,
		RenewDeadline:   10 * time.Second,
		RetryPeriod:     2 * time.Second,
		ReleaseOnCancel: true, // the next leader need not wait for the lease to run out
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: c.lead,
			OnStoppedLeading: func() { c.metrics.leader.Set(0) },
		},
	})
}

// lead does what only one replica may, until ctx ends.
func (c *Controller) lead(ctx context.Context) {
	c.config.Log.Info("leading", "pod", c.config.Identity)
	c.metrics.leader.Set(1)
	watch := loop.New(c.watcher.pass, loop.Options{})
	c.watcher.wake = watch.Wake
	var wg sync.WaitGroup
	wg.Go(func() { c.tables.Follow(ctx, watch.Wake) })
	wg.Go(func() { watch.Run(ctx) })
	wg.Wait()
	c.watcher.rest()
}
