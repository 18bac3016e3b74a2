package metering

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/zonewise/zonewise/internal/controller/metering/past"
	"github.com/zonewise/zonewise/internal/controller/view"
	"github.com/zonewise/zonewise/internal/model"
)

// elsewhere is a Past that has the same of each hour.
type elsewhere struct {
	flows  []model.Flow
	err    error
	asked  int
	filter past.Filter
}

func (e *elsewhere) Scan(_ context.Context, from, to time.Time, f past.Filter, visit func(from, to time.Time, flows []model.Flow) error) (time.Time, []string, error) {
	e.asked++
	e.filter = f
	if e.err != nil {
		return from, nil, e.err
	}
	for at := from; at.Before(to); at = at.Add(time.Hour) {
		if err := visit(at, at.Add(time.Hour), append([]model.Flow(nil), e.flows...)); err != nil {
			return from, nil, err
		}
	}
	return from, []string{"a part is missing"}, nil
}

// The last hour comes from the store, what is older from elsewhere, as far as it can be told; the store keeps no more.
func TestThePastIsElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		w := newWorld(t, dir)
		w.end()
		old := &elsewhere{flows: []model.Flow{calls("a1", "b1", 1000), callsOf(db, "b1", "b1", 5)}}
		w.meter.Past, w.meter.PerService = old, true
		w.begin()
		defer w.end()
		answer := func(path string) (out view.Traffic) {
			t.Helper()
			r := w.get(path)
			if r.Code != http.StatusOK {
				t.Errorf("%s: %d %s", path, r.Code, r.Body)
			}
			must(t, json.Unmarshal(r.Body.Bytes(), &out))
			return out
		}
		// A leader that has just begun has nothing.
		if all := answer("/v1/traffic?since=59m"); all.Total.Bytes != 10_050_000 || old.asked != 1 {
			t.Errorf("%+v, asked %d times", all, old.asked)
		}
		for range 70 {
			w.report("a1", calls("a1", "b1", 1))
			w.wait(time.Minute)
		}
		if hour := answer("/v1/traffic?since=1h"); hour.Total.Connections != 60 || old.asked != 1 {
			t.Errorf("%+v, asked %d times", hour.Total, old.asked)
		}
		two := answer("/v1/traffic?since=2h&service=shop/web&zone=a")
		notes := strings.Join(two.Notes, "\n")
		if two.Total.Bytes != 2*10_000_000 || old.filter != (past.Filter{Namespace: "shop", Service: "web", Zone: "a"}) ||
			!strings.Contains(notes, "a part is missing") || !strings.Contains(notes, "from Prometheus") || two.To.Sub(two.From) != 2*time.Hour {
			t.Errorf("%+v, %+v", two, old.filter)
		}
		var cost view.Cost
		must(t, json.Unmarshal(w.get("/v1/cost?since=7d&by=namespaces").Body.Bytes(), &cost))
		if len(cost.Lines) != 1 || cost.Lines[0].Name != "shop" || cost.Total.CrossZoneBytes != 168*10_000_000 {
			t.Errorf("%+v", cost)
		}
		for path, want := range map[string]string{
			"/v1/traffic?since=2h&by=flows":       "flows are kept for 1h0m0s",
			"/v1/traffic?since=2h&by=workloads":   "workloads are kept",
			"/v1/traffic?since=2h&workload=front": "workloads are kept",
			"/v1/traffic?since=2h&node=a1":        "nodes are kept",
			"/v1/traffic?since=2h&order=packets":  "packets are kept",
			"/v1/flows?since=2h":                  "flows are kept",
		} {
			if r := w.get(path); r.Code != http.StatusBadRequest || !strings.HasPrefix(r.Body.String(), want) {
				t.Errorf("%s: %d %s", path, r.Code, r.Body)
			}
		}
		old.err = &past.Error{Name: "http://prometheus", Err: errors.New("connection refused")}
		if r := w.get("/v1/cost"); r.Code != http.StatusBadGateway || strings.TrimSpace(r.Body.String()) != "prometheus http://prometheus: connection refused" {
			t.Errorf("%d %s", r.Code, r.Body)
		}
		for range 5 {
			w.wait(time.Hour)
			w.report("b1", calls("b1", "b1", 1))
		}
		w.wait(2 * time.Minute)
		left, err := filepath.Glob(filepath.Join(dir, "*-20000101T0[012]*"))
		must(t, err)
		for _, f := range left {
			info, err := os.Stat(f)
			must(t, err)
			t.Errorf("%s is left, %d bytes", filepath.Base(f), info.Size())
		}
	})
}

// Who reads metrics now and then sees a new series begin with 0, and again when it has been silent for a day.
func TestSeriesBeginWithNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, t.TempDir())
		w.end()
		w.meter.PerService = true
		w.begin()
		defer w.end()
		registry := prometheus.NewPedanticRegistry()
		registry.MustRegister(w.meter)
		sees := func(what, want string) {
			t.Helper()
			text := metricsText(t, registry)
			for _, line := range strings.Split(text, "\n") {
				if strings.HasPrefix(line, past.Connections+" ") {
					if value := line[strings.LastIndex(line, " ")+1:]; value != want {
						t.Errorf("%s: %s, want %s", what, line, want)
					}
					return
				}
			}
			if want != "" {
				t.Errorf("%s: nothing in %s", what, text)
			}
		}
		w.report("a1", calls("a1", "b1", 7))
		sees("at first", "0")
		w.wait(heldBack - time.Second)
		w.report("a1", calls("a1", "b1", 1))
		sees("soon", "0")
		w.wait(time.Second)
		sees("then", "8")
		w.wait(idle)
		sees("long after", "")
		w.report("a1", calls("a1", "b1", 3))
		sees("again", "0")
		w.wait(heldBack)
		sees("after that", "3")
	})
}
