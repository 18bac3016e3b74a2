// Package routes keeps the ZoneRoutes: it plans every Service, writes what it finds into the
// status of the Service's ZoneRoute, makes ZoneRoutes where there are none, and says what changed.
//
// It is level-triggered: a pass brings what is wanted now, whatever happened before. What a pass
// needs from the past (the plan in force, since when a condition holds) stands in the status, so
// that a new leader goes on where the old one stopped, and writes nothing if nothing changed.
package routes

import (
	"cmp"
	"context"
	"log/slog"
	"reflect"
	"slices"
	"sync"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/flowcontrol"

	"github.com/zonewise/zonewise/internal/loop"
	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/outlook"
	"github.com/zonewise/zonewise/internal/reflect/kube"
	"github.com/zonewise/zonewise/internal/state"
)

const (
	// storm is the least time between two passes over all Services: nodes come and go in swarms.
	storm = time.Second
	// longest is how long news of a node may have to wait, however long such a pass takes.
	longest = 30 * time.Second
	// slice is how long a pass may plan.
	slice = 200 * time.Millisecond
	// resync is the longest time between two passes over all Services.
	resync = 10 * time.Minute
	// podsAgain is after how long a Service that is planned by what its pods request is looked at
	// again: pods change no Service in the tables.
	podsAgain = 30 * time.Second
	// echo is how long a write may take to come back by the watch.
	echo = 5 * time.Second
	// writesPerSecond bounds the load on the API server, where much changes at once.
	writesPerSecond = 50
	// writers is how many writes may be under way at a time.
	writers = 8
	// undefined is between two tries to make ZoneRoutes where the API server does not know them.
	undefined = 10 * time.Second
	// quiet is the least time between two lines about writes that fail.
	quiet = 10 * time.Second
	// patience is for one write.
	patience = 10 * time.Second
)

// Delivery gives Services their hints.
type Delivery interface {
	// Standing tells how it stands, and why hints are withdrawn if they are. It is asked often.
	Standing() (Standing, string)
	// Look asks for a look at a Service whose hints may have to be others now. It never blocks.
	Look(svc model.Name)
}

// Config is what a keeper needs.
type Config struct {
	Tables   *state.Tables
	Client   kubernetes.Interface // for the owner of a ZoneRoute
	Routes   kube.ZoneRoutes
	Settings func() outlook.Settings // of now, save for the namespaces', which are in the tables
	Recorder record.EventRecorder
	Delivery Delivery // nil: hints are not delivered
	Traffic  *Traffic // nil: agents are not asked
	Metered  Metered  // nil: there is no meter
	Forget   func(revision uint64)
	Writes   float32 // a second, at the most; 0 is 50
	Log      *slog.Logger
}

// Keeper keeps the ZoneRoutes.
type Keeper struct {
	Config
	metrics *metrics
	limit   flowcontrol.RateLimiter
	loop    *loop.Loop

	mu      sync.Mutex
	recheck bool // evidence is new
	known   map[model.Name]known

	memory
}

// memory is what passes remember of each other. None of it need outlive a leader.
type memory struct {
	seen     *state.Snapshot          // nil before the first pass
	nodes    []model.Node             // all Services were planned for
	prices   model.Prices             // the same
	all      time.Time                // when that was
	dirty    map[model.Name]bool      // to be planned; true: before the others
	due      map[model.Name]time.Time // when to look again though nothing changes
	verdicts map[model.Name]verdict
	pending  map[model.Name]job
	written  map[model.Name]written
	held     map[model.Name]held
	failures map[model.Name]int
	invalid  map[string]string // modes that namespaces ask for, and that there are not
	unknown  time.Time         // until then nothing is made, since the API server does not know ZoneRoutes
	told     time.Time         // when a failure was logged last
	sweeping bool              // not everything is planned since all
	took     time.Duration     // to plan everything
	gauges   map[flow]*gauge
	glanced  time.Time // at what is measured
	glimpses int       // how often
	timer    *time.Timer
}

// written is a status that has not come back by the watch yet.
type written struct {
	uid    string
	status model.RouteStatus
	until  time.Time
}

// held is a ZoneRoute that was made or removed, and has not come back by the watch yet.
type held struct {
	had   bool
	until time.Time
}

// New returns a keeper that has not begun.
func New(c Config) *Keeper {
	if c.Writes <= 0 {
		c.Writes = writesPerSecond
	}
	k := &Keeper{Config: c, metrics: newMetrics()}
	k.loop = loop.New(k.pass, loop.Options{Resync: resync})
	return k
}

// Wake asks for a pass soon.
func (k *Keeper) Wake() { k.loop.Wake() }

// Recheck asks for a pass that looks at the evidence of every Service again.
func (k *Keeper) Recheck() {
	k.mu.Lock()
	k.recheck = true
	k.mu.Unlock()
	k.loop.Wake()
}

// Run keeps the ZoneRoutes until ctx ends. Whoever runs it is the leader.
func (k *Keeper) Run(ctx context.Context) {
	k.memory = memory{
		dirty: map[model.Name]bool{}, due: map[model.Name]time.Time{}, verdicts: map[model.Name]verdict{},
		pending: map[model.Name]job{}, written: map[model.Name]written{}, held: map[model.Name]held{}, failures: map[model.Name]int{},
		gauges: map[flow]*gauge{},
	}
	k.know(map[model.Name]known{})
	defer k.know(nil)
	defer func() {
		if k.timer != nil {
			k.timer.Stop()
		}
		k.memory = memory{}
	}()
	k.limit = flowcontrol.NewTokenBucketRateLimiter(k.Writes, max(1, int(k.Writes)))
	defer k.limit.Stop()
	defer k.metrics.rest()
	var wg sync.WaitGroup
	wg.Go(func() { k.Tables.Follow(ctx, k.loop.Wake) })
	wg.Go(func() { k.loop.Run(ctx) })
	wg.Wait()
}

func (k *Keeper) pass(ctx context.Context) error {
	snap := k.Tables.Snapshot()
	if len(snap.Missing()) > 0 {
		return nil
	}
	now := time.Now()
	k.gather(snap, now)
	k.watch(snap, now)
	k.warn(snap)
	k.plan(snap, now)
	if k.evidenceIsNew() {
		for name := range k.verdicts {
			k.want(snap, name, now)
		}
	}
	k.seen = snap
	k.Forget(snap.Revision())
	k.write(ctx, now)
	k.metrics.show(k.verdicts, len(k.dirty)+len(k.pending))
	k.sleep(now)
	return nil
}

func (k *Keeper) evidenceIsNew() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	is := k.recheck
	k.recheck = false
	return is
}

// gather puts on the list what is to be planned: what changed, what is due, or everything.
func (k *Keeper) gather(snap *state.Snapshot, now time.Time) {
	everything := k.seen == nil || now.Sub(k.all) >= resync
	if k.seen != nil {
		changes := snap.Changes(k.seen.Revision())
		for _, c := range changes.Services {
			k.dirty[c.Of] = true
		}
	}
	// a storm of node events costs one pass over everything in a while
	if !everything && now.Sub(k.all) >= k.calm() {
		everything = !slices.EqualFunc(k.nodes, slices.Collect(snap.Nodes()), sameNode)
	}
	prices := k.Settings().Prices
	if everything = everything || !reflect.DeepEqual(k.prices, prices); everything {
		k.nodes, k.prices, k.all, k.sweeping = slices.Collect(snap.Nodes()), prices, now, true
		for s := range snap.Services() {
			k.later(s.Name)
		}
		for r := range snap.Routes() {
			k.later(r.Name)
		}
	}
	for name, at := range k.due {
		if !at.After(now) {
			delete(k.due, name)
			k.dirty[name] = true
		}
	}
}

// later puts a Service on the list, after those that changed.
func (k *Keeper) later(name model.Name) {
	if _, listed := k.dirty[name]; !listed {
		k.dirty[name] = false
	}
}

// sameNode tells whether two nodes are the same to a plan.
func sameNode(a, b model.Node) bool {
	return a.Name == b.Name && a.Zone == b.Zone && a.Ready == b.Ready && a.MilliCPU == b.MilliCPU && a.ControlPlane == b.ControlPlane
}

// calm is the time between two passes over everything: long beside what one takes.
func (k *Keeper) calm() time.Duration { return min(max(storm, 4*k.took), longest) }

// plan looks at what is on the list, what changed before what might be other for another reason,
// and leaves the rest to the next pass when it takes too long: news must not wait for all Services.
func (k *Keeper) plan(snap *state.Snapshot, now time.Time) {
	if len(k.dirty) == 0 {
		return
	}
	o := Look(snap, k.Settings(), k.measured(snap, now), now)
	for _, first := range []bool{true, false} {
		for name, changed := range k.dirty {
			if changed != first {
				continue
			}
			if time.Since(now) > slice {
				k.loop.Wake()
				return
			}
			delete(k.dirty, name)
			k.look(o, snap, name, now)
		}
	}
	if k.sweeping {
		k.sweeping, k.took = false, time.Since(k.all)
	}
}

func (k *Keeper) look(o *outlook.Outlook, snap *state.Snapshot, name model.Name, now time.Time) {
	begin := time.Now()
	v, ok := k.judge(o, snap, name)
	if !ok {
		k.forget(name)
		return
	}
	k.metrics.planned.Observe(time.Since(begin).Seconds())
	if k.Delivery != nil && (v.Mode == model.Optimal || k.verdicts[name].Mode == model.Optimal || marked(snap.Slices(name))) {
		k.Delivery.Look(name)
	}
	k.verdicts[name] = v
	k.reread(snap, v, now)
	for _, f := range v.Families {
		if !f.Next.IsZero() && v.Mode != model.Off {
			k.again(name, f.Next)
		}
	}
	if zr, has := snap.Route(name); has && zr.Spec.Capacity == model.CPURequests {
		k.again(name, now.Add(podsAgain))
	}
	k.want(snap, name, now)
}

// marked tells whether a slice carries hints that may be ours.
func marked(all []model.Slice) bool {
	return slices.ContainsFunc(all, func(s model.Slice) bool { return s.HintMark != "" })
}

func (k *Keeper) forget(name model.Name) {
	k.untell(name)
	delete(k.verdicts, name)
	delete(k.pending, name)
	delete(k.written, name)
	delete(k.held, name)
	delete(k.failures, name)
	delete(k.due, name)
	delete(k.gauges, flow{name, false})
	delete(k.gauges, flow{name, true})
}

// again looks at a Service at a time, or sooner.
func (k *Keeper) again(name model.Name, at time.Time) {
	if old, ok := k.due[name]; !ok || at.Before(old) {
		k.due[name] = at
	}
}

// sleep asks for the next pass in time.
func (k *Keeper) sleep(now time.Time) {
	var next time.Time
	sooner := func(at time.Time) {
		if next.IsZero() || at.Before(next) {
			next = at
		}
	}
	for _, at := range k.due {
		sooner(at)
	}
	if k.Metered != nil {
		sooner(k.glanced.Add(glance))
	}
	for _, j := range k.pending {
		if j.kind == create && now.Before(k.unknown) {
			sooner(k.unknown)
			continue
		}
		sooner(now.Add(time.Duration(float32(time.Second) / k.Writes)))
	}
	if at := k.all.Add(k.calm()); at.After(now) && !slices.EqualFunc(k.nodes, slices.Collect(k.seen.Nodes()), sameNode) {
		sooner(at)
	}
	if k.timer != nil {
		k.timer.Stop()
	}
	if !next.IsZero() {
		k.timer = time.AfterFunc(max(0, time.Until(next)), k.loop.Wake)
	}
}

// byUrgency puts first what traffic waits for.
func byUrgency(a, b job) int {
	urgent := func(j job) int {
		if j.status.Mode == model.Optimal {
			return 0
		}
		return 1
	}
	return cmp.Or(urgent(a)-urgent(b), a.name.Compare(b.name))
}
