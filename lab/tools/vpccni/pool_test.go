package vpccni_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zonewise/zonewise/internal/vpc"
)

// subject is who gives addresses to the pods of a node.
type subject interface {
	assign(vpc.Key) bool
	release(vpc.Key)
	tick() // a second has passed
}

// node is what both have: a cloud, and what they were told.
type node struct {
	cloud   *vpc.Fake
	limits  vpc.Limits
	targets vpc.Targets
	maxPods int
}

func newNode(t *testing.T, c setting) *node {
	limits, err := vpc.LimitsOf(c.instance)
	if err != nil {
		t.Fatal(err)
	}
	n := &node{limits: limits, targets: c.targets, maxPods: vpc.MaxPods(limits, c.targets, 2)}
	n.cloud = vpc.NewFake(limits, time.Now(), "10.0.0.0/20")
	return n
}

func (n *node) do(a vpc.Action) {
	n.cloud.At(time.Now())
	if o := n.cloud.Do(a); o.Failure != vpc.OK {
		panic(fmt.Sprint(a, ": ", o.Failure))
	}
}

func (n *node) shape() (interfaces, addresses int) {
	for _, e := range n.cloud.Interfaces() {
		interfaces++
		addresses += e.Size()
	}
	return interfaces, addresses
}

// ours decides when something has changed, and when a decision says so.
type ours struct {
	*node
	leases vpc.Leases
	supply vpc.Supply
	again  time.Time
	dirty  bool
}

func newOurs(n *node) *ours {
	return &ours{node: n, supply: vpc.Supply{Cooldown: n.targets.Cooldown, Family: n.targets.Family}, dirty: true}
}

func (o *ours) assign(k vpc.Key) bool {
	_, next, err := vpc.Assign(o.supply.Pool(), o.leases, k, vpc.Owner{}, time.Now())
	o.dirty = true
	if err == nil {
		o.leases = next
		return true
	}
	if !errors.Is(err, vpc.ErrWait) && !errors.Is(err, vpc.ErrExhausted) {
		panic(err)
	}
	o.leases = vpc.Wait(o.leases, k, vpc.Owner{}, time.Now(), time.Now().Add(time.Minute))
	return false
}

func (o *ours) release(k vpc.Key) {
	o.leases, o.dirty = vpc.Release(o.leases, k, time.Now()), true
}

func (o *ours) tick() {
	for o.dirty || !o.again.IsZero() && !time.Now().Before(o.again) {
		o.cloud.At(time.Now())
		d := vpc.Decide(vpc.Input{
			Now: time.Now(), Node: vpc.Instance{Type: o.limits.Type, MaxPods: o.maxPods}, Limits: o.limits, Targets: o.targets,
			Interfaces: o.cloud.Interfaces(), Leases: o.leases, Subnets: o.cloud.Subnets(), Memory: o.supply.Memory,
		})
		o.supply.Interfaces, o.supply.Grows, o.supply.Memory = d.Interfaces, d.Next.Grows, d.Memory
		o.again, o.dirty = d.Again, d.Action.Verb != vpc.None
		if o.dirty {
			o.do(d.Action)
			o.supply.Memory = o.supply.Memory.After(d.Action, vpc.Outcome{}, time.Now())
		}
	}
}

type setting struct {
	instance string
	targets  vpc.Targets
}

func (c setting) String() string {
	t := c.targets
	switch {
	case t.WarmIP+t.MinimumIP > 0:
		return fmt.Sprintf("%s WARM_IP_TARGET=%d MINIMUM_IP_TARGET=%d prefixes=%v", c.instance, t.WarmIP, t.MinimumIP, t.Prefixes)
	case t.Prefixes:
		return fmt.Sprintf("%s WARM_PREFIX_TARGET=%d", c.instance, t.WarmPrefix)
	}
	return fmt.Sprintf("%s WARM_ENI_TARGET=%d custom=%v", c.instance, t.WarmENI, t.CustomNetworking)
}

func settings() (all []setting) {
	for _, instance := range []string{"t3.small", "t3.medium", "m5.large", "p3dn.24xlarge"} {
		for _, change := range []func(*vpc.Targets){
			func(*vpc.Targets) {},
			func(t *vpc.Targets) { t.WarmENI = 2 },
			func(t *vpc.Targets) { t.CustomNetworking = true },
			func(t *vpc.Targets) { t.WarmIP, t.MinimumIP = 1, 1 },
			func(t *vpc.Targets) { t.WarmIP, t.MinimumIP = 2, 5 },
			func(t *vpc.Targets) { t.WarmIP = 5 },
			func(t *vpc.Targets) { t.Prefixes = true },
			func(t *vpc.Targets) { t.Prefixes, t.WarmPrefix = true, 2 },
			func(t *vpc.Targets) { t.Prefixes, t.WarmIP, t.MinimumIP = true, 7, 20 },
		} {
			t := vpc.DefaultTargets()
			change(&t)
			all = append(all, setting{instance, t})
		}
	}
	return all
}

// life is pods that come and go, and what that made of the pool.
type life struct {
	subject
	*node
	pods, waiting []vpc.Key
	made          int

	seconds, interfaces, addresses int // of addresses and interfaces: times seconds
	waited, longest                int // seconds that pods waited: all, and together on end
	on                             int
}

func (l *life) start(n int) {
	for range n {
		l.made++
		l.pods = append(l.pods, vpc.Key{Container: fmt.Sprint("c", l.made), Interface: "eth0"})
		l.waiting = append(l.waiting, l.pods[len(l.pods)-1])
	}
}

func (l *life) stop(i int) {
	k := l.pods[i]
	l.release(k)
	l.pods = slices.Delete(l.pods, i, i+1)
	l.waiting = slices.DeleteFunc(l.waiting, func(w vpc.Key) bool { return w == k })
}

// run lets time pass: kubelet tries waiting pods again each second.
func (l *life) run(seconds int) {
	for range seconds {
		l.waiting = slices.DeleteFunc(l.waiting, l.assign)
		<-time.After(time.Second)
		l.tick()
		l.waiting = slices.DeleteFunc(l.waiting, l.assign)
		l.seconds++
		i, a := l.shape()
		l.interfaces += i
		l.addresses += a
		l.waited += len(l.waiting)
		if l.on++; len(l.waiting) == 0 {
			l.on = 0
		}
		l.longest = max(l.longest, l.on)
	}
}

func both(t *testing.T, c setting, do func(theirs, own *life)) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newNode(t, c), newNode(t, c)
		do(&life{subject: newIpamd(a), node: a}, &life{subject: newOurs(b), node: b})
	})
}

// So many pods, and all quiet: we have the interfaces and addresses that upstream has.
func TestPoolIsUpstreams(t *testing.T) {
	for _, c := range settings() {
		t.Run(c.String(), func(t *testing.T) {
			both(t, c, func(theirs, own *life) {
				for _, pods := range []int{0, 1, 2, 3, 5, 6, 8, 9, 10, 12, 15, 16, 17, 20, 27, 33, 58, 95} {
					if pods > theirs.maxPods-2 {
						break
					}
					for _, l := range []*life{theirs, own} {
						l.start(pods - len(l.pods))
						l.run(300)
					}
					ti, ta := theirs.shape()
					oi, oa := own.shape()
					// Upstream counts whole prefixes that nobody uses, and so has one more than its target
					// of addresses asks for.
					fewer := c.targets.Prefixes && c.targets.WarmPrefix > 1 && oi <= ti && ta-oa == prefixSize
					if (ti != oi || ta != oa) && !fewer || len(theirs.waiting)+len(own.waiting) > 0 {
						t.Errorf("%d pods: %d interfaces with %d addresses, %d wait; upstream %d with %d, %d wait",
							pods, oi, oa, len(own.waiting), ti, ta, len(theirs.waiting))
					}
				}
			})
		})
	}
}

// An hour of pods that come and go, the same for both: pods wait less, for fewer calls and not more
// addresses.
func TestTraces(t *testing.T) {
	sum := map[string][2]int{} // of upstream, and of ours
	for seed, c := range settings() {
		both(t, c, func(theirs, own *life) {
			random := rand.New(rand.NewPCG(uint64(seed), 1))
			most := min(theirs.maxPods-2, 60)
			for range 120 {
				starts, stops := 0, 0
				switch random.IntN(4) {
				case 0:
					starts = min(random.IntN(most/3+1), most-len(theirs.pods))
				case 1:
					stops = random.IntN(len(theirs.pods)/2 + 1)
				case 2: // a rollout
					stops = random.IntN(len(theirs.pods)/2 + 1)
					starts = stops
				}
				gone := make([]int, stops)
				for k := range gone {
					gone[k] = random.IntN(len(theirs.pods) - k)
				}
				seconds := 1 + random.IntN(60)
				for _, l := range []*life{theirs, own} {
					for _, k := range gone {
						l.stop(k)
					}
					l.start(starts)
					l.run(seconds)
				}
			}
			t.Logf("%-70s calls %4d %4d  addresses %6.1f %6.1f  interfaces %4.1f %4.1f  waited %5d %5d  longest %3d %3d", c,
				len(theirs.cloud.Calls), len(own.cloud.Calls), mean(theirs.addresses, theirs), mean(own.addresses, own),
				mean(theirs.interfaces, theirs), mean(own.interfaces, own), theirs.waited, own.waited, theirs.longest, own.longest)
			for what, n := range map[string][2]int{
				"calls": {len(theirs.cloud.Calls), len(own.cloud.Calls)}, "waited": {theirs.waited, own.waited}, "addresses": {theirs.addresses, own.addresses},
			} {
				sum[what] = [2]int{sum[what][0] + n[0], sum[what][1] + n[1]}
			}
		})
	}
	t.Logf("upstream and ours: %v", sum)
	// Upstream chooses addresses at random, so its numbers are not the same each time.
	for what, most := range map[string]float64{"calls": 0.8, "waited": 0.3, "addresses": 1.02} {
		if n := sum[what]; float64(n[1]) > most*float64(n[0]) {
			t.Errorf("%s: %d, upstream %d", what, n[1], n[0])
		}
	}
}

func mean(sum int, l *life) float64 { return float64(sum) / float64(l.seconds) }
