package agent

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/zonewise/zonewise/internal/kernel/bpf"
	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/service"
)

var web = model.Name{Namespace: "default", Name: "web"}

func twoPaths() (p *paths, complete, socket *fakeApplier) {
	complete, socket = newFakeApplier(), newFakeApplier()
	return &paths{complete: complete, socket: socket, log: slog.New(slog.DiscardHandler)}, complete, socket
}

func TestEachPathIsTold(t *testing.T) {
	p, complete, socket := twoPaths()
	if err := p.apply(map[model.Name][]service.Frontend{web: {{}}}); err != nil {
		t.Fatal(err)
	}
	socket.broken = errors.New("map is full")
	other := model.Name{Namespace: "default", Name: "db"}
	err := p.update(map[model.Name][]service.Frontend{other: {{}}})
	if err == nil || err.Error() != "socket: map is full" {
		t.Errorf("error %v", err)
	}
	if len(complete.kernel) != 2 || len(socket.kernel) != 1 {
		t.Errorf("nft has %d, the socket path %d", len(complete.kernel), len(socket.kernel))
	}
	complete.broken, socket.broken = errors.New("busy"), nil
	if err := p.update(map[model.Name][]service.Frontend{other: {{}}}); err == nil || err.Error() != "nft: busy" || len(socket.kernel) != 2 {
		t.Errorf("error %v, the socket path has %d", err, len(socket.kernel))
	}
	a, b := service.Fault{Kind: "Service", Object: other}, service.Fault{Kind: "Service", Object: web}
	complete.wrong, socket.wrong = []service.Fault{b}, []service.Fault{a, b}
	if diff := cmp.Diff([]service.Fault{a, b}, p.faults()); diff != "" {
		t.Error(diff)
	}
	socket.tampered = true
	if repaired, err := p.audit(); err != nil || strings.Join(repaired, " ") != pathSocket {
		t.Errorf("repaired %v, %v", repaired, err)
	}
}

// A socket path that does not do as it is told would send connections where nobody is any more.
func TestASocketPathThatKeepsFailingIsTakenAway(t *testing.T) {
	p, complete, socket := twoPaths()
	now, broken := time.Now(), errors.New("no such map")
	for _, step := range []struct {
		after   time.Duration
		err     error
		removed int
		reports bool
	}{
		{0, broken, 0, true},
		{giveUp - 1, broken, 0, true},
		{giveUp, nil, 0, false}, // it works again, and has all its time anew
		{giveUp, broken, 0, true},
		{2*giveUp - 1, broken, 0, true},
		{2 * giveUp, fmt.Errorf("lock: %w", bpf.ErrTaken), 0, true}, // another agent's, which looks after it
		{2 * giveUp, broken, 1, false},
		{3 * giveUp, broken, 1, false},
	} {
		if err := p.judge(socket, step.err, now.Add(step.after)); (err != nil) != step.reports || socket.removed != step.removed {
			t.Errorf("after %v: %v, removed %d times", step.after, err, socket.removed)
		}
	}
	if s, why := p.inUse(); s != nil || !strings.Contains(why, "no such map") {
		t.Errorf("in use: %v, %q", s, why)
	}
	if err := p.apply(map[model.Name][]service.Frontend{web: {{}}}); err != nil || len(complete.kernel) != 1 || len(socket.kernel) != 0 {
		t.Errorf("nft has %d, the socket path %d, error %v", len(complete.kernel), len(socket.kernel), err)
	}
}

func TestCountsOfBothPaths(t *testing.T) {
	socket := newFakeApplier()
	w := startWith(t, func(w *world, c *Config) { c.Socket = socket }, node("a"), svc(1), slice(1, "a", "b"))
	w.next()
	w.until("/healthz", "ok")
	pair := service.Pair{Frontend: service.Key{Addr: netip.MustParseAddrPort("10.100.0.1:80"), Protocol: model.TCP},
		Backend: netip.MustParseAddrPort("192.168.1.11:8080")}
	count := func(nft, atSocket uint64) {
		w.kernel.set(func(f *fakeApplier) {
			f.counted = map[service.Pair]service.Traffic{pair: {Connections: nft, Bytes: 100 * nft}}
		})
		socket.set(func(f *fakeApplier) {
			f.counted = map[service.Pair]service.Traffic{pair: {Connections: atSocket}}
		})
	}
	count(3, 40)
	w.until("/v1/services/default/s1", `"connections":43,"atSocket":40,"bytes":300`)
	w.until("/v1/traffic", `"services":[]`) // counts begin here
	count(5, 41)
	w.until("/v1/traffic", `"endpointZones":[{"zone":"a","connections":3}]`)
	w.until("/metrics", `zonewise_path_in_use{path="socket"} 1`)
	w.agent.program.paths.mu.Lock()
	w.agent.program.paths.socket, w.agent.program.paths.why = nil, "taken away"
	w.agent.program.paths.mu.Unlock()
	w.until("/v1/traffic", `"endpointZones":[{"zone":"a","connections":3}]`) // its counts went with it, and stay
	w.until("/v1/status", `{"name":"socket","on":false,"why":"taken away"}`)
	w.until("/metrics", `zonewise_path_in_use{path="socket"} 0`)
}

func TestPodsThatOptOut(t *testing.T) {
	socket := newFakeApplier()
	pod := func(name, ip string) *corev1.Pod {
		return &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Labels: map[string]string{"zonewise.io/socket": "off"}},
			Spec:       corev1.PodSpec{NodeName: "n1"},
			Status:     corev1.PodStatus{PodIP: ip, PodIPs: []corev1.PodIP{{IP: ip}}},
		}
	}
	host, done := pod("host", "192.168.1.10"), pod("done", "192.168.1.13")
	host.Spec.HostNetwork, done.Status.Phase = true, corev1.PodSucceeded
	stranger := pod("stranger", "192.168.1.14")
	stranger.Labels = nil
	w := startWith(t, func(w *world, c *Config) {
		c.Socket = socket
		w.api.Expect("pods")
	}, node("a"), pod("one", "192.168.1.11"), host, done, stranger)
	w.next()
	w.api.Watched(t)
	opted := func(want ...netip.Addr) {
		t.Helper()
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			socket.mu.Lock()
			diff := cmp.Diff(want, socket.optedOut, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }))
			socket.mu.Unlock()
			if diff == "" {
				return
			}
			select {
			case <-tick.C:
			case <-w.ctx.Done():
				t.Fatal(diff)
			}
		}
	}
	one, two := netip.MustParseAddr("192.168.1.11"), netip.MustParseAddr("192.168.1.12")
	opted(one)
	if _, err := w.api.CoreV1().Pods("default").Create(w.ctx, pod("two", two.String()), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	opted(one, two)
	if err := w.api.CoreV1().Pods("default").Delete(w.ctx, "one", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	opted(two)
}
