//go:build story

package test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/zonewise/zonewise/api/v1alpha1"
	"github.com/zonewise/zonewise/internal/reflect/kube"
)

// most is how far the walk goes.
const most = 24

// TestWalk lets an autoscaler walk from 1 pod to 24 and back, one a step, under two Services: `ours`
// has a ZoneRoute, `theirs` asks upstream. Connections to ours are made all the time: none may
// fail, and its hints and weights must never be gone. The table says what each Service keeps in its
// zone, and how often its slices were written.
func TestWalk(t *testing.T) {
	l := newLab(t, "walk")
	l.must("up", "--offline")
	l.apply(echoes(1, "topology.kubernetes.io/zone") + walkers)
	await(t, "the first pod serves", func() error { return l.walked(1) })
	seen := l.watchWalk(t)
	load := l.load(t)

	t.Logf("%-5s %8s %8s %8s %8s %8s %8s", "PODS", "OURS", "PLANNED", "BEST", "THEIRS", "WRITES", "WRITES")
	refused, steps := 0, 0
	var ours, theirs float64
	for _, n := range walk() {
		before := seen.writes()
		if out, err := l.kubectl("scale", "deployment/web", "--replicas="+strconv.Itoa(n)); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		await(t, fmt.Sprintf("%d pods serve", n), func() error { return l.walked(n) })
		plan := l.planOf()
		us, them := l.inZone("ours"), l.inZone("theirs")
		after := seen.writes()
		t.Logf("%-5d %8.3f %8.3f %8.3f %8.3f %8d %8d", n, us, plan.InZone.Planned, plan.InZone.Ideal, them, after["ours"]-before["ours"], after["theirs"]-before["theirs"])
		// Planned may be less than best: only so much of the load moves in a minute.
		if us < plan.InZone.Planned-0.001 {
			t.Errorf("%d pods: %.3f in zone, and %.3f are planned", n, us, plan.InZone.Planned)
		}
		steps, ours, theirs = steps+1, ours+us, theirs+them
		if them < 0.9 && n >= 3 {
			refused++
		}
	}
	all := seen.writes()
	t.Logf("mean in zone: ours %.3f, theirs %.3f, which was refused in %d of %d steps; slice writes: ours %d, theirs %d",
		ours/float64(steps), theirs/float64(steps), refused, steps, all["ours"], all["theirs"])
	if refused == 0 {
		t.Error("upstream refused nothing: then this walk shows nothing")
	}
	for _, gap := range seen.stop() {
		t.Error(gap)
	}
	load()
}

// walk is 2 .. most .. 1.
func walk() []int {
	var out []int
	for n := 2; n <= most; n++ {
		out = append(out, n)
	}
	for n := most - 1; n >= 1; n-- {
		out = append(out, n)
	}
	return out
}

// walked tells what is missing until n pods serve everywhere and the plan is about them.
func (l *lab) walked(n int) error {
	for _, service := range []string{"ours", "theirs"} {
		nodes, err := l.shares(service)
		if err != nil {
			return err
		}
		for _, node := range nodes {
			if service == "ours" && !strings.Contains(node.Why, "ZoneRoute default/ours") {
				return fmt.Errorf("a node goes by %q", node.Why)
			}
		}
		seen := map[string]bool{}
		for _, node := range nodes {
			for _, e := range node.Endpoints {
				seen[e.Address] = true
			}
		}
		if len(nodes) != 6 || len(seen) != n {
			return fmt.Errorf("%s: %d nodes send to %d endpoints", service, len(nodes), len(seen))
		}
	}
	plan := l.planOf()
	planned := 0
	for _, z := range plan.Zones {
		planned += z.Endpoints
	}
	if planned != n {
		return fmt.Errorf("the plan is about %d endpoints", planned)
	}
	return nil
}

// nodeShares is a node in what `zonewise service -o json` prints.
type nodeShares struct {
	Zone      string
	Why       string
	Endpoints []struct {
		Address, Zone string
		Share         float64
	}
}

func (l *lab) shares(service string) ([]nodeShares, error) {
	cmd := exec.Command(filepath.Join(l.bin, "zonewise"), "service", service, "-o", "json", "--kubeconfig", l.kubeconfig())
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("zonewise service %s: %w", service, err)
	}
	var v struct {
		Ports []struct{ Nodes []nodeShares }
	}
	if err := json.Unmarshal(out, &v); err != nil {
		return nil, fmt.Errorf("zonewise service %s: %w", service, err)
	}
	if len(v.Ports) != 1 {
		return nil, fmt.Errorf("zonewise service %s: %d ports", service, len(v.Ports))
	}
	return v.Ports[0].Nodes, nil
}

// inZone is the share of connections that the nodes keep in their zones, each node making as many.
func (l *lab) inZone(service string) float64 {
	l.t.Helper()
	nodes, err := l.shares(service)
	if err != nil {
		l.t.Fatal(err)
	}
	sum := 0.0
	for _, n := range nodes {
		for _, e := range n.Endpoints {
			if e.Zone == n.Zone {
				sum += e.Share
			}
		}
	}
	return sum / float64(len(nodes))
}

// planStatus is what the walk reads of a ZoneRoute's plan.
type planStatus struct {
	Zones []struct {
		Endpoints int
		Weights   map[string]float64
	}
	InZone struct{ Planned, Ideal float64 }
}

func (l *lab) planOf() planStatus {
	l.t.Helper()
	out, err := l.kubectl("get", "zoneroute", "ours", "-o", "json")
	if err != nil {
		l.t.Fatal(err)
	}
	var route struct{ Status struct{ Plans []planStatus } }
	if err := json.Unmarshal([]byte(out), &route); err != nil {
		l.t.Fatal(err)
	}
	if len(route.Status.Plans) == 0 {
		return planStatus{}
	}
	return route.Status.Plans[0]
}

// apply applies manifests.
func (l *lab) apply(text string) {
	l.t.Helper()
	file := filepath.Join(l.t.TempDir(), "objects.yaml")
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		l.t.Fatal(err)
	}
	await(l.t, "objects are made", func() error {
		_, err := l.kubectl("apply", "-f", file)
		return err
	})
}

// load makes 50 connections a second to ours until the function that it returns is called, which
// says what failed.
func (l *lab) load(t *testing.T) (end func()) {
	t.Helper()
	if _, err := l.kubectl("wait", "--for=condition=Ready", "pod/client", "--timeout=60s"); err != nil {
		t.Fatal(err)
	}
	kubectl := func(args ...string) *exec.Cmd {
		return exec.Command(filepath.Join(l.bin, "kubectl"), append([]string{"--kubeconfig", l.kubeconfig()}, args...)...)
	}
	program, err := os.Open(filepath.Join(l.bin, "load"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = program.Close() }()
	copied := kubectl("exec", "-i", "client", "--", "sh", "-c", "cat >/tmp/load && chmod +x /tmp/load")
	copied.Stdin = program
	if out, err := copied.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	address, err := l.kubectl("get", "service", "ours", "-o", "jsonpath={.spec.clusterIP}")
	if err != nil {
		t.Fatal(err)
	}
	run := kubectl("exec", "client", "--", "sh", "-c", "/tmp/load -target "+address+":80 -open 0 -rate 50 -for 1h & echo $! >/tmp/pid; wait $!")
	var out strings.Builder
	run.Stdout, run.Stderr = &out, &out
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if _, err := l.kubectl("exec", "client", "--", "sh", "-c", "kill -INT $(cat /tmp/pid)"); err != nil {
			t.Error(err)
		}
		err := run.Wait()
		t.Logf("connections made meanwhile: %s", strings.TrimSpace(out.String()))
		if err != nil || !strings.Contains(out.String(), `"failed":0`) {
			t.Errorf("load: %v", err)
		}
	}
}

// walkWatch counts the writes of both Services' slices, and notes whenever ours had an endpoint
// without a hint after the first that had one, or a plan without weights after the first with some.
type walkWatch struct {
	mu       sync.Mutex
	count    map[string]int
	hinted   bool
	weighted bool
	gaps     []string
	cancel   context.CancelFunc
	done     sync.WaitGroup
}

func (l *lab) watchWalk(t *testing.T) *walkWatch {
	t.Helper()
	clients, err := kube.NewClients(kube.Options{Part: "test", Kubeconfig: l.kubeconfig()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	w := &walkWatch{count: map[string]int{}, cancel: cancel}
	for what, begin := range map[string]func(context.Context, metav1.ListOptions) (watch.Interface, error){
		"slices":     clients.DiscoveryV1().EndpointSlices("default").Watch,
		"ZoneRoutes": clients.ZoneRoutes.In("default").Watch,
	} {
		events, err := begin(ctx, metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		w.done.Go(func() {
			for e := range events.ResultChan() {
				w.see(e.Object)
			}
			if ctx.Err() == nil {
				t.Errorf("the watch of %s ended too early", what)
			}
		})
	}
	return w
}

func (w *walkWatch) see(object any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch o := object.(type) {
	case *discoveryv1.EndpointSlice:
		w.count[o.Labels[discoveryv1.LabelServiceName]]++
		if o.Labels[discoveryv1.LabelServiceName] == "ours" {
			w.hints(o)
		}
	case *v1alpha1.ZoneRoute:
		if o.Name == "ours" {
			w.weights(o)
		}
	}
}

func (w *walkWatch) hints(s *discoveryv1.EndpointSlice) {
	ready, hinted := 0, 0
	for _, e := range s.Endpoints {
		if e.Conditions.Ready == nil || *e.Conditions.Ready {
			ready++
			if e.Hints != nil && len(e.Hints.ForZones) > 0 {
				hinted++
			}
		}
	}
	w.hinted = w.hinted || hinted > 0
	if w.hinted && hinted < ready {
		w.gaps = append(w.gaps, fmt.Sprintf("slice %s, version %s: %d of %d endpoints have a hint", s.Name, s.ResourceVersion, hinted, ready))
	}
}

func (w *walkWatch) weights(r *v1alpha1.ZoneRoute) {
	has := r.Status.Mode == "Optimal" && len(r.Status.Plans) == 1 && len(r.Status.Plans[0].Zones) == 3
	for _, z := range r.Status.Plans {
		for _, z := range z.Zones {
			has = has && len(z.Weights) > 0
		}
	}
	w.weighted = w.weighted || has
	if w.weighted && !has {
		w.gaps = append(w.gaps, fmt.Sprintf("ZoneRoute ours, version %s: no weights", r.ResourceVersion))
	}
}

// writes returns how often each Service's slices were written.
func (w *walkWatch) writes() map[string]int {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := map[string]int{}
	for k, v := range w.count {
		out[k] = v
	}
	return out
}

// stop ends the watch and returns the gaps.
func (w *walkWatch) stop() []string {
	w.cancel()
	w.done.Wait()
	if !w.hinted || !w.weighted {
		w.gaps = append(w.gaps, fmt.Sprintf("ours: ever had hints %v, weights %v", w.hinted, w.weighted))
	}
	return w.gaps
}

const walkers = `
apiVersion: v1
kind: Service
metadata: {name: ours}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: theirs, annotations: {service.kubernetes.io/topology-mode: Auto}}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: zonewise.io/v1alpha1
kind: ZoneRoute
metadata: {name: ours}
spec: {mode: Optimal, demand: {source: NodeCPU}}
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec:
  nodeSelector: {topology.kubernetes.io/zone: ap-northeast-2a}
  containers:
  - {name: client, image: nicolaka/netshoot, command: ["tail", "-f", "/dev/null"]}
  terminationGracePeriodSeconds: 0
`
