//go:build kernel

package metering

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/zonewise/zonewise/internal/controller/metering/past"
	"github.com/zonewise/zonewise/internal/controller/routes"
	"github.com/zonewise/zonewise/internal/controller/view"
	"github.com/zonewise/zonewise/internal/model"
)

var bin = flag.String("bin", "../../../bin", "folder of the programs")

// questions are asked of the store first, and of Prometheus then.
var questions = []string{"/v1/cost?since=3h", "/v1/cost?since=3h&by=namespaces", "/v1/cost?since=3h&by=label:team", "/v1/cost?since=3h&namespace=stock",
	"/v1/traffic?since=3h", "/v1/traffic?since=3h&by=zones", "/v1/traffic?since=3h&service=stock/db", "/v1/traffic?since=3h&zone=c", "/v1/traffic?since=150m&until=75m&namespace=stock"}

// A real Prometheus that has scraped three hours of two leaders tells of them what the store does.
func TestPrometheusTellsWhatTheStoreDoes(t *testing.T) {
	var samples strings.Builder
	answers := map[string]string{}
	var took time.Duration
	plans := func(w *world) {
		w.known[web] = routes.Known{Mode: model.Optimal, Plan: plan(), Before: evenly(), Applied: time.Date(2000, 1, 1, 0, 30, 0, 0, time.UTC)}
		w.known[db] = routes.Known{Mode: model.Observe, Plan: plan(), Before: evenly()}
	}
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, t.TempDir())
		plans(w)
		w.meter.PerService = true
		w.end()
		w.begin()
		start := time.Now()
		registry := prometheus.NewRegistry()
		registry.MustRegister(w.meter)
		instance := "controller-1"
		for n := range 3 * 60 * 2 {
			mixed(w, n)
			w.wait(30*time.Second - 7*time.Second)
			scrape(t, &samples, registry, instance)
			w.wait(7 * time.Second)
			switch n {
			case 100: // the same replica, after a pause
				w.end()
				w.begin()
			case 203: // another
				w.end()
				w.begin()
				instance = "controller-2"
			}
		}
		took = time.Since(start)
		for _, q := range questions {
			answers[q] = w.get(q).Body.String()
		}
		w.end()
	})
	samples.WriteString("# EOF\n")
	at := serve(t, samples.String())
	client := &http.Transport{DisableKeepAlives: true}
	synctest.Test(t, func(t *testing.T) {
		<-time.After(took)
		w := newWorld(t, t.TempDir())
		plans(w)
		p, err := past.New(at, map[string]string{"cluster": "prod"}, client)
		must(t, err)
		w.meter.Past = p
		defer w.end()
		for _, q := range questions {
			r := w.get(q)
			if r.Code != http.StatusOK {
				t.Errorf("%s: %d %s", q, r.Code, r.Body)
				continue
			}
			near(t, q, r.Body.Bytes(), []byte(answers[q]))
		}
	})
}

// mixed is what all report in half a minute: steady, growing, a burst of a Service that was never heard of, and one that
// comes once an hour.
func mixed(w *world, n int) {
	six := callsOf(db, "a1", "b1", 5)
	six.V6 = true
	w.report("a1", calls("a1", "a1", 900), calls("a1", "b1", uint64(100+n)), six)
	long := calls("a2", "c1", 0)
	long.ResponseBytes = 1e8
	w.report("a2", long)
	headless := callsOf(db, "b2", "a1", 7)
	headless.Via = model.ViaHeadless
	w.report("b2", headless, callsOf(db, "b1", "a1", 20), callsOf(db, "b1", "b1", 20))
	direct := calls("c1", "a1", 3)
	direct.Service, direct.Via = model.Name{}, model.ViaDirect
	out := calls("c1", "a1", 2)
	out.Server = model.Party{Kind: model.Outside, Block: "internet"}
	out.Service, out.Via = model.Name{}, model.ViaDirect
	w.report("c1", direct, out)
	switch {
	case n == 151:
		w.report("b1", callsOf(model.Name{Namespace: "stock", Name: "once"}, "b1", "c1", 100_000))
	case n%120 == 0:
		w.report("b1", callsOf(model.Name{Namespace: "stock", Name: "hourly"}, "b1", "c1", 100_000))
	}
}

// scrape writes down what Prometheus would see now, and that it is cluster prod's.
func scrape(t *testing.T, to *strings.Builder, g prometheus.Gatherer, instance string) {
	t.Helper()
	families, err := g.Gather()
	must(t, err)
	for _, f := range families {
		if !strings.HasSuffix(f.GetName(), "_total") {
			continue
		}
		for _, m := range f.Metric {
			fmt.Fprintf(to, `%s{instance="%s",cluster="prod"`, f.GetName(), instance)
			for _, l := range m.Label {
				fmt.Fprintf(to, `,%s="%s"`, l.GetName(), l.GetValue())
			}
			fmt.Fprintf(to, "} %f %d\n", m.GetCounter().GetValue(), time.Now().Unix())
		}
	}
}

// serve runs a Prometheus that has samples, and returns its URL.
func serve(t *testing.T, samples string) string {
	t.Helper()
	dir := t.TempDir()
	text, data, config := filepath.Join(dir, "samples"), filepath.Join(dir, "data"), filepath.Join(dir, "prometheus.yml")
	must(t, os.WriteFile(text, []byte(samples), 0o600))
	must(t, os.WriteFile(config, nil, 0o600))
	if out, err := exec.Command(filepath.Join(*bin, "promtool"), "tsdb", "create-blocks-from", "openmetrics", text, data).CombinedOutput(); err != nil {
		t.Fatalf("promtool: %v: %s", err, out)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	address := listener.Addr().String()
	must(t, listener.Close())
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	var log bytes.Buffer
	c := exec.CommandContext(ctx, filepath.Join(*bin, "prometheus"), "--config.file="+config, "--storage.tsdb.path="+data, "--web.listen-address="+address)
	c.Stdout, c.Stderr = &log, &log
	must(t, c.Start())
	t.Cleanup(func() {
		cancel()
		_ = c.Wait() // killed
		if t.Failed() {
			t.Log(log.String())
		}
	})
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for {
		if r, err := http.Get("http://" + address + "/-/ready"); err == nil {
			r.Body.Close()
			if r.StatusCode == http.StatusOK {
				return "http://" + address
			}
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			t.Fatal("prometheus is not ready")
		}
	}
}

// near holds two answers against each other, line by line. Scrapes see what is reported up to half a minute later, and
// of a leader that ends not the last.
func near(t *testing.T, what string, got, want []byte) {
	t.Helper()
	var g, w struct {
		view.Traffic
		Lines []map[string]any `json:"lines"`
		Total map[string]any   `json:"total"`
	}
	must(t, json.Unmarshal(got, &g))
	must(t, json.Unmarshal(want, &w))
	figures := func(all ...[]map[string]any) map[string]float64 {
		out := map[string]float64{}
		for _, lines := range all {
			for _, l := range lines {
				for k, v := range l {
					if f, ok := v.(float64); ok && k != "packets" {
						out[fmt.Sprint(l["name"], " ", k)] = f
					}
				}
				reasons, _ := l["reasons"].([]any)
				for _, r := range reasons {
					r := r.(map[string]any)
					out[fmt.Sprint(l["name"], " crosses for ", r["cause"])] = r["bytes"].(float64)
				}
			}
		}
		return out
	}
	have, wants := figures(g.Lines, []map[string]any{g.Total}), figures(w.Lines, []map[string]any{w.Total})
	for _, z := range g.Zones {
		have[z.From+z.To], have[z.From+z.To+" usd"] = float64(z.Bytes), z.USD
	}
	for _, z := range w.Zones {
		wants[z.From+z.To], wants[z.From+z.To+" usd"] = float64(z.Bytes), z.USD
	}
	if len(wants) == 0 || len(have) != len(wants) {
		t.Errorf("%s: %v, want %v", what, have, wants)
	}
	worst := 0.0
	for k, v := range wants {
		off := math.Abs(have[k] - v)
		if v != 0 {
			off /= math.Abs(v)
		}
		worst = max(worst, off)
		if off > 0.001 {
			t.Errorf("%s: %s: %g, want %g", what, k, have[k], v)
		}
	}
	t.Logf("%s: %d figures, off by %.3f %% at most; %q", what, len(wants), 100*worst, g.Notes)
}
