package apiserver

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/fields"
	apiruntime "k8s.io/apimachinery/pkg/runtime"
)

// resource is the name of a kind as paths have it: "v1/services".
type resource string

// The resources that there are. Every other is not found, as ZoneRoutes are on a cluster without them.
const (
	nodes          resource = "v1/nodes"
	namespaces     resource = "v1/namespaces"
	pods           resource = "v1/pods"
	services       resource = "v1/services"
	endpointSlices resource = "discovery.k8s.io/v1/endpointslices"
	serviceCIDRs   resource = "networking.k8s.io/v1/servicecidrs"
)

// lists are kinds of list.
var lists = map[resource]func() apiruntime.Object{
	nodes:          func() apiruntime.Object { return &corev1.NodeList{} },
	namespaces:     func() apiruntime.Object { return &corev1.NamespaceList{} },
	pods:           func() apiruntime.Object { return &corev1.PodList{} },
	services:       func() apiruntime.Object { return &corev1.ServiceList{} },
	endpointSlices: func() apiruntime.Object { return &discoveryv1.EndpointSliceList{} },
	serviceCIDRs:   func() apiruntime.Object { return &networkingv1.ServiceCIDRList{} },
}

// empty is an object without a name, to put a bookmark on.
var empty = map[resource]func() apiruntime.Object{
	nodes:          func() apiruntime.Object { return &corev1.Node{} },
	namespaces:     func() apiruntime.Object { return &corev1.Namespace{} },
	pods:           func() apiruntime.Object { return &corev1.Pod{} },
	services:       func() apiruntime.Object { return &corev1.Service{} },
	endpointSlices: func() apiruntime.Object { return &discoveryv1.EndpointSlice{} },
	serviceCIDRs:   func() apiruntime.Object { return &networkingv1.ServiceCIDR{} },
}

// namespaced are those whose objects are in a namespace.
var namespaced = map[resource]bool{pods: true, services: true, endpointSlices: true}

func resourceOf(o apiruntime.Object) (resource, error) {
	switch o.(type) {
	case *corev1.Node:
		return nodes, nil
	case *corev1.Namespace:
		return namespaces, nil
	case *corev1.Pod:
		return pods, nil
	case *corev1.Service:
		return services, nil
	case *discoveryv1.EndpointSlice:
		return endpointSlices, nil
	case *networkingv1.ServiceCIDR:
		return serviceCIDRs, nil
	}
	return "", fmt.Errorf("no resource of kind %T", o)
}

// fieldsOf are the fields by which a client can select.
func fieldsOf(e *event) fields.Set {
	set := fields.Set{"metadata.name": e.meta.GetName(), "metadata.namespace": e.meta.GetNamespace()}
	switch o := e.object.(type) {
	case *corev1.Service:
		set["spec.clusterIP"], set["spec.type"] = o.Spec.ClusterIP, string(o.Spec.Type)
	case *corev1.Pod:
		set["spec.nodeName"], set["status.phase"] = o.Spec.NodeName, string(o.Status.Phase)
	}
	return set
}

// target is what a path means.
type target struct {
	resource        resource
	namespace, name string
}

// parse reads /api/v1/… and /apis/group/version/…, with a namespace or without.
func parse(path string) (target, bool) {
	parts := strings.Split(strings.Trim(path, "/"), "/")
	var version string
	switch {
	case len(parts) >= 3 && parts[0] == "api":
		version, parts = parts[1], parts[2:]
	case len(parts) >= 4 && parts[0] == "apis":
		version, parts = parts[1]+"/"+parts[2], parts[3:]
	default:
		return target{}, false
	}
	var t target
	if parts[0] == "namespaces" && len(parts) > 2 {
		t.namespace, parts = parts[1], parts[2:]
	}
	t.resource = resource(version + "/" + parts[0])
	if len(parts) > 1 {
		t.name = parts[1]
	}
	return t, true
}
