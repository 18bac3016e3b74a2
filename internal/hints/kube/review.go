package kube

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/zonewise/zonewise/internal/hints"
	"github.com/zonewise/zonewise/internal/model"
)

// review is the part of an AdmissionReview that matters. What is not named here, most of all the
// old object, is passed over, which halves the time that the API server waits.
type review struct {
	APIVersion string   `json:"apiVersion"`
	Kind       string   `json:"kind"`
	Request    *request `json:"request"`
}

type request struct {
	UID      string `json:"uid"`
	Resource struct {
		Group    string `json:"group"`
		Version  string `json:"version"`
		Resource string `json:"resource"`
	} `json:"resource"`
	Subresource string `json:"subResource"`
	Operation   string `json:"operation"`
	DryRun      bool   `json:"dryRun"`
	Object      *slice `json:"object"`
}

// slice is an EndpointSlice of discovery.k8s.io/v1 as JSON has it.
type slice struct {
	Metadata struct {
		Name        string            `json:"name"`
		Namespace   string            `json:"namespace"`
		Labels      map[string]string `json:"labels"`
		Annotations map[string]string `json:"annotations"`
	} `json:"metadata"`
	AddressType string     `json:"addressType"`
	Endpoints   []endpoint `json:"endpoints"`
}

type endpoint struct {
	Addresses  []string `json:"addresses"`
	Conditions struct {
		Ready       *bool `json:"ready"`
		Serving     *bool `json:"serving"`
		Terminating *bool `json:"terminating"`
	} `json:"conditions"`
	Hints     *endpointHints `json:"hints"`
	TargetRef *struct {
		Kind string `json:"kind"`
		Name string `json:"name"`
	} `json:"targetRef"`
	NodeName string `json:"nodeName"`
	Zone     string `json:"zone"`
}

type endpointHints struct {
	ForZones []named `json:"forZones,omitempty"`
	ForNodes []named `json:"forNodes,omitempty"`
}

type named struct {
	Name string `json:"name"`
}

func (h endpointHints) carry(want hints.Hint) bool {
	same := func(n named, s string) bool { return n.Name == s }
	return slices.EqualFunc(h.ForZones, want.Zones, same) && slices.EqualFunc(h.ForNodes, want.Nodes, same)
}

func (h *endpointHints) names() (zones, nodes []string) {
	if h == nil {
		return nil, nil
	}
	for _, z := range h.ForZones {
		zones = append(zones, z.Name)
	}
	for _, n := range h.ForNodes {
		nodes = append(nodes, n.Name)
	}
	return zones, nodes
}

// addr is the first address, as everywhere: all of them reach the same endpoint. Zero if there is none.
func (e *endpoint) addr() netip.Addr {
	if len(e.Addresses) == 0 {
		return netip.Addr{}
	}
	a, err := netip.ParseAddr(e.Addresses[0])
	if err != nil {
		return netip.Addr{}
	}
	return a.Unmap()
}

// read takes a request that we can answer out of a body.
func read(body []byte) (*request, error) {
	var r review
	if err := json.Unmarshal(body, &r); err != nil {
		return nil, fmt.Errorf("admission review: %w", err)
	}
	switch {
	case r.APIVersion != "admission.k8s.io/v1" || r.Kind != "AdmissionReview":
		return nil, fmt.Errorf("admission review: %q of %q is not known", r.Kind, r.APIVersion)
	case r.Request == nil || r.Request.UID == "":
		return nil, errors.New("admission review: no request with a uid")
	}
	return r.Request, nil
}

// name and namespace are for the log; a write that makes a slice may have no name yet.
func (r *request) name() string {
	if r.Object == nil {
		return ""
	}
	return r.Object.Metadata.Name
}

func (r *request) namespace() string {
	if r.Object == nil {
		return ""
	}
	return r.Object.Metadata.Namespace
}

// concerns tells whether a request is a write of a slice that may carry hints: not of a headless
// Service, which nobody proxies, nor of names instead of addresses, nor a trial of what happens without us.
func (r *request) concerns() bool {
	if r.Resource.Group != discoveryv1.GroupName || r.Resource.Version != "v1" || r.Resource.Resource != "endpointslices" ||
		r.Subresource != "" || r.Object == nil || r.Object.Metadata.Namespace == "" || (r.Operation != "CREATE" && r.Operation != "UPDATE") {
		return false
	}
	if _, headless := r.Object.Metadata.Labels[corev1.IsHeadlessService]; headless && !r.Object.probe() {
		return false
	}
	if _, abstain := r.Object.Metadata.Annotations[plainAnnotation]; abstain && r.DryRun {
		return false
	}
	family := r.Object.AddressType
	return family == string(discoveryv1.AddressTypeIPv4) || family == string(discoveryv1.AddressTypeIPv6)
}

// model returns the slice as the planner knows slices, without its ports, which hints have no part in.
func (s *slice) model() model.Slice {
	out := model.Slice{
		Name:     model.Name{Namespace: s.Metadata.Namespace, Name: s.Metadata.Name},
		Service:  s.Metadata.Labels[discoveryv1.LabelServiceName],
		V6:       s.AddressType == string(discoveryv1.AddressTypeIPv6),
		HintMark: s.Metadata.Annotations[Annotation],
	}
	for i := range s.Endpoints {
		e := &s.Endpoints[i]
		addr := e.addr()
		if !addr.IsValid() || addr.Is6() != out.V6 {
			continue
		}
		m := model.Endpoint{Addr: addr, Node: e.NodeName, Zone: e.Zone, Ready: said(e.Conditions.Ready, true)}
		m.Serving, m.Terminating = said(e.Conditions.Serving, m.Ready), said(e.Conditions.Terminating, false)
		if e.TargetRef != nil && e.TargetRef.Kind == "Pod" {
			m.Pod = e.TargetRef.Name
		}
		m.ZoneHints, m.NodeHints = e.Hints.names()
		out.Endpoints = append(out.Endpoints, m)
	}
	return out
}

func said(v *bool, otherwise bool) bool {
	if v == nil {
		return otherwise
	}
	return *v
}
