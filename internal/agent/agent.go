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
	"sync"
	"time"

	"k8s.io/client-go/kubernetes"

	"github.com/zonewise/zonewise/internal/loop"
	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/reflect"
	"github.com/zonewise/zonewise/internal/reflect/kube"
	"github.com/zonewise/zonewise/internal/service"
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
}

// Config is what an agent needs. All of it is required, save Routes and what has a default.
type Config struct {
	Node    string // this node's name
	Client  kubernetes.Interface
	Routes  kube.ZoneRoutes // nil: ZoneRoutes are not followed, and endpoints are chosen by hints alone
	Applier Applier
	Log     *slog.Logger
	Audit   time.Duration // between two looks at the kernel; zero is two seconds
	// Patience is how long the first sync waits for ZoneRoutes alone; zero is ten seconds. Services
	// can do without, and must not depend on our own objects.
	Patience time.Duration
}

// Agent is one node's agent.
type Agent struct {
	client  kubernetes.Interface
	follow  reflect.Options
	program *programmer
	audit   time.Duration
	wait    time.Duration // for ZoneRoutes
	tally   tally
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
	follow := reflect.Options{Node: c.Node, Routes: c.Routes}
	p := &programmer{node: c.Node, tables: state.New(follow.Sources()...), applier: c.Applier, log: c.Log, health: newHealth()}
	p.metrics = newMetrics(p.services)
	return &Agent{client: c.Client, follow: follow, program: p, audit: c.Audit, wait: c.Patience}, nil
}

// Handler serves the node's local API: /healthz, /livez, /metrics, /v1/traffic and
// /v1/services/{namespace}/{name}.
func (a *Agent) Handler() http.Handler { return a.handler() }

// Run follows the API server and programs the kernel until ctx ends.
func (a *Agent) Run(ctx context.Context) {
	program := loop.New(a.program.pass, loop.Options{Failed: a.failed})
	audit := loop.New(a.check, loop.Options{Resync: a.audit, Failed: func(err error, retry time.Duration) {
		a.program.log.Warn("audit", "err", err, "retry", retry)
	}})
	var wg sync.WaitGroup
	wg.Go(func() { reflect.Run(ctx, a.client, a.program.tables, a.follow) })
	wg.Go(func() { a.program.tables.Follow(ctx, program.Wake) })
	wg.Go(func() { program.Run(ctx) })
	wg.Go(func() { audit.Run(ctx) })
	wg.Go(func() { a.program.doWithout(ctx, a.wait) })
	wg.Wait()
}

func (a *Agent) failed(err error, retry time.Duration) {
	a.program.health.fail(err)
	a.program.metrics.errors.Inc()
	a.program.log.Error("program", "err", err, "retry", retry)
}

// check looks after the kernel's state between events. Before the first sync nothing there is ours to judge.
func (a *Agent) check(context.Context) error {
	if a.program.programmed.Load() == nil {
		return nil
	}
	begin := time.Now()
	repaired, err := a.program.applier.Audit()
	if err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	if repaired {
		a.program.metrics.repairs.Inc()
		a.program.log.Warn("somebody changed the service table; repaired", "took", time.Since(begin))
	}
	return nil
}
