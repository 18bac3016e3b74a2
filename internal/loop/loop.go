// Package loop is the one runner of Zonewise: wake, work, retry, resync, stop.
//
// Wake-ups carry no data. A loop that is woken looks at the world again, so any number of
// wake-ups during one pass cost one more pass, and none is lost.
package loop

import (
	"context"
	"math/rand/v2"
	"time"
)

// Options shape a Loop. The zero value retries between 10 ms and 30 s and never resyncs.
type Options struct {
	// Resync is the longest time between two passes; zero means that only wake-ups and
	// retries start one.
	Resync time.Duration
	// RetryMin and RetryMax bound the delay after a failed pass. It doubles from the first
	// to the second, less up to a half of jitter.
	RetryMin, RetryMax time.Duration
	// Failed, if set, hears of every failed pass and when the next one comes at the latest.
	Failed func(err error, retry time.Duration)
}

// Loop runs one piece of work, never twice at once.
type Loop struct {
	work func(context.Context) error
	opts Options
	wake chan struct{}
}

// New returns a loop around work. Work must be safe to repeat: it brings the world to what
// is wanted now, whatever happened since the last pass.
func New(work func(context.Context) error, opts Options) *Loop {
	if opts.RetryMin <= 0 {
		opts.RetryMin = 10 * time.Millisecond
	}
	if opts.RetryMax < opts.RetryMin {
		opts.RetryMax = max(30*time.Second, opts.RetryMin)
	}
	return &Loop{work: work, opts: opts, wake: make(chan struct{}, 1)}
}

// Wake asks for a pass soon. It never blocks and may be called from anywhere, also before Run.
func (l *Loop) Wake() {
	select {
	case l.wake <- struct{}{}:
	default: // a pass is asked for already and has not begun
	}
}

// Run makes a first pass at once, then one after every wake-up, until ctx ends. There is no
// minimum time between passes: while one runs, the next gathers. A wake-up also cuts a
// retry's delay short, for what woke us may have nothing to do with what failed.
func (l *Loop) Run(ctx context.Context) {
	delay := l.opts.RetryMin
	for ctx.Err() == nil {
		wait := l.opts.Resync
		if err := l.work(ctx); err == nil {
			delay = l.opts.RetryMin
		} else if ctx.Err() == nil {
			wait = delay - rand.N(delay/2+1)
			delay = min(delay*2, l.opts.RetryMax)
			if l.opts.Failed != nil {
				l.opts.Failed(err, wait)
			}
		}
		l.pause(ctx, wait)
	}
}

// pause returns at a wake-up, when ctx ends, or after d if d is not zero.
func (l *Loop) pause(ctx context.Context, d time.Duration) {
	var due <-chan time.Time
	if d > 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		due = t.C
	}
	select {
	case <-ctx.Done():
	case <-l.wake:
	case <-due:
	}
}
