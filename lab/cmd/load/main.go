// Load keeps connections open to an echo server and makes new ones all the time, and tells what
// became of them. It is how one sees whether something that should not disturb traffic does.
//
// Every open connection exchanges a pattern of its own twice a second and is broken once an answer
// is not that pattern, comes from another server than the first one did, or does not come in time.
// Every new connection makes one request. On stderr it says when all connections are open, on
// stdout, at the end, what it counted:
//
//	{"opened": 200, "broken": 0, "exchanges": 4000, "made": 1000, "failed": 0, "slowestMs": 12}
//
// It exits 1 if anything broke or failed; the first few reasons are on stderr.
//
// `load mix` makes traffic of many kinds, of about so many bytes, evenly over a time: short connections,
// downloads, uploads, streams that go on, datagrams from connected sockets and others, lookups. It is what
// a meter is tried with. What became of each kind is on stdout at the end, and it exits 1 only if
// nothing came of one: servers may come and go meanwhile.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx, os.Args); err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) > 1 && args[1] == "mix" {
		return runMix(ctx, args[1:])
	}
	flags := flag.NewFlagSet(args[0], flag.ContinueOnError)
	target := flags.String("target", "", "`address:port` of an echo server, or of a Service in front of some")
	open := flags.Int("open", 200, "connections to keep open")
	rate := flags.Int("rate", 100, "new connections per second")
	length := flags.Duration("for", 10*time.Second, "how long, from when all connections are open")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	if *target == "" || *open < 0 || *rate < 1 || *length <= 0 {
		return errors.New("want -target, and numbers that are not negative")
	}
	t := &tally{}
	if err := drive(ctx, *target, *open, *rate, *length, t); err != nil {
		return err
	}
	result := t.result()
	if err := json.NewEncoder(os.Stdout).Encode(result); err != nil {
		return err
	}
	if result.Broken > 0 || result.Failed > 0 {
		return fmt.Errorf("%d of %d open connections broke, %d of %d new ones failed", result.Broken, result.Opened, result.Failed, result.Made)
	}
	return nil
}
