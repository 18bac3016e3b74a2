package pods

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	"github.com/zonewise/zonewise/lab/region/ec2/wire"
)

// Scenario is a state of a node's pool of addresses in which pods start.
type Scenario struct {
	Name, What string
	settings   func(Effort) []string // of the daemon
	have       func(Effort) int      // addresses that the node has before, with before pods; 0: it has just booted
	before     func(Effort) int      // pods that run before
	oneByOne   bool
	throttled  bool
}

func none(Effort) int { return 0 }

func all(e Effort) int { return e.Before }

// everything is as many addresses as the instance type can have.
func everything(e Effort) int { return e.Most }

func warmIP(n func(Effort) int) func(Effort) []string {
	return func(e Effort) []string { return []string{fmt.Sprint("WARM_IP_TARGET=", n(e))} }
}

func one(Effort) int { return 1 }

func pods(e Effort) int { return e.Pods }

func defaults(Effort) []string { return nil }

// Scenarios in the order in which they are shown.
func Scenarios() []Scenario {
	return []Scenario{
		{Name: "one", What: "one pod after another, with a free address for each", settings: warmIP(pods), have: pods, before: none, oneByOne: true},
		{Name: "warm", What: "all at once, with a free address for each", settings: warmIP(pods), have: pods, before: none},
		{Name: "cold", What: "all at once, as soon as a node that has just booted takes pods", settings: defaults, have: none, before: none},
		{Name: "throttled", What: "the same, while the cloud lets nobody call but now and then", settings: defaults, have: none, before: none, throttled: true},
		{Name: "exhausted", What: "all at once, when every address but one was released a moment ago, and the cloud has more", settings: warmIP(one),
			have: func(e Effort) int { return e.Before + 1 }, before: all},
		{Name: "full", What: "all at once, when as many pods have just gone, and the instance type has room for no more addresses", settings: defaults,
			have: everything, before: everything},
	}
}

// Takes tells whether a kind has its turn in a scenario.
func (e Effort) Takes(s Scenario, k Kind) bool { return k == Zonewise || !e.brief || s.Name == "cold" }

// Effort is how much is done, and on what.
type Effort struct {
	InstanceType string
	Most         int // addresses for pods that the type can have
	Pods         int // that start
	Before       int // that run before, where the pool is to be exhausted
	Cooldown     time.Duration
	Still        time.Duration // nothing must have changed at the cloud for so long, where a pool is to be at rest
	Retry        Retry
	Cloud        Cloud
	Throttle     Cloud // what is otherwise with a cloud that throttles
	Limit        time.Duration
	brief        bool
}

// Full is thirty pods on a node that has room for 56, at a cloud that takes its time.
func Full() Effort {
	return Effort{InstanceType: "m5.xlarge", Most: 56, Pods: 30, Before: 26, Cooldown: 30 * time.Second, Still: 6 * time.Second, Retry: Kubelet, // vpc-cni looks every five seconds
		Cloud:    Cloud{AttachTime: 3 * time.Second, Latency: 100 * time.Millisecond},
		Throttle: Cloud{Describe: wire.Rate{PerSecond: 1, Burst: 2}, Mutate: wire.Rate{PerSecond: .5, Burst: 1}}, Limit: 5 * time.Minute}
}

// Short is a few pods at a cloud that is quick: to see that it works, not for its figures. Others than ours have one
// scenario, since they take their time.
func Short() Effort {
	return Effort{InstanceType: "t3.medium", Most: 15, Pods: 6, Before: 5, Cooldown: 2 * time.Second, Still: time.Second, Retry: Retry{time.Second, time.Second},
		Cloud:    Cloud{AttachTime: 100 * time.Millisecond},
		Throttle: Cloud{Describe: wire.Rate{PerSecond: 5, Burst: 5}, Mutate: wire.Rate{PerSecond: 2, Burst: 1}}, Limit: time.Minute, brief: true}
}

// Outcome is how pods started once.
type Outcome struct {
	Ready    time.Duration   // from the start of the daemon until the node takes pods
	Starts   []time.Duration // of each pod, until it has its address
	Refused  int             // calls of the plugin that failed
	Calls    int             // of the cloud's API, from the first start of a pod to the last
	Versions []time.Duration // calls of the plugin that only ask who it is
}

// Run makes a node in a state, and starts pods on it.
func (s Scenario) Run(ctx context.Context, k Kind, e Effort, bin string, random *rand.Rand) (out Outcome, err error) {
	ctx, cancel := context.WithTimeout(ctx, e.Limit)
	defer cancel()
	dir, err := os.MkdirTemp("", "zonewise-pods-")
	if err != nil {
		return out, err
	}
	defer func() {
		if err == nil {
			err = os.RemoveAll(dir) // else there are logs in it
		}
	}()
	cloud := e.Cloud
	if s.throttled {
		cloud.Describe, cloud.Mutate = e.Throttle.Describe, e.Throttle.Mutate
	}
	n, err := New(dir, e.InstanceType, cloud)
	if err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	begin := time.Now()
	g, err := Start(n, k, bin, append(s.settings(e), fmt.Sprint("IP_COOLDOWN_PERIOD=", int(e.Cooldown/time.Second)))...)
	if err != nil {
		return out, err
	}
	defer g.Stop()
	if err := g.Ready(ctx); err != nil {
		return out, err
	}
	out.Ready = time.Since(begin)
	stay, err := s.prepare(ctx, g, e, random)
	defer func() { err = errors.Join(err, Remove(stay)) }()
	if err != nil {
		return out, fmt.Errorf("before: %w", err)
	}
	calls := n.Calls()
	started, err := s.start(ctx, g, e, random)
	for _, p := range started {
		out.Starts = append(out.Starts, p.Took)
		out.Refused += p.Tries - 1
	}
	out.Calls = n.Calls() - calls
	for err == nil && s.oneByOne && len(out.Versions) < e.Pods {
		var took time.Duration
		took, err = g.Version(ctx)
		out.Versions = append(out.Versions, took)
	}
	return out, errors.Join(err, g.StopAll(ctx, started))
}

// soon is for pods that are started to bring a pool into its state: how long that takes is no figure.
var soon = Retry{time.Second, time.Second}

// prepare brings the pool into its state: pods that run before, of which as many go as will come. Those that stay are
// returned.
func (s Scenario) prepare(ctx context.Context, g *Giver, e Effort, random *rand.Rand) ([]*Pod, error) {
	before, err := Sandboxes("before", s.before(e))
	if err != nil {
		return nil, err
	}
	if err := g.StartAll(ctx, before, soon, random); err != nil {
		return before, err
	}
	if want := s.have(e); want > 0 {
		if err := g.Settled(ctx, want, e.Still); err != nil {
			return before, err
		}
	}
	going := min(len(before), e.Pods)
	return before[going:], g.StopAll(ctx, before[:going])
}

func (s Scenario) start(ctx context.Context, g *Giver, e Effort, random *rand.Rand) ([]*Pod, error) {
	started, err := Sandboxes("pod", e.Pods)
	if err != nil || !s.oneByOne {
		return started, errors.Join(err, g.StartAll(ctx, started, e.Retry, random))
	}
	for _, p := range started {
		if err := g.StartAll(ctx, []*Pod{p}, e.Retry, random); err != nil {
			return started, err
		}
	}
	return started, nil
}
