package kube

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func account(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "token"), []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestConfig(t *testing.T) {
	for _, c := range []struct {
		what, apiserver, envHost, want, err string
	}{
		{what: "in a pod", envHost: "10.100.0.1", want: "https://10.100.0.1:443"},
		{what: "IPv6", envHost: "fd00::1", want: "https://[fd00::1]:443"},
		{what: "given", apiserver: "https://192.168.0.10:6443", envHost: "10.100.0.1", want: "https://192.168.0.10:6443"},
		{what: "nowhere", err: "no address"},
		{what: "not encrypted", apiserver: "http://192.168.0.10", err: "https://host:port"},
		{what: "no scheme", apiserver: "192.168.0.10:6443", err: "https://host:port"},
	} {
		t.Run(c.what, func(t *testing.T) {
			t.Setenv("KUBERNETES_SERVICE_HOST", c.envHost)
			t.Setenv("KUBERNETES_SERVICE_PORT", "443")
			got, err := config(Options{Part: "agent", APIServer: c.apiserver, Account: account(t)})
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Fatalf("error %v, want one with %q", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got.Host != c.want || got.QPS != -1 || !strings.HasPrefix(got.UserAgent, "zonewise-agent/") {
				t.Errorf("host %q qps %v agent %q", got.Host, got.QPS, got.UserAgent)
			}
			if !strings.HasSuffix(got.ContentType, "protobuf") {
				t.Errorf("content type %q", got.ContentType)
			}
		})
	}
}

func TestMissingAccountIsNamed(t *testing.T) {
	_, err := config(Options{APIServer: "https://192.168.0.10:6443", Account: t.TempDir()})
	if err == nil || !strings.Contains(err.Error(), "service account") {
		t.Fatal(err)
	}
}
