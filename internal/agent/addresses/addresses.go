// Package addresses wires the daemon that gets a node's pods their addresses from the cloud: what the cloud, the
// leases and the Node say goes to vpc.Decide, what that wants is asked of the cloud, and the node's network and the
// pool, from which the plugin gives, follow. It decides nothing itself.
//
// The plugin does not ask the daemon for anything: as long as there are free addresses in the pool, pods start while the
// daemon, the cloud or the API server is away.
package addresses

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"path/filepath"
	"sync"
	"time"

	"k8s.io/client-go/kubernetes"

	"github.com/zonewise/zonewise/internal/loop"
	"github.com/zonewise/zonewise/internal/vpc"
	"github.com/zonewise/zonewise/internal/vpc/ec2"
	"github.com/zonewise/zonewise/internal/vpc/files"
	"github.com/zonewise/zonewise/internal/vpc/link"
)

// Cloud is what is needed of the cloud; package vpc/ec2 has it.
type Cloud interface {
	Self() ec2.Identity
	// Observe asks what the node has; Known is that with what was done since, and asks nobody.
	Observe(context.Context) ([]vpc.Interface, error)
	Known() []vpc.Interface
	Do(context.Context, vpc.Action) (vpc.Outcome, error)
	Tidy(context.Context) (busy int, err error)
	Sweep()
	// Missing names what was observed and is not there any more. It is cheap to ask.
	Missing(context.Context) ([]string, error)
	SubnetsHere(context.Context) ([]ec2.Subnet, error)
	Subnets(ctx context.Context, ids ...string) ([]ec2.Subnet, error)
	Ranges(context.Context) ([]netip.Prefix, error)
	// Groups are the security groups of the primary interface; EC2 is not asked for them.
	Groups(context.Context) ([]string, error)
}

// Host is the network of the node.
type Host interface {
	link.Net
	Close()
}

// Called hears of a call of the cloud's API.
type Called func(call string, took time.Duration, err error)

// Config is what the daemon needs. All but Install and the settings is required.
type Config struct {
	Node   string
	Client kubernetes.Interface
	// Open reaches the cloud; it fails as long as that does not say who we are. Called is to hear of every call.
	Open func(ctx context.Context, called Called) (Cloud, error)
	// Get asks the API server for a path, for a form that the client does not know.
	Get    func(ctx context.Context, path string) ([]byte, error)
	Host   Host
	Tables link.Tables
	Dir    string // of leases.json and pool.json
	vpc.Settings
	// Install is called when pods can get addresses: it tells the container runtime. Nil: somebody else does.
	Install func() error
	Log     *slog.Logger
}

// Daemon looks after the addresses of one node.
type Daemon struct {
	config  Config
	loop    *loop.Loop
	timer   *time.Timer // wakes the loop when something is due
	node    *nodeWatch
	events  *announcer
	metrics *metrics

	// What only passes use.
	cloud     Cloud
	limits    vpc.Limits
	memory    vpc.Memory
	supply    vpc.Supply // as it was written last
	subnets   []vpc.Subnet
	stock     stock
	ranges    []netip.Prefix // of the VPC
	notes     []string       // what is wrong with what was found out, for people
	adopted   bool           // what an earlier daemon wrote was read
	unseen    error          // why the cloud's last answer was none
	looked    time.Time      // when it answered last
	look      time.Time      // when it is to be asked again
	groups    []string       // of the primary interface, as its metadata said
	grouped   time.Time      // when
	met       bool           // the Node was read
	glanced   time.Time      // when it was looked whether something is missing
	missed    []string       // what was, when the cloud was asked because of it
	applied   time.Time      // when the node's network was looked after
	swept     time.Time      // when interfaces were looked for that somebody left
	tidyNext  time.Time
	busy      int // interfaces that the cloud does not let go yet
	installed bool

	status status
}

// retryMax is the longest pause after a pass that came to no decision, as while nobody says which instance this is. It
// costs the cloud nothing, and pods may wait for it.
const retryMax = 5 * time.Second

// New returns a daemon that has not begun.
func New(c Config) (*Daemon, error) {
	if c.Node == "" {
		return nil, errors.New("node name: empty")
	}
	d := &Daemon{config: c, metrics: newMetrics()}
	d.status.failed("starting")
	d.loop = loop.New(d.pass, loop.Options{RetryMin: 100 * time.Millisecond, RetryMax: retryMax, Failed: d.failed})
	d.timer = time.AfterFunc(time.Hour, d.loop.Wake)
	d.node = newNodeWatch(c.Client, c.Node, d.loop.Wake)
	d.events = newAnnouncer(c.Client, c.Node, c.Log)
	return d, nil
}

// Run looks after the node's addresses until ctx ends. What was programmed stays.
func (d *Daemon) Run(ctx context.Context) error {
	only, err := alone(ctx, d.config.Dir)
	if err != nil {
		return err
	}
	defer only.Close()
	watch, err := files.Follow(d.config.Dir, files.Leases)
	if err != nil {
		return err
	}
	defer watch.Close()
	defer d.timer.Stop()
	var wg sync.WaitGroup
	wg.Go(func() { d.node.run(ctx) })
	wg.Go(func() { d.events.loop.Run(ctx) })
	wg.Go(func() { d.follow(ctx, watch.Changed) })
	d.loop.Run(ctx)
	wg.Wait()
	return nil
}

// gather is for how long changes of the leases are let come together. Pods that come at once then do not each wait for a
// pass of ours, and the cloud is asked once for all of them.
const gather = 50 * time.Millisecond

// follow wakes the loop when the plugin has given or taken an address, or waits for one.
func (d *Daemon) follow(ctx context.Context, changed <-chan struct{}) {
	for {
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
		select {
		case <-time.After(gather):
			d.loop.Wake()
		case <-ctx.Done():
			return
		}
	}
}

func (d *Daemon) failed(err error, retry time.Duration) {
	d.metrics.errors.Inc()
	d.status.failed(err.Error())
	d.config.Log.Error("addresses", "err", err, "retry", retry)
}

// Handler serves the local API: /healthz, /livez, /metrics and /v1/addresses.
func (d *Daemon) Handler() http.Handler { return d.handler() }

// alone waits until no other daemon looks after the node: while one is replaced there may be two.
func alone(ctx context.Context, dir string) (*files.Dir, error) {
	type result struct {
		dir *files.Dir
		err error
	}
	done := make(chan result, 1)
	go func() {
		held, err := files.Open(filepath.Join(dir, "daemon"))
		done <- result{held, err}
	}()
	select {
	case r := <-done:
		return r.dir, r.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// wakeIn makes the next pass begin in so long at the latest.
func (d *Daemon) wakeIn(wait time.Duration) { d.timer.Reset(max(wait, time.Millisecond)) }

func (d *Daemon) open(ctx context.Context) error {
	if d.cloud != nil {
		return nil
	}
	cloud, err := d.config.Open(ctx, d.metrics.called)
	if err != nil {
		return err
	}
	self := cloud.Self()
	if d.limits, err = vpc.LimitsOf(self.Type); err != nil {
		return fmt.Errorf("instance %s: %w", self.ID, err)
	}
	d.cloud = cloud
	d.config.Log.Info("instance", "id", self.ID, "type", self.Type, "zone", self.Zone, "interfaces", d.limits.Interfaces, "addresses", d.limits.IPv4)
	return nil
}
