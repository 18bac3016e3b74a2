package install

import (
	"io/fs"
	"slices"
	"strings"
	"testing"

	charts "github.com/zonewise/zonewise/deploy/helm"
)

// agentObjects renders the chart and returns everything of the agent's as one text.
func agentObjects(t *testing.T, agent map[string]any) string {
	t.Helper()
	chart, err := fs.Sub(charts.Chart, "zonewise")
	if err != nil {
		t.Fatal(err)
	}
	objects, err := Chart(chart, map[string]any{"agent": agent})
	if err != nil {
		t.Fatal(err)
	}
	text := ""
	for _, o := range objects {
		if o.GetName() == "zonewise-agent" {
			b, err := o.MarshalJSON()
			if err != nil {
				t.Fatal(err)
			}
			text += string(b)
		}
	}
	return text
}

// The agent has the mounts, capabilities and rights of the socket path and of the meter only where these may be used.
func TestChartOfSocketPathAndMeter(t *testing.T) {
	always := []string{`"path":"/sys/fs/bpf"`, `"path":"/run/zonewise","type":"DirectoryOrCreate"`, `"--state-dir=/run/zonewise"`, `"resources":["servicecidrs"]`,
		`"--nodeport-addresses=10.0.0.0/8,fd00::/8"`, `"--masquerade-all"`, `"--healthz-address=0.0.0.0:10256"`, `"resources":["events"],"verbs":["create"]`}
	ofSockets := []string{"--netns-dir=/host/netns", `"path":"/run/netns"`}
	ofMeter := []string{`"resources":["certificatesigningrequests"],"verbs":["create","get","list","watch"]`, `"resourceNames":["zonewise-meter-ca"],"resources":["configmaps"],"verbs":["get"]`}
	ofBoth := []string{"--cgroup=/host/cgroup", `"path":"/sys/fs/cgroup"`, `"resources":["pods"],"verbs":["list","watch"]`}
	for _, c := range []struct {
		socket, meter string
		capabilities  string
		there, absent [][]string
	}{
		{"auto", "auto", `"NET_ADMIN","BPF","PERFMON","SYS_ADMIN"`, [][]string{ofSockets, ofMeter, ofBoth}, nil},
		{"require", "off", `"NET_ADMIN","BPF","PERFMON","SYS_ADMIN"`, [][]string{ofSockets, ofBoth}, [][]string{ofMeter}},
		{"off", "require", `"NET_ADMIN","BPF","PERFMON"`, [][]string{ofMeter, ofBoth}, [][]string{ofSockets}},
		{"off", "off", `"NET_ADMIN"`, nil, [][]string{ofSockets, ofMeter, ofBoth}},
	} {
		text := agentObjects(t, map[string]any{"socket": c.socket, "meter": c.meter, "nodePortAddresses": []any{"10.0.0.0/8", "fd00::/8"}, "masqueradeAll": true})
		want := append(slices.Concat(append(c.there, always)...), `"--socket=`+c.socket+`"`, `"--meter=`+c.meter+`"`, `"capabilities":{"add":[`+c.capabilities+`],`)
		for _, part := range want {
			if !strings.Contains(text, part) {
				t.Errorf("socket %s, meter %s: no %s", c.socket, c.meter, part)
			}
		}
		for _, part := range slices.Concat(c.absent...) {
			if strings.Contains(text, part) {
				t.Errorf("socket %s, meter %s: %s", c.socket, c.meter, part)
			}
		}
	}
}

// Ranges have names for the meter.
func TestChartOfRanges(t *testing.T) {
	text := agentObjects(t, map[string]any{"clusterCIDRs": []any{"10.0.0.0/8", "fd00::/8"},
		"blocks": map[string]any{"data centre": []any{"172.16.0.0/16", "172.17.0.0/16"}, "backup": []any{"172.18.0.0/16"}}})
	for _, part := range []string{`"--cluster-cidrs=10.0.0.0/8,fd00::/8"`, `"--blocks=data centre=172.16.0.0/16;172.17.0.0/16"`, `"--blocks=backup=172.18.0.0/16"`} {
		if !strings.Contains(text, part) {
			t.Errorf("no %s", part)
		}
	}
}

// Agents that clean up are ready at once: there is nothing to wait for.
func TestChartThatCleansUp(t *testing.T) {
	chart, err := fs.Sub(charts.Chart, "zonewise")
	if err != nil {
		t.Fatal(err)
	}
	for _, cleanup := range []bool{true, false} {
		objects, err := Chart(chart, map[string]any{"agent": map[string]any{"cleanup": cleanup}})
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range objects {
			if o.GetKind() != "DaemonSet" {
				continue
			}
			b, err := o.MarshalJSON()
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(string(b), `"--cleanup","--stay"`) != cleanup || strings.Contains(string(b), "readinessProbe") == cleanup {
				t.Errorf("cleanup %v: %s", cleanup, b)
			}
		}
	}
}
