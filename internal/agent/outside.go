package agent

import (
	"encoding/json"
	"net/http"
	"strconv"
	"time"
)

// outside is the answer of the health endpoint that load balancers and cloud controllers ask, in
// kube-proxy's form.
type outside struct {
	LastUpdated  time.Time `json:"lastUpdated"`
	CurrentTime  time.Time `json:"currentTime"`
	NodeEligible *bool     `json:"nodeEligible,omitempty"`
	Healthy      bool      `json:"healthy"`
}

// HealthHandler serves what is asked from outside the node: /healthz, whether new connections should
// come to this node, and /livez, whether its proxy works. A node that is being deleted is alive.
func (a *Agent) HealthHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		eligible := a.eligible()
		a.outside(w, "healthz", &eligible)
	})
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { a.outside(w, "livez", nil) })
	return mux
}

// eligible tells whether the node is there to stay, by the newest that is known of it.
func (a *Agent) eligible() bool {
	node, ok := a.program.tables.Snapshot().Node(a.program.node)
	return ok && !node.Leaving
}

func (a *Agent) outside(w http.ResponseWriter, probe string, eligible *bool) {
	now := time.Now()
	body := outside{CurrentTime: now, NodeEligible: eligible, Healthy: a.program.health.current(now)}
	code := http.StatusServiceUnavailable
	if body.Healthy && (eligible == nil || *eligible) {
		code, body.LastUpdated = http.StatusOK, now
	} else if last := a.program.lastSync.Load(); last != nil {
		body.LastUpdated = *last
	}
	a.program.metrics.probes.WithLabelValues(probe, strconv.Itoa(code)).Inc()
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(body)
}
