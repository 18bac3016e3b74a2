package metering

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zonewise/zonewise/internal/loop"
	"github.com/zonewise/zonewise/internal/meter"
	"github.com/zonewise/zonewise/internal/meter/store"
	"github.com/zonewise/zonewise/internal/meter/stream"
	"github.com/zonewise/zonewise/internal/model"
)

// term is the time in which this replica leads, and what it remembers meanwhile.
type term struct {
	*Meter
	store   *store.Store
	server  *stream.Server
	metered atomic.Pointer[meter.Metered]
	every   atomic.Int64  // time between an agent's reports
	over    chan struct{} // closed at its end

	mu        sync.Mutex
	fleet     *fleet
	tally     *tally
	recent    *recent
	counters  *counters
	followers map[*follower]bool
	said      map[string]time.Time // when a trouble was logged last
	failing   error                // why the store took nothing, the last time; nil: it does
	troubles  []string             // of files, the last ones
}

func newTerm(m *Meter, now time.Time) *term {
	t := &term{Meter: m, fleet: newFleet(now), tally: newTally(now), recent: newRecent(now), counters: newCounters(m.PerService, now),
		followers: map[*follower]bool{}, over: make(chan struct{}), said: map[string]time.Time{}}
	t.every.Store(int64(intervalFor(0)))
	t.metered.Store(&meter.Metered{})
	return t
}

// interval is how often agents shall report.
func (t *term) interval() time.Duration { return time.Duration(t.every.Load()) }

// intervalFor is 10 s up to 800 nodes, and a minute from 5,000 on.
func intervalFor(nodes int) time.Duration {
	seconds := (nodes*60 + 4999) / 5000
	return min(max(time.Duration(seconds)*time.Second, 10*time.Second), time.Minute)
}

// Append is part of stream.Store: what is on disk is remembered, too.
func (t *term) Append(reports []store.Report) error {
	fresh := t.fresh(reports)
	err := t.store.Append(reports)
	t.mu.Lock()
	t.failing = err
	t.mu.Unlock()
	if err != nil {
		return err
	}
	interval := t.interval()
	for i := range fresh {
		t.take(&fresh[i], interval, time.Now())
	}
	return nil
}

// Applied is part of stream.Store.
func (t *term) Applied(node string, epoch uint64) uint64 { return t.store.Applied(node, epoch) }

// fresh are the reports that the store does not have: what comes twice, on the streams before and after one broke,
// counts once.
func (t *term) fresh(reports []store.Report) []store.Report {
	type life struct {
		node  string
		epoch uint64
	}
	last := map[life]uint64{}
	out := make([]store.Report, 0, len(reports))
	for _, r := range reports {
		of := life{r.Node, r.Epoch}
		done, ok := last[of]
		if !ok {
			done = t.store.Applied(r.Node, r.Epoch)
		}
		if r.Sequence > done {
			last[of] = r.Sequence
			out = append(out, r)
		}
	}
	return out
}

// take remembers a report.
func (t *term) take(r *store.Report, interval time.Duration, now time.Time) {
	prices := t.Prices.Series().At(r.At)
	t.mu.Lock()
	defer t.mu.Unlock()
	covers := t.fleet.hear(r.Node, r.At, interval, now)
	t.tally.add(covers, r.Flows)
	t.recent.add(r.At, interval, r.Flows)
	t.counters.add(r.Flows, prices, now)
	for f := range t.followers {
		f.offer(arrival{covers, r.Flows})
	}
}

// replay makes demand of the last minutes in the store. The very last one may not be whole.
func (t *term) replay(now time.Time) error {
	t.fleet.remember(t.store.Nodes(), now)
	var at time.Time
	whole := bucket{}
	return t.store.Scan(now.Add(-replayed), now, store.Minute, func(minute time.Time, flows []model.Flow) error {
		if !minute.Equal(at) {
			t.tally.feed(at, at.Add(time.Minute), whole)
			at, whole = minute, bucket{}
		}
		t.tally.gather(whole, flows)
		return nil
	})
}

// clock looks every second.
func (t *term) clock(ctx context.Context) {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for {
		select {
		case now := <-ticker.C:
			t.look(now)
		case <-ctx.Done():
			return
		}
	}
}

// look makes demand of the time that all have reported of, and forgets what is old.
func (t *term) look(now time.Time) {
	snap := t.Tables.Snapshot()
	streams := t.server.Nodes()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.fleet.look(snap, t.Namespace, streams, now)
	t.every.Store(int64(intervalFor(len(t.fleet.nodes))))
	metered := t.fleet.metered()
	t.metered.Store(&metered)
	t.tally.close(now, t.interval(), t.fleet)
	t.recent.forget(now)
	t.counters.forget(now)
}

// minutes does what is to be done each minute.
func (t *term) minutes(ctx context.Context) {
	loop.New(func(context.Context) error {
		t.server.SetInterval(t.interval())
		if err := t.store.Roll(time.Now()); err != nil {
			t.notice(err)
		}
		return nil
	}, loop.Options{Resync: time.Minute}).Run(ctx)
}

const (
	// quiet is the least time between two lines about the same trouble.
	quiet = time.Minute
	// remembered is how many troubles of files are told.
	remembered = 5
)

// notice logs what the meter went on in spite of, and keeps what is wrong with files for whoever asks.
func (t *term) notice(err error) {
	kind, _, _ := strings.Cut(err.Error(), ":")
	aside := strings.Contains(err.Error(), " put aside: ")
	now := time.Now()
	t.mu.Lock()
	last, had := t.said[kind]
	speak := aside || !had || now.Sub(last) >= quiet
	if speak {
		t.said[kind] = now
	}
	if aside {
		t.troubles = append(t.troubles, fmt.Sprintf("%s: %v", now.UTC().Format(time.RFC3339), err))
		t.troubles = t.troubles[max(0, len(t.troubles)-remembered):]
	}
	t.mu.Unlock()
	if speak {
		t.Log.Warn("meter", "err", err)
	}
}
