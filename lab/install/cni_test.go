package install

import (
	"io/fs"
	"strings"
	"testing"

	charts "github.com/zonewise/zonewise/deploy/helm"
)

// cniObjects renders the chart and returns everything that the CNI's values change, as one text.
func cniObjects(t *testing.T, values map[string]any) (string, error) {
	t.Helper()
	chart, err := fs.Sub(charts.Chart, "zonewise")
	if err != nil {
		t.Fatal(err)
	}
	objects, err := Chart(chart, values)
	text := ""
	for _, o := range objects {
		b, err := o.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		text += string(b) + "\n"
	}
	return text, err
}

func TestChartOfCNI(t *testing.T) {
	off, err := cniObjects(t, nil)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(off, "zonewise-cni") || strings.Contains(off, "eniconfigs") || strings.Contains(off, "collect-interfaces") {
		t.Error("there is a CNI that nobody asked for")
	}
	on, err := cniObjects(t, map[string]any{"cni": map[string]any{"enabled": true, "clusterName": "shop", "credentialsSecret": "aws", "eniConfigs": true, "collectLeaked": true,
		"env": map[string]any{"WARM_IP_TARGET": 5, "AWS_VPC_K8S_CNI_EXTERNALSNAT": true, "AWS_REGION": "ap-northeast-2"}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{
		`"hostNetwork":true`, `"priorityClassName":"system-node-critical"`, `"tolerations":[{"operator":"Exists"}]`, `"capabilities":{"add":["NET_ADMIN"],"drop":["ALL"]}`,
		`"--state-dir=/run/zonewise/cni"`, `{"hostPath":{"path":"/opt/cni/bin","type":"DirectoryOrCreate"},"name":"bin"}`,
		`{"name":"WARM_IP_TARGET","value":"5"}`, `{"name":"AWS_VPC_K8S_CNI_EXTERNALSNAT","value":"true"}`, `{"name":"CLUSTER_NAME","value":"shop"}`,
		`{"name":"AWS_SECRET_ACCESS_KEY","valueFrom":{"secretKeyRef":{"key":"AWS_SECRET_ACCESS_KEY","name":"aws"}}}`,
		`"resources":["eniconfigs"],"verbs":["get"]`, `"name":"eniconfigs.crd.k8s.amazonaws.com"`, `"--collect-interfaces","--cluster-name=shop"`,
	} {
		if !strings.Contains(on, part) {
			t.Errorf("no %s", part)
		}
	}
	for line := range strings.Lines(on) {
		if strings.Contains(line, `"--collect-interfaces"`) && (strings.Contains(line, "WARM_IP_TARGET") || !strings.Contains(line, `{"name":"AWS_REGION","value":"ap-northeast-2"}`)) {
			t.Errorf("the controller's environment: %s", line)
		}
	}
	if _, err := cniObjects(t, map[string]any{"cni": map[string]any{"enabled": true, "collectLeaked": true}}); err == nil || !strings.Contains(err.Error(), "cni.collectLeaked needs cni.clusterName") {
		t.Errorf("collecting interfaces of any cluster: %v", err)
	}
	for _, wrong := range []map[string]any{{"env": map[string]any{"A B": "x"}}, {"env": map[string]any{"A": []any{}}}, {"binDir": "bin"}, {"warm": 1}} {
		if _, err := cniObjects(t, map[string]any{"cni": wrong}); err == nil {
			t.Errorf("%v is taken", wrong)
		}
	}
}
