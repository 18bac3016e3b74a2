// Package stream carries flows from the agents to the controller over gRPC, each once: an agent numbers its
// batches and keeps each until the controller says that it is on disk; the controller takes every number once.
package stream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/protobuf/proto"

	"github.com/zonewise/zonewise/internal/loop"
	"github.com/zonewise/zonewise/internal/meter"
)

// ClientOptions shape an agent's side. Node is needed, the rest has defaults.
type ClientOptions struct {
	Node    string // as the certificate says
	Version string
	// Journal is a file that lives as long as the kernel's counters do (/run): with it nothing is lost or doubled
	// when the agent is killed. Without it what the controller has not confirmed goes with the agent.
	Journal string
	// MaxMinutes and MaxFlows bound what waits: 60 and 50,000. Beyond them minutes are put together, and
	// then names are left out.
	MaxMinutes, MaxFlows int
	// Retry is the first delay after a broken stream, 1 s; it doubles up to a minute.
	Retry time.Duration
	// Interval, if set, hears how often the controller wants reports. Whatever is put in meanwhile is sent together.
	Interval func(time.Duration)
	// Notice, if set, hears of every broken stream and whatever else the client went on in spite of.
	Notice func(error)
}

// ClientStats is what became of what was put in.
type ClientStats struct {
	Streams   uint64 // opened
	Sent      uint64 // batches, with those sent again
	Applied   uint64 // the last sequence number that the controller has
	Refused   uint64 // batches that the controller could not make sense of
	Coarsened uint64 // flows that lost their names, for too much waited
	Waiting   int    // flows not yet sent
	Flying    int    // batches sent and not confirmed
}

// Client is an agent's side. Its methods may be called side by side.
type Client struct {
	opts ClientOptions
	conn grpc.ClientConnInterface
	wake chan struct{}

	mu      sync.Mutex
	queue   queue
	unsaved bool          // the journal is behind the queue: nothing new may be sent
	pace    time.Duration // between reports, as the controller wants it; 0: at once
	due     time.Time     // of the next one
	stats   ClientStats
}

// ClientDialOptions are for the connection that a client is given.
func ClientDialOptions() []grpc.DialOption {
	return []grpc.DialOption{grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 10 * time.Second})}
}

// NewClient makes a client, which goes on where the journal ends. A damaged journal is put aside: its batches
// are lost, and Mark is empty.
func NewClient(conn grpc.ClientConnInterface, opts ClientOptions) (*Client, error) {
	opts.MaxMinutes, opts.MaxFlows = cmp.Or(opts.MaxMinutes, 60), cmp.Or(opts.MaxFlows, 50_000)
	opts.Retry = cmp.Or(opts.Retry, time.Second)
	if opts.Notice == nil {
		opts.Notice = func(error) {}
	}
	if opts.Interval == nil {
		opts.Interval = func(time.Duration) {}
	}
	c := &Client{opts: opts, conn: conn, wake: make(chan struct{}, 1)}
	c.queue = c.emptyQueue()
	if opts.Journal == "" {
		return c, nil
	}
	data, err := os.ReadFile(opts.Journal)
	if errors.Is(err, os.ErrNotExist) {
		return c, nil
	} else if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	var j Journal
	err = proto.Unmarshal(data, &j)
	if err == nil {
		err = c.queue.restore(&j)
	}
	if err != nil {
		c.queue = c.emptyQueue()
		opts.Notice(fmt.Errorf("journal put aside: %w", errors.Join(err, os.Rename(opts.Journal, opts.Journal+".bad"))))
	}
	return c, nil
}

func (c *Client) emptyQueue() queue {
	return queue{epoch: rand.Uint64(), next: 1, maxTimes: c.opts.MaxMinutes, maxFlows: c.opts.MaxFlows}
}

// Put takes flows that were counted until a moment, and a mark of the caller's, which is kept together with
// them: when the agent starts again, Mark is that of the last flows that are in the queue or were sent.
// An error says that the journal could not be written; the flows are taken all the same, and not sent before
// it can be. Until then, which a Put of no flows with the same mark tells, the next agent would begin at the
// mark before: what counts must forget nothing that it has told since, so it must not be read again.
func (c *Client) Put(at time.Time, flows []meter.Observed, mark []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.queue.put(at, flows, mark)
	c.unsaved = true
	c.poke()
	return c.save()
}

// Mark is what came with the last Put, also before a restart.
func (c *Client) Mark() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.queue.mark
}

// Stats tells what became of what was put in.
func (c *Client) Stats() ClientStats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.stats
	s.Coarsened, s.Waiting, s.Flying = c.queue.coarsened, c.queue.size(), len(c.queue.sent)
	return s
}

// save writes the journal. The caller holds mu. It is not forced to the disk: with the machine the kernel's counters
// go, too.
func (c *Client) save() error {
	if c.opts.Journal == "" {
		c.unsaved = false
		return nil
	}
	data, err := proto.Marshal(c.queue.journal())
	if err == nil {
		err = os.WriteFile(c.opts.Journal+".tmp", data, 0o600)
	}
	if err == nil {
		err = os.Rename(c.opts.Journal+".tmp", c.opts.Journal)
	}
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	c.unsaved = false
	return nil
}

func (c *Client) poke() {
	select {
	case c.wake <- struct{}{}:
	default: // it will look anyway
	}
}

// Run sends until ctx ends, over as many streams as that takes.
func (c *Client) Run(ctx context.Context) {
	again := c.opts.Retry + rand.N(4*c.opts.Retry) // not all agents at once when a controller starts anew
	loop.New(c.session, loop.Options{RetryMin: c.opts.Retry, RetryMax: max(time.Minute, c.opts.Retry), Resync: again}).Run(ctx)
}

// session is one stream, from hello to its end. It has failed if nothing was confirmed on it: were it otherwise, all
// agents would send all they have once a second to a controller whose disk is full.
func (c *Client) session(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stream, err := NewMeterClient(c.conn).Report(ctx)
	if err != nil {
		c.opts.Notice(err)
		return err
	}
	c.mu.Lock()
	hello := &Hello{Node: c.opts.Node, Epoch: c.queue.epoch, Version: c.opts.Version}
	c.stats.Streams++
	c.mu.Unlock()
	if err := stream.Send(&FromAgent{What: &FromAgent_Hello{Hello: hello}}); err != nil {
		return c.broken(stream, err)
	}
	welcome, err := stream.Recv()
	if err != nil {
		c.opts.Notice(err)
		return err
	}
	c.heard(welcome)
	go func() {
		for {
			m, err := stream.Recv()
			if err != nil {
				cancel(err)
				return
			}
			c.heard(m)
		}
	}()
	err = c.send(ctx, stream, welcome.Applied)
	c.opts.Notice(err)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stats.Applied > welcome.Applied {
		return nil
	}
	return err
}

// broken is why a stream cannot be sent on: only its other direction tells.
func (c *Client) broken(stream grpc.ClientStream, err error) error {
	if recvErr := stream.RecvMsg(&FromController{}); recvErr != nil {
		err = recvErr
	}
	c.opts.Notice(err)
	return err
}

// heard takes in what the controller says.
func (c *Client) heard(m *FromController) {
	c.mu.Lock()
	c.queue.confirm(m.Applied)
	c.stats.Applied = m.Applied
	if m.Refused > 0 {
		c.stats.Refused++
	}
	if pace := time.Duration(m.IntervalSeconds) * time.Second; pace > 0 {
		c.pace, c.due = pace, earlier(c.due, time.Now().Add(pace))
	}
	c.mu.Unlock()
	if m.Refused > 0 {
		c.opts.Notice(fmt.Errorf("the controller refused batch %d", m.Refused))
	}
	if m.IntervalSeconds > 0 {
		c.opts.Interval(time.Duration(m.IntervalSeconds) * time.Second)
	}
	c.poke()
}

// send sends what there is, in order, until the stream or ctx ends, and tells why it did.
func (c *Client) send(ctx context.Context, stream grpc.BidiStreamingClient[FromAgent, FromController], last uint64) error {
	for {
		b, wait, err := c.ready(last)
		if err != nil {
			return err
		}
		if b.Batch == nil {
			if err := c.pause(ctx, wait); err != nil {
				return err
			}
			continue
		}
		m := &Batch{Sequence: b.Sequence, AgeMilliseconds: uint64(max(0, time.Since(b.at).Milliseconds())),
			Names: b.Names, Parties: b.Parties, Flows: b.Flows}
		if err := stream.Send(&FromAgent{What: &FromAgent_Batch{Batch: m}}); err != nil {
			<-ctx.Done() // the receiving side ends, too, and knows why
			return context.Cause(ctx)
		}
		last = b.Sequence
		c.mu.Lock()
		c.stats.Sent++
		c.mu.Unlock()
	}
}

// pause waits for something to do; a time of 0 is for ever.
func (c *Client) pause(ctx context.Context, d time.Duration) error {
	var due <-chan time.Time
	if d > 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		due = t.C
	}
	select {
	case <-c.wake:
	case <-due:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}

// ready gives the next batch that may be sent: one that the journal has. If there is none it tells when to look
// again; 0: not before there is news.
func (c *Client) ready(last uint64) (b fixed, wait time.Duration, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if waits := c.queue.size(); waits > 0 && waits < batchFlows && now.Before(c.due) {
		wait = c.due.Sub(now)
	} else if c.queue.fix() {
		c.unsaved = true
		if len(c.queue.waiting) == 0 { // else the window is full, and the rest goes as soon as it is not
			c.due = now.Add(c.pace)
		}
	}
	if c.unsaved {
		if err := c.save(); err != nil {
			return fixed{}, 0, err
		}
	}
	b, _ = c.queue.after(last)
	return b, wait, nil
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
