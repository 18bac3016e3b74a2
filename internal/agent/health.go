package agent

import (
	"sync"
	"time"
)

// stuck is how long programming may take, or fail, before load balancers and the kubelet hear of
// it. A whole sync of very many Services takes seconds.
const stuck = 2 * time.Minute

// health is what the probes see.
type health struct {
	mu      sync.Mutex
	ready   bool
	reason  string    // why not ready, or what fails now
	running time.Time // when the pass in progress began; zero when none is
	failing time.Time // when the first of the passes failed that have failed since; zero when the last did not
}

func newHealth() *health { return &health{reason: "starting"} }

// waiting says what the first sync waits for. Once synced, always synced: the kernel keeps
// serving what it was given.
func (h *health) waiting(reason string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.ready {
		h.reason = reason
	}
}

func (h *health) fail(err error, at time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.reason = err.Error()
	if h.failing.IsZero() {
		h.failing = at
	}
}

func (h *health) synced() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ready, h.reason, h.failing = true, "", time.Time{}
}

// begin marks a pass as running until the returned function is called.
func (h *health) begin(at time.Time) (done func()) {
	h.set(at)
	return func() { h.set(time.Time{}) }
}

func (h *health) set(at time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.running = at
}

// status returns whether the node has ever been synced, what is wrong if anything is, and
// whether the process still gets on with its work.
func (h *health) status(now time.Time) (ready bool, reason string, alive bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.ready, h.reason, !late(h.running, now)
}

// current tells whether the kernel was synced, and has been kept up since.
func (h *health) current(now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.ready && !late(h.running, now) && !late(h.failing, now)
}

func late(since, now time.Time) bool { return !since.IsZero() && now.Sub(since) >= stuck }
