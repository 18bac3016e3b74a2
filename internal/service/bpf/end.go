package bpf

import (
	"fmt"
	"time"
)

// ending is when to look for sockets that are connected to UDP endpoints which have gone.
type ending struct {
	// looks is how many are still to be made: a second one when a connect() that was under way is over.
	looks int
	last  time.Time
	cost  time.Duration // of the last look; some 0.1 ms for each pod of the node
	timer *time.Timer   // of the next look, if it has to wait
}

// Between two looks is 20 times what one costs, so that they take at most 5 % of a processor, and time
// enough for any connect() to end.
const (
	endShare = 20
	endPause = 20 * time.Millisecond
)

// stop gives up what is still to be done.
func (e *ending) stop() {
	e.looks = 0
	if e.timer != nil {
		e.timer.Stop()
		e.timer = nil
	}
}

// end looks for sockets to end, now or as soon as it may.
func (a *Applier) end() error {
	e := &a.ends
	if e.looks == 0 || e.timer != nil {
		return nil
	}
	now := time.Now()
	if wait := e.last.Add(max(endShare*e.cost, endPause)).Sub(now); wait > 0 {
		a.endAfter(wait)
		return nil
	}
	if err := a.host.EndUDP(); err != nil {
		return fmt.Errorf("socket path: %w", err) // the next Audit tries again
	}
	e.last = time.Now()
	e.cost = e.last.Sub(now)
	e.looks--
	if e.looks > 0 {
		a.endAfter(max(endShare*e.cost, endPause))
	}
	return nil
}

func (a *Applier) endAfter(wait time.Duration) {
	a.ends.timer = time.AfterFunc(wait, func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.ends.timer = nil
		_ = a.end() // the next Audit tries again, and says so
	})
}
