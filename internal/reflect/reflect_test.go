package reflect

import (
	"context"
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/reflect/apitest"
	"github.com/zonewise/zonewise/internal/state"
)

var web = model.Name{Namespace: "default", Name: "web"}

func webService(t *testing.T) *corev1.Service {
	return parse[corev1.Service](t, `
metadata: {namespace: default, name: web}
spec: {clusterIP: 10.100.0.7, clusterIPs: [10.100.0.7], ports: [{port: 80}]}`)
}

func webSlice(t *testing.T, n int, ready bool) *discoveryv1.EndpointSlice {
	return parse[discoveryv1.EndpointSlice](t, fmt.Sprintf(`
metadata: {namespace: default, name: web-%d, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{port: 8080}]
endpoints: [{addresses: [192.168.1.%d], conditions: {ready: %v}}]`, n, n, ready))
}

func run(t *testing.T, api *apitest.API, tables *state.Tables) {
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); Run(ctx, api, tables, Options{Node: "n1"}) }()
	t.Cleanup(func() { stop(); <-done })
}

func TestRunFollowsTheAPI(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	api := apitest.New(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}, webService(t), webSlice(t, 1, true))
	tables := state.New(Sources...)
	run(t, api, tables)
	s := apitest.Until(ctx, t, tables, func(s *state.Snapshot) bool { return len(s.Missing()) == 0 })
	if len(s.Slices(web)) != 1 {
		t.Fatalf("slices %v", s.Slices(web))
	}
	seen := s.Revision()
	api.Watched(t)

	slices := api.DiscoveryV1().EndpointSlices("default")
	do := func(what string, err error, want func(*state.Snapshot) bool) {
		t.Helper()
		if err != nil {
			t.Fatal(what, err)
		}
		s := apitest.Until(ctx, t, tables, want)
		if c := s.Changes(seen); len(c.Services) != 1 || c.Services[0].Of != web || len(c.Nodes) != 0 {
			t.Errorf("%s: changes %+v", what, c)
		}
		seen = s.Revision()
	}
	_, err := slices.Update(ctx, webSlice(t, 1, false), metav1.UpdateOptions{})
	do("an endpoint fails", err, func(s *state.Snapshot) bool { return !s.Slices(web)[0].Endpoints[0].Ready })
	_, err = slices.Create(ctx, webSlice(t, 2, true), metav1.CreateOptions{})
	do("a second slice", err, func(s *state.Snapshot) bool { return len(s.Slices(web)) == 2 })
	err = slices.Delete(ctx, "web-1", metav1.DeleteOptions{})
	do("a slice goes", err, func(s *state.Snapshot) bool { return len(s.Slices(web)) == 1 })

	foreign := webService(t)
	foreign.Labels = map[string]string{labelProxyName: "another"}
	_, err = api.CoreV1().Services("default").Update(ctx, foreign, metav1.UpdateOptions{})
	do("handed to another proxy", err, func(s *state.Snapshot) bool { _, ok := s.Service(web); return !ok })
}

// Labels hand objects to others and back while they live. An API server that selects by label says
// that they are deleted, with the labels that they have now; one that does not says that they changed.
func TestLabelsComeAndGo(t *testing.T) {
	tables := state.New(Sources...)
	services, slices := serviceStore(tables, time.Now), sliceStore(tables, time.Now)
	service, slice := webService(t), webSlice(t, 1, true)
	theirs, headless := service.DeepCopy(), slice.DeepCopy()
	theirs.Labels = map[string]string{labelProxyName: "another"}
	headless.Labels[corev1.IsHeadlessService] = ""
	foreign := slice.DeepCopy()
	foreign.Labels[labelProxyName] = "another"
	have := func(what string, wantService bool, wantSlices int) {
		t.Helper()
		s := tables.Snapshot()
		if _, ok := s.Service(web); ok != wantService || len(s.Slices(web)) != wantSlices {
			t.Errorf("%s: service %v, slices %v", what, ok, s.Slices(web))
		}
	}
	for _, step := range []struct {
		what        string
		do          func() error
		wantService bool
		wantSlices  int
	}{
		{"a service", func() error { return services.Add(service) }, true, 0},
		{"its slice", func() error { return slices.Add(slice) }, true, 1},
		{"selected away", func() error { return services.Delete(theirs) }, false, 1},
		{"back", func() error { return services.Add(service) }, true, 1},
		{"handed to another proxy", func() error { return services.Update(theirs) }, false, 1},
		{"back again", func() error { return services.Update(service) }, true, 1},
		{"the slice selected away", func() error { return slices.Delete(headless) }, true, 0},
		{"the slice back", func() error { return slices.Add(slice) }, true, 1},
		{"headless", func() error { return slices.Update(headless) }, true, 0},
		{"no longer headless", func() error { return slices.Update(slice) }, true, 1},
		{"the slice of another proxy", func() error { return slices.Update(foreign) }, true, 0},
	} {
		if err := step.do(); err != nil {
			t.Fatal(step.what, err)
		}
		have(step.what, step.wantService, step.wantSlices)
	}
}

// A Service that changes its type keeps what it has, loses it, and has it again.
func TestServicesChangeTheirType(t *testing.T) {
	tables := state.New(Sources...)
	services := serviceStore(tables, time.Now)
	typed := func(spec string) *corev1.Service {
		return parse[corev1.Service](t, `{metadata: {namespace: default, name: web}, spec: {`+spec+`}}`)
	}
	for _, step := range []struct {
		spec     string
		served   bool
		nodePort uint16
	}{
		{`type: ClusterIP, clusterIP: 10.100.0.7, ports: [{name: a, port: 80}]`, true, 0},
		{`type: NodePort, clusterIP: 10.100.0.7, ports: [{name: a, port: 80, nodePort: 30080}]`, true, 30080},
		{`type: NodePort, clusterIP: 10.100.0.7, ports: [{name: b, port: 80, nodePort: 30081}]`, true, 30081},
		{`type: ExternalName, externalName: example.com`, false, 0},
		{`type: LoadBalancer, clusterIP: 10.100.0.8, ports: [{name: a, port: 81, nodePort: 30082}]`, true, 30082},
		{`clusterIP: None, ports: [{name: a, port: 81}]`, false, 0},
		{`type: ClusterIP, clusterIP: 10.100.0.9, ports: [{name: a, port: 82}]`, true, 0},
	} {
		if err := services.Update(typed(step.spec)); err != nil {
			t.Fatal(err)
		}
		got, served := tables.Snapshot().Service(web)
		if served != step.served || served && got.Ports[0].NodePort != step.nodePort {
			t.Errorf("%s: served %v: %+v", step.spec, served, got)
		}
		if _, unserved := tables.Snapshot().Unserved(web); unserved == step.served {
			t.Errorf("%s: unserved %v", step.spec, unserved)
		}
	}
}

// After a lost watch comes a list. What vanished meanwhile must vanish here, and what is the
// same must wake nobody.
func TestReplace(t *testing.T) {
	tables := state.New(Sources...)
	s := sliceStore(tables, time.Now)
	if err := s.Replace([]any{webSlice(t, 1, true), webSlice(t, 2, true)}, "1"); err != nil {
		t.Fatal(err)
	}
	before := tables.Snapshot()
	if err := s.Replace([]any{webSlice(t, 2, true), webSlice(t, 1, true)}, "2"); err != nil {
		t.Fatal(err)
	}
	if tables.Snapshot().Revision() != before.Revision() {
		t.Error("the same list is news")
	}
	if err := s.Replace([]any{webSlice(t, 2, true)}, "3"); err != nil {
		t.Fatal(err)
	}
	if got := tables.Snapshot().Slices(web); len(got) != 1 || got[0].Name.Name != "web-2" {
		t.Errorf("slices %v", got)
	}
	if err := s.Replace([]any{&corev1.Pod{}}, "4"); err == nil {
		t.Error("a Pod among the slices is an error")
	}
}
