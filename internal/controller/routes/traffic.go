package routes

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/zonewise/zonewise/internal/agent/ask"
	"github.com/zonewise/zonewise/internal/agent/view"
	"github.com/zonewise/zonewise/internal/loop"
	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/route"
)

const (
	// round is the time between two looks at what agents counted.
	round = 30 * time.Second
	// half is how much of a count is left a round later: 0.7 each makes a half of it in a minute.
	half = 0.7071
	// sample is how many agents are asked in a round at the most: some agents of each zone tell how
	// connections go just as well as all of them.
	sample = 50
	// budget bounds what is remembered of the agents' counts: agents × Services.
	budget = 200_000
	// rounds is after how many rounds other agents are asked. The first of them only tells where counts begin.
	rounds = 10
	// settling is how long nodes may take to obey a new plan.
	settling = 10 * time.Second
)

// TrafficConfig is what a Traffic needs.
type TrafficConfig struct {
	Client    kubernetes.Interface
	Namespace string // where agents run
	Get       ask.Get
	Log       *slog.Logger
	News      func() // called after every round
	// Spare tells whether somebody else counts: then agents are only counted, not asked. It may be nil.
	Spare func() bool
}

// Traffic looks at where connections really go: it asks a sample of the agents, every so often,
// what their kernels counted. It is safe for concurrent use.
type Traffic struct {
	TrafficConfig

	mu       sync.Mutex
	agents   int // -1 before the first look
	number   int // of the round
	services int // the most that any agent told of
	last     map[string]*count
	flows    map[flow]*tally
}

// NewTraffic returns a Traffic that has not looked yet.
func NewTraffic(c TrafficConfig) *Traffic {
	out := &Traffic{TrafficConfig: c}
	out.forget()
	return out
}

func (t *Traffic) forget() { t.begin(-1) }

// begin counts anew.
func (t *Traffic) begin(agents int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.agents, t.number, t.services = agents, 0, 0
	t.last, t.flows = map[string]*count{}, map[flow]*tally{}
}

// flow is a Service in one address family.
type flow struct {
	model.Name
	v6 bool
}

// count is what an agent's kernel had counted when it was asked last.
type count struct {
	at time.Time
	of map[flow]map[string]uint64 // connections by the zone of the endpoint
}

// tally is what was counted of a flow lately.
type tally struct {
	from  time.Time // what was counted before this is not in it
	pairs map[model.ZonePair]float64
}

// Run looks every so often until ctx ends.
func (t *Traffic) Run(ctx context.Context) {
	defer t.forget()
	loop.New(t.look, loop.Options{Resync: round, RetryMin: round, RetryMax: 2 * round, Failed: func(err error, _ time.Duration) {
		t.Log.Warn("traffic", "err", err)
	}}).Run(ctx)
}

// Agents returns how many agents run; -1 if nobody has looked yet.
func (t *Traffic) Agents() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.agents
}

// Counted returns where connections to a Service went lately, as far as they began after its plan
// changed; false if nobody has looked long enough.
func (t *Traffic) Counted(svc model.Name, v6 bool, planned time.Time) ([]route.Counted, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.number < 2 {
		return nil, false
	}
	f := flow{svc, v6}
	ours := t.flows[f]
	if since := planned.Add(settling); ours == nil || since.After(ours.from) {
		ours = &tally{from: since, pairs: map[model.ZonePair]float64{}}
		t.flows[f] = ours
	}
	var out []route.Counted
	for p, n := range ours.pairs {
		if n < 1 {
			continue
		}
		out = append(out, route.Counted{From: p.From, To: p.To, Connections: uint64(n)})
	}
	slices.SortFunc(out, func(a, b route.Counted) int {
		return strings.Compare(a.From+"\x00"+a.To, b.From+"\x00"+b.To)
	})
	return out, true
}

func (t *Traffic) look(ctx context.Context) error {
	pods, err := ask.Running(ctx, t.Client, t.Namespace)
	if err != nil {
		return err
	}
	if t.Spare != nil && t.Spare() {
		t.begin(len(pods)) // what was counted until now must not be gone on with
		t.News()
		return nil
	}
	begin := time.Now()
	chosen := t.choose(pods)
	answers, silent := ask.All[view.Traffic](ctx, chosen, "/v1/traffic", t.Get, ask.Limits{Patience: 5 * time.Second, Crowd: sample})
	if len(silent) > 0 {
		t.Log.Info("agents without an answer", "count", len(silent), "of", len(chosen), "first", silent[0])
	}
	t.fold(begin, len(pods), answers)
	t.News()
	return nil
}

// choose returns the sample of this round: agents at equal distances in the order of their names.
func (t *Traffic) choose(pods []*corev1.Pod) []*corev1.Pod {
	t.mu.Lock()
	defer t.mu.Unlock()
	most := sample
	if t.services > 0 {
		most = min(sample, max(6, budget/t.services))
	}
	step := (len(pods) + most - 1) / most
	var out []*corev1.Pod
	for i, p := range pods {
		if step <= 1 || i%step == t.number/rounds%step {
			out = append(out, p)
		}
	}
	return out
}

// fold adds what was counted since the agents were asked before. An agent that was not counts from now on.
func (t *Traffic) fold(at time.Time, agents int, answers []view.Traffic) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.agents = agents
	t.number++
	for f, ours := range t.flows {
		for p := range ours.pairs {
			if ours.pairs[p] *= half; ours.pairs[p] < half {
				delete(ours.pairs, p)
			}
		}
		if len(ours.pairs) == 0 && at.Sub(ours.from) > rounds*round {
			delete(t.flows, f) // of a Service that nobody uses, or that is no more
		}
	}
	asked := map[string]*count{}
	for _, a := range answers {
		if a.Schema != view.TrafficSchema {
			continue // of another version: it cannot be understood
		}
		t.services = max(t.services, len(a.Services))
		asked[a.Node] = t.foldOne(at, a, t.last[a.Node])
	}
	t.last = asked
}

func (t *Traffic) foldOne(at time.Time, a view.Traffic, before *count) *count {
	now := &count{at: at, of: map[flow]map[string]uint64{}}
	for _, s := range a.Services {
		f := flow{model.Name{Namespace: s.Namespace, Name: s.Name}, s.Family == family(true)}
		zones := map[string]uint64{}
		for _, z := range s.EndpointZones {
			if z.Connections > 0 {
				zones[z.Zone] = z.Connections
			}
		}
		if len(zones) > 0 {
			now.of[f] = zones
		}
		if before == nil {
			continue
		}
		ours := t.flows[f]
		if ours == nil {
			ours = &tally{from: before.at, pairs: map[model.ZonePair]float64{}}
			t.flows[f] = ours
		}
		if before.at.Before(ours.from) {
			continue // of the plan before, in part
		}
		for zone, n := range zones {
			was := before.of[f][zone]
			if n < was {
				was = 0 // the count began anew: with the node, or with an endpoint
			}
			ours.pairs[model.ZonePair{From: a.Zone, To: zone}] += float64(n - was)
		}
	}
	return now
}
