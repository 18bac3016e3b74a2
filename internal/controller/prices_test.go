package controller

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zonewise/zonewise/internal/meter"
	"github.com/zonewise/zonewise/internal/model"
)

func TestPricesChangeWithoutARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		costs := func(perGB float64) meter.Series { return meter.Series{{Prices: model.Prices{PerGB: perGB}}} }
		given, trouble := costs(0.02), error(nil)
		log := &lines{}
		p, err := newPrices(func() (meter.Series, error) { return given, trouble }, slog.New(slog.NewTextHandler(log, nil)))
		if err != nil {
			t.Fatal(err)
		}
		read := 0
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); p.run(ctx, func() { read++ }) }()
		expect := func(what string, want float64, why string) {
			t.Helper()
			<-time.After(3 * rereads / 2)
			if got := p.now().PerGB; got != want || p.Trouble() != why {
				t.Errorf("%s: %v, want %v; %q", what, got, want, p.Trouble())
			}
		}
		expect("at first", 0.02, "")
		given = costs(0.05)
		expect("another", 0.05, "")
		given, trouble = nil, errors.New("perGB: -1 is negative")
		for range 3 {
			expect("a bad one", 0.05, "prices: the last good book stays in force: perGB: -1 is negative")
		}
		if n := strings.Count(log.String(), "-1 is negative"); n != 1 {
			t.Errorf("said %d times: %s", n, log)
		}
		given, trouble = append(costs(0.03), meter.Era{From: time.Now().Add(2 * rereads), Prices: model.Prices{PerGB: 0.04}}), nil
		expect("mended", 0.03, "")
		expect("when the next book begins", 0.04, "")
		stop()
		<-done
		if read < 8 {
			t.Errorf("told of %d looks", read)
		}
		trouble = errors.New("no such file")
		if _, err := New(Config{Namespace: "kube-system", Identity: "one", Prices: func() (meter.Series, error) { return nil, trouble }}); !errors.Is(err, trouble) {
			t.Errorf("it begins without prices: %v", err)
		}
	})
}
