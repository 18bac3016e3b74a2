package upstream_test

import (
	"context"
	"fmt"
	"testing"

	v1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"

	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/reflect"
	"github.com/zonewise/zonewise/internal/reflect/apitest"
	"github.com/zonewise/zonewise/internal/service"
	"github.com/zonewise/zonewise/internal/state"
)

// Objects come, change in every respect, go and come again, while both sides follow. In the end each
// Service is what kube-proxy makes of it.
func TestEventsLeadWhereUpstreamsDo(t *testing.T) {
	happened := map[string]int{}
	rapid.Check(t, func(rt *rapid.T) {
		ctx, stop := context.WithCancel(t.Context())
		w := &events{
			node: drawNode(rt), api: apitest.New(), happened: happened,
			services: map[string]*v1.Service{}, slices: map[string]*discovery.EndpointSlice{},
		}
		w.peers = []*kubeProxy{newKubeProxy(v1.IPv4Protocol, w.node), newKubeProxy(v1.IPv6Protocol, w.node)}
		tables := state.New(reflect.Sources...)
		done := make(chan struct{})
		go func() { defer close(done); reflect.Run(ctx, w.api, tables, reflect.Options{}) }()
		defer func() { stop(); <-done }()
		w.api.Watched(t)
		for range rapid.IntRange(1, 30).Draw(rt, "events") {
			what, err := w.draw(ctx, rt)
			if err != nil {
				rt.Fatal(what, err)
			}
			happened[what]++
			if rapid.Bool().Draw(rt, "sync") {
				w.sync()
			}
		}
		w.sync()
		if err := w.last(ctx); err != nil {
			rt.Fatal(err)
		}
		apitest.Until(ctx, t, tables, w.arrived)
		w.compare(rt, tables.Snapshot())
	})
	t.Logf("events: %v", happened)
	for _, what := range []string{"service created", "service changed", "service deleted", "service handed over",
		"slice created", "slice changed", "slice deleted", "slice headless"} {
		if happened[what] == 0 {
			t.Errorf("never: %s", what)
		}
	}
}

// events is a cluster of two Services with slices of both families, that kube-proxy and we follow.
type events struct {
	node     model.Node
	api      *apitest.API
	peers    []*kubeProxy // one of each family
	services map[string]*v1.Service
	slices   map[string]*discovery.EndpointSlice
	happened map[string]int
}

func (w *events) draw(ctx context.Context, t *rapid.T) (string, error) {
	of := rapid.SampledFrom([]string{"web", "db"}).Draw(t, "of")
	gone := rapid.IntRange(0, 4).Draw(t, "gone")
	if rapid.Bool().Draw(t, "a service") {
		svc := drawService(t)
		svc.Name = of
		switch gone {
		case 0:
			return w.deleteService(ctx, of)
		case 1: // a proxy that selects by label sees that it is gone
			svc.Labels = map[string]string{"service.kubernetes.io/service-proxy-name": "another"}
		}
		return w.putService(ctx, svc)
	}
	// All slices of a family at once: which of two live endpoints with one address holds is not defined upstream.
	all := drawObjects(t)
	slices := all[:len(all)/2]
	if rapid.Bool().Draw(t, "v6") {
		slices = all[len(all)/2:]
	}
	headless := rapid.IntRange(0, 12).Draw(t, "headless")
	for i, s := range slices {
		s.Name, s.Labels[discovery.LabelServiceName] = of+"-"+s.Name, of
		if i == headless {
			s.Labels[v1.IsHeadlessService] = ""
		}
	}
	if gone == 0 {
		return w.deleteSlice(ctx, slices[0].Name)
	}
	for _, s := range slices {
		what, err := w.putSlice(ctx, s)
		if err != nil {
			return what, err
		}
		w.happened[what]++
	}
	return "slices of a family", nil
}

func (w *events) putService(ctx context.Context, svc *v1.Service) (string, error) {
	old, what := w.services[svc.Name], "service changed"
	seen, before := svc, old
	if len(svc.Labels) > 0 {
		what, seen = "service handed over", nil
	}
	if old != nil && len(old.Labels) > 0 {
		before = nil
	}
	if before != nil || seen != nil {
		for _, p := range w.peers {
			p.services.Update(before, seen)
		}
	}
	w.services[svc.Name] = svc
	client := w.api.CoreV1().Services(svc.Namespace)
	if old != nil {
		_, err := client.Update(ctx, svc, metav1.UpdateOptions{})
		return what, err
	}
	if seen != nil {
		what = "service created"
	}
	_, err := client.Create(ctx, svc, metav1.CreateOptions{})
	return what, err
}

func (w *events) deleteService(ctx context.Context, name string) (string, error) {
	old := w.services[name]
	if old == nil {
		return "nothing", nil
	}
	if len(old.Labels) == 0 {
		for _, p := range w.peers {
			p.services.Update(old, nil)
		}
	}
	delete(w.services, name)
	return "service deleted", w.api.CoreV1().Services(old.Namespace).Delete(ctx, name, metav1.DeleteOptions{})
}

func (w *events) putSlice(ctx context.Context, s *discovery.EndpointSlice) (string, error) {
	_, had := w.slices[s.Name]
	_, headless := s.Labels[v1.IsHeadlessService]
	for _, p := range w.peers {
		p.slices.EndpointSliceUpdate(s, headless)
	}
	w.slices[s.Name] = s
	what, client := "slice created", w.api.DiscoveryV1().EndpointSlices(s.Namespace)
	if headless {
		what = "slice headless"
	}
	if !had {
		_, err := client.Create(ctx, s, metav1.CreateOptions{})
		return what, err
	}
	if !headless {
		what = "slice changed"
	}
	_, err := client.Update(ctx, s, metav1.UpdateOptions{})
	return what, err
}

func (w *events) deleteSlice(ctx context.Context, name string) (string, error) {
	old := w.slices[name]
	if old == nil {
		return "nothing", nil
	}
	for _, p := range w.peers {
		p.slices.EndpointSliceUpdate(old, true)
	}
	delete(w.slices, name)
	return "slice deleted", w.api.DiscoveryV1().EndpointSlices(old.Namespace).Delete(ctx, name, metav1.DeleteOptions{})
}

func (w *events) sync() {
	for _, p := range w.peers {
		p.sync()
	}
}

// last makes the objects after which everything has arrived: each kind comes in order.
func (w *events) last(ctx context.Context) error {
	svc := &v1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "last", Name: "last"}, Spec: v1.ServiceSpec{ClusterIP: "10.100.0.1"}}
	if _, err := w.api.CoreV1().Services("last").Create(ctx, svc, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("service: %w", err)
	}
	s := apiSlice(model.Slice{Name: model.Name{Namespace: "last", Name: "last"}, Service: "last"})
	if _, err := w.api.DiscoveryV1().EndpointSlices("last").Create(ctx, s, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("slice: %w", err)
	}
	return nil
}

func (w *events) arrived(s *state.Snapshot) bool {
	last := model.Name{Namespace: "last", Name: "last"}
	_, ok := s.Service(last)
	return ok && len(s.Slices(last)) == 1
}

func (w *events) compare(t *rapid.T, s *state.Snapshot) {
	for _, of := range []string{"web", "db"} {
		want := map[service.Key]frontend{}
		for _, p := range w.peers {
			p.plan(types.NamespacedName{Namespace: "shop", Name: of}).into(want)
		}
		name := model.Name{Namespace: "shop", Name: of}
		var plan []service.Frontend
		if svc, ok := s.Service(name); ok {
			plan = service.Plan(w.node, svc, s.Slices(name), nil)
		}
		same(t, want, plan)
	}
}
