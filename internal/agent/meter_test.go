package agent

import (
	"net/http"
	"testing"

	"github.com/zonewise/zonewise/internal/agent/metering"
	"github.com/zonewise/zonewise/internal/meter/bpf"
)

// Whether a node counts, and why not, is seen where people look; everything else works without.
func TestStatusOfTheMeter(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"nobody asked for it": {func(*Config) {}, `"meter":{"on":false,"unwanted":true,"waiting":0}`},
		"the machine cannot": {func(c *Config) {
			c.Meter = &metering.Options{Namespace: "kube-system", StateDir: t.TempDir(), Open: func() (metering.Counter, error) { return nil, &bpf.Unsupported{Missing: "no Linux 6.4"} }}
		}, `"meter":{"on":false,"why":"no Linux 6.4","waiting":0}`},
	} {
		t.Run(name, func(t *testing.T) {
			w := startWith(t, func(_ *world, config *Config) { c.change(config) }, node("a"), svc(1), slice(1, "a", "b"))
			w.until("/v1/status", c.want)
			w.until("/healthz", "ok")
			if code, _ := w.get("/metrics"); code != http.StatusOK {
				t.Errorf("/metrics: %d", code)
			}
		})
	}
}
