package meter

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/zonewise/zonewise/internal/model"
)

// Delta is what one counter counted between two readings.
type Delta struct {
	Key
	model.FlowCount
	Window Window // when: at most the time between the readings, less where the kernel tells
}

// Window is a time from an instant to another, both since boot; From does not belong to it, To does.
type Window struct{ From, To time.Duration }

// Duration is how long it is.
func (w Window) Duration() time.Duration { return max(w.To-w.From, 0) }

// plausible is the most, in bytes, packets or connections, that one counter can grow by between two
// readings: a petabyte takes a day at 100 Gbit/s.
const plausible = 1 << 50

// stepped is how far the wall clock may move against the steady one without a word.
const stepped = time.Second

// Span returns the window between two readings. After a reboot it begins with the boot.
func Span(before, now Reading) Window {
	w := Window{To: now.At}
	if before.Boot == now.Boot {
		w.From = before.At
	}
	return w
}

// Interval returns a window between two readings as people call it: its end as the clock said then, and its
// beginning by its true length, whoever has set the clock meanwhile.
func Interval(before, now Reading) (from, to time.Time) {
	return now.Wall.Add(-Span(before, now).Duration()), now.Wall
}

// Deltas returns what was counted from one reading to the next, ordered by key and time, and what
// cannot be told of it. If now is not later than before, there is nothing, Lost tells of the
// disorder, and the caller keeps before.
//
// A zero before means that nothing is known: what the counters hold then may have been reported
// already, and is Adopted. Who has made the counters says so by a reading without totals.
func Deltas(before, now Reading) ([]Delta, Lost) {
	span := Span(before, now)
	var lost Lost
	if before.Boot == now.Boot && now.At < before.At {
		lost.Disorders = 1
		return nil, lost
	}
	if before.Boot == "" && before.Totals == nil {
		lost.adopt(now)
		return nil, lost
	}
	same := before.Boot == now.Boot && before.Epoch == now.Epoch
	if before.Boot == now.Boot {
		if step := now.Wall.Round(0).Sub(before.Wall.Round(0)) - span.Duration(); step.Abs() >= stepped {
			lost.Steps = 1
		}
	}
	old := before.Totals
	if !same {
		old = nil
		if len(before.Totals) > 0 {
			lost.Restarts = 1
		}
	}
	lost.Uncounted = uncounted(before.Uncounted, now.Uncounted, same)

	out := make([]Delta, 0, len(now.Totals)+len(now.Gone))
	taken := map[Key]bool{}
	told := goneBefore(before, same)
	// Counters that were taken away first: the same key may have been counted again since.
	for _, c := range slices.SortedStableFunc(slices.Values(now.Gone), func(a, b Counter) int { return cmp.Compare(a.Born, b.Born) }) {
		if was, twice := told[life{c.Key, c.Born}]; twice {
			out = c.since(was, true, span, out, &lost)
			continue
		}
		was, known := old[c.Key]
		out = c.since(was, known && !taken[c.Key], span, out, &lost)
		taken[c.Key] = true
	}
	for k, t := range now.Totals {
		was, known := old[k]
		out = Counter{k, t}.since(was, known && !taken[k], span, out, &lost)
	}
	slices.SortFunc(out, func(a, b Delta) int {
		if c := a.Key.Compare(b.Key); c != 0 {
			return c
		}
		return cmp.Or(cmp.Compare(a.Window.From, b.Window.From), cmp.Compare(a.Window.To, b.Window.To), compareCount(a.FlowCount, b.FlowCount))
	})
	return out, lost
}

func compareCount(a, b model.FlowCount) int {
	x, y := fields(&a), fields(&b)
	for i := range x {
		if c := cmp.Compare(*x[i], *y[i]); c != 0 {
			return c
		}
	}
	return 0
}

// life tells one counter from all others.
type life struct {
	Key
	born time.Duration
}

// goneBefore lists what the reading before had told of as gone. An agent that ends before it has
// given these counters back finds them again.
func goneBefore(before Reading, same bool) map[life]Totals {
	out := map[life]Totals{}
	for _, c := range before.Gone {
		if same && c.Born != 0 {
			out[life{c.Key, c.Born}] = c.Totals
		}
	}
	return out
}

// since adds what a counter has counted since it held what it was, if anything.
func (c Counter) since(was Totals, known bool, span Window, out []Delta, lost *Lost) []Delta {
	if !known || was.Born != c.Born {
		was = Totals{} // another counter of the same key, or none
	} else if !grew(was.FlowCount, c.FlowCount) {
		lost.Resets++
		was = Totals{}
	}
	d := Delta{Key: c.Key, Window: span}
	x, y, z := fields(&was.FlowCount), fields(&c.FlowCount), fields(&d.FlowCount)
	for i := range z {
		*z[i] = *y[i] - *x[i] // right over a wrap, too
	}
	if d.FlowCount == (model.FlowCount{}) {
		return out
	}
	if c.Born > d.Window.From && c.Born <= d.Window.To {
		d.Window.From = c.Born - 1 // the first packet came at Born itself
	}
	if c.Last > d.Window.From && c.Last < d.Window.To {
		d.Window.To = c.Last
	}
	return append(out, d)
}

// grew tells whether one counter can have held both, the second later. Each number may wrap at 64
// bits; one that went back without was begun anew.
func grew(was, is model.FlowCount) bool {
	x, y := fields(&was), fields(&is)
	for i := range x {
		if *y[i] < *x[i] && *y[i]-*x[i] > plausible {
			return false
		}
	}
	return true
}

// fields lists the numbers of a count.
func fields(c *model.FlowCount) [7]*uint64 {
	return [...]*uint64{&c.Connections, &c.RequestBytes, &c.ResponseBytes, &c.RequestPackets, &c.ResponsePackets,
		&c.RequestExtra, &c.ResponseExtra}
}

func uncounted(was, is Uncounted, same bool) Uncounted {
	if !same || is.Packets < was.Packets && is.Packets-was.Packets > plausible || is.Bytes < was.Bytes && is.Bytes-was.Bytes > plausible {
		return is
	}
	return Uncounted{is.Packets - was.Packets, is.Bytes - was.Bytes}
}

// Lost is what could not be told, or not be told apart, between two readings. It is for people and
// for metrics: none of it is a reason to stop.
type Lost struct {
	Uncounted           // what no counter was there for: in no flow
	Adopted      uint64 // bytes that counters held when they were found, and that may have been reported before: in no flow
	Ambiguous    uint64 // bytes of an address that changed hands meanwhile: in flows with an Unknown party
	Unattributed uint64 // bytes that the kernel could not say whose they were, its maps being full: likewise
	Restarts     int    // all counters were new
	Resets       int    // counters that went back
	Steps        int    // somebody set the wall clock
	Disorders    int    // readings that came out of order and were left out
}

func (l *Lost) adopt(r Reading) {
	l.Uncounted = r.Uncounted
	for _, t := range r.Totals {
		l.Adopted += t.Bytes()
	}
	for _, c := range r.Gone {
		l.Adopted += c.Bytes()
	}
}

// Add adds o to l.
func (l *Lost) Add(o Lost) {
	l.Packets += o.Packets
	l.Uncounted.Bytes += o.Uncounted.Bytes
	l.Adopted += o.Adopted
	l.Ambiguous += o.Ambiguous
	l.Unattributed += o.Unattributed
	l.Restarts += o.Restarts
	l.Resets += o.Resets
	l.Steps += o.Steps
	l.Disorders += o.Disorders
}

// String names what is not zero, "uncounted 12 packets, 900 bytes; resets 1"; empty if nothing is.
func (l Lost) String() string {
	var parts []string
	if l.Uncounted != (Uncounted{}) {
		parts = append(parts, fmt.Sprintf("uncounted %d packets, %d bytes", l.Packets, l.Uncounted.Bytes))
	}
	for _, x := range []struct {
		name  string
		value uint64
		unit  string
	}{
		{"adopted", l.Adopted, " bytes"}, {"ambiguous", l.Ambiguous, " bytes"}, {"unattributed", l.Unattributed, " bytes"},
		{"restarts", uint64(l.Restarts), ""}, {"resets", uint64(l.Resets), ""}, {"clock steps", uint64(l.Steps), ""}, {"disorders", uint64(l.Disorders), ""},
	} {
		if x.value > 0 {
			parts = append(parts, fmt.Sprintf("%s %d%s", x.name, x.value, x.unit))
		}
	}
	return strings.Join(parts, "; ")
}
