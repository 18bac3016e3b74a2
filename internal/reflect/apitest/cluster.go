package apitest

import (
	"fmt"
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Cluster returns the lists of a cluster with a node "n1" and so many Services with so many
// endpoints each, in 3 zones, with all that a real API server says of them.
func Cluster(services, endpoints int) map[string]runtime.Object {
	svcs, slices := &corev1.ServiceList{}, &discoveryv1.EndpointSliceList{}
	for i := range services {
		namespace := fmt.Sprintf("team-%02d", i*50/services) // lists come in order of their keys
		svcs.Items = append(svcs.Items, clusterService(i, namespace))
		slices.Items = append(slices.Items, clusterSlice(i, namespace, endpoints))
	}
	return map[string]runtime.Object{
		"nodes": &corev1.NodeList{Items: []corev1.Node{{
			ObjectMeta: metav1.ObjectMeta{Name: "n1", Labels: map[string]string{corev1.LabelTopologyZone: "zone-a"}},
			Status:     corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "192.168.1.10"}}},
		}}},
		"services": svcs, "endpointslices": slices, "servicecidrs": &networkingv1.ServiceCIDRList{},
	}
}

// clusterMeta is of an object that a manager wrote, with the record of its fields.
func clusterMeta(i int, namespace, name, manager, fields string, labels map[string]string) metav1.ObjectMeta {
	made := metav1.NewTime(time.Date(2026, 1, 1, 12, 0, i%60, 0, time.UTC))
	return metav1.ObjectMeta{
		Namespace: namespace, Name: name, UID: types.UID(fmt.Sprintf("7a1f0c52-9b1e-4d0e-8c55-%012d", i)),
		ResourceVersion: fmt.Sprint(1000 + i), CreationTimestamp: made, Labels: labels,
		ManagedFields: []metav1.ManagedFieldsEntry{{Manager: manager, Operation: metav1.ManagedFieldsOperationUpdate, APIVersion: "v1",
			Time: &made, FieldsType: "FieldsV1", FieldsV1: metav1.NewFieldsV1(fields)}},
	}
}

func clusterService(i int, namespace string) corev1.Service {
	name := fmt.Sprintf("service-%06d", i)
	cluster, policy := corev1.ServiceInternalTrafficPolicyCluster, corev1.IPFamilyPolicySingleStack
	const fields = `{"f:metadata":{"f:labels":{".":{},"f:app":{}}},"f:spec":{"f:internalTrafficPolicy":{},"f:ports":{".":{},` +
		`"k:{\"port\":80,\"protocol\":\"TCP\"}":{".":{},"f:name":{},"f:port":{},"f:protocol":{},"f:targetPort":{}}},"f:selector":{},"f:sessionAffinity":{},"f:type":{}}}`
	ip := netip.AddrFrom4([4]byte{10, 100 + byte(i>>16), byte(i >> 8), byte(i)}).String()
	return corev1.Service{
		ObjectMeta: clusterMeta(i, namespace, name, "kubectl-client-side-apply", fields, map[string]string{"app": name}),
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeClusterIP, ClusterIP: ip, ClusterIPs: []string{ip}, Selector: map[string]string{"app": name},
			SessionAffinity: corev1.ServiceAffinityNone, InternalTrafficPolicy: &cluster,
			IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol}, IPFamilyPolicy: &policy,
			Ports: []corev1.ServicePort{{Name: "http", Port: 80, Protocol: corev1.ProtocolTCP, TargetPort: intstr.FromInt32(8080)}},
		},
	}
}

func clusterSlice(i int, namespace string, endpoints int) discoveryv1.EndpointSlice {
	service := fmt.Sprintf("service-%06d", i)
	port, name, proto, yes, no := int32(8080), "http", corev1.ProtocolTCP, true, false
	const fields = `{"f:addressType":{},"f:endpoints":{},"f:metadata":{"f:annotations":{".":{},"f:endpoints.kubernetes.io/last-change-trigger-time":{}},` +
		`"f:generateName":{},"f:labels":{".":{},"f:endpointslice.kubernetes.io/managed-by":{},"f:kubernetes.io/service-name":{}},"f:ownerReferences":{".":{},"k:{\"uid\":\"\"}":{}}},"f:ports":{}}`
	s := discoveryv1.EndpointSlice{
		ObjectMeta: clusterMeta(i, namespace, fmt.Sprintf("%s-%05x", service, i), "kube-controller-manager", fields, map[string]string{
			"app": service, discoveryv1.LabelServiceName: service, discoveryv1.LabelManagedBy: "endpointslice-controller.k8s.io"}),
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Port: &port, Name: &name, Protocol: &proto}},
	}
	s.GenerateName = service + "-"
	s.Annotations = map[string]string{corev1.EndpointsLastChangeTriggerTime: "2026-01-01T12:00:00Z"}
	s.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Service", Name: service,
		UID: types.UID(fmt.Sprintf("7a1f0c52-9b1e-4d0e-8c55-%012d", i)), Controller: &yes, BlockOwnerDeletion: &yes}}
	for e := range endpoints {
		n := i*endpoints + e
		node, zone := fmt.Sprintf("ip-10-0-%d-%d.ec2.internal", n/250%4, n%250), "zone-"+string(rune('a'+n%3))
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{
			Addresses:  []string{netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)}).String()},
			Conditions: discoveryv1.EndpointConditions{Ready: &yes, Serving: &yes, Terminating: &no},
			NodeName:   &node, Zone: &zone,
			TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: s.Namespace, Name: fmt.Sprintf("%s-6d4cf56db6-%05x", service, n),
				UID: types.UID(fmt.Sprintf("9c0d4f6e-1b5a-4f0e-9d55-%012d", n))},
		})
	}
	return s
}
