package addresses

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/zonewise/zonewise/internal/kernel/link"
	"github.com/zonewise/zonewise/internal/kernel/nft"
	"github.com/zonewise/zonewise/internal/vpc"
	"github.com/zonewise/zonewise/internal/vpc/ec2"
	"github.com/zonewise/zonewise/internal/vpc/files"
)

// tester is *testing.T and *rapid.T.
type tester interface {
	Helper()
	Fatalf(format string, args ...any)
	Errorf(format string, args ...any)
}

// cloud is a cloud with one node, and the devices that it makes appear there.
type cloud struct {
	*vpc.Fake
	self   ec2.Identity
	host   *link.FakeNet
	away   error // of every question
	tags   map[string]map[string]string
	known  []vpc.Interface // as it was asked last, with what was done since
	odd    []string        // what its metadata do not have, although it is there
	asked  int             // times that it was observed
	busy   int
	tidied int   // times
	stuck  error // of every time
}

func (c *cloud) Self() ec2.Identity { return c.self }

func (c *cloud) Observe(context.Context) ([]vpc.Interface, error) {
	c.asked++
	if c.away != nil {
		return nil, c.away
	}
	c.remember()
	return c.Known(), nil
}

func (c *cloud) Known() []vpc.Interface { return slices.Clone(c.known) }

func (c *cloud) remember() {
	c.appear()
	c.known = c.Interfaces()
	for i := range c.known {
		c.known[i].Device = ""
	}
}

// appear makes the node's devices those that the cloud has attached.
func (c *cloud) appear() {
	c.At(time.Now())
	there := map[string]bool{}
	for _, i := range c.Interfaces() {
		if i.Device == "" {
			continue
		}
		there[i.Device] = true
		if _, err := c.host.Read(i.Device); errors.Is(err, link.ErrNotFound) {
			mac, _ := link.ParseMAC(i.MAC)
			c.host.Put(link.Device{Name: i.Device, MAC: mac, MTU: 9001})
		}
	}
	devices, _ := c.host.List()
	for _, d := range devices {
		if !there[d.Name] {
			_ = c.host.Delete(d.Name)
		}
	}
}

func (c *cloud) Do(_ context.Context, a vpc.Action) (vpc.Outcome, error) {
	c.At(time.Now())
	if c.away != nil {
		return vpc.Outcome{Failure: vpc.Away}, c.away
	}
	o := c.Fake.Do(a)
	if o.Failure != vpc.OK {
		return o, fmt.Errorf("%s: %s", a.Verb, o.Failure)
	}
	c.remember()
	return o, nil
}

func (c *cloud) Tidy(context.Context) (int, error) {
	c.tidied++
	return c.busy, cmp.Or(c.stuck, c.away)
}
func (c *cloud) Sweep() {}

func (c *cloud) Missing(context.Context) (out []string, err error) {
	for _, was := range c.known {
		i := slices.IndexFunc(c.Interfaces(), func(i vpc.Interface) bool { return i.ID == was.ID })
		if i < 0 {
			out = append(out, was.ID)
			continue
		}
		for _, a := range was.Addresses {
			if !c.Interfaces()[i].Has(a) {
				out = append(out, a.String())
			}
		}
	}
	return append(out, c.odd...), c.away
}

func (c *cloud) SubnetsHere(context.Context) ([]ec2.Subnet, error) {
	var out []ec2.Subnet
	for _, s := range c.Fake.Subnets() {
		out = append(out, ec2.Subnet{ID: s.ID, Zone: c.self.Zone, CIDR: s.CIDR, Free: s.Free, Tags: c.tags[s.ID]})
	}
	return out, c.away
}

func (c *cloud) Subnets(ctx context.Context, ids ...string) ([]ec2.Subnet, error) {
	all, err := c.SubnetsHere(ctx)
	for _, s := range all {
		if s.ID == ids[0] {
			return []ec2.Subnet{s}, err
		}
	}
	return nil, err
}

func (c *cloud) Ranges(context.Context) ([]netip.Prefix, error) {
	return []netip.Prefix{netip.MustParsePrefix("10.0.0.0/16")}, nil
}

// Groups is what the metadata say at once.
func (c *cloud) Groups(context.Context) ([]string, error) {
	return c.Interfaces()[0].SecurityGroups, nil
}

// world is a node with its daemon, its plugin and its cloud.
type world struct {
	tester
	ctx     context.Context
	cloud   *cloud
	machine link.Fake
	tables  nft.Fake
	client  *fake.Clientset
	config  Config
	daemon  *Daemon
}

func newWorld(t tester, dir string, get map[string]string, subnets ...string) *world {
	t.Helper()
	settings, err := vpc.ParseSettings(func(name string) string { return get[name] })
	if err != nil {
		t.Fatalf("%v", err)
	}
	limits, err := vpc.LimitsOf("t3.medium")
	if err != nil {
		t.Fatalf("%v", err)
	}
	if len(subnets) == 0 {
		subnets = []string{"10.0.1.0/24"}
	}
	w := &world{tester: t, ctx: context.Background()}
	w.cloud = &cloud{Fake: vpc.NewFake(limits, time.Now(), subnets...), host: w.machine.Here(),
		self: ec2.Identity{ID: "i-1", Type: "t3.medium", Zone: "ap-northeast-2a"}}
	w.cloud.appear()
	w.client = fake.NewClientset()
	w.config = Config{Node: "a1", Client: w.client, Dir: dir, Settings: settings, Host: w.machine.Here(), Tables: &w.tables,
		Log:  slog.New(slog.DiscardHandler),
		Open: func(context.Context, Called) (Cloud, error) { return w.cloud, nil },
		Get:  func(context.Context, string) ([]byte, error) { return nil, errors.New("no API server") },
	}
	w.start()
	return w
}

// start begins a daemon, as if there had been none or it had been killed.
func (w *world) start() {
	w.Helper()
	w.cloud.known = nil
	if w.daemon != nil {
		w.daemon.timer.Stop()
	}
	d, err := New(w.config)
	if err != nil {
		w.Fatalf("%v", err)
	}
	d.node.store.Replace([]any{nodeObject(17, false)}, "1")
	d.node.changed()
	w.daemon = d
}

func nodeObject(pods int64, cordoned bool) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "a1", Labels: map[string]string{"topology.kubernetes.io/zone": "ap-northeast-2a"}},
		Status: corev1.NodeStatus{Capacity: corev1.ResourceList{corev1.ResourcePods: *resource.NewQuantity(pods, resource.DecimalSI)}}}
	if cordoned {
		n.Spec.Taints = []corev1.Taint{{Key: corev1.TaintNodeUnschedulable, Effect: corev1.TaintEffectNoSchedule}}
	}
	return n
}

// pass is one pass of the daemon, which must come to a decision.
func (w *world) pass() {
	w.Helper()
	w.cloud.appear()
	if err := w.daemon.pass(w.ctx); err != nil {
		w.Fatalf("pass: %v", err)
	}
}

// settleFor lets the daemon pass each second for so long.
func (w *world) settleFor(d time.Duration) {
	w.Helper()
	for range d / time.Second {
		<-time.After(time.Second)
		w.pass()
	}
}

func (w *world) update(change func(dir *files.Dir, l vpc.Leases) vpc.Leases) {
	w.Helper()
	dir, err := files.Open(w.config.Dir)
	if err != nil {
		w.Fatalf("%v", err)
	}
	defer dir.Close()
	l, err := dir.ReadLeases(func() (vpc.Leases, error) { return vpc.Leases{}, nil })
	if err != nil {
		w.Fatalf("%v", err)
	}
	if err := dir.WriteLeases(change(dir, l)); err != nil {
		w.Fatalf("%v", err)
	}
}

func keyOf(i int) vpc.Key { return vpc.Key{Container: fmt.Sprint("c", i), Interface: "eth0"} }

// add is the plugin's ADD for a pod: it gets an address, or leaves a ticket and the reason.
func (w *world) add(i int) (got netip.Addr, err error) {
	w.Helper()
	w.update(func(dir *files.Dir, l vpc.Leases) vpc.Leases {
		supply, failed := dir.ReadPool()
		if failed != nil {
			w.Fatalf("%v", failed)
		}
		owner, now := vpc.Owner{Namespace: "default", Pod: fmt.Sprint("p", i)}, time.Now()
		var lease vpc.Lease
		var next vpc.Leases
		lease, next, err = vpc.Assign(supply.Pool(), l, keyOf(i), owner, now)
		if errors.Is(err, vpc.ErrWait) {
			return vpc.Wait(l, keyOf(i), owner, now, now.Add(time.Minute))
		}
		got = lease.Address
		return next
	})
	return got, err
}

func (w *world) remove(i int) {
	w.Helper()
	w.update(func(_ *files.Dir, l vpc.Leases) vpc.Leases { return vpc.Release(l, keyOf(i), time.Now()) })
}

// must is add for pods that get their address, with one pass of the daemon for each that waits.
func (w *world) must(from, to int) {
	w.Helper()
	for i := from; i <= to; i++ {
		_, err := w.add(i)
		if errors.Is(err, vpc.ErrWait) {
			w.pass()
			_, err = w.add(i)
		}
		if err != nil {
			w.Fatalf("pod %d: %v", i, err)
		}
	}
}

// have counts interfaces, and addresses for pods, at the cloud.
func (w *world) have() string {
	addresses := 0
	for _, i := range w.cloud.Interfaces() {
		addresses += i.Size()
	}
	return fmt.Sprintf("%d interfaces, %d addresses", len(w.cloud.Interfaces()), addresses)
}

// sound checks that every address that a pod has is one that the cloud delivers here.
func (w *world) sound() {
	w.Helper()
	w.update(func(_ *files.Dir, l vpc.Leases) vpc.Leases {
		if err := l.Validate(); err != nil {
			w.Errorf("%v", err)
		}
		for _, h := range l.Held {
			found := false
			for _, i := range w.cloud.Interfaces() {
				found = found || i.Has(h.Address)
			}
			if !found {
				w.Errorf("%s: the cloud does not deliver it here", h)
			}
		}
		return l
	})
}

func (w *world) expect(want, got string) {
	w.Helper()
	if want != got {
		w.Errorf("got %s, want %s", got, want)
	}
}
