package addresses

import (
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/zonewise/zonewise/internal/agent/view"
	"github.com/zonewise/zonewise/internal/version"
	"github.com/zonewise/zonewise/internal/vpc"
	"github.com/zonewise/zonewise/internal/vpc/files"
)

// status is what people see.
type status struct {
	mu      sync.Mutex
	last    *view.Addresses // of the last pass that came to a decision
	failure string          // what went wrong since the last pass in which nothing did
	begun   time.Time       // of the pass in progress
}

func (s *status) failed(why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failure = why
}

// fine forgets what went wrong, when the cloud does what it is asked again.
func (s *status) fine() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failure = ""
}

func (s *status) begin(at time.Time) (done func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.begun = at
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.begun = time.Time{}
	}
}

// stuck is how long a pass may take: some calls of the cloud, each with its own patience.
const stuck = 5 * time.Minute

func (s *status) alive(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.begun.IsZero() || now.Sub(s.begun) < stuck
}

func (s *status) set(v view.Addresses) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = &v
}

// get returns what is known; nothing before the first decision, and then why.
func (s *status) get() (v *view.Addresses, failure string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last == nil {
		return nil, s.failure
	}
	out := *s.last
	out.Failure = s.failure
	return &out, s.failure
}

// tell makes what was decided visible: to people, to Prometheus, and on pods that wait.
func (d *Daemon) tell(in vpc.Input, decision vpc.Decision) {
	v := viewOf(in, decision)
	v.Name, v.Version, v.Looked = d.config.Node, version.Version, d.looked
	v.Warnings = append([]string{}, slices.Concat(v.Warnings, d.notes, d.config.Notes)...)
	v.Subnets = d.stock.view()
	if d.unseen == nil && in.Memory.Failures == 0 && len(d.notes) == 0 {
		d.status.fine()
	}
	d.status.set(v)
	d.metrics.decided(v)
	d.events.waiting(in.Leases.Waiting, decision.Next)
}

// tellClosed tells pods that wait why they do, while nobody says which instance this is. What an earlier daemon has
// written holds: the plugin goes on giving what is free.
func (d *Daemon) tellClosed(why error) (err error) {
	dir, err := files.Open(d.config.Dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	supply, err := dir.ReadPool()
	if err != nil {
		return nil // there is none to be told of: the plugin says so itself
	}
	leases, err := d.leases(dir)
	if err != nil {
		return err
	}
	next := vpc.Next{Waiting: len(leases.Waiting), Waits: "the instance's metadata", Grows: supply.Grows,
		Limit: why.Error(), Mend: "see whether the node reaches its metadata service, and the log of zonewise-cni on this node"}
	d.events.waiting(leases.Waiting, next)
	supply.Why = next.String()
	return dir.WritePool(supply)
}

// The states of an interface that is not simply there.
const (
	stateForeign   = "foreign"
	stateDraining  = "draining"
	stateAttaching = "attaching"
)

// viewOf counts what each interface has.
func viewOf(in vpc.Input, decision vpc.Decision) view.Addresses {
	v := view.Addresses{Schema: view.AddressesSchema, Zone: in.Node.Zone, Instance: in.Node.ID, InstanceType: in.Node.Type,
		MaxPods: in.Node.MaxPods, Pods: len(in.Leases.Held), Next: decision.Next, Doing: decision.Reason,
		Interfaces: []view.AddressInterface{}, Warnings: slices.Clone(decision.Warnings)}
	if decision.Action.Verb != vpc.None {
		v.Doing = decision.Action.String() + ": " + decision.Reason
	}
	for _, i := range decision.Interfaces {
		row := view.AddressInterface{ID: i.ID, Device: i.Device, Index: i.Index, Primary: i.Primary, Subnet: i.SubnetID,
			Address: i.Address.String(), Slots: in.Limits.Slots(), Prefixes: len(i.Prefixes), Taken: len(i.Addresses) + len(i.Prefixes)}
		switch {
		case i.Unmanaged:
			row.State = stateForeign
		case i.Draining:
			row.State = stateDraining
		case i.Device == "":
			row.State = stateAttaching
		}
		if !i.Unmanaged {
			count(&row, i, in)
		}
		v.Interfaces = append(v.Interfaces, row)
	}
	return v
}

func count(row *view.AddressInterface, i vpc.Interface, in vpc.Input) {
	row.Addresses = i.Size()
	for _, h := range in.Leases.Held {
		if i.Has(h.Address) {
			row.Used++
		}
	}
	for _, r := range in.Leases.Resting {
		if i.Has(r.Address) && in.Now.Sub(r.At) < in.Targets.Cooldown {
			row.Cooling++
		}
	}
	if !i.Draining {
		row.Warm = max(row.Addresses-row.Used-row.Cooling, 0)
	}
}
