package vpc

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// trial is a node to which everything happens that can.
type trial struct {
	*node
	t        *rapid.T
	wrong    bool // the cloud's answers may be of a while ago, or somebody has deleted an interface
	pending  *Decision
	view     []Interface // before the last call
	viewTill time.Time
}

func drawTrial(t *rapid.T) *trial {
	targets := DefaultTargets()
	targets.WarmENI = rapid.IntRange(0, 2).Draw(t, "WARM_ENI_TARGET")
	targets.WarmIP = rapid.SampledFrom([]int{0, 0, 1, 2, 7}).Draw(t, "WARM_IP_TARGET")
	targets.MinimumIP = rapid.SampledFrom([]int{0, 0, 1, 5, 20}).Draw(t, "MINIMUM_IP_TARGET")
	targets.WarmPrefix = rapid.IntRange(0, 2).Draw(t, "WARM_PREFIX_TARGET")
	targets.Prefixes = rapid.Bool().Draw(t, "prefixes")
	targets.CustomNetworking = rapid.Bool().Draw(t, "custom networking")
	targets.MaxENI = rapid.SampledFrom([]int{0, 0, 2, 3}).Draw(t, "MAX_ENI")
	targets.Cooldown = rapid.SampledFrom([]time.Duration{0, 30 * time.Second, 5 * time.Minute}).Draw(t, "cooldown")
	targets.Family = rapid.SampledFrom([]Family{IPv4, IPv4, Dual, IPv6}).Draw(t, "family")
	if targets.Family == IPv6 {
		targets.CustomNetworking = false
	}
	instance := rapid.SampledFrom([]string{"t3.nano", "t3.small", "t3.medium", "m4.large", "m5.large"}).Draw(t, "instance")
	subnets := rapid.SampledFrom([][]string{{"10.0.0.0/22"}, {"10.0.0.0/27"}, {"10.0.0.0/28", "10.0.1.0/24"}}).Draw(t, "subnets")
	n := newNode(t, instance, targets, subnets...)
	if rapid.Bool().Draw(t, "few pods") {
		n.in.Node.MaxPods = rapid.IntRange(3, 20).Draw(t, "max pods")
	}
	n.blind = rapid.Bool().Draw(t, "blind")
	n.cloud.Attach = rapid.SampledFrom([]time.Duration{0, 10 * time.Second}).Draw(t, "attach")
	return &trial{node: n, t: t}
}

// most is how many pods there are at most: those that need no address left out.
func (x *trial) most() int {
	return min(x.in.Node.MaxPods, MaxPods(x.in.Limits, x.in.Targets, 2)) - hostPods
}

// work finishes what the daemon has begun.
func (x *trial) work() {
	d := x.pending
	if x.pending = nil; d == nil {
		return
	}
	x.view, x.viewTill = x.cloud.Interfaces(), x.now.Add(echo/2)
	for _, r := range x.leases.Resting {
		taken := slices.Contains(d.Action.Addresses, r.Address) ||
			slices.ContainsFunc(d.Action.Prefixes, func(p netip.Prefix) bool { return p.Contains(r.Address) }) ||
			d.Action.Verb == DeleteInterface && slices.ContainsFunc(x.view, func(i Interface) bool { return i.ID == d.Action.Interface && i.Has(r.Address) })
		if taken && r.cools(x.now, x.in.Targets.Cooldown) {
			x.t.Fatalf("takes away %s, which cools: %s", r.Address, d)
		}
	}
	x.carryOut(*d)
	if f := x.supply.Memory.Failure; !x.wrong && x.cloud.Fail == nil && (f == Gone || f == Invalid) {
		x.t.Fatalf("asked for what cannot be: %s of\n%+v", d, x.cloud.Interfaces())
	}
	for _, r := range x.supply.Memory.Refusals {
		if !x.wrong && r.Failure == Limit {
			x.t.Fatalf("asked for more than there is room for: %s", d)
		}
	}
}

func (x *trial) check() {
	if err := x.leases.Validate(); err != nil {
		x.t.Fatalf("%v", err)
	}
	if err := x.supply.Validate(); err != nil {
		x.t.Fatalf("%v", err)
	}
	if x.wrong {
		return
	}
	there := x.cloud.Interfaces()
	for _, h := range x.leases.Held {
		if !slices.ContainsFunc(there, func(i Interface) bool { return i.Has(h.Address) }) {
			x.t.Fatalf("%s has an address that the cloud brings to nobody", h)
		}
	}
}

// In any order of pods, times, refusals, lost answers and ends of the daemon: no address is given twice
// or taken away from a pod, or while it cools; nothing is asked that the cloud cannot do; and when all
// is quiet the pool comes to rest, with everybody served who can be.
func TestDecideInAnyOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x := drawTrial(t)
		t.Repeat(map[string]func(*rapid.T){
			"start": func(t *rapid.T) {
				x.start(min(rapid.IntRange(1, 6).Draw(t, "pods"), max(x.most()-len(x.pods), 0)))
			},
			"stop": func(t *rapid.T) {
				for range min(rapid.IntRange(1, 6).Draw(t, "pods"), len(x.pods)) {
					x.stop(rapid.IntRange(0, len(x.pods)-1).Draw(t, "pod"))
				}
			},
			"time": func(t *rapid.T) {
				x.now = x.now.Add(time.Duration(rapid.SampledFrom([]int{1, 5, 31, 70, 150, 3000}).Draw(t, "seconds")) * time.Second)
			},
			"decide": func(*rapid.T) {
				x.work()
				d := x.mark()
				x.pending = &d
				x.retry()
			},
			"decide again and again": func(*rapid.T) {
				for range 4 {
					x.work()
					x.decide()
				}
			},
			"work": func(*rapid.T) { x.work() },
			"die": func(*rapid.T) {
				x.pending = nil
				x.restart()
			},
			"die with the work done": func(*rapid.T) {
				if d := x.pending; d != nil {
					x.cloud.Do(d.Action)
					x.pending = nil
					x.restart()
				}
			},
			"fail": func(t *rapid.T) {
				f := rapid.SampledFrom([]Failure{Throttled, Denied, Away, SubnetFull, Fragmented}).Draw(t, "failure")
				x.cloud.Fail = func(Action) Failure { return f }
				x.work()
				x.decide()
				x.cloud.Fail = nil
			},
			"lose": func(*rapid.T) {
				x.cloud.Lose = func(Action) bool { return true }
				x.work()
				x.decide()
				x.cloud.Lose = nil
			},
			"others": func(t *rapid.T) {
				a := plus(netip.MustParseAddr("10.0.0.0"), uint32(rapid.IntRange(4, 250).Draw(t, "address")))
				if !slices.ContainsFunc(x.cloud.Interfaces(), func(i Interface) bool { return i.Has(a) || i.Address == a }) {
					x.cloud.Take(a)
				}
			},
			"": func(*rapid.T) { x.check() },
		})
		x.quiet()
	})
}

// quiet is an hour after everything.
func (x *trial) quiet() {
	x.work()
	x.now = x.now.Add(time.Hour)
	done := x.cloud.done
	calls := x.settle()
	x.check()
	if bound := 12 + 2*x.in.Limits.Interfaces; x.cloud.done-done > bound || calls > bound+2*int(time.Hour/refused) {
		x.t.Fatalf("%d calls to come to rest, and %d in vain: %v", x.cloud.done-done, calls, x.cloud.Calls[len(x.cloud.Calls)-calls:])
	}
	x.still()
	s := look(x.input())
	if n := len(x.leases.Waiting); n > 0 && s.room() > 0 && !x.narrow() {
		x.t.Fatalf("%d pods wait: %s", n, x.last)
	}
	x.stopAll()
	x.now = x.now.Add(time.Hour)
	x.settle()
	s = look(x.input())
	if idle := s.shrink(); idle.Verb != None && s.shortage(0) == 0 {
		x.t.Fatalf("keeps what it needs not: %s", idle)
	}
	if more := s.free - x.bound(); more > 0 && s.Targets.Family != IPv6 {
		x.t.Fatalf("%d free addresses, %d more than an idle node wants: %s", s.free, more, x.last)
	}
}

// still tells that nothing changes when nothing has happened.
func (x *trial) still() {
	done := x.cloud.done
	if calls := x.settle(); x.cloud.done > done {
		x.t.Fatalf("%d changes, though nothing has happened: %v", x.cloud.done-done, x.cloud.Calls[len(x.cloud.Calls)-calls:])
	}
}

// narrow tells whether the subnets may have nothing left.
func (x *trial) narrow() bool {
	return slices.ContainsFunc(x.cloud.Subnets(), func(s Subnet) bool { return s.Free < 64 })
}

// bound is the most that an idle node has.
func (x *trial) bound() int {
	t, l := x.in.Targets, x.in.Limits
	switch {
	case t.byIP() && t.byPrefix(l):
		return (max(t.WarmIP, t.MinimumIP)+prefixSize-1)/prefixSize*prefixSize + l.Slots()
	case t.byIP():
		return max(t.WarmIP, t.MinimumIP)
	case t.byPrefix(l):
		return max(t.warm(l), prefixSize) + l.Slots()
	}
	return (max(t.WarmENI, 1)+1)*l.Slots() - 1 // those that were filled when the subnet was nearly full are not moved
}

// What the cloud tells may be of a moment ago, and people delete what they should not. Pods that have an
// address keep it even then, and nobody gets it too.
func TestDecideOnOldAnswers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x := drawTrial(t)
		x.wrong = true
		t.Repeat(map[string]func(*rapid.T){
			"start": func(t *rapid.T) {
				x.start(min(rapid.IntRange(1, 6).Draw(t, "pods"), max(x.most()-len(x.pods), 0)))
			},
			"stop": func(t *rapid.T) {
				for range min(rapid.IntRange(1, 6).Draw(t, "pods"), len(x.pods)) {
					x.stop(rapid.IntRange(0, len(x.pods)-1).Draw(t, "pod"))
				}
			},
			"time": func(t *rapid.T) {
				x.now = x.now.Add(time.Duration(rapid.SampledFrom([]int{1, 5, 31, 70}).Draw(t, "seconds")) * time.Second)
			},
			"decide": func(*rapid.T) {
				x.work()
				d := x.mark()
				x.pending = &d
				x.retry()
			},
			"decide on an old answer": func(t *rapid.T) {
				x.work()
				if x.view == nil || x.now.After(x.viewTill) {
					return
				}
				in := x.input()
				in.Interfaces = x.view
				d := Decide(in)
				x.supply.Interfaces, x.supply.Memory = d.Interfaces, d.Memory
				gone := x.supply.Memory.Leaving
				x.retry()
				for _, h := range x.leases.Held {
					if slices.ContainsFunc(gone, func(l Leaving) bool { return slices.Contains(l.Addresses, h.Address) }) {
						t.Fatalf("%s has an address that is leaving: %+v", h, gone)
					}
				}
				x.pending = &d
			},
			"somebody deletes an interface": func(t *rapid.T) {
				if all := x.cloud.Interfaces(); len(all) > 1 {
					x.cloud.Remove(all[rapid.IntRange(1, len(all)-1).Draw(t, "interface")].ID)
				}
			},
			"": func(*rapid.T) { x.check() },
		})
		x.work()
		x.now = x.now.Add(time.Hour)
		x.settle()
		x.still()
	})
}
