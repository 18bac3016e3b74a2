package routes

import (
	"fmt"
	"maps"

	corev1 "k8s.io/api/core/v1"

	"github.com/zonewise/zonewise/api/v1alpha1"
	"github.com/zonewise/zonewise/internal/state"
)

// warn tells of namespaces whose label says a mode that there is not, each time it says another one.
func (k *Keeper) warn(snap *state.Snapshot) {
	now := snap.InvalidModes()
	if maps.Equal(now, k.invalid) {
		return
	}
	for namespace, mode := range now {
		if k.invalid[namespace] == mode {
			continue
		}
		message := fmt.Sprintf("label %s: %q is ignored, for it is none of Optimal, Observe and Off", v1alpha1.LabelMode, mode)
		k.Log.Warn("namespace "+namespace+": "+message, "namespace", namespace)
		k.Recorder.Event(&corev1.ObjectReference{APIVersion: "v1", Kind: "Namespace", Name: namespace}, corev1.EventTypeWarning, "InvalidMode", message)
	}
	k.invalid = now
}
