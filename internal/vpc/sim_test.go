package vpc

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// tester is *testing.T, *testing.B and *rapid.T.
type tester interface {
	Helper()
	Fatalf(format string, args ...any)
}

// node is a node with a cloud: the daemon and the plugin, without what they do to the world.
type node struct {
	tester
	now       time.Time
	cloud     *Fake
	in        Input // what does not change
	leases    Leases
	supply    Supply
	pods      []Key
	started   int
	exhausted int  // so often was a pod told that there will be nothing
	blind     bool // the cloud does not say how full its subnets are
	last      Decision
	asked     time.Time      // when the cloud said how full its subnets are
	free      map[string]int // what it said then; nil: what is so
}

func newNode(t tester, instanceType string, targets Targets, subnets ...string) *node {
	t.Helper()
	limits, err := LimitsOf(instanceType)
	if err != nil {
		t.Fatalf("%v", err)
	}
	if len(subnets) == 0 {
		subnets = []string{"10.0.0.0/20"}
	}
	n := &node{tester: t, now: epoch, cloud: NewFake(limits, epoch, subnets...)}
	n.in = Input{Limits: limits, Targets: targets, Node: Instance{ID: "i-1", Type: instanceType, Zone: "a", MaxPods: MaxPods(limits, targets, 2)}}
	n.supply.Cooldown, n.supply.Family = targets.Cooldown, targets.Family
	return n
}

func (n *node) input() Input {
	in := n.in
	n.cloud.At(n.now)
	in.Now, in.Interfaces, in.Subnets, in.Leases, in.Memory = n.now, n.cloud.Interfaces(), n.cloud.Subnets(), n.leases, n.supply.Memory
	for i, s := range in.Subnets {
		in.Subnets[i].Asked = n.asked
		if old, ok := n.free[s.ID]; ok {
			in.Subnets[i].Free = old
		}
		if n.blind {
			in.Subnets[i].Free = -1
		}
	}
	return in
}

// decide is one round of the daemon: decide and write the supply, under the lock; then ask the cloud.
func (n *node) decide() Decision {
	n.Helper()
	d := n.mark()
	n.carryOut(d)
	n.supply.Interfaces = look(n.input()).publish() // what the cloud gave is in the next one
	n.retry()
	return d
}

func (n *node) mark() Decision {
	d := Decide(n.input())
	n.supply.Interfaces, n.supply.Grows, n.supply.Why, n.supply.Memory = d.Interfaces, d.Next.Grows, d.Next.String(), d.Memory
	n.last = d
	return d
}

func (n *node) carryOut(d Decision) {
	n.Helper()
	for _, h := range n.leases.Held {
		taken := slices.Contains(d.Action.Addresses, h.Address) ||
			slices.ContainsFunc(d.Action.Prefixes, func(p netip.Prefix) bool { return p.Contains(h.Address) })
		if i, ok := n.supply.Find(h.Address); taken || ok && d.Action.Verb == DeleteInterface && i.ID == d.Action.Interface {
			n.Fatalf("takes away what %s has: %s", h, d)
		}
	}
	if d.Action.Verb != None {
		n.supply.Memory = n.supply.Memory.After(d.Action, n.cloud.Do(d.Action), n.now)
	}
}

// settle goes on until there is nothing to do and nothing to wait for, and returns how many calls it
// took. A place that has nothing is asked again and again, for that is what the daemon does; it is
// enough to see that for an hour.
func (n *node) settle() int {
	n.Helper()
	before := len(n.cloud.Calls)
	changed := n.now
	for range 1000 {
		done, held := n.cloud.done, len(n.leases.Held)
		d := n.decide()
		switch {
		case n.cloud.done > done || len(n.leases.Held) != held:
			changed = n.now
		case d.Action.Verb != None:
		case d.Again.IsZero() || n.now.Sub(changed) > time.Hour:
			return len(n.cloud.Calls) - before
		case !d.Again.After(n.now):
			n.Fatalf("waits for what has passed: %s\n%s", d.Again, d)
		default:
			n.now = d.Again
		}
	}
	n.Fatalf("does not come to rest: %s", n.last)
	return 0
}

// start starts pods, as the plugin does.
func (n *node) start(pods int) {
	for range pods {
		n.started++
		k := key(n.started)
		n.pods = append(n.pods, k)
		n.assign(k)
	}
}

func (n *node) assign(k Key) bool {
	n.Helper()
	_, next, err := Assign(n.supply.Pool(), n.leases, k, Owner{Namespace: "default", Pod: k.Container}, n.now)
	switch {
	case err == nil:
		n.leases = next
		return true
	case errors.Is(err, ErrWait), errors.Is(err, ErrExhausted):
		if errors.Is(err, ErrExhausted) {
			n.exhausted++
		}
		n.leases = Wait(n.leases, k, Owner{}, n.now, n.now.Add(10000*time.Hour))
		return false
	}
	n.Fatalf("assign: %v", err)
	return false
}

// retry is what waiting pods do when the supply has changed.
func (n *node) retry() {
	for _, t := range n.leases.Waiting {
		n.assign(t.Key)
	}
}

// stop stops the i-th pod.
func (n *node) stop(i int) {
	n.leases = Release(n.leases, n.pods[i], n.now)
	n.pods = slices.Delete(n.pods, i, i+1)
}

func (n *node) stopAll() {
	for len(n.pods) > 0 {
		n.stop(len(n.pods) - 1)
	}
}

// restart is a daemon that ends and comes back with what is in its files.
func (n *node) restart() {
	n.Helper()
	for _, v := range []any{&n.supply, &n.leases} {
		data, err := json.Marshal(v)
		if err != nil {
			n.Fatalf("%v", err)
		}
		switch v := v.(type) {
		case *Supply:
			*v = Supply{}
			err = json.Unmarshal(data, v)
		case *Leases:
			*v = Leases{}
			err = json.Unmarshal(data, v)
		}
		if err != nil {
			n.Fatalf("%v", err)
		}
	}
}

// shape is "interfaces/addresses", as the tables of the documentation have it: addresses are single
// ones or prefixes.
func (n *node) shape() string {
	var each []int
	for _, i := range n.cloud.Interfaces() {
		each = append(each, len(i.Addresses)+len(i.Prefixes))
	}
	sum := 0
	for _, e := range each {
		sum += e
	}
	return fmt.Sprintf("%d/%d", len(each), sum)
}
