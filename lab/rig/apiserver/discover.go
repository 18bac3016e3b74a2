package apiserver

import (
	stdjson "encoding/json"
	"maps"
	"net/http"
	"path"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/version"
	"k8s.io/client-go/kubernetes/scheme"
)

// discover answers clients that ask which version, groups and resources there are, before they use any.
func discover(w http.ResponseWriter, path string) bool {
	var out any
	switch path = strings.TrimSuffix(path, "/"); path {
	case "/version":
		out = version.Info{Major: "1", Minor: "36", GitVersion: "v1.36.0"}
	case "/api":
		out = metav1.APIVersions{TypeMeta: metav1.TypeMeta{Kind: "APIVersions"}, Versions: []string{"v1"}}
	case "/apis":
		out = groups()
	default:
		list, ok := resourcesAt(path)
		if !ok {
			return false
		}
		out = list
	}
	w.Header().Set("Content-Type", json.contentType())
	_ = stdjson.NewEncoder(w).Encode(out) // who went away needs no answer
	return true
}

// sorted are the resources that there are.
func sorted() []resource { return slices.Sorted(maps.Keys(lists)) }

func groups() metav1.APIGroupList {
	out := metav1.APIGroupList{TypeMeta: metav1.TypeMeta{Kind: "APIGroupList", APIVersion: "v1"}}
	for _, r := range sorted() {
		v, err := schema.ParseGroupVersion(path.Dir(string(r)))
		if err != nil || v.Group == "" {
			continue
		}
		one := metav1.GroupVersionForDiscovery{GroupVersion: v.String(), Version: v.Version}
		out.Groups = append(out.Groups, metav1.APIGroup{Name: v.Group, Versions: []metav1.GroupVersionForDiscovery{one}, PreferredVersion: one})
	}
	return out
}

// resourcesAt are those of a group's version: /api/v1 or /apis/GROUP/VERSION.
func resourcesAt(at string) (metav1.APIResourceList, bool) {
	out := metav1.APIResourceList{TypeMeta: metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"}}
	for _, r := range sorted() {
		v := path.Dir(string(r))
		prefix := "/apis/"
		if v == "v1" {
			prefix = "/api/"
		}
		if at != prefix+v {
			continue
		}
		kinds, _, err := scheme.Scheme.ObjectKinds(empty[r]())
		if err != nil {
			continue
		}
		out.GroupVersion = v
		out.APIResources = append(out.APIResources, metav1.APIResource{
			Name: path.Base(string(r)), SingularName: strings.ToLower(kinds[0].Kind), Kind: kinds[0].Kind,
			Namespaced: namespaced[r], Verbs: metav1.Verbs{"get", "list", "watch"},
		})
	}
	return out, len(out.APIResources) > 0
}
