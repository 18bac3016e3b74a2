// Package metering keeps what went where: the leading controller takes the agents' reports into its store,
// remembers the last minute, makes demand of it for the planner, and tells people what it cost and why.
package metering

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"k8s.io/client-go/kubernetes"

	"github.com/zonewise/zonewise/internal/controller/metering/past"
	"github.com/zonewise/zonewise/internal/controller/metering/trust"
	"github.com/zonewise/zonewise/internal/controller/routes"
	"github.com/zonewise/zonewise/internal/loop"
	"github.com/zonewise/zonewise/internal/meter"
	"github.com/zonewise/zonewise/internal/meter/store"
	"github.com/zonewise/zonewise/internal/meter/stream"
	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/route"
	"github.com/zonewise/zonewise/internal/state"
)

// Config is what a Meter needs.
type Config struct {
	Tables     *state.Tables
	Client     kubernetes.Interface
	Namespace  string // of the controller, and of the agents
	PodIP      string // where agents reach this replica
	Dir        string // of the store
	Listen     string // address for agents
	Prices     Prices
	PerService bool // metrics for each Service
	Past       Past // where the past is asked for; nil: all of it is in the store
	Known      func(svc model.Name, v6 bool) (routes.Known, bool)
	Leader     func() string // the replica that leads, as far as this one knows
	Log        *slog.Logger
}

// Prices are the price books of now.
type Prices interface {
	Series() meter.Series
	Trouble() string // why these are not the books that were given last; empty if they are
}

// Past knows of longer ago than the store; see past.Prometheus.
type Past interface {
	Scan(ctx context.Context, from, to time.Time, f past.Filter, visit func(from, to time.Time, flows []model.Flow) error) (time.Time, []string, error)
}

// Meter is one replica's. What it tells is empty while another replica leads.
type Meter struct {
	Config
	labels labels

	mu  sync.Mutex
	now *term // nil: another replica leads
}

// New returns a Meter that has not begun.
func New(c Config) (*Meter, error) {
	if c.PodIP == "" {
		return nil, errors.New("pod IP: it is needed for agents to reach the meter")
	}
	c.PerService = c.PerService || c.Past != nil // that is what it is asked for
	m := &Meter{Config: c}
	m.labels.client = c.Client
	return m, nil
}

const (
	// tick is the time between two looks at which nodes have reported.
	tick = time.Second
	// replayed is how much of the store demand is made of when a replica begins to lead.
	replayed = 15 * time.Minute
)

// Run keeps what went where, until ctx ends. Whoever runs it is the leader. A store that cannot be opened, or a port
// that is taken, is tried again.
func (m *Meter) Run(ctx context.Context) {
	loop.New(m.lead, loop.Options{RetryMin: time.Second, RetryMax: 30 * time.Second, Failed: func(err error, retry time.Duration) {
		m.Log.Error("meter", "err", err, "retry", retry)
	}}).Run(ctx)
}

// lead is a term of this replica.
func (m *Meter) lead(ctx context.Context) (err error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	t := newTerm(m, time.Now())
	t.store, err = store.Open(m.Dir, m.keeps(t.notice))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.store.Close()) }()
	if err := t.replay(time.Now()); err != nil {
		t.notice(fmt.Errorf("demand of the last minutes: %w", err)) // it comes anew
	}
	keys := trust.New(trust.Config{Client: m.Client, Namespace: m.Namespace, PodIP: m.PodIP, Listen: m.Listen, Log: m.Log})
	if err := keys.Open(ctx); err != nil {
		return err
	}
	tls, err := stream.ServerTLS(keys.Source)
	if err != nil {
		return err
	}
	t.server = stream.NewServer(t, stream.ServerOptions{Interval: t.interval(), Metered: func() meter.Metered { return *t.metered.Load() }, Notice: t.notice})
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", m.Listen)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	serving := grpc.NewServer(stream.GRPCOptions(credentials.NewTLS(tls))...)
	stream.RegisterMeterServer(serving, t.server)
	t.look(time.Now())
	m.set(t)
	defer close(t.over)
	defer m.set(nil)

	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { t.server.Run(ctx) })
	wg.Go(func() { keys.Run(ctx) })
	wg.Go(func() { t.clock(ctx) })
	wg.Go(func() { t.minutes(ctx) })
	end := context.AfterFunc(ctx, serving.Stop)
	defer end()
	m.Log.Info("meter", "dir", m.Dir, "listen", listener.Addr().String())
	err = serving.Serve(listener)
	stop()
	if errors.Is(err, grpc.ErrServerStopped) {
		err = nil
	}
	return err
}

// keeps is how much the store keeps. Who asks somebody else for the past needs it to take each report once, and to make
// demand when it begins.
func (m *Meter) keeps(notice func(error)) store.Options {
	o := store.Options{Minutes: kept, Notice: notice}
	if m.Past != nil {
		// Hours are there until their minutes are gone, and as small as can be: nobody reads them.
		o.Minutes, o.Hours = keptBriefly, 2*keptBriefly
		o.HourParty = func(p model.Party) model.Party { return model.Party{Kind: p.Kind, Zone: p.Zone} }
	}
	return o
}

func (m *Meter) set(t *term) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now = t
}

// term returns nil while another replica leads.
func (m *Meter) term() *term {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.now
}

// Measured is part of routes.Metered.
func (m *Meter) Measured(svc model.Name, v6 bool, now time.Time) *model.Demand {
	t := m.term()
	if t == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.tally.demand.Measured(svc, v6, now)
}

// Counted is part of routes.Metered.
func (m *Meter) Counted(svc model.Name, v6 bool, since time.Time) ([]route.Counted, bool) {
	t := m.term()
	if t == nil {
		return nil, false
	}
	interval := t.interval()
	t.mu.Lock()
	defer t.mu.Unlock()
	// A report that began before may have connections of before anywhere in it.
	return t.tally.counted(asked{svc, v6}, since.Add(interval))
}

// Lately is part of routes.Metered.
func (m *Meter) Lately(svc model.Name, v6 bool) (routes.Lately, bool) {
	t := m.term()
	if t == nil {
		return routes.Lately{}, false
	}
	now := time.Now()
	t.mu.Lock()
	flows, from, ok := t.recent.service(asked{svc, v6}, now.Add(-window))
	t.mu.Unlock()
	if !ok {
		return routes.Lately{}, false
	}
	return routes.Lately{Flows: flows, For: now.Sub(from), Tariff: m.Prices.Series().Tariff(from, now)}, true
}

// Nodes is part of routes.Metered.
func (m *Meter) Nodes() int {
	t := m.term()
	if t == nil {
		return 0
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.fleet.reporting(time.Now()))
}

var _ routes.Metered = (*Meter)(nil)
