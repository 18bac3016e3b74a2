// Package kube says what Kubernetes itself makes of a Service: the hints that its endpoint slice
// controller writes, and why it writes none. Every decision is made by upstream's own library;
// only the explanation is computed here, and tests hold it to the library's verdict.
package kube

import (
	"cmp"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/endpointslice/topologycache"
	"k8s.io/endpointslice/trafficdist"
	"k8s.io/klog/v2"

	"github.com/zonewise/zonewise/internal/model"
)

// Upstream is Kubernetes' endpoint slice controller as the nodes of one snapshot make it. It may be
// used by several goroutines.
type Upstream struct {
	cache *topologycache.TopologyCache
	nodes []model.Node   // ordered by name
	zones []zone         // ordered by name: those whose nodes count
	index map[string]int // into zones
	mend  func() mended  // what the nodes lack, and how it is without that
	blame func() (inequality, culprit string)

	mu     sync.Mutex
	enough map[int]bool // whether so many endpoints are hinted
}

// mostCPU is what a node counts for at most, in milli-CPU: a dump may say anything, and sums must not
// overflow.
const mostCPU = 1e12

// zone is where upstream expects clients.
type zone struct {
	name  string
	share float64 // of the allocatable CPU
}

// New returns upstream on these nodes.
func New(nodes []model.Node) *Upstream {
	u := &Upstream{
		cache:  topologycache.NewTopologyCache(),
		nodes:  slices.SortedFunc(slices.Values(nodes), func(a, b model.Node) int { return strings.Compare(a.Name, b.Name) }),
		index:  map[string]int{},
		enough: map[int]bool{},
	}
	for i, n := range u.nodes {
		u.nodes[i].MilliCPU = min(max(n.MilliCPU, 0), mostCPU)
	}
	u.mend = sync.OnceValue(u.mendNodes)
	u.blame = sync.OnceValues(func() (string, string) { return blame(u.nodes) })
	u.zones = shares(u.nodes)
	for i, z := range u.zones {
		u.index[z.name] = i
	}
	kube := make([]*corev1.Node, len(u.nodes))
	for i, n := range u.nodes {
		kube[i] = kubeNode(n)
	}
	u.cache.SetNodes(klog.Logger{}, kube) // the zero Logger logs nothing
	return u
}

// Of returns upstream's verdict on topology-mode Auto, asked or not, and the Service's slices of the
// family with the hints that it really gets from upstream as it is now.
//
// Of endpoints or zones that are equally good upstream takes those that the order of a Go map puts
// first. Here it is the first by address and by name: one of upstream's possible results, and always
// the same. Slices are taken as new: hints that they have do not count.
func (u *Upstream) Of(svc model.Service, v6 bool, all []model.Slice) (model.Verdict, []model.Slice) {
	out := own(svc.Name, v6, all)
	refs := endpoints(out)
	kube := kubeEndpoints(refs)
	reason := u.refusal(svc.Name, v6, kube)
	verdict := model.Verdict{Asked: asked(svc), Hints: reason == "", Reason: reason}
	switch {
	case auto(svc):
		if reason == "" {
			u.hint(refs, kube)
		}
	case distributed(svc):
		one := []*discoveryv1.EndpointSlice{{Endpoints: kube}}
		trafficdist.ReconcileHints(&svc.TrafficDistribution, one, nil, nil)
		copyHints(refs, kube)
	}
	if reason != "" {
		verdict.Inequality, verdict.Culprit = u.explain(reason, refs)
		verdict.Fix = u.fix(refs).Text
	}
	return verdict, out
}

// refusal returns why upstream writes no hints, in its own words; if it does, they are in kube.
func (u *Upstream) refusal(svc model.Name, v6 bool, kube []discoveryv1.Endpoint) string {
	family := discoveryv1.AddressTypeIPv4
	if v6 {
		family = discoveryv1.AddressTypeIPv6
	}
	_, _, events := u.cache.AddHints(klog.Logger{}, &topologycache.SliceInfo{
		ServiceKey: svc.String(), AddressType: family,
		ToCreate: []*discoveryv1.EndpointSlice{{Endpoints: kube}},
	})
	u.cache.RemoveHints(svc.String(), family) // the next call finds the cache as this one did
	for _, e := range events {
		if e.EventType == corev1.EventTypeWarning {
			return strings.TrimSuffix(e.Message, topologycache.FormatWithAddressType("", family))
		}
	}
	return ""
}

// hinted tells whether upstream hints a Service with so many ready endpoints that have a zone.
func (u *Upstream) hinted(n int) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	ok, known := u.enough[n]
	if !known {
		kube := make([]discoveryv1.Endpoint, n)
		yes := true
		for i := range kube {
			kube[i].Zone = &u.zones[i%len(u.zones)].name
			kube[i].Conditions.Ready = &yes
		}
		ok = u.refusal(model.Name{}, false, kube) == ""
		u.enough[n] = ok
	}
	return ok
}

// auto tells what upstream takes for the heuristic's annotation; it goes before the field.
func auto(svc model.Service) bool { return svc.TopologyMode == "Auto" || svc.TopologyMode == "auto" }

// distributed tells whether upstream knows the Service's trafficDistribution.
func distributed(svc model.Service) bool {
	switch svc.TrafficDistribution {
	case corev1.ServiceTrafficDistributionPreferClose, corev1.ServiceTrafficDistributionPreferSameZone,
		corev1.ServiceTrafficDistributionPreferSameNode:
		return true
	}
	return false
}

// asked tells how the Service asks for zone routing; empty if it does not.
func asked(svc model.Service) string {
	mode := "topology-mode " + svc.TopologyMode
	ignored := ""
	switch svc.TopologyMode {
	case "Auto", "auto":
		return mode
	case "", "Disabled", "disabled":
	default:
		ignored = mode + " (ignored: upstream knows Auto alone)"
	}
	if !distributed(svc) {
		return ignored
	}
	field := "trafficDistribution " + svc.TrafficDistribution
	if ignored != "" {
		field += ", " + ignored
	}
	return field
}

// own returns copies of the Service's slices of the family, without hints.
func own(svc model.Name, v6 bool, all []model.Slice) []model.Slice {
	var out []model.Slice
	for _, s := range all {
		if s.V6 != v6 || s.ServiceName() != svc {
			continue
		}
		s.Endpoints = slices.Clone(s.Endpoints)
		for i := range s.Endpoints {
			s.Endpoints[i].ZoneHints, s.Endpoints[i].NodeHints = nil, nil
		}
		out = append(out, s)
	}
	return out
}

// endpoints returns the endpoints of all slices, ordered by address. As for upstream, an address
// that is in two slices counts twice.
func endpoints(all []model.Slice) []*model.Endpoint {
	var out []*model.Endpoint
	for i := range all {
		for j := range all[i].Endpoints {
			out = append(out, &all[i].Endpoints[j])
		}
	}
	slices.SortFunc(out, func(a, b *model.Endpoint) int {
		if c := a.Addr.Compare(b.Addr); c != 0 {
			return c
		}
		return cmp.Or(strings.Compare(a.Node, b.Node), strings.Compare(a.Pod, b.Pod), strings.Compare(a.Zone, b.Zone))
	})
	return out
}

func ready(refs []*model.Endpoint) int {
	n := 0
	for _, e := range refs {
		if e.Ready {
			n++
		}
	}
	return n
}

// kubeEndpoints returns the endpoints as upstream's library takes them: what has no zone or node has
// nil there.
func kubeEndpoints(refs []*model.Endpoint) []discoveryv1.Endpoint {
	out := make([]discoveryv1.Endpoint, len(refs))
	for i, e := range refs {
		out[i].Conditions.Ready = &e.Ready
		if e.Zone != "" {
			out[i].Zone = &e.Zone
		}
		if e.Node != "" {
			out[i].NodeName = &e.Node
		}
	}
	return out
}

// copyHints takes over the hints as the library wrote them.
func copyHints(refs []*model.Endpoint, kube []discoveryv1.Endpoint) {
	for i, e := range refs {
		if kube[i].Hints == nil {
			continue
		}
		for _, z := range kube[i].Hints.ForZones {
			e.ZoneHints = append(e.ZoneHints, z.Name)
		}
		for _, n := range kube[i].Hints.ForNodes {
			e.NodeHints = append(e.NodeHints, n.Name)
		}
	}
}

func kubeNode(n model.Node) *corev1.Node {
	out := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: n.Name, Labels: map[string]string{}}}
	if n.Zone != "" {
		out.Labels[corev1.LabelTopologyZone] = n.Zone
	}
	if n.ControlPlane {
		out.Labels["node-role.kubernetes.io/control-plane"] = ""
	}
	status := corev1.ConditionFalse
	if n.Ready {
		status = corev1.ConditionTrue
	}
	out.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: status}}
	out.Status.Allocatable = corev1.ResourceList{
		corev1.ResourceCPU: *resource.NewMilliQuantity(n.MilliCPU, resource.DecimalSI),
	}
	return out
}
