package reflect

import (
	"context"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/state"
)

// ResidentSources are the inputs that RunResidents delivers.
var ResidentSources = []state.Source{state.Nodes, state.Pods, state.Slices}

// RunResidents keeps in tables of their own who has which address, until ctx ends: all nodes, all pods
// that run, as Resident has them, and the slices of headless Services.
func RunResidents(ctx context.Context, client kubernetes.Interface, tables *state.Tables, ours string) {
	core, discovery := client.CoreV1(), client.DiscoveryV1()
	pods, slices := residentStore(tables, time.Now, ours), headlessStore(tables, time.Now)
	var wg sync.WaitGroup
	for _, s := range []*cache.Reflector{
		stream(client, core.Nodes(), metav1.ListOptions{}, &corev1.Node{}, addressStore(tables, time.Now)),
		stream(client, rows[*corev1.PodList, *corev1.Pod, model.Pod]{core.Pods(""), core.RESTClient(), "pods", newPodDecoder, pods},
			metav1.ListOptions{FieldSelector: runningPods}, &corev1.Pod{}, pods),
		stream(client, rows[*discoveryv1.EndpointSliceList, *discoveryv1.EndpointSlice, model.Slice]{
			discovery.EndpointSlices(""), discovery.RESTClient(), "endpointslices", newSliceDecoder, slices},
			metav1.ListOptions{LabelSelector: corev1.IsHeadlessService}, &discoveryv1.EndpointSlice{}, slices),
	} {
		wg.Go(func() { s.RunWithContext(ctx) })
	}
	wg.Wait()
}

// addressStore keeps of nodes what does not change all the time.
func addressStore(t *state.Tables, now func() time.Time) *store[*corev1.Node, model.Node] {
	s := nodeStore(t, now)
	s.convert = func(n *corev1.Node) (model.Node, bool) {
		full, ok := Node(n)
		return model.Node{Name: full.Name, Zone: full.Zone, Addresses: full.Addresses}, ok
	}
	return s
}

func residentStore(t *state.Tables, now func() time.Time, ours string) *store[*corev1.Pod, model.Pod] {
	seen := newKnown()
	s := podStore(t, now)
	s.convert = func(p *corev1.Pod) (model.Pod, bool) {
		out, ok := Resident(p, ours)
		seen.pod(&out)
		return out, ok
	}
	return s
}

func headlessStore(t *state.Tables, now func() time.Time) *store[*discoveryv1.EndpointSlice, model.Slice] {
	seen := newKnown()
	return &store[*discoveryv1.EndpointSlice, model.Slice]{
		tables: t, now: now, source: state.Slices,
		convert: func(s *discoveryv1.EndpointSlice) (model.Slice, bool) {
			out, ok := HeadlessSlice(s)
			seen.slice(&out)
			return out, ok
		},
		put: (*state.Tx).PutSlice, remove: (*state.Tx).DeleteSlice,
		have: func(s *state.Snapshot) (out []model.Name) {
			for v := range s.AllSlices() {
				out = append(out, v.Name)
			}
			return out
		},
	}
}
