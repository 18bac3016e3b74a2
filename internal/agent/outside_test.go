package agent

import (
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/state"
)

func TestHealthForLoadBalancers(t *testing.T) {
	w := startWith(t, func(_ *world, c *Config) { c.Cut = func() uint64 { return 7 } }, svc(1), slice(1, "a"))
	ask := func(path string) (int, outside) {
		t.Helper()
		r := httptest.NewRecorder()
		w.agent.HealthHandler().ServeHTTP(r, httptest.NewRequest(http.MethodGet, path, nil))
		var body outside
		if err := json.Unmarshal(r.Body.Bytes(), &body); err != nil || r.Header().Get("Content-Type") != "application/json" {
			t.Fatal(r.Body, err)
		}
		return r.Code, body
	}
	if code, body := ask("/healthz"); code != 503 || body.Healthy || *body.NodeEligible || !body.LastUpdated.IsZero() {
		t.Errorf("at first: %d %+v", code, body)
	}
	w.api.Watched(t)
	if _, err := w.api.CoreV1().Nodes().Create(w.ctx, node("a"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	w.next()
	w.until("/healthz", "ok")
	if code, body := ask("/healthz"); code != 200 || !body.Healthy || !*body.NodeEligible || !body.LastUpdated.Equal(body.CurrentTime) {
		t.Errorf("synced: %d %+v", code, body)
	}
	if code, body := ask("/livez"); code != 200 || body.NodeEligible != nil {
		t.Errorf("synced: %d %+v", code, body)
	}

	w.agent.program.tables.Update(time.Now(), func(tx *state.Tx) {
		n, _ := w.agent.program.tables.Snapshot().Node("n1")
		n.Leaving = true
		tx.PutNode(n)
	})
	if code, body := ask("/healthz"); code != 503 || *body.NodeEligible || !body.Healthy || body.LastUpdated.IsZero() {
		t.Errorf("leaving: %d %+v", code, body)
	}
	if code, _ := ask("/livez"); code != 200 {
		t.Errorf("a node that leaves is alive, yet %d", code)
	}
	w.agent.program.health.fail(errors.New("nft: busy"), time.Now().Add(-stuck))
	if code, body := ask("/livez"); code != 503 || body.Healthy {
		t.Errorf("stuck: %d %+v", code, body)
	}
	w.until("/metrics", `zonewise_health_requests_total{code="503",probe="healthz"} 2`)
	w.until("/metrics", "zonewise_conntrack_flows_cut_total 7")
}

func TestHealthIsLostSlowly(t *testing.T) {
	h, now := newHealth(), time.Unix(1_000_000, 0)
	want := func(step string, after time.Duration, current bool) {
		t.Helper()
		if h.current(now.Add(after)) != current {
			t.Errorf("%s, after %v: %v", step, after, !current)
		}
	}
	want("not synced", 0, false)
	h.synced()
	want("synced, and nothing happens", 24*time.Hour, true)
	h.fail(errors.New("x"), now)
	h.fail(errors.New("x"), now.Add(stuck-1))
	want("fails", stuck-1, true)
	want("fails", stuck, false)
	h.synced()
	want("works again", stuck, true)
	done := h.begin(now)
	want("runs", stuck-1, true)
	want("runs", stuck, false)
	done()
	want("has run", stuck, true)
}

// listeners gives out ports of the loopback in place of those that are asked for.
type listeners struct {
	mu    sync.Mutex
	taken map[netip.AddrPort]bool
	at    map[netip.AddrPort]string
}

func (l *listeners) listen(at netip.AddrPort) (net.Listener, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.taken[at] {
		return nil, errors.New("address already in use")
	}
	real, err := net.Listen("tcp", "127.0.0.1:0")
	if err == nil {
		l.at[at] = real.Addr().String()
	}
	return real, err
}

func (l *listeners) where(at string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.at[netip.MustParseAddrPort(at)]
}

func TestHealthCheckNodePorts(t *testing.T) {
	lb := svc(1)
	lb.Spec.Type, lb.Spec.ExternalTrafficPolicy, lb.Spec.HealthCheckNodePort = corev1.ServiceTypeLoadBalancer, corev1.ServiceExternalTrafficPolicyLocal, 31000
	here := slice(1, "a", "b")
	here.Endpoints[0].NodeName = new(string)
	*here.Endpoints[0].NodeName = "n1"
	l := &listeners{taken: map[netip.AddrPort]bool{}, at: map[netip.AddrPort]string{}}
	w := startWith(t, func(w *world, _ *Config) { w.listen = l }, node("a"), lb, here)
	w.next()
	w.until("/metrics", `zonewise_services_without_local_endpoints{policy="external"} 0`)

	check := func(step, at string, code int, weight string) {
		t.Helper()
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for last := ""; ; {
			r, err := http.Get("http://" + l.where(at))
			if err == nil {
				var body local
				err = json.NewDecoder(r.Body).Decode(&body)
				_ = r.Body.Close()
				last = cmp.Diff([]any{code, weight, true, "default/s1"}, []any{r.StatusCode, r.Header.Get("X-Load-Balancing-Endpoint-Weight"),
					body.ServiceProxyHealthy, body.Service.Namespace + "/" + body.Service.Name})
				if err == nil && last == "" {
					return
				}
			}
			select {
			case <-tick.C:
			case <-w.ctx.Done():
				t.Fatalf("%s: %v %s", step, err, last)
			}
		}
	}
	check("an endpoint", "192.168.1.10:31000", 200, "1")
	w.api.Watched(t)
	change := func(do func()) {
		t.Helper()
		do()
		w.next()
	}
	update := func(s *corev1.Service) {
		t.Helper()
		if _, err := w.api.CoreV1().Services("default").Update(w.ctx, s, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	gone := here.DeepCopy()
	gone.Endpoints[0].Conditions.Ready = new(bool)
	change(func() {
		if _, err := w.api.DiscoveryV1().EndpointSlices("default").Update(w.ctx, gone, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	})
	check("none is ready", "192.168.1.10:31000", 503, "0")

	old := l.where("192.168.1.10:31000")
	moved := lb.DeepCopy()
	moved.Spec.HealthCheckNodePort = 31001
	l.mu.Lock()
	l.taken[netip.MustParseAddrPort("192.168.1.10:31001")] = true
	l.mu.Unlock()
	change(func() { update(moved) })
	w.until("/v1/faults", "health check node port 31001 is not answered on this node: address already in use")
	if c, err := net.Dial("tcp", old); err == nil {
		_ = c.Close()
		t.Error("the old port still answers")
	}
	l.mu.Lock()
	clear(l.taken)
	l.mu.Unlock()
	check("the port is free", "192.168.1.10:31001", 503, "0")
	w.until("/v1/faults", `"faults":[]`)

	cluster := moved.DeepCopy()
	cluster.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyCluster
	at := l.where("192.168.1.10:31001")
	change(func() { update(cluster) })
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		c, err := net.Dial("tcp", at)
		if err != nil {
			break
		}
		_ = c.Close()
		select {
		case <-tick.C:
		case <-w.ctx.Done():
			t.Fatal("policy Cluster has no health check, yet it answers")
		}
	}
}

func TestNodePortAddresses(t *testing.T) {
	addresses := func(list ...string) (out []netip.Addr) {
		for _, a := range list {
			out = append(out, netip.MustParseAddr(a))
		}
		return out
	}
	all := addresses("127.0.0.1", "192.168.1.10", "10.0.0.7", "::1", "fe80::1", "fd00::7", "192.168.1.10")
	for _, c := range []struct{ words, want string }{
		{"192.168.0.0/16", "192.168.1.10 fd00::7"}, // as kube-proxy: the other family answers at all
		{"192.168.0.0/16,fd01::/16", "192.168.1.10"},
		{"0.0.0.0/0", "10.0.0.7 192.168.1.10 fd00::7"},
		{"::/0,10.0.0.0/8", "10.0.0.7 fd00::7"},
	} {
		n, err := ParseNodePortAddresses(strings.Split(c.words, ","))
		if err != nil || n.Primary() {
			t.Fatal(c.words, err)
		}
		var got []string
		for _, a := range n.of(all) {
			got = append(got, a.String())
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: %v, want %s", c.words, got, c.want)
		}
	}
	for _, words := range []string{"", "primary"} {
		if n, err := ParseNodePortAddresses(strings.Split(words, ",")); err != nil || !n.Primary() {
			t.Errorf("%q: %v", words, err)
		}
	}
	for words, want := range map[string]string{"eth0": "neither primary nor a range", "primary,10.0.0.0/8": "nothing else", "127.0.0.0/8": "loopback"} {
		if _, err := ParseNodePortAddresses(strings.Split(words, ",")); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", words, err)
		}
	}
}

func TestNodePortAddressesAreFollowed(t *testing.T) {
	var mu sync.Mutex
	have := []netip.Addr{netip.MustParseAddr("192.168.1.10")}
	np := svc(1)
	np.Spec.Type, np.Spec.Ports[0].NodePort = corev1.ServiceTypeNodePort, 30080
	w := startWith(t, func(_ *world, c *Config) {
		c.NodePorts, _ = ParseNodePortAddresses([]string{"192.168.0.0/16"})
		c.Addresses = func() ([]netip.Addr, error) {
			mu.Lock()
			defer mu.Unlock()
			return have, nil
		}
	}, node("a"), np, slice(1, "a"))
	w.want("start", call{whole: true, services: []string{"s1"}})
	w.until("/v1/status", `"nodePorts":["192.168.1.10"]`)
	mu.Lock()
	have = []netip.Addr{netip.MustParseAddr("192.168.1.10"), netip.MustParseAddr("192.168.1.99"), netip.MustParseAddr("10.1.1.1")}
	mu.Unlock()
	w.want("another address", call{whole: true, services: []string{"s1"}})
	w.until("/v1/status", `"nodePorts":["192.168.1.10","192.168.1.99"]`)
}

// ranges passes on what it is told.
type ranges struct{ told chan []netip.Prefix }

func (r ranges) ServiceCIDRs(list []netip.Prefix) error {
	r.told <- list
	return nil
}

func TestRangesComeAfterTheServicesInThem(t *testing.T) {
	told := make(chan []netip.Prefix, 10)
	w := startWith(t, func(_ *world, c *Config) { c.Ranges = ranges{told} }, node("a"), svc(1), slice(1, "a"))
	w.next()
	if first := <-told; len(first) != 0 {
		t.Errorf("told %v", first)
	}
	p := netip.MustParsePrefix("10.100.0.0/16")
	w.agent.program.tables.Update(time.Now(), func(tx *state.Tx) { tx.PutServiceCIDR("kubernetes", []netip.Prefix{p}) })
	if got := <-told; len(got) != 1 || got[0] != p {
		t.Errorf("told %v", got)
	}
	if len(w.kernel.calls) != 0 {
		t.Error("no Service changed")
	}
}

func TestAnsweringAddresses(t *testing.T) {
	n := model.Node{Addresses: []netip.Addr{netip.MustParseAddr("192.168.1.10"), netip.MustParseAddr("fd00::10")}}
	if got := answering(n); len(got) != 2 {
		t.Error(got)
	}
	n.NodePorts = []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")}
	if got := answering(n); len(got) != 3 || got[2] != n.Addresses[1] {
		t.Error(got)
	}
}

func TestCloseWaitIsOnlyRaised(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "nf_conntrack_tcp_timeout_close_wait")
	for had, want := range map[string]string{"60\n": "3600", "3600\n": "3600\n", "7200\n": "7200\n"} {
		if err := os.WriteFile(file, []byte(had), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := RaiseCloseWait(dir, time.Hour); err != nil {
			t.Fatal(err)
		}
		if got, _ := os.ReadFile(file); string(got) != want {
			t.Errorf("%q became %q", had, got)
		}
	}
	if err := RaiseCloseWait(filepath.Join(dir, "nowhere"), time.Hour); err == nil || !strings.HasPrefix(err.Error(), "close wait: ") {
		t.Error(err)
	}
}
