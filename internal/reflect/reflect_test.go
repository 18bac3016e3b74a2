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
