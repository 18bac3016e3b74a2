// Package cluster runs a lab: control plane, nodes, the product and cluster DNS, in one process
// tree that hangs on the process which calls Run.
package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/rest"

	"github.com/zonewise/zonewise/lab/component"
	"github.com/zonewise/zonewise/lab/images"
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
	registry    *registry.Registry
	client      *rest.Config
	processes   []*process
	apiPort     int
	forwards    *forwarder

	mu       sync.Mutex
	machines map[string]*machine.Machine
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
	Step  string        `json:"step"`
	State State         `json:"state"`
	Took  time.Duration `json:"took,omitempty"`
	Error string        `json:"error,omitempty"`
}

// State of a step.
type State string

// A step starts, and is then done or has failed. Ready comes last, once.
const (
	StepStarted State = "started"
	StepDone    State = "done"
	StepFailed  State = "failed"
	Ready       State = "ready"
)

// Options of Run.
type Options struct {
	Topology topology.Topology
	Program  string // the lab's executable, with the other programs beside it
	Version  string // of the product, which names its image
	Report   func(Event)
}

// Run starts a lab and keeps it running until ctx ends. The caller holds the lab's lock.
func Run(ctx context.Context, o Options) error {
	l := &Lab{
		topo: o.Topology, paths: PathsOf(o.Topology.Name), program: o.Program, binDir: filepath.Dir(o.Program),
		version: o.Version, now: time.Now, report: o.Report, machines: map[string]*machine.Machine{}, started: time.Now(),
	}
	// Children outlive ctx until stop has ended them in order.
	running, kill := context.WithCancel(context.WithoutCancel(ctx))
	defer l.stop(kill)
	if err := l.start(ctx, running); err != nil {
		return err
	}
	l.report(Event{State: Ready})
	slog.Info("lab is ready", "api", l.boot.API, "nodes", l.boot.Nodes, "dns", l.boot.DNS)
	<-ctx.Done()
	return nil
}

func (l *Lab) step(name string, do func() error) error {
	l.report(Event{Step: name, State: StepStarted})
	begin := time.Now()
	if err := do(); err != nil {
		l.report(Event{Step: name, State: StepFailed, Took: time.Since(begin), Error: err.Error()})
		return fmt.Errorf("%s: %w", name, err)
	}
	l.report(Event{Step: name, State: StepDone, Took: time.Since(begin)})
	return nil
}

// start brings everything up. ctx bounds the start; running is the life of what it starts.
func (l *Lab) start(ctx, running context.Context) error {
	if err := machine.EnterCgroup(machine.CgroupOf(l.topo.Name) + "/region"); err != nil {
		return err
	}
	for _, dir := range []string{l.paths.Logs(), l.paths.Images()} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	var template string
	if err := l.step("Images unpacked", func() (err error) {
		template, err = l.prepareImages(ctx)
		return err
	}); err != nil {
		return err
	}
	l.started = time.Now() // unpacking happens once on a machine, not at each start
	if err := l.step("Network fabric", func() (err error) {
		if l.parent, err = region.HostThread(); err != nil {
			return err
		}
		l.fabric, err = region.New(l.topo)
		return err
	}); err != nil {
		return err
	}
	if err := l.step("Control plane", func() error { return l.startControlPlane(ctx, running) }); err != nil {
		return err
	}
	l.boot.API = time.Since(l.started)
	if err := l.step(fmt.Sprintf("%d nodes in %d zones", len(l.topo.Nodes()), len(l.topo.Zones)), func() error {
		return l.startNodes(ctx, template)
	}); err != nil {
		return err
	}
	l.boot.Nodes = time.Since(l.started)
	if err := l.step("Cluster DNS answers", func() error { return l.waitDNS(ctx) }); err != nil {
		return err
	}
	l.boot.DNS = time.Since(l.started)
	return l.serve(running)
}

func (l *Lab) prepareImages(ctx context.Context) (string, error) {
	builtIn, err := images.List(filepath.Join(l.binDir, "images"))
	if err != nil {
		return "", err
	}
	if len(builtIn) == 0 {
		return "", fmt.Errorf("no archives in %s: run `make build`", filepath.Join(l.binDir, "images"))
	}
	loaded, err := images.List(l.paths.Images())
	if err != nil {
		return "", err
	}
	if l.registry, err = newRegistry(builtIn, loaded, l.topo.Offline); err != nil {
		return "", err
	}
	template, err := images.Template(ctx, l.binDir, Cache(), builtIn)
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(l.paths.Template(), []byte(template), 0o644); err != nil {
		return "", err
	}
	return template, pruneTemplates()
}

// pruneTemplates removes unpacked images that no lab uses: those of older builds.
func pruneTemplates() error {
	names, err := Names()
	if err != nil {
		return err
	}
	var inUse []string
	for _, name := range names {
		data, err := os.ReadFile(PathsOf(name).Template())
		if err != nil {
			continue // a lab that has not come so far uses none
		}
		inUse = append(inUse, string(data))
	}
	return images.PruneTemplates(Cache(), inUse)
}

func (l *Lab) startControlPlane(ctx, running context.Context) error {
	var err error
	if l.credentials, err = makeCredentials(l.paths.PKI(), l.topo, l.now()); err != nil {
		return err
	}
	for _, name := range []string{component.ControllerManager, component.Scheduler} {
		text, err := l.credentials.kubeconfig(apiURL(l.topo), l.topo.Name, name, l.credentials.users[name])
		if err != nil {
			return err
		}
		if err := os.WriteFile(l.paths.userKubeconfig(name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	l.client = l.restConfig()
	self := func(role string, args []string) *process {
		return &process{name: role, args: append([]string{l.program, "internal", role}, args...)}
	}
	l.launch(running, self(component.Etcd, etcdArgs(l.paths)))
	api := self(component.APIServer, apiServerArgs(l.topo, l.credentials))
	l.launch(running, api)
	if err := l.waitAPI(ctx, api); err != nil {
		return err
	}
	l.launch(running, self(component.ControllerManager, controllerManagerArgs(l.paths, l.credentials)))
	l.launch(running, self(component.Scheduler, schedulerArgs(l.paths)))
	if err := l.startResolver(running); err != nil {
		return err
	}
	if err := l.serveRegistry(running); err != nil {
		return err
	}
	return l.exposeAPI(running)
}

func (l *Lab) launch(running context.Context, p *process) {
	p.thread, p.logPath = l.fabric.Thread, l.paths.Log(p.name)
	p.first, p.stopped = make(chan error, 1), make(chan struct{})
	l.processes = append(l.processes, p)
	go p.run(running)
}

func (l *Lab) startNodes(ctx context.Context, template string) error {
	group, _ := errgroup.WithContext(ctx)
	for _, n := range l.topo.Nodes() {
		group.Go(func() error {
			m, err := l.startNode(n, template)
			if err != nil {
				return err
			}
			l.mu.Lock()
			l.machines[n.Alias] = m
			l.mu.Unlock()
			return m.Boot()
		})
	}
	group.Go(func() error { return l.install(ctx) })
	if err := group.Wait(); err != nil {
		return err
	}
	return l.waitNodes(ctx)
}

// exposeAPI makes the API server reachable on 127.0.0.1 of the host and writes the kubeconfig.
// A lab that is resumed keeps its port where it is free.
func (l *Lab) exposeAPI(running context.Context) error {
	listener, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", l.topo.APIPort))
	if err != nil {
		return fmt.Errorf("port %d of 127.0.0.1 for the API server is taken: choose another with apiPort in lab.yaml, or 0: %w", l.topo.APIPort, err)
	}
	l.apiPort = listener.Addr().(*net.TCPAddr).Port
	target := net.JoinHostPort(l.topo.API.String(), fmt.Sprint(apiPort))
	go forwardTCP(running, listener, l.fabric.Thread.NS(), target)
	server := fmt.Sprintf("https://127.0.0.1:%d", l.apiPort)
	text, err := l.credentials.kubeconfig(server, "zonewise-"+l.topo.Name, "admin", l.credentials.users["admin"])
	if err != nil {
		return err
	}
	return writePrivate(l.paths.Kubeconfig(), text)
}

// stop ends everything that start began, in the reverse order of dependence, then the namespaces.
func (l *Lab) stop(kill context.CancelFunc) {
	l.mu.Lock()
	machines := l.machines
	l.mu.Unlock()
	var group errgroup.Group
	for _, m := range machines {
		group.Go(func() error { m.Stop(stopPatience); return nil })
	}
	_ = group.Wait()
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

// SaveConfig keeps a lab's configuration for when it is resumed.
func SaveConfig(p Paths, c topology.Config) error {
	data, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(p.Config(), data, 0o644)
}

// LoadConfig reads what SaveConfig wrote. ErrNotFound if there is no such lab.
func LoadConfig(p Paths) (topology.Config, error) {
	var c topology.Config
	data, err := os.ReadFile(p.Config())
	if errors.Is(err, fs.ErrNotExist) {
		return c, ErrNotFound
	}
	if err != nil {
		return c, err
	}
	if err := json.Unmarshal(data, &c); err != nil {
		return c, fmt.Errorf("%s: %w", p.Config(), err)
	}
	return c, nil
}
