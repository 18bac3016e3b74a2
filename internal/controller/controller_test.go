package controller

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/zonewise/zonewise/internal/loop"
	"github.com/zonewise/zonewise/internal/meter"
	"github.com/zonewise/zonewise/internal/reflect/apitest"
	"github.com/zonewise/zonewise/internal/state"
)

// lines is a log that a test can wait on.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func object[T any](t *testing.T, format string, args ...any) *T {
	t.Helper()
	v := new(T)
	if err := yaml.UnmarshalStrict(fmt.Appendf(nil, format, args...), v); err != nil {
		t.Fatal(err)
	}
	return v
}

func nodeObject(t *testing.T, name, zone string) *corev1.Node {
	return object[corev1.Node](t, `metadata: {name: %s, labels: {topology.kubernetes.io/zone: %q}}`, name, zone)
}

func webObject(t *testing.T) *corev1.Service {
	return object[corev1.Service](t, `
metadata: {namespace: default, name: web, annotations: {service.kubernetes.io/topology-mode: Auto}}
spec: {clusterIP: 10.100.0.7, clusterIPs: [10.100.0.7], ports: [{port: 80, protocol: TCP}]}`)
}

func sliceObject(t *testing.T, hints string) *discoveryv1.EndpointSlice {
	return object[discoveryv1.EndpointSlice](t, `
metadata: {namespace: default, name: web-1, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: "", port: 8080, protocol: TCP}]
endpoints: [{addresses: [192.168.1.11], zone: a, hints: %s}]`, hints)
}

// free is a book by which nothing costs.
func free() (meter.Series, error) { return nil, nil }

func TestLeaderSaysWhatChanges(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	api := apitest.New(nodeObject(t, "n1", "a"), nodeObject(t, "n2", ""), webObject(t), sliceObject(t, "{}"))
	log := &lines{}
	c, err := New(Config{Client: api, Routes: api.ZoneRoutes, Namespace: "kube-system", Identity: "one", Prices: free, Log: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	c.watcher.settle = 0
	done := make(chan error)
	go func() { done <- c.Run(ctx) }()

	page := func(path string) string {
		r := httptest.NewRecorder()
		c.Handler().ServeHTTP(r, httptest.NewRequest("GET", path, nil))
		return r.Body.String()
	}
	until := func(what string, read func() string) {
		t.Helper()
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for !strings.Contains(read(), what) {
			select {
			case <-tick.C:
			case <-ctx.Done():
				t.Fatalf("never %q, but:\n%s", what, read())
			}
		}
	}
	// no hints: another zone's pod would be hit too, if there were one; here it is in zone by luck
	until("default/web: asked topology-mode Auto, in zone on 1 of 1 nodes", log.String)
	until("node=n2", log.String)
	until("zonewise_leader 1", func() string { return page("/metrics") })
	until(`zonewise_service_in_zone_nodes{namespace="default",service="web"} 1`, func() string { return page("/metrics") })
	until("zonewise_nodes_without_zone 1", func() string { return page("/metrics") })
	until("ok", func() string { return page("/healthz") })
	api.Watched(t)

	two := sliceObject(t, "{}")
	two.Endpoints = append(two.Endpoints, *object[discoveryv1.Endpoint](t, `{addresses: [192.168.2.11], zone: b}`))
	if _, err := api.DiscoveryV1().EndpointSlices("default").Update(ctx, two, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	until("level=WARN msg=\"default/web: asked topology-mode Auto, in zone on 0 of 1 nodes: all endpoints: no hints\"", log.String)
	until(`zonewise_zone_routing_services{state="none"} 1`, func() string { return page("/metrics") })

	if _, err := api.CoreV1().Nodes().Update(ctx, nodeObject(t, "n2", "a"), metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	until(`zonewise_service_nodes{namespace="default",service="web"} 2`, func() string { return page("/metrics") })
	if n := strings.Count(log.String(), "default/web"); n != 2 {
		t.Errorf("%d lines about the service, want one for each change:\n%s", n, log)
	}

	plain := webObject(t)
	plain.Annotations = nil
	if _, err := api.CoreV1().Services("default").Update(ctx, plain, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	until("default/web: asks for no zone routing any more", log.String)

	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if m := page("/metrics"); !strings.Contains(m, "zonewise_leader 0") || strings.Contains(m, "zonewise_service_in_zone_nodes") {
		t.Error("a replica that does not lead still reports")
	}
}

func TestLeaseIsGivenBack(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	api := apitest.New()
	leads := func(identity string) (stop func()) {
		c, err := New(Config{Client: api, Routes: api.ZoneRoutes, Namespace: "kube-system", Identity: identity, Prices: free, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(ctx)
		done := make(chan error)
		go func() { done <- c.Run(ctx) }()
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			l, err := api.CoordinationV1().Leases("kube-system").Get(ctx, Lease, metav1.GetOptions{})
			if err == nil && l.Spec.HolderIdentity != nil && *l.Spec.HolderIdentity == identity {
				break
			}
			<-tick.C
		}
		return func() { cancel(); <-done }
	}
	begin := time.Now()
	leads("one")()
	leads("two")() // at once, not after the lease of 15 s has run out
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("took %v", took)
	}
}

func TestPassingVerdictsAreNotSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tables, log := state.New(), &lines{}
		w := &watcher{tables: tables, log: slog.New(slog.NewTextHandler(log, nil)), settle: settle, forget: tables.Forget}
		l := loop.New(w.pass, loop.Options{})
		w.wake = l.Wake
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); l.Run(ctx) }()
		put := func(hinted bool) {
			tables.Update(time.Now(), func(tx *state.Tx) {
				for _, n := range nodes("a", "b") {
					tx.PutNode(n)
				}
				tx.PutService(asking("Auto", ""))
				tx.PutSlice(endpoints(hinted, "a", "b")[0])
			})
			l.Wake()
			synctest.Wait()
		}
		put(true)
		<-time.After(2 * settle)
		for range 5 { // a rollout: without hints, with hints, ...
			put(false)
			<-time.After(settle / 4)
			put(true)
			<-time.After(settle / 4)
		}
		<-time.After(2 * settle)
		if n := strings.Count(log.String(), "default/web"); n != 1 {
			t.Errorf("%d lines, want the first alone:\n%s", n, log)
		}
		put(false)
		<-time.After(2 * settle)
		if n := strings.Count(log.String(), "default/web"); n != 2 {
			t.Errorf("%d lines, want a second for what stays:\n%s", n, log)
		}
		stop()
		<-done
	})
}
