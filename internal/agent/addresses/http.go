package addresses

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

func (d *Daemon) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", d.serveHealth)
	mux.HandleFunc("GET /livez", d.serveLiveness)
	mux.Handle("GET /metrics", promhttp.HandlerFor(d.metrics.registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /v1/addresses", d.serveAddresses)
	return mux
}

// serveHealth says no until the plugin can give addresses: the first pool is written then, and the runtime told.
func (d *Daemon) serveHealth(w http.ResponseWriter, _ *http.Request) {
	v, failure := d.status.get()
	if v == nil {
		http.Error(w, failure, http.StatusServiceUnavailable)
		return
	}
	if failure != "" {
		failure = "; now: " + failure
	}
	fmt.Fprintf(w, "ok%s\n", failure)
}

func (d *Daemon) serveLiveness(w http.ResponseWriter, _ *http.Request) {
	if !d.status.alive(time.Now()) {
		http.Error(w, "a pass hangs", http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ok")
}

func (d *Daemon) serveAddresses(w http.ResponseWriter, _ *http.Request) {
	v, failure := d.status.get()
	if v == nil {
		http.Error(w, failure, http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}
