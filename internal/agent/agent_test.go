package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/zonewise/zonewise/internal/agent/view"
	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/reflect/apitest"
	"github.com/zonewise/zonewise/internal/service"
	"github.com/zonewise/zonewise/internal/service/affinity"
)

// call is what the fake kernel was asked for.
type call struct {
	whole    bool
	services []string
}

// fakeApplier remembers what the kernel would hold, and reports every call.
type fakeApplier struct {
	calls chan call

	mu       sync.Mutex
	kernel   map[model.Name][]service.Frontend
	broken   error
	tampered bool
	counted  map[service.Pair]service.Traffic
	wrong    []service.Fault
	removed  int
	optedOut []netip.Addr
}

func newFakeApplier() *fakeApplier {
	return &fakeApplier{calls: make(chan call, 100), kernel: map[model.Name][]service.Frontend{}}
}

func (f *fakeApplier) Apply(want map[model.Name][]service.Frontend, complete bool) error {
	return f.take(want, complete)
}

func (f *fakeApplier) Update(changed map[model.Name][]service.Frontend) error {
	return f.take(changed, false)
}

func (f *fakeApplier) take(want map[model.Name][]service.Frontend, whole bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := call{whole: whole}
	for n := range want {
		c.services = append(c.services, n.Name)
	}
	slices.Sort(c.services)
	defer func() { f.calls <- c }()
	if f.broken != nil {
		return f.broken
	}
	if whole {
		clear(f.kernel)
	}
	for n, frontends := range want {
		f.kernel[n] = frontends
	}
	return nil
}

func (f *fakeApplier) Audit() (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	was := f.tampered
	f.tampered = false
	return was, nil
}

func (f *fakeApplier) Counters() (map[service.Pair]service.Traffic, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.counted, nil
}

func (f *fakeApplier) Faults() []service.Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.wrong
}

func (f *fakeApplier) Remove() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.kernel)
	f.removed++
	return nil
}

func (f *fakeApplier) OptOut(pods []netip.Addr) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.optedOut = pods
	return nil
}

func (f *fakeApplier) Now() (time.Duration, error)                { return 0, nil }
func (f *fakeApplier) Remembered() ([]affinity.Entry, error)      { return nil, nil }
func (f *fakeApplier) Remember(keep, drop []affinity.Entry) error { return nil }

func (f *fakeApplier) set(change func(*fakeApplier)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f)
}

// world is an agent under test with the API in front of it and the kernel behind.
type world struct {
	*testing.T
	ctx    context.Context
	api    *apitest.API
	kernel *fakeApplier
	agent  *Agent
	web    *httptest.Server
	listen *listeners // in place of the node's ports, where a test has some
}

func start(t *testing.T, objects ...runtime.Object) *world {
	return startWith(t, func(*world, *Config) {}, objects...)
}

func startWith(t *testing.T, change func(*world, *Config), objects ...runtime.Object) *world {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	w := &world{T: t, ctx: ctx, api: apitest.New(objects...), kernel: newFakeApplier()}
	c := Config{Node: "n1", Client: w.api, Applier: w.kernel, Log: slog.New(slog.DiscardHandler), Audit: time.Millisecond}
	change(w, &c)
	agent, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	if w.listen != nil {
		agent.reporter.balancers.listen = func(_ context.Context, at netip.AddrPort) (net.Listener, error) { return w.listen.listen(at) }
	}
	w.agent, w.web = agent, httptest.NewServer(agent.Handler())
	done := make(chan struct{})
	go func() { defer close(done); agent.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done; w.web.Close() })
	return w
}

// next returns the next thing that the kernel is asked for.
func (w *world) next() call {
	w.Helper()
	select {
	case c := <-w.kernel.calls:
		return c
	case <-w.ctx.Done():
		w.Fatal("the kernel was asked for nothing")
		return call{}
	}
}

func (w *world) want(what string, want call) {
	w.Helper()
	if diff := cmp.Diff(want, w.next(), cmp.AllowUnexported(call{})); diff != "" {
		w.Errorf("%s: %s", what, diff)
	}
}

func (w *world) get(path string) (int, string) {
	w.Helper()
	r, err := http.Get(w.web.URL + path)
	if err != nil {
		w.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		w.Fatal(err)
	}
	return r.StatusCode, string(body)
}

// until polls a page of the agent until it has what the test waits for.
func (w *world) until(path, want string) {
	w.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		_, body := w.get(path)
		if strings.Contains(body, want) {
			return
		}
		select {
		case <-tick.C:
		case <-w.ctx.Done():
			w.Fatalf("%s never had %q, but:\n%s", path, want, body)
		}
	}
}

func node(zone string) *corev1.Node {
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "n1", Labels: map[string]string{corev1.LabelTopologyZone: zone}},
		Status:     corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "192.168.1.10"}}},
	}
}

func svc(i int) *corev1.Service {
	ip := fmt.Sprintf("10.100.0.%d", i)
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprintf("s%d", i)},
		Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeClusterIP, ClusterIP: ip, ClusterIPs: []string{ip},
			Ports: []corev1.ServicePort{{Port: 80, Protocol: corev1.ProtocolTCP}}},
	}
}

func slice(i int, zones ...string) *discoveryv1.EndpointSlice {
	port, name, proto := int32(8080), "", corev1.ProtocolTCP
	s := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprintf("s%d-x", i),
			Labels: map[string]string{discoveryv1.LabelServiceName: fmt.Sprintf("s%d", i)}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Port: &port, Name: &name, Protocol: &proto}},
	}
	for n, z := range zones {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{
			Addresses: []string{fmt.Sprintf("192.168.%d.11", n+1)}, Zone: &z,
			Hints: &discoveryv1.EndpointHints{ForZones: []discoveryv1.ForZone{{Name: z}}},
		})
	}
	return s
}

func TestOnlyWhatChangedIsProgrammed(t *testing.T) {
	w := start(t, node("a"), svc(1), svc(2), svc(3), slice(1, "a", "b"), slice(2, "a"), slice(3, "a"))
	w.want("start", call{whole: true, services: []string{"s1", "s2", "s3"}})
	w.api.Watched(t)

	if _, err := w.api.DiscoveryV1().EndpointSlices("default").Update(w.ctx, slice(2, "b", "c"), metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	w.want("endpoints move", call{services: []string{"s2"}})
	if err := w.api.CoreV1().Services("default").Delete(w.ctx, "s3", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	w.want("a service goes", call{services: []string{"s3"}})
	if got := w.kernel.kernel[model.Name{Namespace: "default", Name: "s3"}]; got != nil {
		t.Errorf("s3 is gone, yet its plan is %v", got)
	}
	if _, err := w.api.CoreV1().Nodes().Update(w.ctx, node("b"), metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	w.want("the node has another zone", call{whole: true, services: []string{"s1", "s2"}})

	w.until("/metrics", "zonewise_network_programming_duration_seconds_count 2")
	w.until("/metrics", "zonewise_services 2")
}

func TestNothingIsTouchedBeforeTheNodeIsKnown(t *testing.T) {
	w := start(t, svc(1), slice(1, "a"))
	w.until("/healthz", "waiting for node n1 to register")
	if code, _ := w.get("/healthz"); code != http.StatusServiceUnavailable {
		t.Errorf("health %d before the first sync", code)
	}
	if code, _ := w.get("/v1/services/default/s1"); code != http.StatusServiceUnavailable {
		t.Errorf("view %d before the first sync", code)
	}
	if len(w.kernel.calls) != 0 {
		t.Error("the kernel was touched")
	}
	w.api.Watched(t)
	if _, err := w.api.CoreV1().Nodes().Create(w.ctx, node("a"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	w.want("the node registers", call{whole: true, services: []string{"s1"}})
	w.until("/healthz", "ok")
}

func TestFailureIsRetriedWithNothingLost(t *testing.T) {
	w := start(t, node("a"), svc(1), svc(2), slice(1, "a"), slice(2, "a"))
	w.next()
	w.api.Watched(t)
	w.until("/healthz", "ok")
	w.kernel.set(func(f *fakeApplier) { f.broken = errors.New("nft: busy") })
	if _, err := w.api.DiscoveryV1().EndpointSlices("default").Update(w.ctx, slice(1, "b"), metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	w.want("refused", call{services: []string{"s1"}})
	w.until("/healthz", "nft: busy") // still 200: the kernel serves what it has
	if code, _ := w.get("/healthz"); code != http.StatusOK {
		t.Errorf("health %d", code)
	}
	if _, err := w.api.DiscoveryV1().EndpointSlices("default").Update(w.ctx, slice(2, "b"), metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	for c := w.next(); len(c.services) != 2; c = w.next() {
	}
	w.kernel.set(func(f *fakeApplier) { f.broken = nil })
	w.until("/healthz", "ok\n")
	for _, s := range []string{"s1", "s2"} {
		if p := w.kernel.kernel[model.Name{Namespace: "default", Name: s}]; len(p) != 1 || p[0].Backends[0].Zone != "b" {
			t.Errorf("%s: %v", s, p)
		}
	}
}

func TestTamperingIsRepairedAndReported(t *testing.T) {
	w := start(t, node("a"), svc(1), slice(1, "a"))
	w.next()
	w.until("/metrics", `zonewise_repairs_total{path="nft"} 0`)
	w.kernel.set(func(f *fakeApplier) { f.tampered = true })
	w.until("/metrics", `zonewise_repairs_total{path="nft"} 1`)
}

func TestViewTellsSharesCountsAndWhy(t *testing.T) {
	w := start(t, node("a"), svc(1), slice(1, "a", "b"))
	key := service.Key{Addr: netip.MustParseAddrPort("10.100.0.1:80"), Protocol: model.TCP}
	w.kernel.set(func(f *fakeApplier) {
		f.counted = map[service.Pair]service.Traffic{
			{Frontend: key, Backend: netip.MustParseAddrPort("192.168.1.11:8080")}: {Connections: 7, Packets: 70, Bytes: 7000},
		}
	})
	w.next()
	w.until("/healthz", "ok")
	code, body := w.get("/v1/services/default/s1")
	if code != http.StatusOK {
		t.Fatal(code, body)
	}
	var got view.Service
	if err := json.Unmarshal([]byte(body), &got); err != nil {
		t.Fatal(err)
	}
	want := []view.Endpoint{{Address: "192.168.1.11:8080", Zone: "a", Share: 1, Connections: 7, Bytes: 7000}}
	if diff := cmp.Diff(want, got.Ports[0].Frontends[0].Endpoints); diff != "" {
		t.Error(diff)
	}
	if why := got.Ports[0].Frontends[0].Why; !strings.Contains(why, "zone") || got.Zone != "a" {
		t.Errorf("why %q, zone %q", why, got.Zone)
	}
	if code, body := w.get("/v1/services/default/nope"); code != http.StatusNotFound || !strings.Contains(body, "default/nope: not found") {
		t.Errorf("%d %s", code, body)
	}
}

func TestStoppingLeavesTheKernelAlone(t *testing.T) {
	ctx, stop := context.WithTimeout(t.Context(), 30*time.Second)
	defer stop()
	kernel, api := newFakeApplier(), apitest.New(node("a"), svc(1), slice(1, "a"))
	a, err := New(Config{Node: "n1", Client: api, Applier: kernel, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); a.Run(ctx) }()
	<-kernel.calls
	stop()
	<-done
	if len(kernel.calls) != 0 || len(kernel.kernel) != 1 {
		t.Errorf("%d calls after the stop; kernel holds %v", len(kernel.calls), kernel.kernel)
	}
}
