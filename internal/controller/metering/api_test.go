package metering

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/zonewise/zonewise/internal/controller/routes"
	"github.com/zonewise/zonewise/internal/controller/view"
	"github.com/zonewise/zonewise/internal/golden"
	"github.com/zonewise/zonewise/internal/meter"
	"github.com/zonewise/zonewise/internal/meter/store"
	"github.com/zonewise/zonewise/internal/model"
)

// plan sends a part of zone a's connections to b.
func plan() *model.RoutePlan {
	return &model.RoutePlan{Zones: []model.ZonePlan{
		{Name: "a", Endpoints: 1, Weights: model.Shares{{Zone: "a", Share: 0.9}, {Zone: "b", Share: 0.1}}},
		{Name: "b", Endpoints: 1, Weights: model.Shares{{Zone: "b", Share: 1}}},
	}}
}

// evenly is where connections go that nobody leads.
func evenly() model.Matrix {
	to := model.Shares{{Zone: "a", Share: 0.5}, {Zone: "b", Share: 0.5}}
	return model.Matrix{{Zone: "a", To: to}, {Zone: "b", To: to}}
}

// scene is what all answers are about: three minutes, in which each node but c2 reports.
func scene(w *world) {
	w.known[web] = routes.Known{Mode: model.Optimal, Plan: plan(), Before: evenly(), Applied: time.Now().Add(90 * time.Second)}
	w.known[db] = routes.Known{Mode: model.Observe, Plan: plan(), Before: evenly()}
	headless := callsOf(db, "b2", "a1", 7)
	headless.Via = model.ViaHeadless
	direct := calls("c1", "a1", 3)
	direct.Service, direct.Via = model.Name{}, model.ViaDirect
	out := calls("c1", "a1", 2)
	out.Server = model.Party{Kind: model.Outside, Block: "internet"}
	out.Service, out.Via, out.RequestExtra = model.Name{}, model.ViaDirect, 40
	long := calls("a2", "c1", 0)
	long.ResponseBytes, long.ResponsePackets = 1e9, 700_000
	six := callsOf(db, "a1", "b1", 5)
	six.V6 = true
	for range 18 {
		w.report("a1", calls("a1", "a1", 90), calls("a1", "b1", 10), six)
		w.report("a2", long)
		w.report("b1", callsOf(db, "b1", "a1", 20), callsOf(db, "b1", "b1", 20))
		w.report("b2", headless)
		w.report("c1", direct, out)
		w.wait(10 * time.Second)
	}
}

// What the API says of a hand-made cluster.
func TestAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, t.TempDir())
		defer w.end()
		scene(w)
		for name, paths := range map[string][]string{
			"services": {"/v1/traffic", "/v1/traffic?by=services&since=3m&order=cost&limit=2", "/v1/traffic?since=3m&namespace=stock"},
			"zones":    {"/v1/traffic?by=zones", "/v1/traffic?by=zones&since=5m&until=1m", "/v1/traffic?by=zones&zone=c"},
			"others": {"/v1/traffic?by=namespaces", "/v1/traffic?by=workloads&order=name", "/v1/traffic?by=label:team", "/v1/traffic?by=flows&service=web",
				"/v1/traffic?by=flows&node=c1&limit=1", "/v1/traffic?service=stock/db&workload=web"},
			"flows": {"/v1/flows?service=web", "/v1/flows?since=2m&zone=c&node=c1"},
			"cost":  {"/v1/cost?since=1h", "/v1/cost?since=1h&by=namespaces", "/v1/cost?since=1h&by=label:team&namespace=shop", "/v1/cost?since=1h&namespace=stock", "/v1/cost"},
			"wrong": {"/v1/traffic?by=colour", "/v1/traffic?since=yesterday", "/v1/traffic?order=size", "/v1/traffic?limit=-1", "/v1/flows?follow=maybe",
				"/v1/traffic?since=1m&until=2m", "/v1/traffic?servce=web", "/v1/cost?since=7d&node=a1", "/v1/traffic?since=-1s", "/v1/nothing"},
		} {
			var text strings.Builder
			for _, p := range paths {
				text.WriteString(w.page(p))
			}
			golden.Check(t, name+".txt", text.String())
		}
	})
}

// What is answered from memory and what from the store's minutes or hours is the same.
func TestMemoryAndStoreAgree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, t.TempDir())
		defer w.end()
		scene(w)
		w.wait(time.Minute)
		for range 6 {
			for _, n := range nodes {
				w.report(n, calls(n, "b1", 100))
			}
			w.wait(10 * time.Second)
		}
		total := func(path string) view.Traffic {
			var out view.Traffic
			must(t, json.Unmarshal(w.get(path).Body.Bytes(), &out))
			return out
		}
		memory, minutes := total("/v1/traffic?since=1m"), total("/v1/traffic?since=61s")
		if memory.Total.Connections != 3600 || minutes.Total.Connections != 3600 || memory.From.Equal(minutes.From) {
			t.Errorf("%+v and %+v", memory.Total, minutes.Total)
		}
		w.wait(25 * time.Hour) // minutes become hours
		all := total("/v1/traffic?since=48h")
		want := uint64(18*(100+5+40+7+3+2) + 3600)
		if all.Total.Connections != want {
			t.Errorf("%d connections in hours, want %d", all.Total.Connections, want)
		}
		if !strings.Contains(strings.Join(all.Notes, "\n"), "hours have no flows") || !strings.Contains(strings.Join(all.Notes, "\n"), "nothing is known of the time before 2000-01-01T00:00:00Z") {
			t.Errorf("%q", all.Notes)
		}
	})
}

// Who is more than an answer can tell of goes together, and is said to.
func TestAnswersAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, t.TempDir())
		defer w.end()
		var flows []model.Flow
		for i := range maxNames + 10 {
			f := calls("a1", "b1", 1)
			f.Port = uint16(i)
			f.Client.Workload = "deployment/" + string(rune('a'+i>>16))
			flows = append(flows, f)
		}
		w.report("a1", flows...)
		var out view.Traffic
		must(t, json.Unmarshal(w.get("/v1/traffic?by=flows&since=2m").Body.Bytes(), &out))
		if out.Total.Connections != maxNames+10 || len(out.Lines) != maxNames+1 || !strings.Contains(strings.Join(out.Notes, "\n"), "(more) has the rest") {
			t.Errorf("%+v, %d lines, %q", out.Total, len(out.Lines), out.Notes)
		}
	})
}

// A new price holds from its instant on, without a restart. Trouble with the books is told.
func TestPricesChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, t.TempDir())
		defer w.end()
		cost := func() view.Cost {
			var out view.Cost
			must(t, json.Unmarshal(w.get("/v1/cost?since=1h").Body.Bytes(), &out))
			return out
		}
		near := func(what string, got, want float64) {
			t.Helper()
			if got < want*0.999 || got > want*1.001 {
				t.Errorf("%s: %g, want %g", what, got, want)
			}
		}
		for range 12 { // a GB in two minutes
			w.report("a1", calls("a1", "b1", 8333))
			w.wait(10 * time.Second)
		}
		gb := 12 * 8333 * 1e4 / 1e9
		near("at first", cost().Total.USD, gb*0.02)
		var err error
		w.prices.series, err = meter.NewSeries(w.prices.series[0], meter.Era{From: time.Now().Add(-30 * time.Second), Prices: model.Prices{Name: "dear", PerGB: 0.10}})
		must(t, err)
		w.wait(time.Minute)
		c := cost()
		near("half of the last minute", c.Total.USD, gb*(0.75*0.02+0.25*0.10))
		if strings.Join(c.Prices, " ") != "aws dear" {
			t.Error(c.Prices)
		}
		w.prices.trouble = "prices: the last good book stays in force: perGB: -1 is negative"
		if c = cost(); !slices.Contains(c.Notes, w.prices.trouble) {
			t.Errorf("%q", c.Notes)
		}
	})
}

// A damaged file and a full disk are named, and the rest goes on.
func TestTroubleIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		w := newWorld(t, dir)
		for range 12 {
			w.report("a1", calls("a1", "b1", 1))
			w.wait(10 * time.Second)
		}
		w.wait(time.Minute)
		files, err := filepath.Glob(filepath.Join(dir, "minute-*Z"))
		must(t, err)
		data, err := os.ReadFile(files[0])
		must(t, err)
		data[len(data)-3] ^= 1
		must(t, os.WriteFile(files[0], data, 0o600))
		w.page("/v1/traffic?since=10m") // finds it
		page := w.page("/v1/traffic?since=10m")
		if !strings.Contains(page, "a damaged file, without which the figures are: ") || !strings.Contains(page, filepath.Base(files[0])) || !strings.Contains(page, `"connections": 6`) {
			t.Error(page)
		}
		if !strings.Contains(w.log.String(), "put aside") {
			t.Error(w.log)
		}
		w.term.mu.Lock()
		w.term.failing = syscall.ENOSPC
		w.term.mu.Unlock()
		if page := w.page("/v1/traffic"); !strings.Contains(page, "what comes in cannot be stored, and waits on the nodes: no space left on device") {
			t.Error(page)
		}
		w.report("a1", calls("a1", "b1", 1))
		if page := w.page("/v1/traffic"); strings.Contains(page, "cannot be stored") {
			t.Error(page)
		}
		w.end()
		w.begin()
		w.end()
	})
}

// Who follows sees what there was, then what comes in, hears of what he was too slow for, and is let go when another
// replica leads.
func TestFollow(t *testing.T) {
	w := newWorld(t, t.TempDir())
	w.report("a1", calls("a1", "a1", 1))
	server := httptest.NewServer(w.meter.Handler())
	defer server.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	open := func(path string) (*json.Decoder, func()) {
		ctx, leave := context.WithCancel(ctx)
		request, err := http.NewRequestWithContext(ctx, "GET", server.URL+path, nil)
		must(t, err)
		r, err := http.DefaultClient.Do(request)
		must(t, err)
		return json.NewDecoder(bufio.NewReader(r.Body)), func() { leave(); r.Body.Close() }
	}
	next := func(d *json.Decoder) (f view.Flow) {
		t.Helper()
		must(t, d.Decode(&f))
		return f
	}
	lines, leave := open("/v1/flows?follow=true&since=1m&service=web")
	if f := next(lines); f.Connections != 1 || f.Reason != nil {
		t.Errorf("what was: %+v", f)
	}
	w.report("a1", callsOf(db, "a1", "a1", 5), calls("a1", "b1", 2))
	if f := next(lines); f.Connections != 2 || f.Reason == nil || f.Reason.Cause != string(meter.NoPlan) || f.Seconds != 10 || f.Missed != 0 {
		t.Errorf("what comes in: %+v", f)
	}
	slow, gone := w.term.follow()
	for range waiting + 3 {
		w.report("a2", calls("a2", "b1", 1), calls("a2", "a1", 1))
	}
	w.term.mu.Lock()
	if slow.missed != 6 || len(slow.arrivals) != waiting {
		t.Errorf("%d missed", slow.missed)
	}
	w.term.mu.Unlock()
	gone()
	leave()
	for followers := 1; followers > 0; {
		w.term.mu.Lock()
		followers = len(w.term.followers)
		w.term.mu.Unlock()
		if ctx.Err() != nil {
			t.Fatal("who is gone is still told")
		}
	}
	only, leave := open("/v1/flows?follow=true")
	w.report("a1", calls("a1", "b1", 9))
	if f := next(only); f.Connections != 9 {
		t.Errorf("without the past: %+v", f)
	}
	w.end()
	if err := only.Decode(&view.Flow{}); !errors.Is(err, io.EOF) {
		t.Errorf("who followed a leader that is none any more: %v", err)
	}
	leave()
}

// An answer that cannot be given whole does not look as if it were.
func TestHalfAnAnswerIsNone(t *testing.T) {
	dir := t.TempDir()
	w := newWorld(t, dir)
	defer w.end()
	now := time.Now()
	for i := range 3 {
		w.sequence["a1"]++
		at := now.Add(time.Duration(i-10) * time.Minute)
		must(t, w.term.store.Append([]store.Report{{Node: "a1", Epoch: 1, Sequence: w.sequence["a1"], At: at, Flows: []model.Flow{calls("a1", "b1", 1)}}}))
	}
	must(t, w.term.store.Roll(now))
	files, err := filepath.Glob(filepath.Join(dir, "minute-*Z"))
	must(t, err)
	if len(files) != 3 {
		t.Fatal(files)
	}
	must(t, os.Remove(files[2]))
	server := httptest.NewServer(w.meter.Handler())
	defer server.Close()
	r, err := server.Client().Get(server.URL + "/v1/flows?since=15m")
	if err == nil {
		_, err = io.ReadAll(r.Body)
		r.Body.Close()
	}
	if err == nil {
		t.Error("it looks whole")
	}
}

// Without a meter, and while another replica leads, all paths say so.
func TestNobodyAnswers(t *testing.T) {
	r := httptest.NewRecorder()
	(*Meter)(nil).Handler().ServeHTTP(r, httptest.NewRequest("GET", "/v1/cost", nil))
	if r.Code != http.StatusServiceUnavailable || !strings.Contains(r.Body.String(), "controller.meter.enabled=true") {
		t.Errorf("%d %s", r.Code, r.Body)
	}
}

func TestMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, t.TempDir())
		w.meter.PerService = true
		w.end()
		w.begin()
		scene(w)
		registry := prometheus.NewPedanticRegistry()
		registry.MustRegister(w.meter)
		problems, err := testutil.GatherAndLint(registry)
		must(t, err)
		for _, p := range problems {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
		text := metricsText(t, registry)
		golden.Check(t, "metrics.txt", text)
		w.end()
		if left := metricsText(t, registry); left != "" {
			t.Errorf("a replica that does not lead tells\n%s", left)
		}
	})
}

func metricsText(t *testing.T, g prometheus.Gatherer) string {
	t.Helper()
	families, err := g.Gather()
	must(t, err)
	var b strings.Builder
	for _, f := range families {
		for _, m := range f.Metric {
			b.WriteString(f.GetName())
			for _, l := range m.Label {
				b.WriteString(" " + l.GetName() + "=" + l.GetValue())
			}
			text, err := json.Marshal(rounded(m.GetCounter().GetValue() + m.GetGauge().GetValue()))
			must(t, err)
			b.WriteString(" " + string(text) + "\n")
		}
	}
	return b.String()
}
