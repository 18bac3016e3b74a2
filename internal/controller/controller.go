// Package controller wires the cluster side: all nodes, Services and endpoints go into tables, and
// one replica, the leader, plans every Service, keeps the ZoneRoutes, and watches over what the
// nodes make of it all.
package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/client-go/tools/record"

	"github.com/zonewise/zonewise/internal/agent/ask"
	"github.com/zonewise/zonewise/internal/controller/metering"
	"github.com/zonewise/zonewise/internal/controller/metering/past"
	"github.com/zonewise/zonewise/internal/controller/otlp"
	"github.com/zonewise/zonewise/internal/controller/routes"
	"github.com/zonewise/zonewise/internal/loop"
	"github.com/zonewise/zonewise/internal/meter"
	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/outlook"
	"github.com/zonewise/zonewise/internal/reflect"
	"github.com/zonewise/zonewise/internal/reflect/kube"
	"github.com/zonewise/zonewise/internal/state"
)

// Lease is the name of the object by which the replicas agree on a leader.
const Lease = "zonewise-controller"

// Config is what a controller needs.
type Config struct {
	Client    kubernetes.Interface
	Routes    kube.ZoneRoutes
	Ask       ask.Get                      // nil: agents are not asked what they counted
	Namespace string                       // where the Lease lives, and agents run
	Identity  string                       // this replica's name, unique among the replicas
	Settings  outlook.Settings             // save for prices, and for the namespaces', which come from the API
	Prices    func() (meter.Series, error) // asked each minute
	Webhook   string                       // address at which the API server is told hints; empty: none are delivered
	Meter     *Metering                    // nil: nothing is metered
	OTLP      string                       // URL of the collector that is sent all metrics; empty: none
	// Collect reaches the cloud, to delete interfaces that belong to no node any more; nil: nobody does.
	Collect func(context.Context) (Leaks, error)
	Log     *slog.Logger
}

// Metering is what the meter needs beyond what the controller has.
type Metering struct {
	Dir        string        // where flows are kept
	Listen     string        // address for agents
	PodIP      string        // where agents reach this replica
	PerService bool          // metrics for each Service
	Past       *past.Options // the Prometheus that has the past; nil: the store has
}

// Controller is one replica.
type Controller struct {
	config   Config
	tables   *state.Tables
	prices   *prices
	watcher  *watcher
	keeper   *routes.Keeper
	traffic  *routes.Traffic // nil if agents are not asked
	delivery *delivery       // nil if hints are not delivered
	meter    *metering.Meter // nil if nothing is metered
	collect  *collector      // nil if nothing is collected
	leader   atomic.Value    // the identity of who leads, a string
	events   record.EventBroadcaster
	metrics  *metrics
	export   *otlp.Exporter // nil if metrics are only scraped
}

// New returns a controller that has not begun.
func New(c Config) (*Controller, error) {
	if c.Namespace == "" || c.Identity == "" {
		return nil, errors.New("namespace and identity: both are needed for the lease")
	}
	books, err := newPrices(c.Prices, c.Log)
	if err != nil {
		return nil, err
	}
	settings := func() outlook.Settings {
		s := c.Settings
		s.Prices = books.now()
		return s
	}
	events := record.NewBroadcaster()
	recorder := events.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "zonewise-controller"})
	out := &Controller{config: c, tables: state.New(reflect.ClusterSources...), prices: books, events: events}
	readers := &readers{tables: out.tables, seen: map[string]uint64{"watcher": 0, "keeper": 0}}
	out.watcher = &watcher{tables: out.tables, log: c.Log, settle: settle, forget: readers.done("watcher")}
	keep := routes.Config{
		Tables: out.tables, Client: c.Client, Routes: c.Routes, Settings: settings, Recorder: recorder,
		Forget: readers.done("keeper"), Log: c.Log,
	}
	collectors := []prometheus.Collector{out.watcher}
	if c.Webhook != "" {
		out.delivery = newDelivery(c, routes.NewSource(out.tables, settings), recorder)
		keep.Delivery = out.delivery
		collectors = append(collectors, out.delivery.handler)
	}
	if c.Ask != nil {
		out.traffic = routes.NewTraffic(routes.TrafficConfig{
			Client: c.Client, Namespace: c.Namespace, Get: c.Ask, Log: c.Log, News: func() { out.keeper.Recheck() },
		})
		keep.Traffic = out.traffic
	}
	if c.Meter != nil {
		mc := metering.Config{
			Tables: out.tables, Client: c.Client, Namespace: c.Namespace, PodIP: c.Meter.PodIP, Dir: c.Meter.Dir, Listen: c.Meter.Listen,
			Prices: books, PerService: c.Meter.PerService, Leader: out.leads, Log: c.Log,
			Known: func(svc model.Name, v6 bool) (routes.Known, bool) { return out.keeper.Known(svc, v6) },
		}
		if c.Meter.Past != nil {
			p, err := past.Open(*c.Meter.Past)
			if err != nil {
				return nil, fmt.Errorf("meter: %w", err)
			}
			mc.Past = p
		}
		m, err := metering.New(mc)
		if err != nil {
			return nil, fmt.Errorf("meter: %w", err)
		}
		out.meter, keep.Metered = m, m
		collectors = append(collectors, m)
	}
	if c.Collect != nil {
		out.collect = newCollector(c.Collect, c.Log)
		collectors = append(collectors, out.collect.deleted)
	}
	out.keeper = routes.New(keep)
	out.metrics = newMetrics(append(collectors, out.keeper)...)
	if c.OTLP != "" {
		out.export, err = otlp.New(otlp.Config{Endpoint: c.OTLP, Metrics: out.metrics.registry, Namespace: c.Namespace, Instance: c.Identity, Log: c.Log})
		if err != nil {
			return nil, err
		}
	}
	return out, nil
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

// API serves what goes where on the pod's loopback; see the view of this controller.
func (c *Controller) API() http.Handler { return c.meter.Handler() }

// leads returns the replica that leads, as far as it is known.
func (c *Controller) leads() string {
	name, _ := c.leader.Load().(string)
	return name
}

// Run follows the cluster, and leads whenever it is this replica's turn, until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	elector, err := c.elector()
	if err != nil {
		return fmt.Errorf("lease %s/%s: %w", c.config.Namespace, Lease, err)
	}
	var wg sync.WaitGroup
	c.events.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: c.config.Client.CoreV1().Events("")})
	defer c.events.Shutdown()
	wg.Go(func() {
		reflect.Run(ctx, c.config.Client, c.tables, reflect.Options{Routes: c.config.Routes, Pods: true, Namespaces: true})
	})
	wg.Go(func() { c.prices.run(ctx, c.keeper.Wake) })
	if c.delivery != nil {
		wg.Go(func() { c.delivery.serve(ctx) })
	}
	if c.export != nil {
		wg.Go(func() { c.export.Run(ctx) })
	}
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
			OnNewLeader:      func(identity string) { c.leader.Store(identity) },
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
	wg.Go(func() { c.keeper.Run(ctx) })
	if c.traffic != nil {
		wg.Go(func() { c.traffic.Run(ctx) })
	}
	if c.delivery != nil {
		wg.Go(func() { c.delivery.lead(ctx, c.keeper.Recheck) })
	}
	if c.meter != nil {
		wg.Go(func() { c.meter.Run(ctx) })
	}
	if c.collect != nil {
		l := loop.New(c.collect.pass, loop.Options{Resync: collectEvery, RetryMin: 10 * time.Second, RetryMax: collectEvery, Failed: func(err error, retry time.Duration) {
			c.config.Log.Warn("leaked interfaces", "err", err, "retry", retry)
		}})
		wg.Go(func() { l.Run(ctx) })
	}
	wg.Wait()
	c.watcher.rest()
}

// readers forget changes once all of them have dealt with them.
type readers struct {
	tables *state.Tables

	mu   sync.Mutex
	seen map[string]uint64
}

// done returns what a reader calls with the revision that it has dealt with.
func (r *readers) done(name string) func(uint64) {
	return func(revision uint64) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.seen[name] = revision
		for _, other := range r.seen {
			revision = min(revision, other)
		}
		r.tables.Forget(revision)
	}
}
