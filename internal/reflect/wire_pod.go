package reflect

import (
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// podDecoder decodes of pods who has which address. Every node follows all pods, whose objects are mostly
// what nobody here reads. One goroutine uses it.
type podDecoder struct {
	metadata
	object     corev1.Pod
	containers [][]byte // statuses, parts of the message
}

func newPodDecoder() decoder[*corev1.Pod] {
	return &podDecoder{metadata: newMetadata(appsv1.DefaultDeploymentUniqueLabelKey, metav1.InitialEventsAnnotationKey)}
}

func (*podDecoder) kind() (apiVersion, kind string) { return "v1", "Pod" }

// decode returns a pod that holds until the next call.
func (d *podDecoder) decode(message []byte) (*corev1.Pod, bool) {
	p := &d.object
	d.reset(&p.ObjectMeta)
	p.CreationTimestamp, p.OwnerReferences = metav1.Time{}, p.OwnerReferences[:0]
	p.Spec.NodeName, p.Spec.HostNetwork = "", false
	p.Status.Phase, p.Status.PodIPs, p.Status.ContainerStatuses = "", p.Status.PodIPs[:0], p.Status.ContainerStatuses[:0]
	d.containers = d.containers[:0]
	ok := each(message, func(f field) bool {
		switch f.tag {
		case 1<<3 | length:
			return d.metadata.decode(&p.ObjectMeta, f.bytes) && each(f.bytes, d.origin)
		case 2<<3 | length:
			return each(f.bytes, d.spec)
		case 3<<3 | length:
			return each(f.bytes, d.status)
		}
		return true
	})
	return p, ok && (!p.Spec.HostNetwork || d.ids())
}

func (d *podDecoder) origin(f field) bool {
	switch f.tag {
	case 8<<3 | length:
		return d.object.CreationTimestamp.Unmarshal(f.bytes) == nil
	case 13<<3 | length:
		var o metav1.OwnerReference
		err := o.Unmarshal(f.bytes)
		d.object.OwnerReferences = append(d.object.OwnerReferences, o)
		return err == nil
	}
	return true
}

func (d *podDecoder) spec(f field) bool {
	switch f.tag {
	case 10<<3 | length:
		d.object.Spec.NodeName = d.text(f.bytes)
	case 11<<3 | varint:
		d.object.Spec.HostNetwork = f.value != 0
	}
	return true
}

func (d *podDecoder) status(f field) bool {
	switch f.tag {
	case 1<<3 | length:
		d.object.Status.Phase = corev1.PodPhase(d.text(f.bytes))
	case 8<<3 | length:
		d.containers = append(d.containers, f.bytes)
	case 12<<3 | length:
		var ip corev1.PodIP
		ok := each(f.bytes, func(f field) bool {
			if f.tag == 1<<3|length {
				ip.IP = string(f.bytes)
			}
			return true
		})
		d.object.Status.PodIPs = append(d.object.Status.PodIPs, ip)
		return ok
	}
	return true
}

// ids reads which containers a pod of the host network has.
func (d *podDecoder) ids() bool {
	return !slices.ContainsFunc(d.containers, func(status []byte) bool {
		var c corev1.ContainerStatus
		ok := each(status, func(f field) bool {
			if f.tag == 8<<3|length {
				c.ContainerID = string(f.bytes)
			}
			return true
		})
		d.object.Status.ContainerStatuses = append(d.object.Status.ContainerStatuses, c)
		return !ok
	})
}
