package stream

import (
	"slices"
	"time"

	"github.com/zonewise/zonewise/internal/meter"
	"github.com/zonewise/zonewise/internal/model"
)

// queue is what an agent has counted and the controller has not confirmed. It is bounded: what waits
// for longer is kept by coarser times, then by coarser keys. Bytes never go.
type queue struct {
	epoch, next uint64
	sent        []fixed // have numbers: what they say stays, for they may be on the controller's disk
	waiting     []pending
	mark        []byte
	coarsened   uint64 // flows that lost their names

	maxTimes, maxFlows int
}

// fixed is a batch with its time: that has the clock which nobody sets.
type fixed struct {
	*Batch
	at time.Time
}

// pending is what was counted in one minute, or in some that had to be put together.
type pending struct {
	at    time.Time // the newest of it
	flows map[seen]model.FlowCount
}

// seen is a key, and what this node is to its flow.
type seen struct {
	model.FlowKey
	meter.Observer
}

func (s seen) with(c model.FlowCount) meter.Observed {
	return meter.Observed{Flow: model.Flow{FlowKey: s.FlowKey, FlowCount: c}, Observer: s.Observer}
}

const (
	// window is how many batches may be on their way.
	window = 8
	// batchFlows bounds a batch to about 1 MB.
	batchFlows = 10_000
)

// put adds flows to those of the same minute.
func (q *queue) put(at time.Time, flows []meter.Observed, mark []byte) {
	q.mark = mark
	if len(flows) == 0 {
		return
	}
	n := len(q.waiting)
	if n == 0 || !q.waiting[n-1].at.Truncate(time.Minute).Equal(at.Truncate(time.Minute)) {
		q.waiting = append(q.waiting, pending{flows: map[seen]model.FlowCount{}})
		n++
	}
	last := &q.waiting[n-1]
	last.at = at
	for _, f := range flows {
		last.add(f)
	}
	q.bound()
}

func (p *pending) add(f meter.Observed) {
	k := seen{f.FlowKey, f.Observer}
	c := p.flows[k]
	c.Add(f.FlowCount)
	p.flows[k] = c
}

// bound puts old minutes together, then names of the oldest away, until it all fits.
func (q *queue) bound() {
	for len(q.waiting) > 1 && (len(q.waiting) > q.maxTimes || q.size() > q.maxFlows) {
		older, newer := q.waiting[0], &q.waiting[1]
		for k, c := range older.flows {
			newer.add(k.with(c))
		}
		q.waiting = slices.Delete(q.waiting, 0, 1)
	}
	if q.size() <= q.maxFlows || len(q.waiting) == 0 {
		return
	}
	coarse := pending{at: q.waiting[0].at, flows: map[seen]model.FlowCount{}}
	for k, c := range q.waiting[0].flows {
		coarse.add(coarser(k).with(c))
	}
	q.coarsened += uint64(len(q.waiting[0].flows))
	q.waiting[0] = coarse
}

// coarser leaves of a key what a bill needs: the zones, and what kinds of parties they were. It also leaves
// what tells whether this node is believed: as the server's, by which node the client is on.
func coarser(k seen) seen {
	party := func(p model.Party) model.Party { return model.Party{Kind: p.Kind, Zone: p.Zone, Block: p.Block} }
	out := seen{model.FlowKey{Client: party(k.Client), Server: party(k.Server), Protocol: k.Protocol, Via: model.ViaUnknown, V6: k.V6}, k.Observer}
	if k.Observer == meter.AtServer {
		out.Client.Node = k.Client.Node
	}
	return out
}

// size is the number of flows that wait; what is fixed is at most a window of batches.
func (q *queue) size() (n int) {
	for _, p := range q.waiting {
		n += len(p.flows)
	}
	return n
}

// fix gives numbers to what has waited longest, as long as the window is open, and tells whether it did.
func (q *queue) fix() bool {
	done := false
	for len(q.waiting) > 0 && len(q.sent) < window {
		p := &q.waiting[0]
		flows := p.take(batchFlows)
		b := encode(p.at, flows)
		b.Sequence = q.next
		q.sent, q.next, done = append(q.sent, fixed{b, p.at}), q.next+1, true
		if len(p.flows) == 0 {
			q.waiting = slices.Delete(q.waiting, 0, 1)
		}
	}
	return done
}

// take takes the first flows by their key.
func (p *pending) take(most int) []meter.Observed {
	flows := make([]meter.Observed, 0, len(p.flows))
	for k, c := range p.flows {
		flows = append(flows, k.with(c))
	}
	slices.SortFunc(flows, meter.Observed.Compare)
	flows = flows[:min(len(flows), most)]
	for _, f := range flows {
		delete(p.flows, seen{f.FlowKey, f.Observer})
	}
	return flows
}

// confirm forgets what the controller has.
func (q *queue) confirm(applied uint64) {
	q.sent = slices.DeleteFunc(q.sent, func(b fixed) bool { return b.Sequence <= applied })
	q.next = max(q.next, applied+1)
}

// after is the first fixed batch beyond a number.
func (q *queue) after(sequence uint64) (fixed, bool) {
	for _, b := range q.sent {
		if b.Sequence > sequence {
			return b, true
		}
	}
	return fixed{}, false
}

func (q *queue) journal() *Journal {
	j := &Journal{Epoch: q.epoch, Next: q.next, Mark: q.mark}
	for _, b := range q.sent {
		j.Sent = append(j.Sent, b.Batch)
	}
	for _, p := range q.waiting {
		all := pending{at: p.at, flows: map[seen]model.FlowCount{}}
		for k, c := range p.flows {
			all.flows[k] = c
		}
		j.Waiting = append(j.Waiting, encode(p.at, all.take(len(all.flows))))
	}
	return j
}

// restore is the reverse of journal.
func (q *queue) restore(j *Journal) error {
	q.epoch, q.next, q.mark = j.Epoch, j.Next, j.Mark
	for _, b := range j.Sent {
		if _, err := decode(b); err != nil {
			return err
		}
		q.sent = append(q.sent, fixed{b, time.Unix(0, b.At)})
	}
	for _, b := range j.Waiting {
		flows, err := decode(b)
		if err != nil {
			return err
		}
		p := pending{at: time.Unix(0, b.At), flows: map[seen]model.FlowCount{}}
		for _, f := range flows {
			p.add(f)
		}
		q.waiting = append(q.waiting, p)
	}
	return nil
}
