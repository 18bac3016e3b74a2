// Package kube delivers hints to a cluster whose own controllers strip hints that others put on: a
// webhook puts them on every write of an EndpointSlice, a toucher has slices written when their plan
// changes, and a watchman takes the webhook away as soon as it does harm. See
// docs/decisions/0008-hints-by-webhook.md.
package kube

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/zonewise/zonewise/internal/hints"
	"github.com/zonewise/zonewise/internal/model"
)

// Path is where the webhook answers.
const Path = "/hints"

// maxBody is more than the API server can store of a slice, twice: it sends the old one, too.
const maxBody = 8 << 20

// Planner knows what the endpoints of a slice should carry.
type Planner interface {
	// Hints returns the hints of the endpoints of a slice that is about to be written; nil means
	// that the slice is to be left alone. The API server waits for the answer. It is called from
	// several goroutines at once.
	Hints(svc model.Name, v6 bool, incoming model.Slice) (map[netip.Addr]hints.Hint, error)
}

// Handler is the webhook: it answers what hints a slice gets. Whatever goes wrong, the write is
// allowed as it came.
type Handler struct {
	planner Planner
	log     *slog.Logger
	reviews *prometheus.CounterVec
	seconds prometheus.Histogram
	room    chan struct{} // for reviews under way
	slowest atomic.Int64  // nanoseconds, since Slowest was last asked
}

// Outcomes of a review, as the metric names them.
const (
	hinted = "hinted" // got a patch
	right  = "right"  // carried already what it should
	left   = "left"   // none of our business
	probed = "probe"
	unread = "unread" // not understood
	failed = "failed" // no plan, or one that the API server would refuse
	broken = "panic"
	late   = "late" // no plan in time
)

// NewHandler returns a webhook that answers by the planner.
func NewHandler(p Planner, log *slog.Logger) *Handler {
	h := &Handler{
		planner: p, log: log, room: make(chan struct{}, 256),
		reviews: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "zonewise_hint_reviews_total",
			Help: "Writes of EndpointSlices that the API server asked about, by what became of them.",
		}, []string{"result"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "zonewise_hint_review_seconds",
			Help:    "Time from a question of the API server to the answer.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1},
		}),
	}
	for _, outcome := range []string{hinted, right, left, probed, unread, failed, broken, late} {
		h.reviews.WithLabelValues(outcome)
	}
	return h
}

// Describe is part of prometheus.Collector.
func (h *Handler) Describe(out chan<- *prometheus.Desc) {
	h.reviews.Describe(out)
	h.seconds.Describe(out)
}

// Collect is part of prometheus.Collector.
func (h *Handler) Collect(out chan<- prometheus.Metric) {
	h.reviews.Collect(out)
	h.seconds.Collect(out)
}

// Slowest returns the longest that an answer had to be thought about since it was last asked.
func (h *Handler) Slowest() time.Duration { return time.Duration(h.slowest.Swap(0)) }

// ServeHTTP answers one review.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	begin := time.Now()
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		h.reviews.WithLabelValues(unread).Inc()
		http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
		return
	}
	asked, err := read(body)
	if err != nil { // without a uid there is no answer; the API server then goes by the failure policy
		h.reviews.WithLabelValues(unread).Inc()
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	thinks := time.Now()
	answer, outcome := h.review(asked)
	thought := time.Since(thinks)
	h.reviews.WithLabelValues(outcome).Inc()
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(answer) // an error means that nobody waits for the answer any more
	h.seconds.Observe(time.Since(begin).Seconds())
	for old := h.slowest.Load(); int64(thought) > old && !h.slowest.CompareAndSwap(old, int64(thought)); old = h.slowest.Load() {
	}
}

// review allows the write, with a patch if there is one in time.
func (h *Handler) review(asked *request) (answer *admissionv1.AdmissionReview, outcome string) {
	response := &admissionv1.AdmissionResponse{UID: types.UID(asked.UID), Allowed: true}
	answer = &admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"},
		Response: response,
	}
	select {
	case h.room <- struct{}{}:
	default: // as many as that do not come back any more, or all at once
		return answer, late
	}
	done := make(chan verdict, 1)
	go func() {
		defer func() { <-h.room }()
		done <- h.decide(asked)
	}()
	limit := time.NewTimer(lag)
	defer limit.Stop()
	select {
	case v := <-done:
		if len(v.patch) > 0 {
			kind := admissionv1.PatchTypeJSONPatch
			response.Patch, response.PatchType = v.patch, &kind
		}
		return answer, v.outcome
	case <-limit.C:
		h.log.Warn("hints: no plan in time; a slice is written without", "namespace", asked.namespace(), "slice", asked.name())
		return answer, late
	}
}

// verdict is what becomes of a write.
type verdict struct {
	patch   []byte
	outcome string
}

func (h *Handler) decide(asked *request) (v verdict) {
	log := h.log.With("namespace", asked.namespace(), "slice", asked.name())
	defer func() {
		if p := recover(); p != nil {
			v = verdict{outcome: broken}
			log.Error("hints: a review broke; the slice is written without", "panic", p, "stack", string(debug.Stack()))
		}
	}()
	patch, outcome, err := h.patch(asked)
	if err != nil {
		log.Warn("hints: a slice is written without", "error", err)
		return verdict{outcome: failed}
	}
	return verdict{patch, outcome}
}

func (h *Handler) patch(asked *request) (patch []byte, outcome string, err error) {
	if !asked.concerns() {
		return nil, left, nil
	}
	var want map[netip.Addr]hints.Hint
	outcome = hinted
	if asked.Object.probe() {
		want, outcome = asked.Object.probeHints(), probed
	} else {
		s := asked.Object.model()
		if want, err = h.planner.Hints(s.ServiceName(), s.V6, s); err != nil {
			return nil, failed, fmt.Errorf("service %s: %w", s.ServiceName(), err)
		}
	}
	if want == nil {
		return nil, left, nil
	}
	steps, err := give(*asked.Object, want)
	if err != nil {
		return nil, failed, err
	}
	if len(steps) == 0 {
		return nil, right, nil
	}
	patch, err = encode(steps)
	return patch, outcome, err
}
