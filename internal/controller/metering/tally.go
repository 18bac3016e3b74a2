package metering

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/zonewise/zonewise/internal/meter"
	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/route"
)

const (
	// step is the length of the intervals that demand is made of.
	step = 10 * time.Second
	// late is how much longer than the interval of reports a node may take.
	late = 20 * time.Second
	// fine is for how long what was counted is kept by steps; after that it is kept by minutes.
	fine = 2 * time.Minute
	// history is for how long it is kept at all.
	history = 10 * time.Minute
)

// asked is a Service in one family.
type asked struct {
	service model.Name
	v6      bool
}

// tally makes demand of reports.
//
// Agents report every 10 to 60 s, each at a moment of its own. Were each report counted when it comes, a zone's
// share would go up with it and down until the next; with two nodes a zone by some points, and plans with it. So a
// report is spread evenly over the time that it is about, in steps of 10 s, and a step counts when all nodes have
// told of it: a steady rate makes a steady demand, whatever the phases. That costs one interval of delay. A step of
// which more than a tenth of the nodes say nothing, for they cannot reach us, is not counted at all: shares stay as they
// were, rather than go to the zones that we hear of.
type tally struct {
	demand   *meter.Demands
	services meter.Numbers[asked]
	zones    meter.Numbers[string]
	open     map[int64]bucket // by number of the step
	next     int64            // the first step that is not closed
	past     []interval       // closed ones, in order
	missed   uint64           // connections of closed steps, told too late to be demand
	gaps     uint64           // steps not counted, for too few nodes told of them
}

// bucket is what is counted in a step, by number of the Service.
type bucket map[uint32][]cell

// cell is what went from a client zone to an endpoint zone.
type cell struct {
	from, to           uint32 // numbers of zones
	connections, bytes uint64
}

// interval is a step, or a minute, with what was counted in it.
type interval struct {
	span
	of bucket
}

func newTally(now time.Time) *tally {
	return &tally{demand: meter.NewDemands(meter.DefaultSmoothing()), open: map[int64]bucket{}, next: number(now)}
}

func number(at time.Time) int64 { return at.Unix() / int64(step/time.Second) }

func begin(step10 int64) time.Time { return time.Unix(step10*int64(step/time.Second), 0) }

// add spreads a report over its steps.
func (t *tally) add(covers span, flows []model.Flow) {
	length := covers.to.Sub(covers.from)
	if length <= 0 {
		return
	}
	whole := bucket{}
	t.gather(whole, flows)
	// Whole connections are spread by rounding their sum up to the end of each step, so that none is lost.
	part := func(n uint64, until time.Time) uint64 {
		return uint64(float64(n) * min(1, until.Sub(covers.from).Seconds()/length.Seconds()))
	}
	first, last := number(covers.from), number(covers.to)
	for service, cells := range whole {
		for _, c := range cells {
			connections, bytes := uint64(0), uint64(0)
			if first < t.next {
				connections, bytes = part(c.connections, begin(t.next)), part(c.bytes, begin(t.next))
				t.missed += connections
			}
			for n := max(first, t.next); n <= last; n++ {
				upTo, bytesUpTo := part(c.connections, begin(n+1)), part(c.bytes, begin(n+1))
				if n == last {
					upTo, bytesUpTo = c.connections, c.bytes
				}
				if upTo > connections || bytesUpTo > bytes {
					b := t.open[n]
					if b == nil {
						b = bucket{}
						t.open[n] = b
					}
					b.add(service, cell{c.from, c.to, upTo - connections, bytesUpTo - bytes})
				}
				connections, bytes = max(connections, upTo), max(bytes, bytesUpTo)
			}
		}
	}
}

// gather adds what is demand of flows. A client whose zone is not known is, if it is one of the cluster's.
func (t *tally) gather(into bucket, flows []model.Flow) {
	for i := range flows {
		f := &flows[i]
		if !meter.Chosen(f.FlowKey) {
			continue
		}
		c := cell{t.zones.Number(f.Client.Zone), t.zones.Number(f.Server.Zone), f.Connections, f.Bytes()}
		if f.Client.Zone == "" && f.Client.Kind != model.PodParty && f.Client.Kind != model.NodeParty {
			c.connections = 0
		}
		into.add(t.services.Number(asked{f.Service, f.V6}), c)
	}
}

func (b bucket) add(service uint32, c cell) {
	cells := b[service]
	for i := range cells {
		if cells[i].from == c.from && cells[i].to == c.to {
			cells[i].connections += c.connections
			cells[i].bytes += c.bytes
			return
		}
	}
	b[service] = append(cells, c)
}

// close makes demand of the steps that are over.
func (t *tally) close(now time.Time, every time.Duration, who *fleet) {
	if behind := number(now.Add(-history)); t.next < behind || t.next > number(now)+1 { // we were stopped, or the clock was set
		t.next = number(now)
		clear(t.open)
	}
	for ; !begin(t.next + 1).After(now); t.next++ {
		end := begin(t.next + 1)
		missing, of := who.waiting(end, now)
		if missing > 0 || of == 0 {
			if now.Sub(end) < every+late {
				return
			}
			if missing*10 > of || of == 0 {
				t.gaps++
				delete(t.open, t.next)
				continue
			}
		}
		t.feed(begin(t.next), end, t.open[t.next])
		delete(t.open, t.next)
	}
}

// feed makes demand of an interval.
func (t *tally) feed(from, to time.Time, of bucket) {
	if from.IsZero() {
		return
	}
	var flows []model.Flow
	for service, cells := range of {
		a := t.services.Values[service]
		for _, c := range cells {
			// of the same sort as what gather took
			flows = append(flows, model.Flow{FlowKey: model.FlowKey{Service: a.service, V6: a.v6, Via: model.ViaClusterIP,
				Client: model.Party{Kind: model.PodParty, Zone: t.zones.Values[c.from]}, Server: model.Party{Kind: model.PodParty, Zone: t.zones.Values[c.to]}},
				FlowCount: model.FlowCount{Connections: c.connections, RequestBytes: c.bytes}})
		}
	}
	t.demand.Add(to, to.Sub(from), flows)
	t.past = append(t.past, interval{span{from, to}, of})
	t.tidy(to)
}

// tidy puts old steps together and forgets the oldest.
func (t *tally) tidy(now time.Time) {
	t.past = slices.DeleteFunc(t.past, func(i interval) bool { return now.Sub(i.to) > history })
	for i := 0; i+1 < len(t.past); {
		a, b := &t.past[i], t.past[i+1]
		if now.Sub(b.to) < fine || !a.to.Equal(b.from) || !a.from.Truncate(time.Minute).Equal(b.from.Truncate(time.Minute)) {
			i++
			continue
		}
		merged := bucket{}
		for _, of := range []bucket{a.of, b.of} {
			for service, cells := range of {
				for _, c := range cells {
					merged.add(service, c)
				}
			}
		}
		*a = interval{span{a.from, b.to}, merged}
		t.past = slices.Delete(t.past, i+1, i+2)
	}
}

// counted returns the connections to a Service between known zones in the intervals that began since, ordered;
// false if none has ended yet.
func (t *tally) counted(of asked, since time.Time) ([]route.Counted, bool) {
	service := t.services.Number(of)
	var out []route.Counted
	any := false
	for _, i := range t.past {
		if i.from.Before(since) {
			continue
		}
		any = true
		for _, c := range i.of[service] {
			from, to := t.zones.Values[c.from], t.zones.Values[c.to]
			if c.connections == 0 || from == "" || to == "" {
				continue
			}
			at := slices.IndexFunc(out, func(x route.Counted) bool { return x.From == from && x.To == to })
			if at < 0 {
				at = len(out)
				out = append(out, route.Counted{From: from, To: to})
			}
			out[at].Connections += c.connections
		}
	}
	slices.SortFunc(out, func(a, b route.Counted) int {
		return cmp.Or(strings.Compare(a.From, b.From), strings.Compare(a.To, b.To))
	})
	return out, any
}
