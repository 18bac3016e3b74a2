package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupVersion is the API group and version of this package.
var GroupVersion = schema.GroupVersion{Group: "zonewise.io", Version: "v1alpha1"}

// Resource is the name of ZoneRoutes in the paths of the API.
const Resource = "zoneroutes"

// LabelMode on a namespace is the mode of all its Services whose ZoneRoute says nothing.
const LabelMode = "zonewise.io/mode"

// AddToScheme makes a scheme know this package's kinds.
func AddToScheme(s *runtime.Scheme) error {
	s.AddKnownTypes(GroupVersion, &ZoneRoute{}, &ZoneRouteList{})
	metav1.AddToGroupVersion(s, GroupVersion)
	return nil
}
