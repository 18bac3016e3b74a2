// Package metering makes a node count its traffic: it reads what the kernel counted, says whose it was, and
// hands it to the controller. It wires the meter's room; what it decides is when to read.
package metering

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/client-go/kubernetes"

	"github.com/zonewise/zonewise/internal/agent/view"
	"github.com/zonewise/zonewise/internal/loop"
	"github.com/zonewise/zonewise/internal/meter"
	"github.com/zonewise/zonewise/internal/meter/bpf"
	"github.com/zonewise/zonewise/internal/meter/stream"
	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/reflect"
	"github.com/zonewise/zonewise/internal/state"
)

// Options say how a node counts. Open, StateDir and Namespace are required.
type Options struct {
	// Open makes or adopts the kernel's counters. A *bpf.Unsupported says that this machine cannot; after any
	// other error it is tried again.
	Open func() (Counter, error)
	// StateDir is a folder that lives as long as the kernel's counters do.
	StateDir string
	// Namespace is the controller's.
	Namespace string
	// Cluster are the ranges of the cluster's own addresses: one that nobody is known to have is not outside.
	Cluster []netip.Prefix
	// Blocks are ranges outside, by name.
	Blocks map[string][]netip.Prefix
	// Every is the longest time between two readings; zero is 10 seconds.
	Every time.Duration
	// Addresses are the node's; nil: those that the API knows.
	Addresses func() ([]netip.Addr, error)
	// Cgroups are those of a container; nil: processes in the node's network are the node's.
	Cgroups func(container string) []uint64
}

// Site is what a meter has of the agent that it is part of.
type Site struct {
	Node   string
	Client kubernetes.Interface
	Tables *state.Tables          // with the slice that names the controller
	Served func() *state.Snapshot // Services as the kernel obeys them; nil: not yet
	Log    *slog.Logger
}

// Meter is one node's.
type Meter struct {
	opts    Options
	site    Site
	names   *names
	metrics *metrics
	loop    *loop.Loop
	count   *counting
	due     atomic.Bool
	client  atomic.Pointer[stream.Client]
	papers  *credentials
	renew   *loop.Loop // runs papers

	mu        sync.Mutex
	on        bool
	why       string
	trouble   string    // why the last report did not arrive
	confirmed time.Time // when one did last, or when all began
	applied   uint64    // its number
	logged    time.Time
}

// New returns a meter that has not begun.
func New(o Options, site Site) *Meter {
	if o.Every <= 0 {
		o.Every = 10 * time.Second
	}
	if o.Addresses == nil {
		o.Addresses = func() ([]netip.Addr, error) { return nil, nil }
	}
	if o.Cgroups == nil {
		o.Cgroups = func(string) []uint64 { return nil }
	}
	m := &Meter{opts: o, site: site, metrics: newMetrics(), confirmed: time.Now()}
	m.names = newNames(site, o, state.New(reflect.ResidentSources...))
	m.loop = loop.New(m.pass, loop.Options{RetryMin: time.Second, RetryMax: o.Every, Failed: m.failed})
	m.papers = &credentials{client: site.Client, namespace: o.Namespace, node: site.Node, file: m.file("meter.pem"), log: site.Log, ready: make(chan struct{})}
	m.papers.doubt = func() { m.renew.Wake() }
	m.renew = loop.New(m.papers.pass, loop.Options{RetryMin: time.Second, RetryMax: time.Minute, Failed: func(err error, _ time.Duration) { m.troubled(err) }})
	return m
}

func newNames(site Site, o Options, residents *state.Tables) *names {
	n := &names{node: site.Node, owners: meter.NewOwners(model.Party{Kind: model.NodeParty, Node: site.Node}, grace),
		residents: residents, served: site.Served, local: o.Addresses, cgroups: o.Cgroups, log: site.Log,
		processes: map[uint64]process{}, stale: map[model.Name]bool{}}
	for _, p := range o.Cluster {
		n.owners.Block(p, model.Party{Kind: model.Unknown})
	}
	for name, ranges := range o.Blocks {
		for _, p := range ranges {
			n.owners.Block(p, model.Party{Kind: model.Outside, Block: name})
		}
	}
	return n
}

// Note says which Services may be others than they were.
func (m *Meter) Note(all bool, changed []state.Change[model.Name]) {
	m.names.note(all, changed)
	m.loop.Wake()
}

// Run counts until ctx ends. The kernel counts on after that.
func (m *Meter) Run(ctx context.Context) {
	conn, err := m.connect()
	if err != nil {
		m.failed(err, 0)
		return
	}
	defer conn.Close()
	counter, client := m.open(ctx, conn)
	if counter == nil {
		return
	}
	defer counter.Close()
	m.count = &counting{counter: counter, reports: client, names: m.names, memory: &memory{path: m.file(Owners)}, metrics: m.metrics, log: m.site.Log}
	m.client.Store(client)
	var wg sync.WaitGroup
	wg.Go(func() { reflect.RunResidents(ctx, m.site.Client, m.names.residents, m.site.Node) })
	wg.Go(func() { m.names.residents.Follow(ctx, m.loop.Wake) })
	wg.Go(func() { m.tick(ctx) })
	wg.Go(func() { m.loop.Run(ctx) })
	wg.Go(func() { m.renew.Run(ctx) })
	wg.Go(func() {
		select {
		case <-m.papers.ready:
		case <-ctx.Done():
			return
		}
		if wait(ctx, phase(m.site.Node, m.opts.Every)) { // not all nodes at once
			client.Run(ctx)
		}
	})
	wg.Wait()
}

// open opens counters and journal, as soon as an earlier agent has let go of them. It returns nil where there
// cannot be a meter, or ctx ends.
func (m *Meter) open(ctx context.Context, conn connection) (counter Counter, client *stream.Client) {
	ctx, done := context.WithCancel(ctx)
	defer done()
	once := func(context.Context) (err error) {
		if client == nil {
			if client, err = m.journal(conn); err != nil {
				client = nil
				return err
			}
		}
		counter, err = m.opts.Open()
		if lacks := new(bpf.Unsupported); errors.As(err, &lacks) {
			m.say(false, lacks.Missing)
			m.site.Log.Warn("meter: off", "missing", lacks.Missing)
			done()
			return nil
		}
		if err == nil {
			done()
		}
		return err
	}
	loop.New(once, loop.Options{RetryMin: time.Second, RetryMax: 30 * time.Second, Failed: m.failed}).Run(ctx)
	return counter, client
}

// rest is the least time between two passes: a burst of news does not make a burst of readings.
const rest = 100 * time.Millisecond

// pass reads if it is time to, or if there is news that readings must be on both sides of; else it only
// tells the news.
func (m *Meter) pass(ctx context.Context) error {
	if !m.count.attached {
		if err := m.count.begin(); err != nil {
			return err
		}
		m.site.Log.Info("meter: counting", "capacity", m.count.counter.Capacity())
	}
	if why := m.names.waiting(); why != "" {
		m.say(true, why)
		return nil
	}
	if m.due.Swap(false) || m.names.urgent(m.count.addresses) {
		if err := m.count.round(); err != nil {
			m.due.Store(true)
			return err
		}
		m.heard()
		m.say(true, "")
	} else {
		now, err := m.count.counter.Now()
		if err != nil {
			return err
		}
		m.names.tell(now, time.Now())
	}
	wait(ctx, rest)
	return nil
}

// tick makes a reading due from time to time, on each node at another moment.
func (m *Meter) tick(ctx context.Context) {
	if !wait(ctx, phase(m.site.Node, m.opts.Every)) {
		return
	}
	t := time.NewTicker(m.opts.Every)
	defer t.Stop()
	for {
		m.due.Store(true)
		m.loop.Wake()
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}

// phase is a moment within a period that a node has for itself, more or less.
func phase(node string, period time.Duration) time.Duration {
	h := fnv.New32a()
	_, _ = h.Write([]byte(node))                       // it never fails
	return time.Duration(h.Sum32()>>16) * period >> 16 // a month would fit
}

func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (m *Meter) say(on bool, why string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.on, m.why = on, why
}

// failed hears of every error. Each is logged when it comes, and then once in a while.
func (m *Meter) failed(err error, retry time.Duration) {
	m.metrics.fail()
	m.mu.Lock()
	news := m.why != err.Error() || time.Since(m.logged) >= quiet
	m.on, m.why = m.count != nil && m.count.attached, err.Error()
	if news {
		m.logged = time.Now()
	}
	m.mu.Unlock()
	if news {
		m.site.Log.Warn("meter", "err", err, "retry", retry)
	}
}

// stats are the client's, once there is one.
func (m *Meter) stats() (s stream.ClientStats) {
	if client := m.client.Load(); client != nil {
		s = client.Stats()
	}
	return s
}

// heard looks whether the controller has confirmed anything.
func (m *Meter) heard() {
	applied := m.stats().Applied
	m.mu.Lock()
	defer m.mu.Unlock()
	if applied > m.applied {
		m.applied, m.confirmed, m.trouble = applied, time.Now(), ""
	}
}

// patience is how long reports may be on their way before anybody hears of it.
const patience = time.Minute

// Status tells how the meter is.
func (m *Meter) Status() view.Meter {
	out := view.Meter{}
	m.mu.Lock()
	defer m.mu.Unlock()
	out.On, out.Why = m.on, m.why
	stats := m.stats()
	out.Waiting = stats.Waiting
	if stats.Applied == m.applied && time.Since(m.confirmed) > patience+m.opts.Every && stats.Waiting+stats.Flying > 0 {
		out.Reports = m.trouble
		if out.Reports == "" {
			out.Reports = fmt.Sprintf("nothing was confirmed since %s", m.confirmed.UTC().Format(time.RFC3339))
		}
	}
	return out
}
