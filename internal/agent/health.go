package agent

import (
	"sync"
	"time"
)

// stuck is how long a pass may take before the process counts as hung. A whole sync of very
// many Services takes seconds.
const stuck = 2 * time.Minute

// health is what the probes see.
type health struct {
	mu      sync.Mutex
	ready   bool
	reason  string    // why not ready, or what fails now
	running time.Time // when the pass in progress began; zero when none is
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

func (h *health) fail(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.reason = err.Error()
}

func (h *health) synced() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ready, h.reason = true, ""
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
	return h.ready, h.reason, h.running.IsZero() || now.Sub(h.running) < stuck
}
