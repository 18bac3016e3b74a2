package agent

import (
	"log/slog"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/reflect/apitest"
	"github.com/zonewise/zonewise/internal/service"
	"github.com/zonewise/zonewise/internal/state"
)

func TestServicesWithoutLocalEndpoints(t *testing.T) {
	inside, outside, both := svc(1), svc(2), svc(3)
	local := corev1.ServiceInternalTrafficPolicyLocal
	inside.Spec.InternalTrafficPolicy, both.Spec.InternalTrafficPolicy = &local, &local
	for i, s := range []*corev1.Service{outside, both} {
		s.Spec.Type, s.Spec.Ports[0].NodePort = corev1.ServiceTypeNodePort, int32(30080+i)
		s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
	}
	w := start(t, node("a"), inside, outside, both, svc(4), slice(1, "b"), slice(2, "b"), slice(3, "b"), slice(4, "b"))
	w.next()
	w.until("/metrics", `zonewise_services_without_local_endpoints{policy="internal"} 2`)
	w.until("/metrics", `zonewise_services_without_local_endpoints{policy="external"} 2`)
	w.api.Watched(t)
	if err := w.api.CoreV1().Services("default").Delete(w.ctx, "s3", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	w.until("/metrics", `zonewise_services_without_local_endpoints{policy="internal"} 1`)
	w.until("/metrics", `zonewise_services_without_local_endpoints{policy="external"} 1`)
}

func TestDropped(t *testing.T) {
	drop := service.Choice{Verdict: service.Drop}
	for _, c := range []struct {
		plan []service.Frontend
		want [2]bool
	}{
		{nil, [2]bool{}},
		{[]service.Frontend{{Kind: service.ClusterIP, Choice: drop}, {Kind: service.NodePort}}, [2]bool{true, false}},
		{[]service.Frontend{{Kind: service.ClusterIP}, {Kind: service.LoadBalancer, Choice: drop}}, [2]bool{false, true}},
	} {
		if diff := cmp.Diff(c.want, dropped(c.plan)); diff != "" {
			t.Error(diff)
		}
	}
}

// BenchmarkReport looks at 10,000 Services of two endpoints anew, and at one of them.
func BenchmarkReport(b *testing.B) {
	tables := state.New(state.Services, state.Slices)
	tables.Update(time.Time{}, func(tx *state.Tx) {
		for i := range 10_000 {
			name := model.Name{Namespace: "default", Name: "s" + time.Duration(i).String()}
			tx.PutService(model.Service{Name: name, Ports: []model.ServicePort{{Protocol: model.TCP, Port: 80}}})
			tx.PutSlice(model.Slice{Name: name, Service: name.Name, Ports: []model.EndpointPort{{Protocol: model.TCP, Port: 8080}},
				Endpoints: []model.Endpoint{{Zone: "a", Ready: true}, {Zone: "b", Ready: true}}})
		}
	})
	a, err := New(Config{Node: "n1", Client: apitest.New(), Applier: newFakeApplier(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	snap := tables.Snapshot()
	a.program.programmed.Store(&programmed{model.Node{Name: "n1"}, snap})
	for name, changed := range map[string][]state.Change[model.Name]{
		"all": nil, "one": {{Of: model.Name{Namespace: "default", Name: "s7ns"}}},
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				a.reporter.note(changed == nil, changed)
				a.reporter.report(b.Context())
			}
		})
	}
}
