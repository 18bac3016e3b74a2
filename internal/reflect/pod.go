package reflect

import (
	"strings"
	"unique"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/zonewise/zonewise/api/v1alpha1"
	"github.com/zonewise/zonewise/internal/model"
)

// runningPods selects the pods that have not ended: those that have hold no capacity.
const runningPods = "status.phase!=Succeeded,status.phase!=Failed"

// Pod returns false for a pod that has ended.
func Pod(p *corev1.Pod) (model.Pod, bool) {
	ended := p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
	return model.Pod{
		// Thousands of pods share few namespaces and nodes.
		Name:       model.Name{Namespace: unique.Make(p.Namespace).Value(), Name: p.Name},
		Node:       unique.Make(p.Spec.NodeName).Value(),
		MilliCPU:   requested(&p.Spec),
		Terminated: ended,
	}, !ended
}

// Resident returns who has which address, and false for a pod that has ended. Containers are known of
// pods in the network of one node alone: ours.
func Resident(p *corev1.Pod, ours string) (model.Pod, bool) {
	out := model.Pod{
		Name:        model.Name{Namespace: p.Namespace, Name: p.Name},
		Node:        p.Spec.NodeName,
		Workload:    workload(p),
		HostNetwork: p.Spec.HostNetwork,
		Created:     p.CreationTimestamp.Time,
		Terminated:  p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed,
	}
	for _, ip := range p.Status.PodIPs {
		if a, ok := addr(ip.IP); ok && special(a) == "" {
			out.Addresses = append(out.Addresses, a)
		}
	}
	out.Addresses = exact(out.Addresses)
	if out.HostNetwork && out.Node == ours {
		for _, c := range p.Status.ContainerStatuses {
			if _, id, ok := strings.Cut(c.ContainerID, "://"); ok && id != "" {
				out.Containers = append(out.Containers, id)
			}
		}
	}
	return out, !out.Terminated
}

// workload names what controls a pod, as people know it: not a Deployment's ReplicaSets, nor, of a static
// pod, the node.
func workload(p *corev1.Pod) string {
	for _, o := range p.OwnerReferences {
		if !value(o.Controller, false) || o.Kind == "Node" {
			continue
		}
		if name, ok := strings.CutSuffix(o.Name, "-"+p.Labels[appsv1.DefaultDeploymentUniqueLabelKey]); ok && o.Kind == "ReplicaSet" && name != "" {
			return "deployment/" + name
		}
		return strings.ToLower(o.Kind) + "/" + o.Name
	}
	return "pod/" + p.Name
}

// requested is the CPU that a pod asks for as long as it serves, in thousandths: what the pod as a
// whole requests, else its containers' and sidecars' sum.
func requested(spec *corev1.PodSpec) int64 {
	if spec.Resources != nil {
		if cpu, ok := spec.Resources.Requests[corev1.ResourceCPU]; ok {
			return max(0, cpu.MilliValue())
		}
	}
	var sum int64
	for i := range spec.Containers {
		sum += max(0, spec.Containers[i].Resources.Requests.Cpu().MilliValue())
	}
	for i := range spec.InitContainers {
		c := &spec.InitContainers[i]
		if value(c.RestartPolicy, "") == corev1.ContainerRestartPolicyAlways {
			sum += max(0, c.Resources.Requests.Cpu().MilliValue())
		}
	}
	return max(0, sum) // an overflow is nonsense from somebody
}

// said is what a namespace says about its Services.
type said struct {
	name string
	mode model.Mode
}

// namespaceMode returns false for a namespace that says nothing.
func namespaceMode(n *corev1.Namespace) (said, bool) {
	mode, ok := n.Labels[v1alpha1.LabelMode]
	return said{n.Name, model.Mode(mode)}, ok
}
