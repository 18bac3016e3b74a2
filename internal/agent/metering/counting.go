package metering

import (
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/zonewise/zonewise/internal/meter"
)

// Counter is the kernel's. Everything that it counts is told of by Read; what was retired is told of once,
// and then given back by the next Read.
type Counter interface {
	Read() (meter.Reading, error)
	Retire([]meter.Key) error
	Attach() error
	Now() (time.Duration, error) // on the clock of readings
	Capacity() int               // keys
	Close() error
}

// Reports takes flows to the controller, each once. After an error of Put nothing may be read before a Put of
// no flows with the same mark succeeds.
type Reports interface {
	Put(at time.Time, flows []meter.Observed, mark []byte) error
	Mark() []byte
}

// counting goes from one reading to the next. One goroutine uses it.
type counting struct {
	counter Counter
	reports Reports
	names   *names
	memory  *memory
	metrics *metrics
	log     *slog.Logger

	known     bool // what was told already
	attached  bool
	unsaved   bool // the journal is behind the kernel
	before    meter.Reading
	addresses map[netip.Addr]bool // in the reading before
	forgot    time.Duration
}

// begin makes the kernel count. It goes on from the reading that an earlier agent kept; without one it keeps a
// first reading before anything is counted.
func (c *counting) begin() error {
	if mark := c.reports.Mark(); !c.known && len(mark) > 0 {
		var err error
		if err = c.before.UnmarshalBinary(mark); err != nil {
			c.log.Warn("meter: what was told before is not known; it begins anew", "err", err)
		} else {
			c.known = true
			if c.names.recalled, err = c.memory.recall(c.before.Boot); err != nil {
				c.log.Warn("meter: pods that have gone since are not known", "err", err)
			}
		}
	}
	if !c.known {
		first, err := c.counter.Read()
		if err != nil {
			return err
		}
		_, lost := meter.Deltas(meter.Reading{}, first)
		c.metrics.lose(lost, c.log)
		c.known = true
		if err := c.keep(first, nil); err != nil {
			return err
		}
	}
	if err := c.settle(); err != nil {
		return err
	}
	if err := c.counter.Attach(); err != nil {
		return err
	}
	c.attached = true
	return nil
}

// keep hands on what was counted until a reading, together with the reading.
func (c *counting) keep(r meter.Reading, flows []meter.Observed) error {
	mark, err := r.MarshalBinary()
	if err != nil {
		return fmt.Errorf("reading: %w", err)
	}
	c.before, c.unsaved = r, true
	if err := c.reports.Put(r.Wall, flows, mark); err != nil {
		return err
	}
	c.unsaved = false
	return nil
}

// settle brings the journal up to what was read.
func (c *counting) settle() error {
	if !c.unsaved {
		return nil
	}
	if err := c.reports.Put(c.before.Wall, nil, c.reports.Mark()); err != nil {
		return err
	}
	c.unsaved = false
	return nil
}

// round reads, says whose it was, and hands it on. News of owners holds from the reading on.
func (c *counting) round() error {
	if err := c.settle(); err != nil {
		return err
	}
	now, err := c.counter.Read()
	if err != nil {
		return err
	}
	c.names.tell(now.At, now.Wall)
	flows, lost := meter.Fold(c.before, now, c.names.owners)
	c.metrics.lose(lost, c.log)
	if lost.Disorders > 0 {
		return nil // the reading before stays
	}
	before := c.before.At
	c.addresses = counted(now)
	if err := c.memory.keep(now.Boot, c.names.pods(c.addresses)); err != nil {
		c.log.Warn("meter: for an agent that comes after this one", "err", err)
	}
	if err := c.keep(now, flows); err != nil {
		return err
	}
	c.metrics.read(len(now.Totals)+len(now.Gone), c.counter.Capacity())
	if now.At-c.forgot >= time.Minute {
		c.names.owners.Forget(now.At)
		c.forgot = now.At
	}
	return c.counter.Retire(idle(now, before, c.counter.Capacity()))
}

// Counters that count nothing are taken away, the sooner the fewer are left.
const (
	idleFor      = 5 * time.Minute
	idleForShort = time.Minute // more than half of the counters are in use
)

// idle lists the keys of which nothing was counted for a while; where three quarters of the counters are in use,
// since the reading before.
func idle(now meter.Reading, before time.Duration, capacity int) []meter.Key {
	since := now.At - idleFor
	switch n := len(now.Totals) + len(now.Gone); {
	case 4*n > 3*capacity:
		since = before
	case 2*n > capacity:
		since = now.At - idleForShort
	}
	var out []meter.Key
	for k, t := range now.Totals {
		if k.Client.IsValid() && t.Last > 0 && t.Last <= since {
			out = append(out, k)
		}
	}
	return out
}
