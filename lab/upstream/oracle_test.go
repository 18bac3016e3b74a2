// Package upstream_test holds our decisions against those of Kubernetes' own code.
package upstream_test

import (
	"slices"

	v1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/kubernetes/pkg/proxy"
	"pgregory.net/rapid"

	"github.com/zonewise/zonewise/internal/model"
)

// choice is what kube-proxy decided: its endpoints for policy Cluster and policy Local, and
// whether the Service has a usable endpoint on any node.
type choice struct {
	cluster, local []string
	any            bool
}

// choose sends the Service and its slices through kube-proxy's own trackers, as objects of the
// API, and asks it to categorize what came out.
func choose(t *rapid.T, node model.Node, svc model.Service, eps []model.Slice) choice {
	services := proxy.NewServiceChangeTracker(v1.IPv4Protocol, nil, nil)
	services.Update(nil, apiService(svc))
	ports := proxy.ServicePortMap{}
	ports.Update(services)

	tracker := proxy.NewEndpointsChangeTracker(v1.IPv4Protocol, node.Name, nil, nil)
	for _, s := range eps {
		tracker.EndpointSliceUpdate(apiSlice(s), false)
	}
	endpoints := proxy.EndpointsMap{}
	endpoints.Update(tracker)

	if len(ports) != 1 {
		t.Fatalf("upstream made %d ports of the Service", len(ports))
	}
	labels := map[string]string{}
	if node.Zone != "" {
		labels[v1.LabelTopologyZone] = node.Zone
	}
	var out choice
	for name, port := range ports {
		var cluster, local []proxy.Endpoint
		cluster, local, _, out.any = proxy.CategorizeEndpoints(endpoints[name], port, node.Name, labels)
		out.cluster, out.local = addresses(cluster), addresses(local)
	}
	return out
}

func addresses(eps []proxy.Endpoint) []string {
	var out []string
	for _, e := range eps {
		out = append(out, e.String())
	}
	slices.Sort(out)
	return out
}

func apiService(s model.Service) *v1.Service {
	policy := func(local bool) string {
		if local {
			return "Local"
		}
		return "Cluster"
	}
	internal := v1.ServiceInternalTrafficPolicy(policy(s.InternalLocal))
	out := &v1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: s.Namespace, Name: s.Name.Name},
		Spec: v1.ServiceSpec{
			Type:                  v1.ServiceType(s.Type),
			ClusterIP:             s.ClusterIPs[0].String(),
			InternalTrafficPolicy: &internal,
		},
	}
	if s.Type != model.ClusterIP {
		out.Spec.ExternalTrafficPolicy = v1.ServiceExternalTrafficPolicy(policy(s.ExternalLocal))
	}
	for _, ip := range s.ClusterIPs {
		out.Spec.ClusterIPs = append(out.Spec.ClusterIPs, ip.String())
	}
	for _, p := range s.Ports {
		out.Spec.Ports = append(out.Spec.Ports, v1.ServicePort{
			Name: p.Name, Protocol: v1.Protocol(p.Protocol.String()),
			Port: int32(p.Port), NodePort: int32(p.NodePort),
		})
	}
	return out
}

func apiSlice(s model.Slice) *discovery.EndpointSlice {
	out := &discovery.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: s.Namespace, Name: s.Name.Name,
			Labels: map[string]string{discovery.LabelServiceName: s.Service},
		},
		AddressType: discovery.AddressTypeIPv4,
	}
	if s.V6 {
		out.AddressType = discovery.AddressTypeIPv6
	}
	for _, p := range s.Ports {
		protocol, port := v1.Protocol(p.Protocol.String()), int32(p.Port)
		out.Ports = append(out.Ports, discovery.EndpointPort{Name: &p.Name, Protocol: &protocol, Port: &port})
	}
	for _, e := range s.Endpoints {
		out.Endpoints = append(out.Endpoints, apiEndpoint(e))
	}
	return out
}

func apiEndpoint(e model.Endpoint) discovery.Endpoint {
	out := discovery.Endpoint{
		Addresses: []string{e.Addr.String()},
		Conditions: discovery.EndpointConditions{
			Ready: &e.Ready, Serving: &e.Serving, Terminating: &e.Terminating,
		},
	}
	if e.Node != "" {
		out.NodeName = &e.Node
	}
	if len(e.ZoneHints)+len(e.NodeHints) > 0 {
		out.Hints = &discovery.EndpointHints{}
	}
	for _, z := range e.ZoneHints {
		out.Hints.ForZones = append(out.Hints.ForZones, discovery.ForZone{Name: z})
	}
	for _, n := range e.NodeHints {
		out.Hints.ForNodes = append(out.Hints.ForNodes, discovery.ForNode{Name: n})
	}
	return out
}
