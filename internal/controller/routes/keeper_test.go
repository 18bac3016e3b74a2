package routes

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	k8stesting "k8s.io/client-go/testing"

	"github.com/zonewise/zonewise/api/v1alpha1"
	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/reflect/apitest"
)

func web() []runtime.Object {
	return cluster(serviceObject("web", 1), sliceObject("web", 4, 4, 3))
}

func TestObservedServicesGetZoneRoutes(t *testing.T) {
	headless := serviceObject("db", 2)
	headless.Spec.ClusterIP, headless.Spec.ClusterIPs = "None", []string{"None"}
	story(t, settings(""), append(web(), headless), func(w *world) {
		if got := w.routes(); got != "default/web" {
			t.Fatal(got)
		}
		if got := w.writes(); got != "create 1, patch status 1" {
			t.Error(got)
		}
		w.expect("web", "Observe Applied=False/Observing Obeyed=Unknown/NotApplied Planned=True/Optimum")
		zr := w.route("web")
		if o := zr.OwnerReferences; len(o) != 1 || o[0].Kind != "Service" || o[0].UID != "service-web" {
			t.Errorf("owner %+v", o)
		}
		if zr.Labels["app.kubernetes.io/managed-by"] != "zonewise" || zr.Spec.Mode != "" {
			t.Errorf("labels %v, spec %+v", zr.Labels, zr.Spec)
		}
		// 1/3 of the demand in each zone; c's three of eleven endpoints carry 1.2 × 3/11 = 32.7%
		s := zr.Status.Summary
		if s.InZone != "33%" || s.Planned != "99%" || s.MaxLoad != "1.20" || !strings.HasPrefix(s.CostPerMonth, "$") || s.Reason == "" {
			t.Errorf("%+v", s)
		}
		if len(s.Reason) > 70 || !strings.Contains(message(zr, Planned), "99.4%") {
			t.Errorf("%q, %q", s.Reason, message(zr, Planned))
		}
		if said := w.said(); len(said) > 0 {
			t.Errorf("nothing has changed, but %q", said)
		}
		w.pass(time.Hour)
		if got := w.writes(); got != "" {
			t.Errorf("nothing changes, but %s", got)
		}
	})
}

func TestANewLeaderWritesNothing(t *testing.T) {
	objects := append(web(), routeObject("web", "{mode: Optimal}"), serviceObject("shop", 2), sliceObject("shop", 1, 2, 3))
	story(t, settings(""), objects, func(w *world) {
		w.pass(10 * time.Minute)
		before := w.route("web").Status
		w.writes()
		for range 3 {
			w.stop()
			w.begin()
			w.pass(10 * time.Minute)
			if got := w.writes(); got != "" {
				t.Errorf("a new leader: %s", got)
			}
		}
		if after := w.route("web").Status; !slices.Equal(after.Conditions, before.Conditions) {
			t.Errorf("%v\nis now %v", before.Conditions, after.Conditions)
		}
	})
}

func TestOnlyWhatMustChangeChanges(t *testing.T) {
	objects := append(web(), serviceObject("shop", 2), sliceObject("shop", 1, 2, 3))
	story(t, settings(""), objects, func(w *world) {
		w.writes()
		nodes := w.api.CoreV1().Nodes()
		// a swarm of events that mean nothing
		for i := range 30 {
			n := nodeObject("a1", "a")
			n.Annotations = map[string]string{"seen": fmt.Sprint(i)}
			n.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: fmt.Sprintf("192.168.1.%d", i%250+1)}}
			must(nodes.Update(t.Context(), n, metav1.UpdateOptions{}))
			w.pass(time.Millisecond)
		}
		w.pass(time.Minute)
		if got := w.writes(); got != "" {
			t.Errorf("addresses of nodes: %s", got)
		}
		// and one that does: a node flaps for ten seconds
		for i := range 60 {
			n := nodeObject("a1", "a")
			if i%2 == 0 {
				n.Status.Conditions[0].Status = corev1.ConditionFalse
			}
			must(nodes.Update(t.Context(), n, metav1.UpdateOptions{}))
			w.pass(150 * time.Millisecond)
		}
		w.pass(10 * time.Minute)
		if got := w.writes(); len(got) > len("patch status 99") {
			t.Errorf("a node that flaps: %s", got)
		}
		shop := w.route("shop").ResourceVersion
		must(w.api.DiscoveryV1().EndpointSlices("default").Update(t.Context(), sliceObject("web", 4, 4, 0), metav1.UpdateOptions{}))
		w.pass(10 * time.Minute)
		if got := w.writes(); !strings.HasPrefix(got, "patch status") {
			t.Errorf("a zone without endpoints: %q", got)
		}
		if s := w.route("web").Status.Summary; s.Planned != "67%" {
			t.Errorf("%+v", s)
		}
		if now := w.route("shop").ResourceVersion; now != shop {
			t.Error("an endpoint of web changed the ZoneRoute of shop")
		}
	})
}

func TestANodeWithoutAZone(t *testing.T) {
	story(t, settings(""), append(web(), nodeObject("lost", "")), func(w *world) {
		zr := w.route("web")
		if u := zr.Status.Plans[0].Upstream; u.Hints || !strings.Contains(u.Culprit, "lost") {
			t.Errorf("upstream %+v", u)
		}
		if zr.Status.Summary.Planned != "86%" { // all but the seventh of the demand that it makes itself
			t.Errorf("one node spoils the plan: %+v", zr.Status.Summary)
		}
		w.writes()
		must(w.api.CoreV1().Nodes().Update(t.Context(), nodeObject("lost", "b"), metav1.UpdateOptions{}))
		w.pass(10 * time.Minute)
		if u := w.route("web").Status.Plans[0].Upstream; u.Culprit != "" {
			t.Errorf("upstream %+v", u)
		}
	})
}

func TestAZoneIsDrainedAndGivenBack(t *testing.T) {
	objects := append(web(), routeObject("web", "{mode: Optimal}"))
	story(t, settings(""), objects, func(w *world) {
		w.pass(10 * time.Minute)
		to := func(zone string) (sum float64) {
			for _, z := range w.route("web").Status.Plans[0].Zones {
				sum += z.Demand * z.Weights[zone]
			}
			return sum
		}
		before := to("a")
		routes := w.api.ZoneRoutes.In("default")
		zr := w.route("web")
		zr.Spec.DrainedZones = []string{"a"}
		must(routes.Update(t.Context(), zr, metav1.UpdateOptions{}))
		w.pass(10 * time.Minute)
		if got := to("a"); got != 0 {
			t.Errorf("%v goes to a drained zone", got)
		}
		if zr = w.route("web"); zr.Status.ObservedGeneration != zr.Generation {
			t.Errorf("generation %d of %d", zr.Status.ObservedGeneration, zr.Generation)
		}
		zr.Spec.DrainedZones = nil
		must(routes.Update(t.Context(), zr, metav1.UpdateOptions{}))
		w.pass(10 * time.Minute)
		if got := to("a"); got < before-epsilon || got > before+epsilon {
			t.Errorf("%v goes to zone a, before it was drained %v", got, before)
		}
	})
}

func TestWhatCannotBePlanned(t *testing.T) {
	headless, external := serviceObject("db", 2), serviceObject("ext", 3)
	headless.Spec.ClusterIP, headless.Spec.ClusterIPs = "None", []string{"None"}
	external.Spec = corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "example.com"}
	local := serviceObject("local", 4)
	policy := corev1.ServiceInternalTrafficPolicyLocal
	local.Spec.InternalTrafficPolicy = &policy
	objects := append(web(), headless, external, local, serviceObject("wild", 5), serviceObject("none", 6),
		routeObject("db", "{}"), routeObject("ext", "{mode: Optimal}"), routeObject("missing", "{}"),
		routeObject("wild", "{maxOverload: 10}"), routeObject("none", "{mode: Optimal}"))
	story(t, settings(""), objects, func(w *world) {
		const rest = " Obeyed=Unknown/NotApplied "
		w.expect("db", "Observe Applied=False/Observing"+rest+"Planned=False/ServiceNotRouted")
		w.expect("ext", "Optimal Applied=False/NothingPlanned Obeyed=Unknown/NothingPlanned Planned=False/ServiceNotRouted")
		w.expect("missing", "Observe Applied=False/Observing"+rest+"Planned=False/ServiceNotFound")
		w.expect("wild", "Observe Applied=False/Observing"+rest+"Planned=False/InvalidSpec")
		w.expect("local", "Observe Applied=False/Observing"+rest+"Planned=False/LocalTraffic")
		w.expect("none", "Optimal Applied=False/NothingPlanned Obeyed=Unknown/NothingPlanned Planned=False/NoEndpoints")
		w.expect("web", "Observe Applied=False/Observing"+rest+"Planned=True/Optimum")
		for name, want := range map[string]string{
			"db": "Service default/db: ", "missing": "Service default/missing: not found",
			"wild": "ZoneRoute default/wild: spec.maxOverload: 10 is more than 4", "none": "Service default/none has no ready endpoint",
		} {
			if got := message(w.route(name), Planned); !strings.HasPrefix(got, want) {
				t.Errorf("%s: %q, want %q", name, got, want)
			}
		}
		if said := w.said(); len(said) != 6 || slices.ContainsFunc(said, func(s string) bool { return !strings.HasPrefix(s, "Warning ") }) {
			t.Errorf("%q", said)
		}
		must(w.api.DiscoveryV1().EndpointSlices("default").Create(t.Context(), sliceObject("missing", 1, 1, 1), metav1.CreateOptions{}))
		w.pass(time.Second) // else the Service may be seen first, which is worth an event
		must(w.api.CoreV1().Services("default").Create(t.Context(), serviceObject("missing", 7), metav1.CreateOptions{}))
		w.pass(time.Minute)
		w.expect("missing", "Observe Applied=False/Observing"+rest+"Planned=True/Optimum")
		if said := w.said(); len(said) != 1 || !strings.HasPrefix(said[0], "Normal Optimum Planned: ") {
			t.Errorf("%q", said)
		}
	})
}

func TestModes(t *testing.T) {
	objects := append(web(), serviceObject("shop", 2), sliceObject("shop", 1, 2, 3), routeObject("shop", "{maxOverload: 0.3}"))
	story(t, settings(""), objects, func(w *world) {
		label := func(mode string) {
			t.Helper()
			n := object[corev1.Namespace]("metadata: {name: default, labels: {zonewise.io/mode: %q}}", mode)
			if _, err := w.api.CoreV1().Namespaces().Update(t.Context(), n, metav1.UpdateOptions{}); err != nil {
				must(w.api.CoreV1().Namespaces().Create(t.Context(), n, metav1.CreateOptions{}))
			}
			w.pass(time.Minute)
		}
		w.writes()
		label("Off")
		if got := w.routes(); got != "default/shop" {
			t.Errorf("Off: %s", got)
		}
		w.expect("shop", "Off Applied=False/Off Obeyed=Unknown/NotApplied Planned=False/Off")
		if p := w.route("shop").Status.Plans; len(p) > 0 {
			t.Errorf("Off, but planned: %+v", p)
		}
		label("Optimal")
		w.expect("web", "Optimal Applied=Unknown/Starting Obeyed=Unknown/NoCounters Planned=True/Optimum")
		zr := w.route("web")
		zr.Spec.Mode = "Observe" // ours no more: somebody gave it an intent
		must(w.api.ZoneRoutes.In("default").Update(t.Context(), zr, metav1.UpdateOptions{}))
		w.pass(time.Minute)
		label("Off")
		w.expect("web", "Observe Applied=False/Observing Obeyed=Unknown/NotApplied Planned=True/Optimum")
		label("nonsense")
		w.expect("shop", "Observe Applied=False/Observing Obeyed=Unknown/NotApplied Planned=True/Optimum")
	})
}

func TestOffMakesNothing(t *testing.T) {
	story(t, settings(model.Off), web(), func(w *world) {
		if got := w.writes(); got != "" {
			t.Error(got)
		}
	})
}

func TestWritesThatFailAreMadeAgain(t *testing.T) {
	objects := append(web(), serviceObject("shop", 2), sliceObject("shop", 1, 2, 3), routeObject("shop", "{}"), routeObject("web", "{}"))
	story(t, settings(""), objects, func(w *world) {
		failing := true
		w.api.ZoneRoutes.PrependReactor("patch", v1alpha1.Resource, func(a k8stesting.Action) (bool, runtime.Object, error) {
			if failing && a.(k8stesting.PatchAction).GetName() == "web" {
				return true, nil, errors.New("no")
			}
			return false, nil, nil
		})
		w.writes()
		for _, name := range []string{"web", "shop"} {
			must(w.api.DiscoveryV1().EndpointSlices("default").Update(t.Context(), sliceObject(name, 4, 4, 0), metav1.UpdateOptions{}))
		}
		w.pass(5 * time.Minute)
		if s := w.route("shop").Status.Summary.Planned; s != "67%" {
			t.Errorf("shop: %s", s)
		}
		if n := w.api.ZoneRoutes.Writes()["patch status"]; n > 15 {
			t.Errorf("%d writes in five minutes", n)
		}
		failing = false
		w.pass(2 * time.Minute)
		if s := w.route("web").Status.Summary.Planned; s != "67%" {
			t.Errorf("web: %s", s)
		}
	})
}

func TestAStatusThatSomebodySpoilsIsMended(t *testing.T) {
	story(t, settings(""), web(), func(w *world) {
		zr := w.route("web")
		want := says(zr)
		zr.Status = v1alpha1.ZoneRouteStatus{}
		must(w.api.ZoneRoutes.In("default").UpdateStatus(t.Context(), zr, metav1.UpdateOptions{}))
		w.pass(time.Minute)
		w.expect("web", want)
		if err := w.api.ZoneRoutes.In("default").Delete(t.Context(), "web", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		w.pass(time.Minute)
		w.expect("web", want)
	})
}

func TestWritesAreLimited(t *testing.T) {
	const services = 250
	objects := cluster()
	for i := range services {
		name := fmt.Sprintf("s%d", i)
		objects = append(objects, serviceObject(name, i), sliceObject(name, 1, 2, 1), routeObject(name, "{}"))
	}
	objects = append(objects, serviceObject("zz-urgent", services), sliceObject("zz-urgent", 4, 4, 3), routeObject("zz-urgent", "{mode: Optimal}"))
	story(t, settings(""), objects, func(w *world) {
		if got := w.writes(); got != fmt.Sprintf("patch status %d", services+1) {
			t.Fatal(got)
		}
		n := nodeObject("a3", "a")
		n.Status.Allocatable[corev1.ResourceCPU] = *n.Status.Allocatable.Cpu()
		must(w.api.CoreV1().Nodes().Create(t.Context(), n, metav1.CreateOptions{}))
		w.pass(time.Second)
		if s := w.route("zz-urgent").Status.Plans[0].Zones[0].Demand; s < 0.4 {
			t.Errorf("what traffic waits for is not first: demand of zone a is %v", s)
		}
		w.pass(time.Second)
		if n := w.api.ZoneRoutes.Writes()["patch status"]; n < writesPerSecond || n > 4*writesPerSecond {
			t.Errorf("%d writes within two seconds", n)
		}
		w.pass(time.Minute)
		if n := w.api.ZoneRoutes.Writes()["patch status"]; n != services+1 {
			t.Errorf("%d writes for %d Services", n, services+1)
		}
	})
}

func TestAClusterWithoutTheDefinition(t *testing.T) {
	objects := cluster()
	for i := range 60 {
		name := fmt.Sprintf("s%d", i)
		objects = append(objects, serviceObject(name, i), sliceObject(name, 1, 2, 1))
	}
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, api: apitest.New(objects...), settings: settings("")}
		w.api.ZoneRoutes.Define(false)
		w.begin()
		defer func() { w.stop() }()
		w.pass(5 * time.Minute)
		if n := w.api.ZoneRoutes.Writes()["create"]; n == 0 || n > 30*60 {
			t.Errorf("%d tries in five minutes", n)
		}
		w.api.ZoneRoutes.Define(true)
		w.pass(time.Minute)
		if n := len(strings.Fields(w.routes())); n != 60 {
			t.Errorf("%d ZoneRoutes", n)
		}
	})
}

// A change of prices is planned with at the next pass, not at the next look at everything.
func TestPricesChange(t *testing.T) {
	story(t, settings(""), web(), func(w *world) {
		before := w.route("web").Status.Plans[0].CostPerTB
		w.writes()
		w.settings.Prices = model.Prices{Name: "dear", PerGB: 0.06}
		w.keeper.Wake()
		w.pass(time.Second)
		if now := w.route("web").Status.Plans[0].CostPerTB; before.Before <= 0 || now.Before < 2.9*before.Before || now.Before > 3.1*before.Before {
			t.Errorf("%+v, was %+v", now, before)
		}
		if got := w.writes(); got != "patch status 1" {
			t.Errorf("%s", got)
		}
		w.keeper.Wake()
		w.pass(time.Minute)
		if got := w.writes(); got != "" {
			t.Errorf("the same prices: %s", got)
		}
	})
}
