//go:build kernel

package metering

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/zonewise/zonewise/internal/controller/view"
	"github.com/zonewise/zonewise/internal/kernel/disktest"
	"github.com/zonewise/zonewise/internal/meter"
	"github.com/zonewise/zonewise/internal/meter/stream"
)

// A leader whose disk is full: reports wait on the agents, whoever looks is told so, and when there is room again
// everything arrives, nothing twice.
func TestFullDisk(t *testing.T) {
	dir := disktest.Small(t)
	s := newSite(t, filepath.Join(dir, "store"))
	m := s.world.meter
	stop := s.lead(m)
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(m)
	agents, put := map[string]*stream.Client{}, uint64(0)
	for _, node := range []string{"a1", "b1", "c1"} {
		agent, leave := s.agent(node, node, m.Listen)
		defer leave()
		agents[node] = agent
	}
	report := func() {
		for node, agent := range agents {
			put += 1000
			must(t, agent.Put(time.Now(), []meter.Observed{{Flow: calls(node, "b1", 1000), Observer: meter.AtClient}}, nil))
		}
	}
	waits := func() (n int) {
		for _, agent := range agents {
			n += agent.Stats().Waiting + agent.Stats().Flying
		}
		return n
	}
	told := func() (out view.Traffic) {
		must(t, json.Unmarshal(s.world.get("/v1/traffic?since=10m").Body.Bytes(), &out))
		return out
	}
	const note = "what comes in cannot be stored, and waits on the nodes: "
	report()
	s.until("all is well", func() bool {
		return waits() == 0 && told().Total.Connections == put && strings.Contains(metricsText(t, registry), "\nzonewise_meter_store_failing 0\n")
	})
	stored := put

	empty := disktest.Fill(t, dir)
	report()
	s.until("it says that its disk is full", func() bool {
		return strings.Contains(strings.Join(told().Notes, "\n"), note) && strings.Contains(metricsText(t, registry), "\nzonewise_meter_store_failing 1\n")
	})
	report()
	if got := told(); got.Total.Connections != stored || waits() < len(agents) {
		t.Errorf("on a full disk there are %d connections, want %d; %d reports wait", got.Total.Connections, stored, waits())
	}

	empty()
	s.until("all has arrived", func() bool { return waits() == 0 })
	check := func(when string) {
		t.Helper()
		got := told()
		if got.Total.Connections != put || strings.Contains(strings.Join(got.Notes, "\n"), note) {
			t.Errorf("%s: %d connections, want %d; %q", when, got.Total.Connections, put, got.Notes)
		}
	}
	check("with room again")
	text := metricsText(t, registry)
	for _, want := range []string{"zonewise_meter_store_failing 0\n", "zonewise_meter_store_reports_total result=missing 0\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
	stop()
	stop = s.lead(m)
	s.until("it leads again", func() bool { return m.term() != nil })
	check("after another term")
	stop()
}
