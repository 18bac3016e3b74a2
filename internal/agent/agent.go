// Package agent wires one node: what the API server says goes into tables, what changed there is
// planned for this node, and an applier makes the kernel obey. It decides nothing itself.
//
// The agent leaves the kernel as it is when it stops. A stopped, killed or replaced agent costs
// nobody a connection; its successor adopts what it finds.
package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"github.com/zonewise/zonewise/internal/agent/metering"
	"github.com/zonewise/zonewise/internal/agent/view"
	"github.com/zonewise/zonewise/internal/loop"
	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/reflect"
	"github.com/zonewise/zonewise/internal/reflect/kube"
	"github.com/zonewise/zonewise/internal/service"
	"github.com/zonewise/zonewise/internal/service/affinity"
	"github.com/zonewise/zonewise/internal/state"
)

// Applier makes this node's kernel obey. It is safe for concurrent use, and every method is safe
// to repeat after an error.
type Applier interface {
	// Apply makes want the whole of what the node does.
	Apply(want map[model.Name][]service.Frontend, complete bool) error
	// Update replaces the frontends of the Services that it names; none means the Service is gone.
	Update(changed map[model.Name][]service.Frontend) error
	// Audit repairs what anybody else did to our state, and tells whether there was anything.
	Audit() (repaired bool, err error)
	// Counters returns what the kernel counted.
	Counters() (map[service.Pair]service.Traffic, error)
	// Faults returns what could not be programmed as wanted. Everything else was.
	Faults() []service.Fault
	// Remove takes everything of ours out of the kernel.
	Remove() error
}

// Ranges hears from which ranges Services get their addresses. An address in one that no Service has
// answers nobody.
type Ranges interface {
	ServiceCIDRs([]netip.Prefix) error
}

// Config is what an agent needs. Node, Client, Applier and Log are required.
type Config struct {
	Node     string // this node's name
	Client   kubernetes.Interface
	Routes   kube.ZoneRoutes // nil: ZoneRoutes are not followed, and endpoints are chosen by hints alone
	Applier  Applier         // the complete path
	Ranges   Ranges          // nil: unused addresses of the Services' ranges are nothing to us
	Socket   Socket          // the fast path, beside the complete one; nil where there is none
	NoSocket string          // why there is none; empty: nobody asked for it
	Notes    affinity.Notes  // whom the complete path remembers; nil: the fast path need not know
	Log      *slog.Logger
	Audit    time.Duration // between two looks at the kernel; zero is two seconds
	// Patience is how long the first sync waits for optional inputs alone, such as ZoneRoutes; zero is
	// ten seconds. Services can do without, and must not depend on our own objects.
	Patience time.Duration
	// NodePorts say where node ports answer, among the node's addresses, which Addresses reads.
	NodePorts NodePortAddresses
	Addresses func() ([]netip.Addr, error)
	// Others tells which other proxies left rules on the node; nil does not look.
	Others func() ([]view.Other, error)
	// Meter makes the node count its traffic; nil: there is none, and NoMeter tells why, or nothing if nobody asked for it.
	Meter   *metering.Options
	NoMeter string
	// Cut is how many flows of endpoints that are gone the applier has cut; nil: nobody counts.
	Cut func() uint64
}

// Agent is one node's agent.
type Agent struct {
	config   Config
	follow   reflect.Options
	program  *programmer
	reporter *reporter
	report   *loop.Loop // runs the reporter
	meter    *metering.Meter
	tally    tally
}

// New returns an agent that has not begun.
func New(c Config) (*Agent, error) {
	if c.Node == "" {
		return nil, errors.New("node name: empty")
	}
	if c.Audit <= 0 {
		c.Audit = 2 * time.Second
	}
	if c.Patience <= 0 {
		c.Patience = 10 * time.Second
	}
	follow := reflect.Options{Node: c.Node, Routes: c.Routes, ServiceCIDRs: c.Ranges != nil}
	p := &programmer{node: c.Node, tables: state.New(follow.Sources()...), ranges: c.Ranges, log: c.Log, health: newHealth(),
		first: make(chan struct{}), paths: &paths{complete: c.Applier, socket: c.Socket, why: c.NoSocket, log: c.Log}}
	p.metrics = newMetrics(p)
	if c.Cut != nil {
		p.metrics.countCut(c.Cut)
	}
	current := func() bool { return p.health.current(time.Now()) }
	a := &Agent{config: c, follow: follow, program: p,
		reporter: newReporter(p, newBalancers(current, c.Log), newAnnouncer(c.Client, c.Node, c.Log))}
	a.report = loop.New(a.reporter.pass, loop.Options{Resync: c.Audit})
	if c.Meter != nil {
		a.meter = metering.New(*c.Meter, metering.Site{Node: c.Node, Client: c.Client, Tables: p.tables, Served: p.served, Log: c.Log})
		p.metrics.registry.MustRegister(a.meter.Collectors()...)
	}
	p.done = func(whole bool, changed []state.Change[model.Name]) {
		a.reporter.note(whole, changed)
		a.report.Wake()
		if a.meter != nil {
			a.meter.Note(whole, changed)
		}
	}
	return a, nil
}

// Handler serves the node's local API: /healthz, /livez, /metrics, /v1/status, /v1/faults, /v1/traffic
// and /v1/services/{namespace}/{name}.
func (a *Agent) Handler() http.Handler { return a.handler() }

// Run follows the API server and programs the kernel until ctx ends.
func (a *Agent) Run(ctx context.Context) {
	program := loop.New(a.program.pass, loop.Options{Failed: a.failed})
	audit := loop.New(func(context.Context) error { return a.check(program.Wake) },
		loop.Options{Resync: a.config.Audit, Failed: func(err error, retry time.Duration) {
			a.program.log.Warn("audit", "err", err, "retry", retry)
		}})
	if err := a.followAddresses(); err != nil {
		a.program.log.Warn("node port addresses", "err", err)
	}
	var wg sync.WaitGroup
	wg.Go(func() { reflect.Run(ctx, a.config.Client, a.program.tables, a.follow) })
	wg.Go(func() { a.program.hurry(ctx) })
	wg.Go(func() { a.program.tables.Follow(ctx, program.Wake) })
	wg.Go(func() { program.Run(ctx) })
	wg.Go(func() { audit.Run(ctx) })
	wg.Go(func() { a.report.Run(ctx) })
	wg.Go(func() { a.reporter.announcer.loop.Run(ctx) })
	wg.Go(func() { a.program.doWithout(ctx, a.config.Patience) })
	if a.meter != nil {
		wg.Go(func() { a.meter.Run(ctx) })
	}
	if a.config.Socket != nil {
		a.followOptOuts(ctx, &wg)
		if a.config.Notes != nil {
			a.followClients(ctx, &wg)
		}
	}
	wg.Wait()
	a.reporter.balancers.sync(context.Background(), nil, nil)
}

func (a *Agent) followOptOuts(ctx context.Context, wg *sync.WaitGroup) {
	o := &optOut{paths: a.program.paths, pods: cache.NewStore(cache.DeletionHandlingMetaNamespaceKeyFunc)}
	l := loop.New(o.pass, loop.Options{Failed: func(err error, retry time.Duration) {
		a.program.log.Warn("socket path", "err", err, "retry", retry)
	}})
	o.wake = l.Wake
	wg.Go(func() { o.follow(ctx, a.config.Client, a.config.Node) })
	wg.Go(func() { l.Run(ctx) })
}

func (a *Agent) failed(err error, retry time.Duration) {
	a.program.health.fail(err, time.Now())
	a.program.metrics.errors.Inc()
	a.program.log.Error("program", "err", err, "retry", retry)
}

// check looks after what changes without an event: the node's addresses and the kernel's state.
// Before the first sync nothing there is ours to judge.
func (a *Agent) check(wake func()) error {
	before := a.program.nodePorts.Load()
	err := a.followAddresses()
	if a.program.nodePorts.Load() != before {
		wake()
	}
	if a.program.programmed.Load() == nil {
		return err
	}
	begin := time.Now()
	repaired, wrong := a.program.paths.audit()
	if wrong != nil {
		err = errors.Join(err, fmt.Errorf("audit: %w", wrong))
	}
	for _, path := range repaired {
		a.program.metrics.repairs.WithLabelValues(path).Inc()
		a.program.log.Warn("somebody changed the service table; repaired", "path", path, "took", time.Since(begin))
	}
	return err
}

// followAddresses keeps where node ports answer as the node's addresses are.
func (a *Agent) followAddresses() error {
	if a.config.NodePorts.Primary() || a.config.Addresses == nil {
		return nil
	}
	all, err := a.config.Addresses()
	if err != nil {
		return fmt.Errorf("addresses: %w", err)
	}
	now := a.config.NodePorts.of(all)
	if had := a.program.nodePorts.Load(); had == nil || !slices.Equal(*had, now) {
		a.program.nodePorts.Store(&now)
	}
	return nil
}
