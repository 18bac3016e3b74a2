// Package cluster runs a lab: control plane, nodes, the product and cluster DNS, in one process
// tree that hangs on the process which calls Run.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	"k8s.io/client-go/rest"

	"github.com/zonewise/zonewise/lab/machine"
	"github.com/zonewise/zonewise/lab/region"
	"github.com/zonewise/zonewise/lab/registry"
	"github.com/zonewise/zonewise/lab/topology"
)

// Lab is a running lab.
type Lab struct {
	topo    topology.Topology
	paths   Paths
	program string // this executable
	binDir  string
	version string
	now     func() time.Time
	report  func(Event)

	parent      *region.Thread // a steady parent for machines
	fabric      *region.Fabric
	credentials *credentials
	cloud       *cloud // nil with static addresses
	registry    *registry.Registry
	client      *rest.Config
	processes   []*process
	apiAddress  string // on the host
	forwards    *forwarder

	ended chan error // the first end of something that is to run for as long as the lab does

	making  errgroup.Group     // makes the nodes' machines
	keepers sync.WaitGroup     // one for each node
	letGo   context.CancelFunc // ends keepers, so that machines can be stopped

	mu       sync.Mutex
	machines map[string]*machine.Machine // by alias; those that run
	boot     Boot
	started  time.Time
}

// Boot is how long each stage of the start took, from the start of Run.
type Boot struct {
	API   time.Duration
	Nodes time.Duration
	DNS   time.Duration
}

// Event is one step of the start, for whoever watches.
type Event struct {
	State State         `json:"state"`
	Step  string        `json:"step,omitempty"`
	Fresh bool          `json:"fresh,omitempty"`
	Took  time.Duration `json:"took,omitempty"`
	Error string        `json:"error,omitempty"`
}

// State of a step.
type State string

// Claimed comes first. A step starts, and is then done. Ready or Failed comes last, once.
const (
	Claimed     State = "claimed" // the lab is this process's; Fresh tells whether it is a new one
	StepStarted State = "started"
	StepDone    State = "done"
	Ready       State = "ready"
	Failed      State = "failed"
)

// Options of Run.
type Options struct {
	Topology topology.Topology
	Program  string // the lab's executable, with the other programs beside it
	Version  string // of the product, which names its image
	Report   func(Event)
}

// Run starts a lab and keeps it running until ctx ends. The caller has claimed the lab.
func Run(ctx context.Context, o Options) error {
	l := &Lab{
		topo: o.Topology, paths: PathsOf(o.Topology.Name), program: o.Program, binDir: filepath.Dir(o.Program),
		version: o.Version, now: time.Now, report: o.Report,
		ended: make(chan error, 1), machines: map[string]*machine.Machine{}, started: time.Now(),
	}
	// Children outlive ctx until stop has ended them in order.
	running, kill := context.WithCancel(context.WithoutCancel(ctx))
	defer l.stop(kill)
	if err := l.start(ctx, running); err != nil {
		return explainFull(err)
	}
	l.report(Event{State: Ready})
	slog.Info("lab is ready", "api", l.boot.API, "nodes", l.boot.Nodes, "dns", l.boot.DNS)
	<-ctx.Done()
	return nil
}

// step does one step of the start and tells whoever watches.
func (l *Lab) step(name string, do func() error) error {
	l.report(Event{Step: name, State: StepStarted})
	begin := time.Now()
	if err := do(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	l.report(Event{Step: name, State: StepDone, Took: time.Since(begin)})
	return nil
}

// start brings everything up. ctx bounds the start; running is the life of what it starts.
func (l *Lab) start(ctx, running context.Context) error {
	// What a crash of this lab has left would only be in the way.
	if err := machine.RemoveCgroup(l.paths.Cgroup(), killPatience); err != nil {
		return err
	}
	if err := machine.EnterCgroup(l.paths.Cgroup() + "/region"); err != nil {
		return err
	}
	for _, dir := range []string{l.paths.Logs(), l.paths.Images()} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	api, err := l.listenAPI() // before the rest, which would be in vain
	if err != nil {
		return err
	}
	context.AfterFunc(running, func() { _ = api.Close() })
	var template string
	if err := l.step("Images unpacked", func() (err error) {
		template, err = l.prepareImages(ctx)
		return err
	}); err != nil {
		return err
	}
	l.started = time.Now() // unpacking happens once on a machine, not at each start
	if err := l.step("Network fabric", func() error { return l.makeFabric(running) }); err != nil {
		return err
	}
	if l.credentials, err = makeCredentials(l.paths.PKI(), l.topo, l.now()); err != nil {
		return err
	}
	if err := l.makeNodes(running, template); err != nil {
		return err
	}
	if err := l.step("Control plane", func() error { return l.startControlPlane(ctx, running, api) }); err != nil {
		return err
	}
	l.boot.API = time.Since(l.started)
	if err := l.step(fmt.Sprintf("%d nodes in %d zones", len(l.topo.Nodes()), len(l.topo.Zones)), func() error {
		return l.bootNodes(ctx)
	}); err != nil {
		return err
	}
	l.boot.Nodes = time.Since(l.started)
	if l.topo.CNI != topology.CNINone { // else its pods wait for the plugin that somebody will install
		if err := l.step("Cluster DNS answers", func() error { return l.waitDNS(ctx) }); err != nil {
			return err
		}
		l.boot.DNS = time.Since(l.started)
	}
	return l.serve(running)
}

func (l *Lab) makeFabric(running context.Context) (err error) {
	if l.parent, err = region.HostThread(); err != nil {
		return err
	}
	if l.fabric, err = region.New(l.topo); err != nil {
		return err
	}
	return l.makeCloud(running)
}

// stop ends everything that start began, in the reverse order of dependence, then the namespaces.
func (l *Lab) stop(kill context.CancelFunc) {
	l.stopNodes()
	kill()
	for _, p := range l.processes {
		<-p.stopped
	}
	if l.fabric != nil {
		l.fabric.Close()
	}
	if l.parent != nil {
		l.parent.Close()
	}
	if err := os.Remove(l.paths.Socket()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		slog.Warn("socket", "err", err)
	}
}

// fail reports the end of something that the lab needs; only the first is kept, and only the start
// looks at it.
func (l *Lab) fail(err error) {
	select {
	case l.ended <- err:
	default:
	}
}

// explainFull finds the reason of an error in a disk that is full by now: programs that cannot
// write fail in many ways, and say so in logs that are gone with a lab that never started. Full is where
// etcd finds no room for a segment of its log, which it gives back when it fails.
func explainFull(err error) error {
	const spare = 64e6
	for _, dir := range []string{Home(), Cache()} {
		var fs unix.Statfs_t
		if unix.Statfs(dir, &fs) == nil && fs.Bavail*uint64(fs.Bsize) < spare {
			return fmt.Errorf("disk of %s is full: free some, or choose another place with ZONEWISE_LAB_HOME: %w", dir, err)
		}
	}
	return err
}
