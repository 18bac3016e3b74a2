//go:build kernel

package conformance

import (
	"errors"
	"io"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/zonewise/zonewise/internal/kernel/conntrack"
	kernelnft "github.com/zonewise/zonewise/internal/kernel/nft"
	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/reflect"
	"github.com/zonewise/zonewise/internal/service"
	"github.com/zonewise/zonewise/internal/service/affinity"
	"github.com/zonewise/zonewise/internal/service/bpf"
	"github.com/zonewise/zonewise/internal/service/nft"
	"github.com/zonewise/zonewise/lab/rig"
)

// path is how packets come to their endpoints.
type path string

const (
	byNFT    path = "nft"
	bySocket path = "bpf" // and what that leaves, by nft
)

// applier is what both paths have in common.
type applier interface {
	Apply(want map[model.Name][]service.Frontend, complete bool) error
	Update(changed map[model.Name][]service.Frontend) error
	Audit() (repaired bool, err error)
	Counters() (map[service.Pair]service.Traffic, error)
	Remove() error
}

// plane is a node's dataplane, and the cluster that it follows, as objects of the API.
type plane struct {
	t        *testing.T
	world    *rig.World
	path     path
	appliers []applier
	packets  *nft.Applier
	sockets  *bpf.Applier // nil by nft alone
	open     []io.Closer

	node      *corev1.Node
	nodePorts []netip.Addr
	services  map[model.Name]*corev1.Service
	slices    map[model.Name]*discoveryv1.EndpointSlice
}

func newPlane(t *testing.T, w *rig.World, p path) *plane {
	t.Helper()
	d := &plane{t: t, world: w, path: p, node: theNode()}
	t.Cleanup(func() { d.stop() })
	d.start(nft.Options{})
	d.clear()
	return d
}

// start takes new appliers, as a new agent does: they know nothing of what came before.
func (d *plane) start(o nft.Options) {
	d.t.Helper()
	d.stop()
	door := kernelnft.Dial(d.world.Node.FD())
	d.open = append(d.open, door)
	d.packets = nft.New(door, conntrack.Conn{}, o)
	d.appliers = []applier{d.packets}
	if d.path == bySocket {
		d.sockets = d.atSockets()
		d.open, d.appliers = append(d.open, d.sockets), append(d.appliers, d.sockets)
	}
}

// tick does what the agent does every two seconds: both paths remember the same of clients. (A keeper
// of its own has not just looked, and need not rest.)
func (d *plane) tick() {
	d.t.Helper()
	if d.sockets == nil {
		return
	}
	if err := d.world.Node.Do(affinity.NewKeeper(d.packets, d.sockets).Pass); err != nil {
		d.t.Fatal(err)
	}
}

// led is how many connections the socket path has led.
func (d *plane) led() uint64 {
	d.t.Helper()
	counters, err := d.sockets.Counters()
	if err != nil {
		d.t.Fatal(err)
	}
	n := uint64(0)
	for _, c := range counters {
		n += c.Connections
	}
	return n
}

// stop lets go of what the appliers hold of this process; the kernel stays as it is.
func (d *plane) stop() {
	d.t.Helper()
	for _, o := range d.open {
		if err := o.Close(); err != nil {
			d.t.Error(err)
		}
	}
	d.open = nil
}

// atSockets makes the socket path for the world's cgroup; its predecessor's is adopted.
func (d *plane) atSockets() *bpf.Applier {
	d.t.Helper()
	var a *bpf.Applier
	err := d.world.Node.Do(func() (err error) {
		a, err = bpf.New(bpf.Options{Cgroup: d.world.Cgroup, Pins: filepath.Join(d.world.BPF, "zonewise"), Namespaces: d.world.Namespaces})
		return err
	})
	if err != nil {
		d.t.Fatal(err)
	}
	return a
}

// each does the same with every applier, in the node's namespace.
func (d *plane) each(do func(applier) error) {
	d.t.Helper()
	err := d.world.Node.Do(func() error {
		var errs []error
		for _, a := range d.appliers {
			errs = append(errs, do(a))
		}
		return errors.Join(errs...)
	})
	if err != nil {
		d.t.Fatal(err)
	}
}

// clear empties the cluster, in which there has never been anything then.
func (d *plane) clear() {
	d.t.Helper()
	d.services, d.slices = map[model.Name]*corev1.Service{}, map[model.Name]*discoveryv1.EndpointSlice{}
	d.node, d.nodePorts = theNode(), nil
	d.apply()
	// A socket of the next test may get the port of one of the last.
	if err := d.world.Node.Do(func() error { return netlink.ConntrackTableFlush(netlink.ConntrackTable) }); err != nil {
		d.t.Fatal(err)
	}
}

// apply programs everything.
func (d *plane) apply() {
	d.t.Helper()
	want := map[model.Name][]service.Frontend{}
	for name := range d.services {
		want[name] = d.plan(name)
	}
	d.each(func(a applier) error { return a.Apply(want, true) })
}

// set adds objects, or replaces those of the same name, and programs what that changes.
func (d *plane) set(objects ...any) {
	d.t.Helper()
	touched := map[model.Name]bool{}
	for _, o := range objects {
		switch o := o.(type) {
		case *corev1.Node:
			d.node = o
			for name := range d.services {
				touched[name] = true
			}
		case *corev1.Service:
			name := model.Name{Namespace: o.Namespace, Name: o.Name}
			d.services[name] = o
			touched[name] = true
		case *discoveryv1.EndpointSlice:
			name := model.Name{Namespace: o.Namespace, Name: o.Name}
			if old, ok := d.slices[name]; ok {
				touched[owner(old)] = true
			}
			d.slices[name] = o
			touched[owner(o)] = true
		case []*discoveryv1.EndpointSlice:
			for _, s := range o {
				d.slices[model.Name{Namespace: s.Namespace, Name: s.Name}] = s
				touched[owner(s)] = true
			}
		default:
			d.t.Fatalf("what is a %T?", o)
		}
	}
	d.update(slices.Collect(maps.Keys(touched)))
}

// remove deletes objects.
func (d *plane) remove(objects ...any) {
	d.t.Helper()
	touched := map[model.Name]bool{}
	for _, o := range objects {
		switch o := o.(type) {
		case *corev1.Service:
			name := model.Name{Namespace: o.Namespace, Name: o.Name}
			delete(d.services, name)
			touched[name] = true
		case *discoveryv1.EndpointSlice:
			delete(d.slices, model.Name{Namespace: o.Namespace, Name: o.Name})
			touched[owner(o)] = true
		default:
			d.t.Fatalf("what is a %T?", o)
		}
	}
	d.update(slices.Collect(maps.Keys(touched)))
}

func (d *plane) update(names []model.Name) {
	d.t.Helper()
	changed := map[model.Name][]service.Frontend{}
	for _, name := range names {
		changed[name] = d.plan(name)
	}
	d.each(func(a applier) error { return a.Update(changed) })
}

// plan is what the node does for a Service, by the same steps that the agent takes.
func (d *plane) plan(name model.Name) []service.Frontend {
	d.t.Helper()
	object, ok := d.services[name]
	if !ok {
		return nil
	}
	svc, ok := reflect.Service(object)
	if !ok {
		return nil
	}
	node, ok := reflect.Node(d.node)
	if !ok {
		d.t.Fatal("no node")
	}
	node.NodePorts = d.nodePorts
	var all []model.Slice
	for _, o := range d.slices {
		if s, ok := reflect.Slice(o); ok {
			all = append(all, s)
		}
	}
	return service.Plan(node, svc, all, nil)
}

func owner(s *discoveryv1.EndpointSlice) model.Name {
	return model.Name{Namespace: s.Namespace, Name: s.Labels[discoveryv1.LabelServiceName]}
}

// atSocket tells whether the connection gets its endpoint at the client's socket, where there are
// no packets yet, and so nothing to masquerade.
func (s *stage) atSocket(from string, to target) bool {
	return s.path == bySocket && s.host(from).inside && !to.never
}
