package reflect

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/zonewise/zonewise/api/v1alpha1"
	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/reflect/apitest"
	"github.com/zonewise/zonewise/internal/state"
)

func webRoute(t *testing.T) *v1alpha1.ZoneRoute {
	return parse[v1alpha1.ZoneRoute](t, `
metadata: {namespace: default, name: web}
spec: {mode: Optimal}`)
}

func start(t *testing.T, api *apitest.API, opts Options) *state.Tables {
	tables := state.New(opts.Sources()...)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); Run(ctx, api, tables, opts) }()
	t.Cleanup(func() { stop(); <-done })
	return tables
}

func TestEverythingOfACluster(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	api := apitest.New(webService(t), webRoute(t),
		parse[corev1.Service](t, `{metadata: {namespace: default, name: db}, spec: {clusterIP: None, clusterIPs: [None]}}`),
		parse[corev1.Service](t, `{metadata: {namespace: default, name: out}, spec: {type: ExternalName, externalName: example.com}}`),
		parse[corev1.Pod](t, `{metadata: {namespace: default, name: web-0}, spec: {nodeName: n1, containers: [{resources: {requests: {cpu: 100m}}}]}}`),
		parse[corev1.Namespace](t, `{metadata: {name: default, labels: {zonewise.io/mode: Observe}}}`))
	api.Expect("zoneroutes", "pods", "namespaces")
	opts := Options{Routes: api.ZoneRoutes, Pods: true, Namespaces: true}
	if diff := cmp.Diff(ClusterSources, opts.Sources()); diff != "" {
		t.Error(diff)
	}
	tables := start(t, api, opts)
	s := apitest.Until(ctx, t, tables, func(s *state.Snapshot) bool { return len(s.Missing()) == 0 })
	api.Watched(t)

	if r, ok := s.Route(web); !ok || r.Spec.Mode != model.Optimal || r.Generation != 1 || r.UID == "" {
		t.Errorf("route %+v, %v", r, ok)
	}
	if p, ok := s.Pod(model.Name{Namespace: "default", Name: "web-0"}); !ok || p.MilliCPU != 100 || p.Node != "n1" {
		t.Errorf("pod %+v, %v", p, ok)
	}
	if m := s.Mode("default"); m != model.Observe {
		t.Errorf("mode %q", m)
	}
	for service, want := range map[string]bool{"db": true, "out": true, "web": false} {
		if _, ok := s.Unserved(model.Name{Namespace: "default", Name: service}); ok != want {
			t.Errorf("%s: unserved = %v", service, ok)
		}
	}

	routes := api.ZoneRoutes.In("default")
	zr, err := routes.Get(ctx, "web", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	zr.Status = Status(model.RouteStatus{Generation: 1, Mode: model.Optimal, Plans: []model.RoutePlan{{MaxLoad: 1.2}}})
	seen := s.Revision()
	if _, err := routes.UpdateStatus(ctx, zr, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	s = apitest.Until(ctx, t, tables, func(s *state.Snapshot) bool { r, _ := s.Route(web); return len(r.Status.Plans) == 1 })
	if c := s.Changes(seen).Services; len(c) != 1 || c[0].Of != web {
		t.Errorf("changes %+v", c)
	}
	if err := routes.Delete(ctx, "web", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	apitest.Until(ctx, t, tables, func(s *state.Snapshot) bool { _, ok := s.Route(web); return !ok })
}

// Who does not ask for ZoneRoutes, pods and namespaces gets none, and waits for none.
func TestANodeNeedsLess(t *testing.T) {
	if diff := cmp.Diff([]state.Source{state.Nodes, state.Services, state.Slices}, Sources); diff != "" {
		t.Error(diff)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	api := apitest.New(webService(t), webRoute(t))
	tables := start(t, api, Options{})
	s := apitest.Until(ctx, t, tables, func(s *state.Snapshot) bool { return len(s.Missing()) == 0 })
	if _, ok := s.Route(web); ok || len(api.ZoneRoutes.Actions()) != 0 {
		t.Error("ZoneRoutes were asked for")
	}
}

// A cluster that does not know ZoneRoutes has none, and nobody waits for them. Once it does, they come.
func TestZoneRoutesNobodyDefined(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := apitest.New(webService(t), webRoute(t))
		api.ZoneRoutes.Define(false)
		tables := start(t, api, Options{Routes: api.ZoneRoutes})
		synctest.Wait()
		s := tables.Snapshot()
		if m := s.Missing(); len(m) != 0 {
			t.Fatalf("missing %v", m)
		}
		if _, ok := s.Route(web); ok {
			t.Fatal("a route of no kind")
		}
		api.ZoneRoutes.Define(true)
		defined := time.Now()
		<-s.Changed()
		if _, ok := tables.Snapshot().Route(web); !ok {
			t.Error("a change, but no route")
		}
		if took := time.Since(defined); took > untilDefined {
			t.Errorf("the route came after %v", took)
		}
	})
}
