package routes

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/zonewise/zonewise/internal/agent/view"
	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/reflect/apitest"
	"github.com/zonewise/zonewise/internal/route"
)

func agentObject(node string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "agent-" + node,
			Labels: map[string]string{"app.kubernetes.io/name": "zonewise", "app.kubernetes.io/component": "agent"}},
		Spec:   corev1.PodSpec{NodeName: node},
		Status: corev1.PodStatus{Phase: corev1.PodRunning},
	}
}

// kernels stand in for the counters of all nodes: connections to default/web by node and zone.
type kernels struct {
	mu     sync.Mutex
	counts map[string]map[string]uint64
	asked  map[string]int
	silent map[string]bool
}

func newKernels() *kernels {
	return &kernels{counts: map[string]map[string]uint64{}, asked: map[string]int{}, silent: map[string]bool{}}
}

func (k *kernels) connect(node, to string, n uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.counts[node] == nil {
		k.counts[node] = map[string]uint64{}
	}
	k.counts[node][to] += n
}

func (k *kernels) get(_ context.Context, pod *corev1.Pod, path string) (int, []byte, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	node := pod.Spec.NodeName
	k.asked[node]++
	if k.silent[node] || path != "/v1/traffic" {
		return 0, nil, errors.New("no answer")
	}
	s := view.ServiceTraffic{Namespace: "default", Name: "web", Family: "IPv4"}
	for zone, n := range k.counts[node] {
		s.EndpointZones = append(s.EndpointZones, view.ZoneTraffic{Zone: zone, Connections: n})
	}
	body, err := json.Marshal(view.Traffic{Schema: view.TrafficSchema, Node: node, Zone: node[:1], Services: []view.ServiceTraffic{s}})
	return 200, body, err
}

func watchTraffic(k *kernels, nodes ...string) *Traffic {
	var pods []runtime.Object
	for _, n := range nodes {
		pods = append(pods, agentObject(n))
	}
	return NewTraffic(TrafficConfig{Client: fake.NewClientset(pods...), Namespace: "kube-system", Get: k.get,
		Log: slog.New(slog.DiscardHandler), News: func() {}})
}

func TestTrafficCountsWhatIsNew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernels()
		tr := watchTraffic(k, "a1", "b1", "c1")
		svc, planned := model.Name{Namespace: "default", Name: "web"}, time.Now().Add(-time.Hour)
		look := func() {
			t.Helper()
			if err := tr.look(t.Context()); err != nil {
				t.Fatal(err)
			}
			<-time.After(round)
		}
		counted := func() []route.Counted {
			t.Helper()
			c, ok := tr.Counted(svc, false, planned)
			if !ok {
				t.Fatal("nobody has looked")
			}
			return c
		}
		if tr.Agents() != -1 {
			t.Error("agents are known before anybody looked")
		}
		k.connect("a1", "a", 1_000_000) // before we came
		look()
		if _, ok := tr.Counted(svc, false, planned); ok || tr.Agents() != 3 {
			t.Error("one look tells what is new")
		}
		k.connect("a1", "a", 900)
		k.connect("a1", "c", 100)
		k.silent["b1"] = true
		k.connect("b1", "b", 500)
		look()
		if diff := cmp.Diff([]route.Counted{{From: "a", To: "a", Connections: 900}, {From: "a", To: "c", Connections: 100}}, counted()); diff != "" {
			t.Error(diff)
		}
		k.silent["b1"] = false
		k.counts["a1"] = nil // the node began anew
		k.connect("a1", "a", 200)
		look()                                                                                                 // b1 counts from now on: what it counted while it was silent may be of any time
		want := []route.Counted{{From: "a", To: "a", Connections: 836}, {From: "a", To: "c", Connections: 70}} // 900 × half + 200, 100 × half
		if diff := cmp.Diff(want, counted()); diff != "" {
			t.Error(diff)
		}
		planned = time.Now() // a new plan: what was counted belongs to the old one
		if c := counted(); len(c) > 0 {
			t.Error(c)
		}
		k.connect("a1", "a", 10) // perhaps before the plan reached the node
		look()
		if c := counted(); len(c) > 0 {
			t.Error(c)
		}
		look()
		k.connect("a1", "a", 7)
		look()
		look()
		if c := counted(); len(c) != 1 || c[0].Connections != 4 {
			t.Error(c)
		}
	})
}

func TestTrafficAsksASample(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernels()
		var nodes []string
		for i := range 230 {
			nodes = append(nodes, fmt.Sprintf("%c%03d", 'a'+i%3, i))
		}
		tr := watchTraffic(k, nodes...)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); tr.Run(ctx) }()
		<-time.After(rounds*round - time.Second)
		if n := len(k.asked); n < 40 || n > sample {
			t.Errorf("%d agents asked", n)
		}
		zones := map[byte]bool{}
		for node, n := range k.asked {
			if zones[node[0]] = true; n != rounds {
				t.Errorf("%s was asked %d times", node, n)
			}
		}
		if len(zones) != 3 {
			t.Errorf("zones %v", zones)
		}
		<-time.After(time.Hour)
		if n := len(k.asked); n != len(nodes) {
			t.Errorf("%d of %d agents were ever asked", n, len(nodes))
		}
		cancel()
		<-done
		if tr.Agents() != -1 {
			t.Error("who does not lead knows nothing")
		}
	})
}

// obeying is a story in which a plan is in force and agents count.
func obeying(t *testing.T, f func(w *world, k *kernels)) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernels()
		w := &world{t: t, settings: settings("")}
		objects := append(web(), routeObject("web", "{mode: Optimal}"))
		for _, n := range nodeObjects() {
			objects = append(objects, agentObject(n.(*corev1.Node).Name))
		}
		w.api = apitest.New(objects...)
		w.traffic = NewTraffic(TrafficConfig{Client: w.api, Namespace: "kube-system", Get: k.get,
			Log: slog.New(slog.DiscardHandler), News: func() { w.keeper.Recheck() }})
		ctx, cancel := context.WithCancel(t.Context())
		w.begin()
		done := make(chan struct{})
		go func() { defer close(done); w.traffic.Run(ctx) }()
		defer func() { w.stop(); cancel(); <-done }()
		w.pass(5 * time.Minute)
		f(w, k)
	})
}

func TestObeyedIsWhatIsCounted(t *testing.T) {
	obeying(t, func(w *world, k *kernels) {
		w.expect("web", "Optimal Applied=True/WeightsPublished Obeyed=Unknown/TooFewConnections Planned=True/Optimum")
		weights := map[string]map[string]float64{}
		for _, z := range w.route("web").Status.Plans[0].Zones {
			weights[z.Name] = z.Weights
		}
		drive := func(minutes int, share func(from, to string) float64) {
			for range 2 * minutes {
				for _, from := range []string{"a", "b", "c"} {
					for _, to := range []string{"a", "b", "c"} {
						k.connect(from+"1", to, uint64(2000*share(from, to)))
					}
				}
				w.pass(round)
			}
		}
		byPlan := func(from, to string) float64 { return weights[from][to] }
		drive(4, byPlan)
		w.expect("web", "Optimal Applied=True/WeightsPublished Obeyed=True/AsPlanned Planned=True/Optimum")
		if s := w.route("web").Status.Summary.InZone; s != "99%" {
			t.Errorf("in zone %s", s)
		}
		w.writes()
		drive(60, func(from, to string) float64 { // as planned, with the waver of real counts
			return max(0, byPlan(from, to)+0.004*float64(int(to[0])%3-1))
		})
		if got := w.writes(); got != "" {
			t.Errorf("counts that waver: %s", got)
		}
		w.pass(10 * time.Minute) // no traffic at all: what was found holds
		if got := w.writes(); got != "" {
			t.Errorf("no traffic: %s", got)
		}
		w.said()
		drive(6, func(_, _ string) float64 { return 1.0 / 3 })
		w.expect("web", "Optimal Applied=True/WeightsPublished Obeyed=False/OffPlan Planned=True/Optimum")
		if m := message(w.route("web"), Obeyed); !strings.Contains(m, "planned") {
			t.Error(m)
		}
		if said := w.said(); !slices.ContainsFunc(said, func(s string) bool { return strings.HasPrefix(s, "Warning OffPlan Obeyed: ") }) || len(said) > 2 {
			t.Errorf("%q", said)
		}
		if s := w.route("web").Status.Summary.InZone; s == "99%" {
			t.Errorf("in zone %s", s)
		}
		// a new leader has counted nothing yet
		w.stop()
		w.traffic.forget()
		w.writes()
		w.begin()
		w.pass(20 * time.Second)
		if got := w.writes(); got != "" {
			t.Errorf("a new leader: %s", got)
		}
	})
}

func TestPlansWithoutAgents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, settings: settings(""), api: apitest.New(append(web(), routeObject("web", "{mode: Optimal}"))...)}
		d := &delivering{standing: Delivering}
		w.delivery = d
		w.traffic = watchTraffic(newKernels())
		if err := w.traffic.look(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.begin()
		defer func() { w.stop() }()
		w.pass(time.Minute)
		w.expect("web", "Optimal Applied=False/HintsPending Obeyed=Unknown/NoCounters Planned=True/Optimum")
		if d.looks == 0 {
			t.Error("nobody was asked to look at the slices")
		}
		d.set(Withdrawn)
		w.keeper.Recheck()
		w.pass(time.Minute)
		w.expect("web", "Optimal Applied=False/HintsWithdrawn Obeyed=Unknown/NoCounters Planned=True/Optimum")
		if said := w.said(); len(said) != 1 || said[0] != "Warning HintsWithdrawn Applied: hints are withdrawn: WebhookLags; no agent runs" {
			t.Errorf("%q", said)
		}
	})
}

// delivering is a delivery that says what a test wants.
type delivering struct {
	mu       sync.Mutex
	standing Standing
	looks    int
}

func (d *delivering) set(s Standing) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.standing = s
}

func (d *delivering) Standing() (Standing, string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.standing, "WebhookLags"
}

func (d *delivering) Look(model.Name) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.looks++
}
