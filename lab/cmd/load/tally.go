package main

import (
	"fmt"
	"os"
	"sync"
	"time"
)

// result is what is printed at the end.
type result struct {
	Opened    int   `json:"opened"`
	Broken    int   `json:"broken"`
	Exchanges int   `json:"exchanges"` // on the connections that stay open
	Made      int   `json:"made"`      // new connections, those that failed included
	Failed    int   `json:"failed"`
	SlowestMs int64 `json:"slowestMs"` // of all exchanges, on new connections with the connect
}

// tally counts from many goroutines.
type tally struct {
	mu sync.Mutex
	r  result
}

// reasons is how many failures are printed: the rest are more of the same.
const reasons = 10

func (t *tally) opened() { t.count(0, func(r *result) { r.Opened++ }) }

func (t *tally) exchanged(took time.Duration) { t.count(took, func(r *result) { r.Exchanges++ }) }

func (t *tally) made(took time.Duration) { t.count(took, func(r *result) { r.Made++ }) }

func (t *tally) broke(err error) {
	t.count(0, func(r *result) { r.Broken++; tell(r.Broken, "open", err) })
}

func (t *tally) failed(err error) {
	t.count(0, func(r *result) { r.Made++; r.Failed++; tell(r.Failed, "new", err) })
}

func tell(nth int, which string, err error) {
	if nth <= reasons {
		fmt.Fprintf(os.Stderr, "load: %s connection: %v\n", which, err)
	}
}

func (t *tally) count(took time.Duration, change func(*result)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	change(&t.r)
	t.r.SlowestMs = max(t.r.SlowestMs, took.Milliseconds())
}

func (t *tally) result() result {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.r
}
