package install

import (
	"io/fs"
	"strings"
	"testing"

	charts "github.com/zonewise/zonewise/deploy/helm"
)

// The agent has the mounts and capabilities of the socket path only where that may be used.
func TestChartOfTheSocketPath(t *testing.T) {
	chart, err := fs.Sub(charts.Chart, "zonewise")
	if err != nil {
		t.Fatal(err)
	}
	for socket, want := range map[string]struct{ there, absent []string }{
		"auto": {[]string{`"--socket=auto"`, `"add":["NET_ADMIN","BPF","PERFMON","SYS_ADMIN"]`, `"--cgroup=/host/cgroup"`,
			`"path":"/sys/fs/cgroup"`, `"path":"/sys/fs/bpf"`, `"path":"/run/netns"`, `"resources":["pods"]`}, nil},
		"off": {[]string{`"--socket=off"`, `"add":["NET_ADMIN"]`, `"path":"/sys/fs/bpf"`, `"resources":["servicecidrs"]`},
			[]string{"/sys/fs/cgroup", "/run/netns", `"resources":["pods"]`}},
	} {
		objects, err := Chart(chart, map[string]any{"agent": map[string]any{"socket": socket,
			"nodePortAddresses": []any{"10.0.0.0/8", "fd00::/8"}, "masqueradeAll": true}})
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
		for _, part := range append(want.there, `"--nodeport-addresses=10.0.0.0/8,fd00::/8"`, `"--masquerade-all"`,
			`"--healthz-address=0.0.0.0:10256"`, `"resources":["events"],"verbs":["create"]`) {
			if !strings.Contains(text, part) {
				t.Errorf("%s: no %s", socket, part)
			}
		}
		for _, part := range want.absent {
			if strings.Contains(text, part) {
				t.Errorf("%s: %s", socket, part)
			}
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
