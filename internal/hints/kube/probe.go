package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/zonewise/zonewise/internal/hints"
)

// Who writes a slice is in its label managed-by; by it the API server decides whom to ask.
const (
	managedByStock   = "endpointslice-controller.k8s.io"
	managedByProbe   = "zonewise.io"        // asked about as soon as the webhook is tried
	managedByControl = "nobody.zonewise.io" // never asked about
)

// probeName is the name of the slice that we try things on. No Service has it, and labels keep
// kube-proxy and its like from even hearing of it.
const probeName = "zonewise-probe"

// probeAnnotation carries a word that the webhook must bring back as a zone hint.
const probeAnnotation = "zonewise.io/probe"

// plainAnnotation on a dry run asks us to leave a slice as it comes.
const plainAnnotation = "zonewise.io/plain"

// probeAddress belongs to nobody (RFC 5737).
var probeAddress = netip.MustParseAddr("192.0.2.1")

// probe tells whether a slice is one of our own, to try the webhook on.
func (s *slice) probe() bool { return s.Metadata.Labels[discoveryv1.LabelManagedBy] == managedByProbe }

// probeHints is what a probe gets: the word that it carries.
func (s *slice) probeHints() map[netip.Addr]hints.Hint {
	out := map[netip.Addr]hints.Hint{}
	if word := s.Metadata.Annotations[probeAnnotation]; word != "" {
		out[probeAddress] = hints.Hint{Zones: []string{word}}
	}
	return out
}

func probeSlice(namespace, manager, word string) *discoveryv1.EndpointSlice {
	no := false
	return &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Name: probeName,
			Labels: map[string]string{
				discoveryv1.LabelManagedBy:   manager,
				discoveryv1.LabelServiceName: probeName,
				corev1.IsHeadlessService:     "",
			},
			Annotations: map[string]string{probeAnnotation: word},
		},
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{probeAddress.String()}, Conditions: discoveryv1.EndpointConditions{Ready: &no}}},
	}
}

// prober writes slices of our own and looks at what comes back.
type prober struct {
	client    kubernetes.Interface
	namespace string
}

// result is what one write came to.
type result struct {
	took   time.Duration
	hinted bool // the word came back
	err    error
}

// dry has the API server do everything with a slice but store it, admission included.
func (p prober) dry(ctx context.Context, manager, word string) result {
	begin := time.Now()
	s := probeSlice(p.namespace, manager, word)
	s.Name += "-dry" // real may have left the other
	got, err := p.client.DiscoveryV1().EndpointSlices(p.namespace).Create(ctx, s, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	return result{took: time.Since(begin), hinted: err == nil && carries(got, word), err: err}
}

// real stores a slice, has it hinted anew by an empty patch, as a touch does, and removes it.
func (p prober) real(ctx context.Context, word string) error {
	slices := p.client.DiscoveryV1().EndpointSlices(p.namespace)
	if err := p.clean(ctx); err != nil {
		return err
	}
	s, err := slices.Create(ctx, probeSlice(p.namespace, managedByProbe, word), metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("create: %w", err)
	}
	if !carries(s, word) {
		return fmt.Errorf("create: the slice came back without hints")
	}
	again := word + "-2"
	change, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]string{probeAnnotation: again}}})
	if err != nil {
		return err
	}
	if _, err := slices.Patch(ctx, probeName, types.MergePatchType, change, metav1.PatchOptions{}); err != nil {
		return fmt.Errorf("patch: %w", err)
	}
	s, err = slices.Get(ctx, probeName, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("get: %w", err)
	}
	if !carries(s, again) {
		return fmt.Errorf("patch: the slice was stored without hints")
	}
	return p.clean(ctx)
}

// clean removes what real left behind, if it was cut short.
func (p prober) clean(ctx context.Context) error {
	err := p.client.DiscoveryV1().EndpointSlices(p.namespace).Delete(ctx, probeName, metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete: %w", err)
	}
	return nil
}

func carries(s *discoveryv1.EndpointSlice, word string) bool {
	if len(s.Endpoints) != 1 || s.Endpoints[0].Hints == nil {
		return false
	}
	zones := s.Endpoints[0].Hints.ForZones
	return len(zones) == 1 && zones[0].Name == word
}
