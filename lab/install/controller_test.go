package install

import (
	"io/fs"
	"strings"
	"testing"

	charts "github.com/zonewise/zonewise/deploy/helm"
)

// What the controller needs to meter is there if it does, and not otherwise.
func TestChartOfTheMeter(t *testing.T) {
	chart, err := fs.Sub(charts.Chart, "zonewise")
	if err != nil {
		t.Fatal(err)
	}
	book := map[string]any{"books": []any{map[string]any{"use": "aws"}, map[string]any{"from": "2026-06-01", "perGB": 0.01}}}
	for _, c := range []struct {
		values        map[string]any
		there, absent []string
	}{
		{map[string]any{}, []string{`"--meter-dir=/var/lib/zonewise/meter"`, `"--metrics-per-service=false"`, `"status.podIP"`, `{"emptyDir":{},"name":"meter"}`,
			`{"mountPath":"/var/lib/zonewise","name":"meter"}`, `"containerPort":9473`, `"fsGroup":65532`, `"kind":"Service"`, `["approve","sign"]`}, []string{"prices.yaml\"", "prometheus", "otlp"}},
		{map[string]any{"meter": map[string]any{"prometheus": map[string]any{"url": "https://prometheus:9090", "labels": map[string]any{"cluster": "prod"}, "secret": "access",
			"tokenFile": "/etc/zonewise-prometheus/token", "caFile": "/etc/zonewise-prometheus/ca.crt"}}, "otlp": map[string]any{"endpoint": "http://collector:4317"}},
			[]string{`"--meter-prometheus=https://prometheus:9090","--meter-prometheus-labels=cluster=prod","--meter-prometheus-token-file=/etc/zonewise-prometheus/token",` +
				`"--meter-prometheus-ca-file=/etc/zonewise-prometheus/ca.crt","--otlp-endpoint=http://collector:4317"`,
				`{"mountPath":"/etc/zonewise-prometheus","name":"prometheus","readOnly":true}`, `{"name":"prometheus","secret":{"secretName":"access"}}`}, nil},
		{map[string]any{"prices": book, "meter": map[string]any{"perService": true, "volume": map[string]any{"persistentVolumeClaim": map[string]any{"claimName": "meter"}}}},
			[]string{`"--metrics-per-service=true"`, `{"name":"meter","persistentVolumeClaim":{"claimName":"meter"}}`, `"--prices=/etc/zonewise/prices.yaml"`,
				`{"configMap":{"name":"zonewise-prices"},"name":"prices"}`, `2026-06-01`}, []string{"emptyDir"}},
		{map[string]any{"prices": book, "meter": map[string]any{"enabled": false}}, []string{`"--prices=/etc/zonewise/prices.yaml"`, `"mountPath":"/etc/zonewise"`},
			[]string{"meter-dir", "/var/lib/zonewise", "9473", "fsGroup", "zonewise.io/agent"}},
		{map[string]any{"meter": map[string]any{"enabled": false}}, nil, []string{"volumeMounts", "meter-dir"}},
	} {
		objects, err := Chart(chart, map[string]any{"controller": c.values, "agent": map[string]any{"enabled": false}})
		if err != nil {
			t.Fatal(err)
		}
		text := ""
		for _, o := range objects {
			if o.GetKind() == "CustomResourceDefinition" {
				continue
			}
			b, err := o.MarshalJSON()
			if err != nil {
				t.Fatal(err)
			}
			text += string(b)
		}
		for _, part := range c.there {
			if !strings.Contains(text, part) {
				t.Errorf("%v: no %s in %s", c.values, part, text)
			}
		}
		for _, part := range c.absent {
			if strings.Contains(text, part) {
				t.Errorf("%v: %s", c.values, part)
			}
		}
	}
	two := map[string]any{"emptyDir": map[string]any{}, "hostPath": map[string]any{"path": "/x"}}
	for _, values := range []map[string]any{{"volume": two}, {"enabled": "yes"}, {"dir": "/x"}, {"prometheus": map[string]any{"url": "prometheus:9090"}},
		{"prometheus": map[string]any{"labels": map[string]any{"a": 1}}}} {
		if _, err := Chart(chart, map[string]any{"controller": map[string]any{"meter": values}}); err == nil {
			t.Errorf("%v is taken", values)
		}
	}
}
