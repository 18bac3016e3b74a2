package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	pause    = 500 * time.Millisecond // between exchanges on an open connection
	patience = 5 * time.Second        // for one exchange, connect included
)

// drive opens the connections, then loads the target for the given time. Its error is that of an
// opening: nothing was measured then.
func drive(ctx context.Context, target string, open, rate int, length time.Duration, t *tally) error {
	conns := make([]*conn, open)
	defer func() {
		for _, c := range conns {
			if c != nil {
				_ = c.net.Close()
			}
		}
	}()
	opening := new(errgroup.Group)
	opening.SetLimit(20)
	for i := range conns {
		opening.Go(func() (err error) {
			if conns[i], err = dial(ctx, target); err != nil {
				return err
			}
			t.opened()
			return conns[i].exchange(pattern(i, 0))
		})
	}
	if err := opening.Wait(); err != nil {
		return fmt.Errorf("open: %w", err)
	}
	fmt.Fprintf(os.Stderr, "load: %d connections are open\n", open)
	ctx, cancel := context.WithTimeout(ctx, length)
	defer cancel()
	var all sync.WaitGroup
	for i, c := range conns {
		all.Go(func() { c.keepOpen(ctx, i, t) })
	}
	all.Go(func() { makeNew(ctx, target, rate, t) })
	all.Wait()
	return nil
}

// keepOpen exchanges patterns until ctx ends or the connection breaks.
func (c *conn) keepOpen(ctx context.Context, number int, t *tally) {
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for n := 1; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		begin := time.Now()
		if err := c.exchange(pattern(number, n)); err != nil {
			t.broke(err)
			return
		}
		t.exchanged(time.Since(begin))
	}
}

// makeNew makes connections at an even rate, each on its own: a slow one holds up no other.
func makeNew(ctx context.Context, target string, rate int, t *tally) {
	tick := time.NewTicker(time.Second / time.Duration(rate))
	defer tick.Stop()
	var all sync.WaitGroup
	defer all.Wait()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		all.Go(func() {
			begin := time.Now()
			// What is under way when the time is over is still to end well.
			if err := once(context.WithoutCancel(ctx), target, pattern(-1, n)); err != nil {
				t.failed(err)
				return
			}
			t.made(time.Since(begin))
		})
	}
}

func once(ctx context.Context, target, body string) error {
	c, err := dial(ctx, target)
	if err != nil {
		return err
	}
	defer func() { _ = c.net.Close() }()
	return c.exchange(body)
}

func pattern(connection, n int) string {
	return fmt.Sprintf("pattern %d of connection %d.", n, connection)
}

// conn is one connection to an echo server.
type conn struct {
	net    net.Conn
	read   *bufio.Reader
	target string
	server string // who answers here
}

func dial(ctx context.Context, target string) (*conn, error) {
	c, err := (&net.Dialer{Timeout: patience}).DialContext(ctx, "tcp", target)
	if err != nil {
		return nil, err
	}
	return &conn{net: c, read: bufio.NewReader(c), target: target}, nil
}

// exchange sends a request with body and checks that the answer holds it.
func (c *conn) exchange(body string) error {
	if err := c.net.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(c.net, "POST / HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n\r\n%s", c.target, len(body), body); err != nil {
		return err
	}
	response, err := http.ReadResponse(c.read, nil)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	page, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	return c.check(string(page), body)
}

func (c *conn) check(page, body string) error {
	_, rest, _ := strings.Cut(page, "Hostname: ")
	server, _, _ := strings.Cut(rest, "\n")
	switch {
	case !strings.Contains(page, body):
		return fmt.Errorf("%q is not in the answer %q", body, page)
	case c.server == "":
		c.server = server
	case c.server != server:
		return fmt.Errorf("%s answered on a connection to %s", server, c.server)
	}
	return nil
}
