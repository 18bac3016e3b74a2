package agent

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/zonewise/zonewise/internal/agent/view"
	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/service"
	"github.com/zonewise/zonewise/internal/version"
)

func (a *Agent) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", a.serveHealth)
	mux.HandleFunc("GET /livez", a.serveLiveness)
	mux.Handle("GET /metrics", promhttp.HandlerFor(a.program.metrics.registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /v1/services/{namespace}/{name}", a.serveService)
	mux.HandleFunc("GET /v1/traffic", a.serveTraffic)
	mux.HandleFunc("GET /v1/status", a.serveStatus)
	mux.HandleFunc("GET /v1/faults", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, a.reporter.faults.view(a.program.node))
	})
	return mux
}

func (a *Agent) serveHealth(w http.ResponseWriter, _ *http.Request) {
	ready, reason, _ := a.program.health.status(time.Now())
	if !ready {
		http.Error(w, reason, http.StatusServiceUnavailable)
		return
	}
	if reason != "" {
		reason = "; now: " + reason
	}
	fmt.Fprintf(w, "ok%s\n", reason)
}

func (a *Agent) serveLiveness(w http.ResponseWriter, _ *http.Request) {
	if _, _, alive := a.program.health.status(time.Now()); !alive {
		http.Error(w, "a programming pass hangs", http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ok")
}

// serveService answers from what the kernel is known to obey, not from what is wanted of it.
func (a *Agent) serveService(w http.ResponseWriter, r *http.Request) {
	now := a.known(w)
	if now == nil {
		return
	}
	name := model.Name{Namespace: r.PathValue("namespace"), Name: r.PathValue("name")}
	svc, ok := now.snapshot.Service(name)
	if !ok {
		http.Error(w, "service "+name.String()+": not found", http.StatusNotFound)
		return
	}
	if counted, ok := a.counted(w); ok {
		answer(w, view.Of(now.node, svc, plan(now.node, now.snapshot, name), counted[pathNFT], counted[pathSocket]))
	}
}

func (a *Agent) serveTraffic(w http.ResponseWriter, _ *http.Request) {
	now := a.known(w)
	if now == nil {
		return
	}
	if counted, ok := a.counted(w); ok {
		a.tally.add(now.snapshot, counted)
		answer(w, a.tally.view(now.node))
	}
}

// serveStatus answers also before the first sync: that is when people ask.
func (a *Agent) serveStatus(w http.ResponseWriter, _ *http.Request) {
	p := a.program
	out := view.Status{Schema: view.StatusSchema, Node: p.node, Version: version.Version, Services: p.services(), Pending: p.pending(),
		Faults: len(a.reporter.faults.list()), NodePorts: []string{}, Others: []view.Other{}}
	out.Ready, out.Reason, _ = p.health.status(time.Now())
	if last := p.lastSync.Load(); last != nil {
		out.LastSync = *last
	}
	if now := p.programmed.Load(); now != nil {
		out.Zone = now.node.Zone
		for _, address := range answering(now.node) {
			out.NodePorts = append(out.NodePorts, address.String())
		}
	}
	socket, why := p.paths.inUse()
	out.Paths = []view.Path{{Name: pathNFT, On: true}, {Name: pathSocket, On: socket != nil, Why: why, Unwanted: socket == nil && why == ""}}
	out.Meter = &view.Meter{Why: a.config.NoMeter, Unwanted: a.config.NoMeter == ""}
	if a.meter != nil {
		now := a.meter.Status()
		out.Meter = &now
	}
	if a.config.Others != nil {
		others, err := a.config.Others()
		if err != nil {
			p.log.Warn("other proxies", "err", err)
		}
		out.Others = append(out.Others, others...)
	}
	answer(w, out)
}

// known returns what the kernel obeys, or answers why nothing is known yet.
func (a *Agent) known(w http.ResponseWriter) *programmed {
	now := a.program.programmed.Load()
	if now == nil {
		_, reason, _ := a.program.health.status(time.Now())
		http.Error(w, reason, http.StatusServiceUnavailable)
	}
	return now
}

func (a *Agent) counted(w http.ResponseWriter) (map[string]map[service.Pair]service.Traffic, bool) {
	counted, err := a.program.paths.counters()
	if err != nil {
		http.Error(w, "counters: "+err.Error(), http.StatusInternalServerError)
	}
	return counted, err == nil
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}
