package addresses

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"runtime"
	"slices"
	"time"

	"github.com/zonewise/zonewise/internal/vpc"
	"github.com/zonewise/zonewise/internal/vpc/ec2"
	"github.com/zonewise/zonewise/internal/vpc/files"
	"github.com/zonewise/zonewise/internal/vpc/link"
)

// How often things are looked after that change without an event.
const (
	// lookEvery is for what others do at the cloud. All nodes of an account share its budget of calls.
	lookEvery = 2 * time.Minute
	// lookUrgent is the same while pods wait for what the cloud did not have.
	lookUrgent = 10 * time.Second
	// glanceEvery is for what somebody takes away by hand: pods that had it are cut off.
	glanceEvery = 5 * time.Second
	// lookFailed is the least time between two questions because of something odd.
	lookFailed = 5 * time.Second
	// applyEvery is for what others do to the node's network.
	applyEvery = 30 * time.Second
	// groupsEvery is for the security groups of the primary interface, which its metadata tells.
	groupsEvery = 30 * time.Second
	// tidyEvery is for interfaces that are being detached, and sweepEvery for those that a process left that was ended.
	tidyEvery, sweepEvery = 3 * time.Second, time.Hour
	// tidyFailed is the same where the cloud refuses it.
	tidyFailed = time.Minute
	// appearEvery is for interfaces that are being attached; appearLong is how long that takes at most.
	appearEvery, appearLong = 200 * time.Millisecond, 30 * time.Second
)

// pass looks, decides and does, until there is nothing to be done.
func (d *Daemon) pass(ctx context.Context) error {
	defer d.status.begin(time.Now())()
	if err := d.open(ctx); err != nil {
		return errors.Join(err, d.tellClosed(err))
	}
	d.heed(ctx)
	d.glance(ctx)
	for ctx.Err() == nil {
		d.observe(ctx)
		decision, err := d.settle()
		if err != nil {
			return err
		}
		d.install()
		if decision.Action.Verb == vpc.None {
			d.tidy(ctx)
			d.schedule(decision)
			return nil
		}
		d.act(ctx, decision)
	}
	return nil
}

// glance makes the cloud be asked when something has gone that it did not tell us of. The same is asked for once: what
// the cloud then says holds.
func (d *Daemon) glance(ctx context.Context) {
	now := time.Now()
	if now.Sub(d.glanced) < glanceEvery || now.Sub(d.looked) < lookFailed || d.unseen != nil {
		return
	}
	d.glanced = now
	missing, err := d.cloud.Missing(ctx)
	switch {
	case err != nil:
		d.config.Log.Debug("what is missing", "err", err)
		d.glanced = now.Add(lookEvery / 4) // nothing hangs on it, and pods may wait for this pass
	case len(missing) > 0 && !slices.Equal(missing, d.missed):
		d.config.Log.Warn("somebody has taken something away; the cloud is asked", "missing", missing)
		d.look = time.Time{}
		fallthrough
	default:
		d.missed = missing
	}
}

// observe asks the cloud, if that is due. An answer that is none is remembered as the failure of an action is: what was
// said last holds, and nothing is asked before it is time.
func (d *Daemon) observe(ctx context.Context) {
	now := time.Now()
	if now.Before(d.look) {
		return
	}
	err := d.ask(ctx)
	if ctx.Err() != nil {
		return
	}
	switch {
	case err != nil:
		d.memory = d.memory.After(vpc.Action{}, vpc.Outcome{Failure: ec2.Classify(err), Call: ec2.CallOf(err)}, now)
		d.look = d.memory.Retry
		d.wrong("cloud", err)
	default:
		if d.unseen != nil {
			d.memory = d.memory.After(vpc.Action{}, vpc.Outcome{}, now)
		}
		d.looked, d.look = now, now.Add(jitter(lookEvery))
	}
	d.unseen = err
}

// heed makes the cloud be asked now if somebody has changed the security groups of the primary interface: those of the
// others are to follow. Without metadata it is asked in its own time. So does the Node, of which custom networking goes by
// a label, when it is read for the first time.
func (d *Daemon) heed(ctx context.Context) {
	now := time.Now()
	if !d.met && d.node.known() {
		d.met = true
		if d.config.Targets.CustomNetworking && d.unseen == nil {
			d.look = time.Time{}
		}
	}
	if now.Sub(d.grouped) < groupsEvery || d.unseen != nil {
		return
	}
	d.grouped = now
	groups, err := d.cloud.Groups(ctx)
	if err != nil {
		d.config.Log.Debug("security groups", "err", err)
		return
	}
	if d.groups != nil && !slices.Equal(groups, d.groups) {
		d.look = time.Time{}
	}
	d.groups = groups
}

func jitter(t time.Duration) time.Duration { return t - rand.N(t/4) }

// wrong says that something failed which is tried again in its own time.
func (d *Daemon) wrong(what string, err error) {
	d.metrics.errors.Inc()
	d.status.failed(err.Error())
	d.config.Log.Warn(what, "err", err)
}

// settle decides, and makes pool and node follow, with nobody else at the files: no address is given or released in
// between.
func (d *Daemon) settle() (decision vpc.Decision, err error) {
	dir, err := files.Open(d.config.Dir)
	if err != nil {
		return decision, err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	leases, err := d.leases(dir)
	if err != nil {
		return decision, err
	}
	if err := d.adopt(dir); err != nil {
		return decision, err
	}
	interfaces, err := d.interfaces()
	if err != nil {
		return decision, err
	}
	in := d.input(interfaces, leases)
	decision = vpc.Decide(in)
	d.memory = decision.Memory
	if err := d.publish(dir, d.supplyOf(in, decision), leases); err != nil {
		return decision, err
	}
	d.tell(in, decision)
	return decision, nil
}

// leases reads who holds what. Where that is lost it is made anew from the node's wires, and kept.
func (d *Daemon) leases(dir *files.Dir) (vpc.Leases, error) {
	rebuilt := false
	leases, err := dir.ReadLeases(func() (vpc.Leases, error) {
		rebuilt = true
		held, err := link.Wired(d.config.Host)
		return vpc.Leases{Held: held}, err
	})
	if err == nil && rebuilt {
		d.config.Log.Info("leases made anew from the node's wires", "held", len(leases.Held))
		err = dir.WriteLeases(leases)
	}
	return leases, err
}

// adopt takes up, at the first pass, what an earlier daemon has written. What cannot be read is written anew: all of it
// can be had from the cloud.
func (d *Daemon) adopt(dir *files.Dir) error {
	if d.adopted {
		return nil
	}
	before, err := dir.ReadPool()
	switch {
	case errors.Is(err, files.ErrBadPool), errors.Is(err, files.ErrNewer):
		d.config.Log.Warn("the pool is made anew from what the cloud says", "err", err)
	case err != nil && !errors.Is(err, files.ErrNoPool):
		return err
	case err == nil && before.Node.ID == d.cloud.Self().ID: // else the disk is of another instance
		d.supply, d.memory = before, before.Memory
		d.ranges = orElse(d.ranges, before.VPC)
	}
	d.adopted = true
	return nil
}

func orElse[T any](list, other []T) []T {
	if len(list) > 0 {
		return list
	}
	return other
}

// interfaces are what the cloud says, with the names that they have in the node. Before the cloud has ever answered
// they are those of the earlier daemon.
func (d *Daemon) interfaces() ([]vpc.Interface, error) {
	list := d.cloud.Known()
	if len(list) == 0 {
		if list = slices.Clone(d.supply.Interfaces); len(list) == 0 {
			return nil, d.unseen
		}
	}
	var names link.Names
	for n := range list {
		i := &list[n]
		had := ""
		if k := slices.IndexFunc(d.supply.Interfaces, func(o vpc.Interface) bool { return o.ID == i.ID }); k >= 0 {
			had = d.supply.Interfaces[k].Device
		}
		var err error
		if i.Device, err = d.device(i.MAC, had, &names); err != nil {
			return nil, fmt.Errorf("interface %s: %w", i.ID, err)
		}
		if had != "" && i.Device == "" && time.Since(d.looked) >= lookFailed {
			d.look = time.Time{} // somebody has taken it off
		}
	}
	return list, nil
}

// device is the name in the node of an interface that had one, or none yet. Those that are where they were are found without
// a list of all devices: while pods come and go the kernel tears such lists again and again, and pods wait for our lock.
func (d *Daemon) device(mac, had string, all *link.Names) (string, error) {
	if had != "" {
		if same, err := link.Is(d.config.Host, had, mac); same || err != nil {
			return had, err
		}
	}
	if *all == nil {
		var err error
		if *all, err = link.NamesOf(d.config.Host); err != nil {
			return "", err
		}
	}
	return all.Find(mac)
}

func (d *Daemon) input(interfaces []vpc.Interface, leases vpc.Leases) vpc.Input {
	node := d.node.facts()
	self := d.cloud.Self()
	if node.maxPods == 0 {
		node.maxPods = vpc.MaxPods(d.limits, d.config.Targets, runtime.NumCPU())
	}
	return vpc.Input{
		Now:    time.Now(),
		Node:   vpc.Instance{ID: self.ID, Type: self.Type, Zone: self.Zone, MaxPods: node.maxPods},
		Limits: d.limits, Targets: d.config.Targets, Interfaces: interfaces, Leases: leases,
		Subnets: d.subnets, Memory: d.memory,
		Cordoned: node.cordoned && !d.config.ManageUnschedulable,
	}
}

// supplyOf is what the plugin is to know.
func (d *Daemon) supplyOf(in vpc.Input, decision vpc.Decision) vpc.Supply {
	return vpc.Supply{Interfaces: decision.Interfaces, Family: in.Targets.Family, Cooldown: in.Targets.Cooldown, VPC: d.ranges,
		Excluded: d.config.Excluded, ExternalSNAT: d.config.ExternalSNAT, Grows: decision.Next.Grows, Why: decision.Next.String(),
		Node: in.Node, Memory: decision.Memory}
}

// publish makes the node's network ready for the supply, and then tells the plugin of it: an address that a pod has must
// find its routes. What is written already is not written again, since each write wakes all who wait.
func (d *Daemon) publish(dir *files.Dir, supply vpc.Supply, leases vpc.Leases) error {
	now := time.Now()
	changed := !same(supply, d.supply)
	if !changed && !dir.HasPool(d.supply) {
		d.config.Log.Warn("the pool is written anew: somebody has changed or removed it")
		changed = true
	}
	if !same(network(supply), network(d.supply)) || now.Sub(d.applied) >= applyEvery {
		if err := d.plumb(supply, leases); err != nil {
			d.applied = time.Time{}
			return err
		}
		d.applied = now
	}
	if !changed {
		return nil
	}
	supply.Written = now
	if err := dir.WritePool(supply); err != nil {
		return err
	}
	d.supply = supply
	return nil
}

// same leaves out when it was written.
func same(a, b vpc.Supply) bool {
	a.Written, b.Written = time.Time{}, time.Time{}
	return reflect.DeepEqual(a, b)
}

// network is what of a supply the node's network follows from. The rest changes with each pod that comes, and pods
// that come together need not wait for rules and NAT that are what they were.
func network(s vpc.Supply) vpc.Supply {
	s.Grows, s.Why, s.Memory, s.Cooldown = false, "", vpc.Memory{}, 0
	return s
}

func (d *Daemon) plumb(supply vpc.Supply, leases vpc.Leases) error {
	mtu := d.config.MTU
	if mtu == 0 {
		var err error
		if mtu, err = link.UplinkMTU(d.config.Host); err != nil {
			return fmt.Errorf("node's network: %w", err)
		}
	}
	if err := link.Apply(d.config.Host, d.config.Tables, link.PlanHost(supply, leases, mtu)); err != nil {
		return fmt.Errorf("node's network: %w", err)
	}
	return nil
}

// act asks the cloud for what was decided. Its failure is no error of the pass: the memory has it, and with it when to
// ask again.
func (d *Daemon) act(ctx context.Context, decision vpc.Decision) {
	a, begin := decision.Action, time.Now()
	outcome, err := d.cloud.Do(ctx, a)
	if ctx.Err() != nil {
		return // we were stopped, which is no failure of the cloud; the next daemon looks
	}
	d.memory = d.memory.After(a, outcome, time.Now())
	d.metrics.acted(a, outcome)
	d.config.Log.Info("asked the cloud", "action", a.String(), "took", time.Since(begin), "failure", outcome.Failure, "reason", decision.Reason)
	switch outcome.Failure {
	case vpc.OK:
		d.spend(a)
	case vpc.SubnetFull, vpc.Fragmented:
		d.look = earlier(d.look, time.Now().Add(lookUrgent))
	case vpc.Away, vpc.Gone:
		d.look = d.memory.Retry // nobody knows how much of it was done
	}
	if err != nil {
		d.wrong("cloud", err)
	}
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// spend takes what was got off what its subnet has, until the cloud is asked again.
func (d *Daemon) spend(a vpc.Action) {
	n := a.Count
	if a.OfPrefixes || a.Verb == vpc.AssignPrefixes {
		n *= 16
	}
	switch a.Verb {
	case vpc.CreateInterface:
		n++ // its own
	case vpc.AssignAddresses, vpc.AssignPrefixes:
	default:
		return
	}
	d.subnets = slices.Clone(d.subnets)
	for i, s := range d.subnets {
		if s.ID == a.Subnet && s.Free >= 0 {
			d.subnets[i].Free = max(s.Free-n, 0)
		}
	}
}

// tidy deletes what was detached, or left by somebody who was ended.
func (d *Daemon) tidy(ctx context.Context) {
	now := time.Now()
	if d.unseen != nil {
		return
	}
	if now.Sub(d.swept) >= sweepEvery {
		d.cloud.Sweep()
		d.swept = now
	} else if now.Before(d.tidyNext) {
		return
	}
	d.tidyNext = now.Add(tidyEvery)
	had := len(d.cloud.Known())
	busy, err := d.cloud.Tidy(ctx)
	if len(d.cloud.Known()) < had {
		d.loop.Wake() // there is a place for another
	}
	if err != nil && ctx.Err() == nil {
		d.wrong("interfaces that are to go", err)
		d.tidyNext = now.Add(tidyFailed) // nobody waits for it
	}
	d.busy = busy
}

// schedule says when to look again, if nothing wakes us.
func (d *Daemon) schedule(decision vpc.Decision) {
	now := time.Now()
	switch {
	case decision.Next.Waiting == 0:
	case d.unseen == nil:
		d.look = earlier(d.look, d.looked.Add(lookUrgent))
	default:
		d.look = earlier(d.look, d.memory.RetryAt(true))
	}
	due := earlier(now.Add(glanceEvery), d.look)
	if decision.Next.Waiting > 0 {
		due = earlier(due, now.Add(patient)) // an event says so then
	}
	if !decision.Again.IsZero() {
		due = earlier(due, decision.Again)
	}
	if d.busy > 0 {
		due = earlier(due, now.Add(tidyEvery))
	}
	for _, i := range decision.Interfaces {
		switch {
		case i.Unmanaged || i.Device != "":
		case now.Sub(i.Attached) < appearLong:
			due = earlier(due, now.Add(appearEvery))
		default:
			due = earlier(due, now.Add(tidyEvery))
		}
	}
	d.wakeIn(due.Sub(now))
}

// install tells the container runtime of the plugin, as soon as there is something that it can give.
func (d *Daemon) install() {
	if d.installed || d.config.Install == nil || len(d.supply.Interfaces) == 0 {
		return
	}
	if err := d.config.Install(); err != nil {
		d.wrong("plugin", err)
		return
	}
	d.installed = true
}
