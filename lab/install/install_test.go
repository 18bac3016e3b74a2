package install

import (
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	charts "github.com/zonewise/zonewise/deploy/helm"
)

func names(objects []unstructured.Unstructured) string {
	var b strings.Builder
	for _, o := range objects {
		fmt.Fprintf(&b, "%s %s\n", o.GetKind(), o.GetName())
	}
	return b.String()
}

// The product is installed as into production: the chart as Helm renders it, in an order in which
// its objects can be made.
func TestChart(t *testing.T) {
	chart, err := fs.Sub(charts.Chart, "zonewise")
	if err != nil {
		t.Fatal(err)
	}
	objects, err := Chart(chart, map[string]any{
		"image":     map[string]any{"tag": "v9"},
		"apiServer": "https://192.168.0.10:6443",
	})
	if err != nil {
		t.Fatal(err)
	}
	const want = `CustomResourceDefinition zoneroutes.zonewise.io
ServiceAccount zonewise-agent
ServiceAccount zonewise-controller
ClusterRole zonewise-agent
ClusterRole zonewise-controller
ClusterRole zonewise-hints
ClusterRole zonewise-meter
ClusterRoleBinding zonewise-agent
ClusterRoleBinding zonewise-controller
ClusterRoleBinding zonewise-hints
ClusterRoleBinding zonewise-meter
Role zonewise-agent
Role zonewise-controller
Role zonewise-hints
Role zonewise-meter
RoleBinding zonewise-agent
RoleBinding zonewise-controller
RoleBinding zonewise-hints
RoleBinding zonewise-meter
Service zonewise-meter
Service zonewise-webhook
DaemonSet zonewise-agent
Deployment zonewise-controller
`
	if got := names(objects); got != want {
		t.Errorf("objects:\n%swant:\n%s", got, want)
	}
	for _, o := range objects {
		if !slices.Contains([]string{"DaemonSet", "Deployment"}, o.GetKind()) {
			continue
		}
		text := fmt.Sprint(o.Object)
		for _, part := range []string{"ghcr.io/zonewise/zonewise:v9", "https://192.168.0.10:6443"} {
			if !strings.Contains(text, part) {
				t.Errorf("%s %s has no %s", o.GetKind(), o.GetName(), part)
			}
		}
	}
}

func TestMerge(t *testing.T) {
	own := map[string]any{"agent": map[string]any{"enabled": true, "audit": "2s"}, "tag": "v1"}
	got := fmt.Sprint(Merge(own, map[string]any{"agent": map[string]any{"enabled": false}, "tag": "v2", "more": 1}))
	if want := "map[agent:map[audit:2s enabled:false] more:1 tag:v2]"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if fmt.Sprint(own) != "map[agent:map[audit:2s enabled:true] tag:v1]" || fmt.Sprint(Merge(nil, nil)) != "map[]" {
		t.Error("what was given is another now")
	}
}

// Where another proxy serves, the chart comes without agents.
func TestChartWithoutAgents(t *testing.T) {
	chart, err := fs.Sub(charts.Chart, "zonewise")
	if err != nil {
		t.Fatal(err)
	}
	objects, err := Chart(chart, map[string]any{"agent": map[string]any{"enabled": false}})
	if err != nil {
		t.Fatal(err)
	}
	if got := names(objects); strings.Contains(got, "agent") || !strings.Contains(got, "Deployment zonewise-controller") {
		t.Errorf("objects:\n%s", got)
	}
}

// What Helm runs at a moment of its own is not installed.
func TestChartWithAHook(t *testing.T) {
	objects, err := Chart(fstest.MapFS{
		"Chart.yaml":       {Data: []byte("apiVersion: v2\nname: x\nversion: 1.0.0\n")},
		"templates/a.yaml": {Data: []byte("kind: Job\nmetadata: {name: bye, annotations: {helm.sh/hook: pre-delete}}\n---\nkind: ConfigMap\nmetadata: {name: stays}\n")},
	}, nil)
	if err != nil || names(objects) != "ConfigMap stays\n" {
		t.Errorf("%q, error %v", names(objects), err)
	}
}

func TestChartThatIsNone(t *testing.T) {
	for name, files := range map[string]fstest.MapFS{
		"no Chart.yaml": {},
		"bad template":  {"Chart.yaml": {Data: []byte("apiVersion: v2\nname: x\nversion: 1.0.0\n")}, "templates/a.yaml": {Data: []byte("{{ nothing }}")}},
		"bad YAML":      {"Chart.yaml": {Data: []byte("apiVersion: v2\nname: x\nversion: 1.0.0\n")}, "templates/a.yaml": {Data: []byte("a: [")}},
		"bad CRD":       {"Chart.yaml": {Data: []byte("apiVersion: v2\nname: x\nversion: 1.0.0\n")}, "crds/a.yaml": {Data: []byte("a: [")}},
	} {
		if objects, err := Chart(files, nil); err == nil || !strings.HasPrefix(err.Error(), "chart: ") {
			t.Errorf("%s: %v, error %v", name, objects, err)
		}
	}
}

func TestDNS(t *testing.T) {
	objects, err := DNS("10.100.0.10", "coredns:v1", 2, 2)
	if err != nil {
		t.Fatal(err)
	}
	const want = `ServiceAccount coredns
ClusterRole system:coredns
ClusterRoleBinding system:coredns
ConfigMap coredns
Service kube-dns
Deployment coredns
`
	if got := names(objects); got != want {
		t.Errorf("objects:\n%swant:\n%s", got, want)
	}
	service, deployment := objects[4], objects[5]
	if ip, _, _ := unstructured.NestedString(service.Object, "spec", "clusterIP"); ip != "10.100.0.10" {
		t.Errorf("cluster IP is %q", ip)
	}
	if n, _, _ := unstructured.NestedFieldNoCopy(deployment.Object, "spec", "replicas"); fmt.Sprint(n) != "2" {
		t.Errorf("%v replicas", n)
	}
	if !strings.Contains(fmt.Sprint(deployment.Object), "image:coredns:v1") {
		t.Error("not that image")
	}
}

// A book of prices of one's own reaches the controller as a file.
func TestChartWithPrices(t *testing.T) {
	chart, err := fs.Sub(charts.Chart, "zonewise")
	if err != nil {
		t.Fatal(err)
	}
	objects, err := Chart(chart, map[string]any{"image": map[string]any{"tag": "v9"}, "controller": map[string]any{
		"defaultMode": "Optimal", "prices": map[string]any{"perGB": 0.03},
	}})
	if err != nil {
		t.Fatal(err)
	}
	book, deployment := "", ""
	for _, o := range objects {
		switch o.GetKind() {
		case "ConfigMap":
			book, _, _ = unstructured.NestedString(o.Object, "data", "prices.yaml")
		case "Deployment":
			text, err := o.MarshalJSON()
			if err != nil {
				t.Fatal(err)
			}
			deployment = string(text)
		}
	}
	if strings.TrimSpace(book) != "perGB: 0.03" {
		t.Errorf("book %q", book)
	}
	for _, want := range []string{`"--default-mode=Optimal"`, `"--prices=/etc/zonewise/prices.yaml"`, `"mountPath":"/etc/zonewise"`, `"name":"zonewise-prices"`} {
		if !strings.Contains(deployment, want) {
			t.Errorf("the Deployment lacks %s", want)
		}
	}
}
