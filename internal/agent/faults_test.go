package agent

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	k8stesting "k8s.io/client-go/testing"

	"github.com/zonewise/zonewise/internal/agent/view"
	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/service"
)

// lines is a log that a test reads while others write.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// with returns the lines that have a word, without their time.
func (l *lines) with(word string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []string
	for line := range strings.Lines(l.b.String()) {
		if strings.Contains(line, word) {
			_, line, _ = strings.Cut(strings.TrimSpace(line), " ")
			out = append(out, line)
		}
	}
	return out
}

// events waits for as many events as there should be, and returns them by name of their objects.
func (w *world) events(n int) map[string]corev1.Event {
	w.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		list, err := w.api.CoreV1().Events("").List(w.ctx, metav1.ListOptions{})
		if err != nil {
			w.Fatal(err)
		}
		if len(list.Items) == n {
			out := map[string]corev1.Event{}
			for _, e := range list.Items {
				out[e.InvolvedObject.Name] = e
			}
			return out
		}
		select {
		case <-tick.C:
		case <-w.ctx.Done():
			w.Fatalf("%d events: %v", len(list.Items), list.Items)
		}
	}
}

func TestFaultsAreTold(t *testing.T) {
	log := &lines{}
	bad := slice(1, "a")
	bad.Endpoints[0].Addresses[0] = "fd00::1" // a slice of IPv4
	bad.UID = "slice-uid"
	one := svc(2)
	one.UID = "service-uid"
	full := service.Fault{Kind: "Service", Object: model.Name{Namespace: "default", Name: "s2"}, Problem: "the map of backends is full"}
	w := startWith(t, func(w *world, c *Config) {
		c.Log = slog.New(slog.NewTextHandler(log, nil))
		w.kernel.wrong = []service.Fault{full}
	}, node("a"), svc(1), one, bad, slice(2, "a"))
	w.want("start", call{whole: true, services: []string{"s1", "s2"}})
	w.until("/metrics", `zonewise_faults{kind="EndpointSlice"} 1`)
	w.until("/metrics", `zonewise_faults{kind="Service"} 1`)
	w.until("/v1/status", `"faults":2`)

	_, body := w.get("/v1/faults")
	var got view.Faults
	if err := json.Unmarshal([]byte(body), &got); err != nil || got.Schema != view.FaultsSchema || len(got.Faults) != 2 {
		t.Fatal(body, err)
	}
	if f := got.Faults[0]; f.Kind != "EndpointSlice" || f.Name != "s1-x" || f.Here || f.Since.IsZero() || !strings.Contains(f.Problem, "fd00::1") {
		t.Errorf("%+v", f)
	}
	if f := got.Faults[1]; f.Kind != "Service" || f.Name != "s2" || !f.Here || f.Problem != full.Problem {
		t.Errorf("%+v", f)
	}
	events := w.events(2)
	if e := events["s1-x"]; e.Reason != "ZonewiseFault" || e.Type != corev1.EventTypeWarning || e.InvolvedObject.UID != "slice-uid" ||
		e.InvolvedObject.APIVersion != "discovery.k8s.io/v1" || strings.Contains(e.Message, "n1") {
		t.Errorf("%+v", e)
	}
	if e := events["s2"]; e.Message != "On node n1: the map of backends is full" || e.InvolvedObject.UID != "service-uid" {
		t.Errorf("%+v", e)
	}
	// Two faults may be seen at two looks: their order is open.
	if said := log.with(`msg=fault `); len(said) != 2 || !strings.Contains(strings.Join(said, ""), "kind=Service namespace=default name=s2 problem=\"the map of backends is full\"") {
		t.Errorf("log: %v", said)
	}

	w.api.Watched(t)
	w.kernel.set(func(f *fakeApplier) { f.wrong = nil })
	if _, err := w.api.DiscoveryV1().EndpointSlices("default").Update(w.ctx, slice(1, "a"), metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	w.until("/v1/status", `"faults":0`)
	w.until("/metrics", `zonewise_faults{kind="EndpointSlice"} 0`)
	if said := log.with("fault is gone"); len(said) != 2 {
		t.Errorf("log: %v", said)
	}
	w.events(2) // the end of a fault makes none
}

// Nodes that see the same say it once; a fault that stands is not said again; what belongs to one node
// each of them says.
func TestEventsAreMadeOnce(t *testing.T) {
	w := start(t, node("a"), svc(1))
	w.next()
	object := service.Fault{Kind: "Service", Object: model.Name{Namespace: "default", Name: "s1"}, Problem: "two ports of one name"}
	gone := service.Fault{Kind: "Service", Object: model.Name{Namespace: "default", Name: "s9"}, Problem: "?"}
	for _, n := range []string{"n1", "n2", "n1"} {
		a := newAnnouncer(w.api, n, slog.New(slog.DiscardHandler))
		a.announce([]news{{object, false}, {gone, false}}, nil)
		if err := a.pass(w.ctx); err != nil || len(a.waiting) != 0 {
			t.Fatal(err, a.waiting)
		}
	}
	w.events(1)
	for _, n := range []string{"n1", "n2"} {
		a := newAnnouncer(w.api, n, slog.New(slog.DiscardHandler))
		a.announce([]news{{object, true}}, nil)
		if err := a.pass(w.ctx); err != nil {
			t.Fatal(err)
		}
	}
	w.events(3)
}

func TestEventsWaitForTheAPIServer(t *testing.T) {
	var away atomic.Bool
	away.Store(true)
	w := start(t, node("a"), svc(1), svc(2))
	w.next()
	w.api.PrependReactor("create", "events", func(k8stesting.Action) (bool, runtime.Object, error) {
		return away.Load(), nil, errors.New("connection refused")
	})
	a := newAnnouncer(w.api, "n1", slog.New(slog.DiscardHandler))
	fault := func(name string) service.Fault {
		return service.Fault{Kind: "Service", Object: model.Name{Namespace: "default", Name: name}}
	}
	a.announce([]news{{fault("s1"), false}, {fault("s2"), false}}, nil)
	if err := a.pass(w.ctx); err == nil || len(a.waiting) != 2 {
		t.Fatal(err, a.waiting)
	}
	a.announce(nil, []service.Fault{fault("s2")})
	away.Store(false)
	if err := a.pass(w.ctx); err != nil || len(a.waiting) != 0 {
		t.Fatal(err, a.waiting)
	}
	w.events(1)
}

func TestManyFaultsDoNotFillTheLog(t *testing.T) {
	log := &lines{}
	f := faults{log: slog.New(slog.NewTextHandler(log, nil))}
	var many []service.Fault
	for i := range told + 5 {
		many = append(many, service.Fault{Kind: "Service", Object: model.Name{Name: strings.Repeat("s", i+1)}})
	}
	begin := time.Unix(1, 0)
	come, gone := f.set(many, many[:1], begin)
	if len(come) != len(many) || len(gone) != 0 || len(log.with("msg=fault ")) != told || len(log.with(`msg="more faults" number=5`)) != 1 {
		t.Errorf("%d, %d: %d lines", len(come), len(gone), len(log.with("fault")))
	}
	come, gone = f.set(many[1:], nil, begin.Add(time.Hour))
	if len(come) != 0 || len(gone) != 1 || gone[0] != many[0] {
		t.Errorf("%v, %v", come, gone)
	}
	if v := f.view("n1"); len(v.Faults) != told+4 || v.Faults[0].Since != begin {
		t.Errorf("%d faults, the first since %v", len(v.Faults), v.Faults[0].Since)
	}
	if come, _ = f.set(nil, nil, begin); len(come) != 0 || cmp.Diff([]view.Fault{}, f.view("n1").Faults) != "" {
		t.Error("none are left")
	}
}
