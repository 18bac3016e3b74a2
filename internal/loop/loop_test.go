package loop

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// start runs a loop in the bubble until the test ends.
func start(t *testing.T, work func(context.Context) error, opts Options) *Loop {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	l := New(work, opts)
	done := make(chan struct{})
	go func() { defer close(done); l.Run(ctx) }()
	t.Cleanup(func() { stop(); <-done })
	return l
}

func TestWakeUpsDuringAPassCostOneMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		passes, release := 0, make(chan struct{})
		l := start(t, func(context.Context) error { passes++; <-release; return nil }, Options{})
		synctest.Wait()
		for range 1000 {
			l.Wake()
		}
		release <- struct{}{}
		synctest.Wait()
		release <- struct{}{}
		synctest.Wait()
		if passes != 2 {
			t.Fatalf("passes = %d, want the first and one more", passes)
		}
	})
}

func TestNoPassWithoutAReason(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		passes := 0
		start(t, func(context.Context) error { passes++; return nil }, Options{})
		<-time.After(24 * time.Hour) // the bubble's clock
		synctest.Wait()
		if passes != 1 {
			t.Fatalf("passes = %d, want 1", passes)
		}
	})
}

func TestNoMinimumPeriod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		passes, begin := 0, time.Now()
		l := start(t, func(context.Context) error { passes++; return nil }, Options{})
		for range 100 {
			synctest.Wait()
			l.Wake()
		}
		synctest.Wait()
		if passes != 101 || time.Since(begin) != 0 {
			t.Fatalf("passes = %d in %v, want 101 in no time", passes, time.Since(begin))
		}
	})
}

func TestResync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		passes := 0
		start(t, func(context.Context) error { passes++; return nil }, Options{Resync: time.Second})
		<-time.After(10*time.Second + time.Millisecond)
		synctest.Wait()
		if passes != 11 {
			t.Fatalf("passes = %d, want 11", passes)
		}
	})
}

func TestRetryBacksOffAndRecovers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var waits []time.Duration
		broken := true
		passes := 0
		l := start(t, func(context.Context) error {
			passes++
			if broken {
				return errors.New("kernel busy")
			}
			return nil
		}, Options{
			RetryMin: 10 * time.Millisecond,
			RetryMax: 100 * time.Millisecond,
			Failed:   func(_ error, d time.Duration) { waits = append(waits, d) },
		})
		<-time.After(time.Second)
		synctest.Wait()
		for i, full := range []time.Duration{10, 20, 40, 80, 100, 100} {
			full *= time.Millisecond
			if waits[i] < full/2-1 || waits[i] > full {
				t.Errorf("wait %d = %v, want %v to %v", i, waits[i], full/2, full)
			}
		}
		broken = false
		l.Wake() // cuts the delay short
		synctest.Wait()
		settled := passes
		<-time.After(time.Hour)
		synctest.Wait()
		if passes != settled {
			t.Fatalf("%d passes after the world was in order", passes-settled)
		}
	})
}

func TestStopsDuringWorkAndDuringPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		failed := 0
		l := New(func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
			Options{Failed: func(error, time.Duration) { failed++ }})
		done := make(chan struct{})
		go func() { defer close(done); l.Run(ctx) }()
		synctest.Wait()
		stop()
		<-done
		if failed != 0 {
			t.Fatal("being stopped is not a failure")
		}
	})
}
