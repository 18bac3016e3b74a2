// Package install puts objects into a cluster: the chart of Zonewise, rendered as Helm does it,
// and the cluster's DNS. Applying twice changes nothing.
package install

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"text/template"

	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	"helm.sh/helm/v4/pkg/chart/loader/archive"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/engine"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	yamlutil "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/dynamic"
	"k8s.io/utils/ptr"
)

// Namespace that the chart and DNS go into.
const Namespace = "kube-system"

// fieldManager owns what the lab applies.
const fieldManager = "zonewise-lab"

// Chart renders the chart in files (Chart.yaml at its root) with values.
func Chart(files fs.FS, values map[string]any) ([]unstructured.Unstructured, error) {
	var buffered []*archive.BufferedFile
	err := fs.WalkDir(files, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := fs.ReadFile(files, path)
		buffered = append(buffered, &archive.BufferedFile{Name: path, Data: data})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("chart: %w", err)
	}
	chart, err := loader.LoadFiles(buffered)
	if err != nil {
		return nil, fmt.Errorf("chart: %w", err)
	}
	capabilities := common.DefaultCapabilities
	options := common.ReleaseOptions{Name: "zonewise", Namespace: Namespace, Revision: 1, IsInstall: true}
	all, err := util.ToRenderValues(chart, values, options, capabilities)
	if err != nil {
		return nil, fmt.Errorf("chart values: %w", err)
	}
	rendered, err := engine.Render(chart, all)
	if err != nil {
		return nil, fmt.Errorf("chart: %w", err)
	}
	var objects []unstructured.Unstructured
	for _, crd := range chart.CRDObjects() { // Helm applies them as they are, before all else
		more, err := parse(string(crd.File.Data))
		if err != nil {
			return nil, fmt.Errorf("chart: %s: %w", crd.Filename, err)
		}
		objects = append(objects, more...)
	}
	for name, text := range rendered {
		if !strings.HasSuffix(name, ".yaml") {
			continue // NOTES.txt and partials
		}
		more, err := parse(text)
		if err != nil {
			return nil, fmt.Errorf("chart: %s: %w", name, err)
		}
		objects = append(objects, slices.DeleteFunc(more, hook)...)
	}
	Sort(objects)
	return objects, nil
}

// hook tells objects that Helm makes at a moment of a release's life, such as before it goes. They
// are no part of what is installed.
func hook(u unstructured.Unstructured) bool { return u.GetAnnotations()["helm.sh/hook"] != "" }

//go:embed coredns.yaml
var dnsTemplate string

// DNS returns cluster DNS as usual: CoreDNS behind the Service kube-dns, its pods spread over zones.
func DNS(address, image string, replicas, zones int) ([]unstructured.Unstructured, error) {
	var text strings.Builder
	t, err := template.New("coredns.yaml").Parse(dnsTemplate)
	if err != nil {
		return nil, err
	}
	if err := t.Execute(&text, map[string]any{"Address": address, "Image": image, "Replicas": replicas, "Zones": min(zones, replicas)}); err != nil {
		return nil, err
	}
	objects, err := parse(text.String())
	Sort(objects)
	return objects, err
}

func parse(text string) ([]unstructured.Unstructured, error) {
	var out []unstructured.Unstructured
	decoder := yamlutil.NewYAMLOrJSONDecoder(strings.NewReader(text), 4096)
	for {
		var u unstructured.Unstructured
		err := decoder.Decode(&u.Object)
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		if len(u.Object) > 0 {
			out = append(out, u)
		}
	}
}

// kinds in the order in which their objects can be made; all others come last.
var kinds = []string{"Namespace", "CustomResourceDefinition", "ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding", "ConfigMap", "Secret", "Service", "ENIConfig"}

// Sort puts objects into the order in which they can be made.
func Sort(objects []unstructured.Unstructured) {
	rank := func(u unstructured.Unstructured) int {
		if i := slices.Index(kinds, u.GetKind()); i >= 0 {
			return i
		}
		return len(kinds)
	}
	slices.SortStableFunc(objects, func(a, b unstructured.Unstructured) int {
		if c := rank(a) - rank(b); c != 0 {
			return c
		}
		return strings.Compare(a.GetKind()+a.GetName(), b.GetKind()+b.GetName())
	})
}

// clusterScoped kinds that the lab installs.
var clusterScoped = []string{"Namespace", "CustomResourceDefinition", "ClusterRole", "ClusterRoleBinding", "PriorityClass", "ENIConfig"}

// Apply makes the cluster's objects be as given, by server-side apply.
func Apply(ctx context.Context, client dynamic.Interface, objects []unstructured.Unstructured) error {
	for _, u := range objects {
		resource, _ := meta.UnsafeGuessKindToResource(u.GroupVersionKind())
		var target dynamic.ResourceInterface = client.Resource(resource)
		if !slices.Contains(clusterScoped, u.GetKind()) {
			if u.GetNamespace() == "" {
				u.SetNamespace(Namespace)
			}
			target = client.Resource(resource).Namespace(u.GetNamespace())
		}
		data, err := json.Marshal(u.Object)
		if err != nil {
			return err
		}
		_, err = target.Patch(ctx, u.GetName(), types.ApplyPatchType, data, metav1.PatchOptions{FieldManager: fieldManager, Force: ptr.To(true)})
		if err != nil {
			return fmt.Errorf("apply %s %s: %w", u.GetKind(), u.GetName(), err)
		}
	}
	return nil
}
