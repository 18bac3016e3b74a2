package metering

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/zonewise/zonewise/internal/meter"
	"github.com/zonewise/zonewise/internal/model"
)

// waiting is how many reports wait for a follower; one that is slower misses some, and is told.
const waiting = 1000

// plansAgain is how old the plans may be by which a follower is told reasons.
const plansAgain = 5 * time.Second

// arrival is a report's flows. Nobody changes them.
type arrival struct {
	covers span
	flows  []model.Flow
}

// follower is a caller that wants to see what comes in.
type follower struct {
	arrivals chan arrival
	missed   uint64 // flows; under the lock of the term
}

// offer is called with the term's lock held, and never waits.
func (f *follower) offer(a arrival) {
	select {
	case f.arrivals <- a:
	default:
		f.missed += uint64(len(a.flows))
	}
}

func (t *term) follow() (f *follower, leave func()) {
	f = &follower{arrivals: make(chan arrival, waiting)}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.followers[f] = true
	return f, func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.followers, f)
	}
}

// answerFlows tells of the past, unless it is only to follow, and then of what comes in.
func (t *term) answerFlows(w http.ResponseWriter, r *http.Request, q question) error {
	now := time.Now()
	if q.since < 0 && !q.follow {
		q.since = window
	}
	var f *follower
	if q.follow {
		var leave func()
		f, leave = t.follow() // before the past is told, or something would be missing between
		defer leave()
	}
	out := &lines{w: w, why: t.reasons()}
	if q.since > 0 {
		_, _, err := t.scan(r.Context(), q, true, now, func(p piece) error {
			out.piece(p)
			if out.err != nil {
				return out.err
			}
			return r.Context().Err()
		})
		if err != nil && !out.begun {
			return err
		}
		if err != nil {
			panic(http.ErrAbortHandler) // or what was told would be taken for all
		}
	}
	out.begin()
	out.flush()
	renewed := now
	for f != nil && out.err == nil {
		select {
		case a := <-f.arrivals:
			t.mu.Lock()
			missed := f.missed
			f.missed = 0
			t.mu.Unlock()
			out.missed += missed
			if now := time.Now(); now.Sub(renewed) > plansAgain {
				out.why, renewed = t.reasons(), now
			}
			flows := make([]model.Flow, 0, len(a.flows))
			for i := range a.flows {
				if q.filter.has(&a.flows[i].FlowKey) {
					flows = append(flows, a.flows[i])
				}
			}
			out.piece(piece{a.covers, flows, t.Prices.Series().Tariff(a.covers.from, a.covers.to)})
			out.flush()
		case <-t.over: // the next leader tells what comes
			return nil
		case <-r.Context().Done():
			return nil
		}
	}
	return nil
}

// lines writes a flow a line.
type lines struct {
	w      http.ResponseWriter
	why    func(model.Flow) meter.Reason
	begun  bool
	missed uint64
	err    error
}

func (l *lines) begin() {
	if !l.begun {
		l.begun = true
		l.w.Header().Set("Content-Type", "application/x-ndjson")
		l.w.WriteHeader(http.StatusOK)
	}
}

func (l *lines) piece(p piece) {
	to := json.NewEncoder(l.w)
	for _, f := range p.flows {
		l.begin()
		var why *meter.Reason
		if meter.Crosses(f.FlowKey) {
			reason := l.why(f)
			why = &reason
		}
		v := flow(f, p.span, p.tariff.Cost(f).USD(), why)
		v.Missed, l.missed = l.missed, 0
		if l.err = to.Encode(v); l.err != nil {
			return
		}
	}
}

func (l *lines) flush() { _ = http.NewResponseController(l.w).Flush() }
