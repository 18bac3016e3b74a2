package routes

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/record"
	"sigs.k8s.io/yaml"

	"github.com/zonewise/zonewise/api/v1alpha1"
	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/outlook"
	"github.com/zonewise/zonewise/internal/reflect"
	"github.com/zonewise/zonewise/internal/reflect/apitest"
	"github.com/zonewise/zonewise/internal/route"
	"github.com/zonewise/zonewise/internal/state"
)

// world is an API with a leader beside it. It lives in a bubble of synctest, where minutes pass at once.
type world struct {
	t        testing.TB
	api      *apitest.API
	settings outlook.Settings
	traffic  *Traffic
	metered  Metered
	delivery Delivery
	events   *record.FakeRecorder
	rate     float32
	keeper   *Keeper
	stop     func()
}

func settings(mode model.Mode) outlook.Settings {
	return outlook.Settings{Default: mode, Prices: model.Prices{Name: "test", PerGB: 0.02}, Stability: route.DefaultStability()}
}

// begin lets a replica lead.
func (w *world) begin() {
	w.t.Helper()
	ctx, cancel := context.WithCancel(w.t.Context())
	tables := state.New(reflect.ClusterSources...)
	w.events = record.NewFakeRecorder(10_000)
	w.keeper = New(Config{
		Tables: tables, Client: w.api, Routes: w.api.ZoneRoutes, Settings: func() outlook.Settings { return w.settings }, Recorder: w.events,
		Traffic: w.traffic, Metered: w.metered, Delivery: w.delivery, Forget: tables.Forget, Writes: w.rate, Log: slog.New(slog.DiscardHandler),
	})
	var wg sync.WaitGroup
	wg.Go(func() {
		reflect.Run(ctx, w.api, tables, reflect.Options{Routes: w.api.ZoneRoutes, Pods: true, Namespaces: true})
	})
	wg.Go(func() { w.keeper.Run(ctx) })
	w.stop = func() { cancel(); wg.Wait() }
}

// pass lets time go by.
func (w *world) pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// story runs f in a bubble, with a leader in a cluster of these objects.
func story(t *testing.T, s outlook.Settings, objects []runtime.Object, f func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, api: apitest.New(objects...), settings: s}
		w.begin()
		defer func() { w.stop() }()
		w.pass(time.Minute)
		f(w)
	})
}

// writes counts what was written to ZoneRoutes since it was asked last.
func (w *world) writes() string {
	var out []string
	counts := w.api.ZoneRoutes.Writes()
	for _, verb := range []string{"create", "patch status", "delete"} {
		if n := counts[verb]; n > 0 {
			out = append(out, fmt.Sprintf("%s %d", verb, n))
			delete(counts, verb)
		}
	}
	for verb, n := range counts {
		out = append(out, fmt.Sprintf("unexpected %s %d", verb, n))
	}
	w.api.ZoneRoutes.ClearActions()
	return strings.Join(out, ", ")
}

func (w *world) said() []string {
	var out []string
	for {
		select {
		case e := <-w.events.Events:
			out = append(out, e)
		default:
			return out
		}
	}
}

func (w *world) route(name string) *v1alpha1.ZoneRoute {
	w.t.Helper()
	zr, err := w.api.ZoneRoutes.In("default").Get(w.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	return zr
}

func (w *world) routes() string {
	w.t.Helper()
	list, err := w.api.ZoneRoutes.In("").List(w.t.Context(), metav1.ListOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	var out []string
	for _, zr := range list.Items {
		out = append(out, zr.Namespace+"/"+zr.Name)
	}
	return strings.Join(out, " ")
}

// says is a ZoneRoute's mode and conditions in one line.
func says(zr *v1alpha1.ZoneRoute) string {
	out := []string{zr.Status.Mode}
	for _, c := range zr.Status.Conditions {
		out = append(out, fmt.Sprintf("%s=%s/%s", c.Type, c.Status, c.Reason))
	}
	return strings.Join(out, " ")
}

func message(zr *v1alpha1.ZoneRoute, kind string) string {
	for _, c := range zr.Status.Conditions {
		if c.Type == kind {
			return c.Message
		}
	}
	return ""
}

func (w *world) expect(name, want string) {
	w.t.Helper()
	if got := says(w.route(name)); got != want {
		w.t.Errorf("%s:\n got %s\nwant %s", name, got, want)
	}
}

func object[T any](format string, args ...any) *T {
	v := new(T)
	if err := yaml.UnmarshalStrict(fmt.Appendf(nil, format, args...), v); err != nil {
		panic(err)
	}
	return v
}

func nodeObject(name, zone string) *corev1.Node {
	n := object[corev1.Node](`
metadata: {name: %s, labels: {topology.kubernetes.io/zone: %s}}
status: {allocatable: {cpu: "2"}, conditions: [{type: Ready, status: "True"}]}`, name, zone)
	if zone == "" {
		n.Labels = nil
	}
	return n
}

// nodeObjects are two nodes in each of three zones.
func nodeObjects() (out []runtime.Object) {
	for _, zone := range []string{"a", "b", "c"} {
		for i := range 2 {
			out = append(out, nodeObject(fmt.Sprintf("%s%d", zone, i+1), zone))
		}
	}
	return out
}

func serviceObject(name string, number int) *corev1.Service {
	ip := fmt.Sprintf("10.100.%d.%d", number/250, number%250+1)
	return object[corev1.Service](`
metadata: {namespace: default, name: %s, uid: service-%s}
spec: {type: ClusterIP, clusterIP: %s, clusterIPs: [%s], ports: [{port: 80, protocol: TCP}]}`, name, name, ip, ip)
}

// sliceObject has as many pods in zones a, b and c as it is told.
func sliceObject(service string, pods ...int) *discoveryv1.EndpointSlice {
	s := object[discoveryv1.EndpointSlice](`
metadata: {namespace: default, name: %s-1, labels: {kubernetes.io/service-name: %s}}
addressType: IPv4
ports: [{name: "", port: 8080, protocol: TCP}]`, service, service)
	for z, n := range pods {
		zone := string(rune('a' + z))
		for i := range n {
			s.Endpoints = append(s.Endpoints, *object[discoveryv1.Endpoint](
				`{addresses: [192.168.%d.%d], zone: %s, nodeName: %s%d}`, z+1, i+10, zone, zone, i%2+1))
		}
	}
	return s
}

func routeObject(name, spec string) *v1alpha1.ZoneRoute {
	return object[v1alpha1.ZoneRoute]("metadata: {namespace: default, name: %s}\nspec: %s", name, spec)
}

func cluster(more ...runtime.Object) []runtime.Object { return append(nodeObjects(), more...) }

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
