package reflect

import (
	"unique"

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
