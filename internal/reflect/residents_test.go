package reflect

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/reflect/apitest"
	"github.com/zonewise/zonewise/internal/state"
)

// A pod is told by what people made it with.
func TestWorkloads(t *testing.T) {
	for text, want := range map[string]string{
		`{metadata: {name: alone}}`: "pod/alone",
		`{metadata: {name: p, labels: {pod-template-hash: 5d9}, ownerReferences: [{kind: ReplicaSet, name: web-5d9, controller: true}]}}`:   "deployment/web",
		`{metadata: {name: p, labels: {pod-template-hash: 5d9}, ownerReferences: [{kind: ReplicaSet, name: web-other, controller: true}]}}`: "replicaset/web-other",
		`{metadata: {name: p, labels: {pod-template-hash: 5d9}, ownerReferences: [{kind: StatefulSet, name: db-5d9, controller: true}]}}`:   "statefulset/db-5d9",
		`{metadata: {name: p, ownerReferences: [{kind: ReplicaSet, name: web, controller: true}]}}`:                                         "replicaset/web",
		`{metadata: {name: p, ownerReferences: [{kind: DaemonSet, name: dns, controller: true}]}}`:                                          "daemonset/dns",
		`{metadata: {name: p, ownerReferences: [{kind: Thing, name: mere}, {kind: Job, name: once, controller: true}]}}`:                    "job/once",
		`{metadata: {name: api-n1, ownerReferences: [{kind: Node, name: n1, controller: true}]}}`:                                           "pod/api-n1",
		`{metadata: {name: p, ownerReferences: [{kind: Job, name: not-in-control, controller: false}, {kind: Job, name: nor-this-one}]}}`:   "pod/p",
	} {
		if got, _ := Resident(parse[corev1.Pod](t, text), ""); got.Workload != want {
			t.Errorf("%s: %s, want %s", text, got.Workload, want)
		}
	}
}

func TestResident(t *testing.T) {
	p := parse[corev1.Pod](t, `{metadata: {name: p, namespace: a, creationTimestamp: "2026-01-02T03:04:05Z"}, spec: {nodeName: n1, hostNetwork: true},
 status: {phase: Running, podIPs: [{ip: 192.168.0.1}, {ip: "::ffff:10.0.0.1"}, {ip: nonsense}, {ip: 0.0.0.0}, {ip: "fd00::1"}],
  containerStatuses: [{containerID: "containerd://abc"}, {containerID: ""}, {containerID: "strange"}]}}`)
	want := model.Pod{Name: model.Name{Namespace: "a", Name: "p"}, Node: "n1", Workload: "pod/p", HostNetwork: true,
		Created: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Addresses: addrs("192.168.0.1", "10.0.0.1", "fd00::1"), Containers: []string{"abc"}}
	got, ok := Resident(p, "n1")
	if diff := cmp.Diff(want, got, byValue); diff != "" || !ok {
		t.Error(ok, diff)
	}
	if got, _ := Resident(p, "n2"); got.Containers != nil {
		t.Errorf("containers of another node: %v", got.Containers)
	}
	p.Spec.HostNetwork = false
	if got, _ := Resident(p, "n1"); got.Containers != nil {
		t.Errorf("containers of a pod with a network of its own: %v", got.Containers)
	}
	for _, phase := range []corev1.PodPhase{corev1.PodSucceeded, corev1.PodFailed} {
		p.Status.Phase = phase
		if _, ok := Resident(p, "n1"); ok {
			t.Errorf("a pod that has ended (%s) has addresses", phase)
		}
	}
}

func TestHeadlessSlice(t *testing.T) {
	text := `{metadata: {name: db-x, namespace: a, labels: {kubernetes.io/service-name: db, service.kubernetes.io/headless: ""}}, addressType: IPv4,
 ports: [{name: pg, port: 5432}, {name: every}], endpoints: [{addresses: [10.0.0.1], nodeName: n1, zone: a, conditions: {ready: false}}, {addresses: [nonsense]}]}`
	got, ok := HeadlessSlice(parse[discoveryv1.EndpointSlice](t, text))
	want := model.Slice{Name: model.Name{Namespace: "a", Name: "db-x"}, Service: "db",
		Ports: []model.EndpointPort{{Name: "pg", Protocol: model.TCP, Port: 5432}}, Endpoints: []model.Endpoint{{Addr: addrs("10.0.0.1")[0]}}}
	if diff := cmp.Diff(want, got, byValue); diff != "" || !ok {
		t.Error(ok, diff)
	}
	for _, other := range []string{
		strings.Replace(text, `, service.kubernetes.io/headless: ""`, "", 1), strings.Replace(text, "kubernetes.io/service-name: db, ", "", 1), strings.Replace(text, "IPv4", "FQDN", 1),
	} {
		if _, ok := HeadlessSlice(parse[discoveryv1.EndpointSlice](t, other)); ok {
			t.Error(other)
		}
	}
}

// The tables have all nodes, pods with their addresses and headless slices; and say what has changed.
func TestResidents(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	running := parse[corev1.Pod](t, `{metadata: {name: p, namespace: a}, spec: {nodeName: n2}, status: {phase: Running, podIPs: [{ip: 10.0.0.1}]}}`)
	api := apitest.New(parse[corev1.Node](t, `{metadata: {name: n1}}`), parse[corev1.Node](t, `{metadata: {name: n2, labels: {topology.kubernetes.io/zone: b}}}`), running,
		parse[discoveryv1.EndpointSlice](t, `{metadata: {name: db-x, namespace: a, labels: {kubernetes.io/service-name: db, service.kubernetes.io/headless: ""}}, addressType: IPv4, ports: [{port: 1}]}`))
	tables := state.New(ResidentSources...)
	done := make(chan struct{})
	go func() { defer close(done); RunResidents(ctx, api, tables, "n1") }()
	defer func() { cancel(); <-done }()
	first := apitest.Until(ctx, t, tables, func(s *state.Snapshot) bool { return len(s.Missing()) == 0 })
	if zone, _ := first.Node("n2"); zone.Zone != "b" {
		t.Errorf("node n2: %+v", zone)
	}
	if got := first.Slices(model.Name{Namespace: "a", Name: "db"}); len(got) != 1 {
		t.Errorf("headless slices: %v", got)
	}
	if p, ok := first.Pod(model.Name{Namespace: "a", Name: "p"}); !ok || len(p.Addresses) != 1 || p.Workload != "pod/p" {
		t.Errorf("pod: %+v", p)
	}
	running = running.DeepCopy()
	running.Status.PodIPs = nil
	if _, err := api.CoreV1().Pods("a").UpdateStatus(ctx, running, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	second := apitest.Until(ctx, t, tables, func(s *state.Snapshot) bool { return len(s.Changes(first.Revision()).Pods) > 0 })
	if p, _ := second.Pod(model.Name{Namespace: "a", Name: "p"}); len(p.Addresses) != 0 {
		t.Errorf("pod without address: %+v", p)
	}
	if err := api.CoreV1().Pods("a").Delete(ctx, "p", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	third := apitest.Until(ctx, t, tables, func(s *state.Snapshot) bool { return len(s.Changes(second.Revision()).Pods) > 0 })
	if _, ok := third.Pod(model.Name{Namespace: "a", Name: "p"}); ok {
		t.Error("a pod that is gone is there")
	}
	if got := third.Changes(first.Revision()); len(got.Services) > 0 || !slices.EqualFunc(got.Pods, []string{"a/p"}, func(c state.Change[model.Name], s string) bool { return fmt.Sprint(c.Of) == s }) {
		t.Errorf("changes: %+v", got)
	}
}
