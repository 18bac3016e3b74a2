package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"k8s.io/klog/v2"

	"github.com/zonewise/zonewise/internal/loop"
)

// logger writes to stderr from the level on, and makes client-go write there, too, but no more than
// info: what it has to say beyond that would bury our own lines.
func logger(level string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, usagef("--log-level %q: must be debug, info, warn or error", level)
	}
	to := func(l slog.Level) *slog.Logger {
		return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: l}))
	}
	klog.SetSlogLogger(to(max(l, slog.LevelInfo)))
	return to(l), nil
}

// serve answers HTTP on the address until ctx ends. A port that is taken is tried again and
// again, rather than given up together with the work that the process is there for.
func serve(ctx context.Context, address string, h http.Handler, log *slog.Logger) {
	l := loop.New(func(ctx context.Context) error { return serveOnce(ctx, address, h) }, loop.Options{
		RetryMin: 200 * time.Millisecond,
		RetryMax: 10 * time.Second,
		Failed:   func(err error, retry time.Duration) { log.Error("http", "err", err, "retry", retry) },
	})
	l.Run(ctx)
}

func serveOnce(ctx context.Context, address string, h http.Handler) error {
	var c net.ListenConfig
	listener, err := c.Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	s := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = s.Close() })
	defer stop()
	if err := s.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", address, err)
	}
	return nil
}
