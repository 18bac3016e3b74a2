package kube_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/endpointslice/topologycache"
	"k8s.io/klog/v2"

	"github.com/zonewise/zonewise/internal/golden"
	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/route/kube"
)

// library asks upstream's library itself, by nothing of ours: the first warning, or empty and the
// hints by endpoint.
func library(nodes []model.Node, all []model.Slice) (string, []discoveryv1.Endpoint) {
	cache := topologycache.NewTopologyCache()
	var kubeNodes []*corev1.Node
	for _, n := range nodes {
		k := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: n.Name, Labels: map[string]string{corev1.LabelTopologyZone: n.Zone}}}
		if n.ControlPlane {
			k.Labels["node-role.kubernetes.io/control-plane"] = ""
		}
		if n.Ready {
			k.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
		}
		k.Status.Allocatable = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(fmt.Sprintf("%dm", n.MilliCPU))}
		kubeNodes = append(kubeNodes, k)
	}
	cache.SetNodes(klog.Logger{}, kubeNodes)
	slice := &discoveryv1.EndpointSlice{}
	for _, s := range all {
		for _, e := range s.Endpoints {
			slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{
				Conditions: discoveryv1.EndpointConditions{Ready: &e.Ready}, Zone: &e.Zone,
			})
		}
	}
	_, _, events := cache.AddHints(klog.Logger{}, &topologycache.SliceInfo{
		ServiceKey: "x", AddressType: discoveryv1.AddressTypeIPv4, ToCreate: []*discoveryv1.EndpointSlice{slice},
	})
	for _, e := range events {
		if e.Reason == "TopologyAwareHintsDisabled" {
			return e.Message, nil
		}
	}
	return "", slice.Endpoints
}

// refusals are all that upstream has, in each way that leads to it.
func refusals() []refusal {
	zoneless := func(e *model.Endpoint) { e.Zone = "" }
	onNode := func(name string) func(*model.Endpoint) {
		return func(e *model.Endpoint) { e.Zone, e.Node = "", name }
	}
	bare := func(e *model.Endpoint) { e.Zone, e.Node, e.Pod = "", "", "" }
	unready := func(e *model.Endpoint) { e.Ready = false }
	half := append(three(), node("a2", "a"))
	many := func(n int) (out []model.Node) {
		for i := range n {
			out = append(out, node(fmt.Sprintf("n%02d", i), fmt.Sprintf("z%02d", i)))
		}
		return out
	}
	return []refusal{
		{"no zone label", append(three(), node("n7", "")), pods(2, 2, 2)},
		{"no zone label, with pods there", append(three(), node("n7", "")), where(where(pods(2, 2, 2), 0, onNode("n7")), 1, onNode("n7"))},
		{"no zone label, and too few pods", append(three(), node("n7", "")), pods(1, 0, 0)},
		{"no labels at all", []model.Node{node("n1", ""), node("n2", ""), node("n3", ""), node("n4", ""), node("n5", ""), node("n6", ""), node("n7", "")}, where(where(pods(1, 1), 0, onNode("n1")), 1, onNode("n2"))},
		{"no CPU", append(three(), node("b2", "b", cpu(0))), pods(2, 2, 2)},
		{"no label and no CPU", append(three(), node("b2", "b", cpu(0)), node("n7", "", cpu(0))), pods(2, 2, 2)},
		{"one zone", []model.Node{node("a1", "a"), node("a2", "a")}, pods(4)},
		{"one zone, the other not ready", []model.Node{node("a1", "a"), node("b1", "b", notReady)}, pods(4)},
		{"one zone, the other for the control plane", []model.Node{node("a1", "a"), node("b1", "b", controlPlane)}, pods(3)},
		{"no nodes", nil, pods(2)},
		{"no nodes, no pods", nil, nil},
		{"only the control plane", []model.Node{node("a1", "a", controlPlane)}, pods(2)},
		{"none ready", []model.Node{node("a1", "a", notReady), node("b1", "b", notReady), node("c1", "c", notReady)}, pods(1, 1)},
		{"no pods", three(), pods()},
		{"1 pod", three(), pods(1)},
		{"2 pods", three(), pods(1, 1)},
		{"2 pods, one not ready", three(), where(pods(2, 1), 0, unready)},
		{"4 pods", three(), pods(2, 1, 1)},
		{"5 pods", three(), pods(2, 2, 1)},
		{"8 pods", three(), pods(3, 3, 2)},
		{"11 pods", three(), pods(4, 4, 3)},
		{"11 pods, none in c", three(), pods(6, 5)},
		{"uneven zones", half, pods(2, 2, 1)},
		{"7 zones", many(7), pods(3, 3, 3)},
		{"20 zones", many(20), pods(10, 15)},
		{"pod without zone, node without", append(three(), node("n7", "", controlPlane)), where(pods(2, 2, 2), 5, onNode("n7"))},
		{"pod without zone, node with", three(), where(pods(2, 2, 2), 5, zoneless)},
		{"pod without zone, node unknown", three(), where(pods(2, 2, 2), 5, onNode("n9"))},
		{"endpoints without zone and node", three(), where(where(pods(2, 2, 2), 5, bare), 4, bare)},
	}
}

type refusal struct {
	name   string
	nodes  []model.Node
	slices []model.Slice
}

func TestRefusalsAreExplained(t *testing.T) {
	var got strings.Builder
	for _, c := range refusals() {
		verdict, hinted := kube.New(c.nodes).Of(service("Auto", ""), false, c.slices)
		if verdict.Hints || len(moves(hinted)) > 0 {
			t.Errorf("%s: not refused", c.name)
		}
		if said, _ := library(c.nodes, c.slices); said != verdict.Reason+", addressType: IPv4" {
			t.Errorf("%s: reason %q, upstream says %q", c.name, verdict.Reason, said)
		}
		fmt.Fprintf(&got, "%s\n  reason      %s\n  inequality  %s\n", c.name, verdict.Reason, verdict.Inequality)
		if verdict.Culprit != "" {
			fmt.Fprintf(&got, "  culprit     %s\n", verdict.Culprit)
		}
		fmt.Fprintf(&got, "  fix         %s\n\n", verdict.Fix)
	}
	golden.Check(t, "refusals.golden", got.String())
}

func TestFixIsAccepted(t *testing.T) {
	for _, c := range refusals() {
		fix := kube.New(c.nodes).Fix(web, false, c.slices)
		nodes, slices := fix.Apply(web, false, c.nodes, c.slices)
		if said, _ := library(nodes, slices); said != "" {
			t.Errorf("%s: after %q upstream says %q", c.name, fix.Text, said)
		}
		if again := kube.New(nodes).Fix(web, false, slices); again.Text != "" {
			t.Errorf("%s: after the fix another: %s", c.name, again.Text)
		}
	}
}

func TestFixOfIPv6(t *testing.T) {
	six := pods(1)
	six[0].V6 = true
	six[0].Endpoints[0].Addr = netip.MustParseAddr("fd00:1::5")
	fix := kube.New(three()).Fix(web, true, six)
	_, slices := fix.Apply(web, true, three(), six)
	if fix.Text != "3 endpoints (2 more)" || len(slices) != 2 || !slices[1].V6 || slices[1].Endpoints[1].Addr.String() != "fd00:1::7" {
		t.Errorf("%q: %+v", fix.Text, slices)
	}
	verdict, _ := kube.New(three()).Of(service("Auto", ""), true, slices)
	if !verdict.Hints {
		t.Error(verdict)
	}
}
