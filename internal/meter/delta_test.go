package meter_test

import (
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/zonewise/zonewise/internal/meter"
	"github.com/zonewise/zonewise/internal/model"
)

const boot = "2f1c0a5e"

// start is when the machines of these tests were booted.
var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func key(client, server string) meter.Key {
	return meter.Key{Client: netip.MustParseAddr(client), Server: netip.MustParseAddrPort(server), Protocol: model.TCP, Side: meter.ClientEnd}
}

func bytes(n uint64) model.FlowCount { return model.FlowCount{RequestBytes: n, RequestPackets: 1} }

func reading(at time.Duration, totals map[meter.Key]meter.Totals) meter.Reading {
	return meter.Reading{Boot: boot, Epoch: 1, At: at, Wall: start.Add(at), Totals: totals}
}

func TestDeltas(t *testing.T) {
	k := key("10.0.0.1", "10.0.1.1:80")
	one := func(n uint64, born, last time.Duration) map[meter.Key]meter.Totals {
		return map[meter.Key]meter.Totals{k: {FlowCount: model.FlowCount{RequestBytes: n}, Born: born, Last: last}}
	}
	// withGone adds a counter that was taken away. An agent that ends before it gave this back tells of it again.
	withGone := func(r meter.Reading, n uint64, born time.Duration) meter.Reading {
		r.Gone = append(r.Gone, meter.Counter{Key: k, Totals: one(n, born, 0)[k]})
		return r
	}
	const s = time.Second
	for _, c := range []struct {
		name        string
		before, now meter.Reading
		want        string // bytes (window), one after another
		lost        string
	}{
		{"nothing new", reading(10*s, one(5, 0, 0)), reading(20*s, one(5, 0, 0)), "", ""},
		{"more", reading(10*s, one(5, 0, 0)), reading(20*s, one(12, 0, 0)), "7 (10s 20s) ", ""},
		{"a new counter", reading(10*s, nil), reading(20*s, one(12, 0, 0)), "12 (10s 20s) ", ""},
		{"went back", reading(10*s, one(50, 0, 0)), reading(20*s, one(12, 0, 0)), "12 (10s 20s) ", "resets 1"},
		{"wrapped", reading(10*s, one(math.MaxUint64-1, 0, 0)), reading(20*s, one(3, 0, 0)), "5 (10s 20s) ", ""},
		{"another of the same key", reading(10*s, one(5, 3*s, 0)), reading(20*s, one(12, 14*s, 16*s)), "12 (13.999999999s 16s) ", ""},
		{"the same, used early", reading(10*s, one(5, 3*s, 9*s)), reading(20*s, one(12, 3*s, 11*s)), "7 (10s 11s) ", ""},
		{"machine started", reading(10*s, one(5, 0, 0)), meter.Reading{Boot: "other", Epoch: 1, At: 4 * s, Wall: start.Add(time.Hour), Totals: one(7, 0, 0)}, "7 (0s 4s) ", "restarts 1"},
		{"counters made anew", reading(10*s, one(5, 0, 0)), meter.Reading{Boot: boot, Epoch: 2, At: 20 * s, Wall: start.Add(20 * s), Totals: one(7, 0, 0)}, "7 (10s 20s) ", "restarts 1"},
		{"out of order", reading(20*s, one(5, 0, 0)), reading(10*s, one(4, 0, 0)), "", "disorders 1"},
		{"found", meter.Reading{}, reading(20*s, one(12, 0, 0)), "", "adopted 12 bytes"},
		{"taken away", reading(10*s, one(5, 0, 0)), meter.Reading{Boot: boot, Epoch: 1, At: 20 * s, Wall: start.Add(20 * s),
			Gone: []meter.Counter{{Key: k, Totals: one(8, 0, 0)[k]}}}, "3 (10s 20s) ", ""},
		{"taken away twice and back", reading(10*s, one(5, 1*s, 0)), meter.Reading{Boot: boot, Epoch: 1, At: 20 * s, Wall: start.Add(20 * s),
			Gone: []meter.Counter{{Key: k, Totals: one(100, 13*s, 0)[k]}, {Key: k, Totals: one(8, 1*s, 12*s)[k]}}, Totals: one(1000, 15*s, 0)},
			"3 (10s 12s) 100 (12.999999999s 20s) 1000 (14.999999999s 20s) ", ""},
		{"told of again, and counted anew before", withGone(reading(10*s, one(100, 6*s, 0)), 8, 1*s), withGone(reading(20*s, one(150, 6*s, 0)), 8, 1*s), "50 (10s 20s) ", ""},
		{"told of again, and counted anew since", withGone(reading(10*s, nil), 8, 1*s), withGone(reading(20*s, one(150, 12*s, 0)), 8, 1*s), "150 (11.999999999s 20s) ", ""},
		{"told of again, and its successor with it", withGone(reading(10*s, one(100, 6*s, 0)), 8, 1*s),
			withGone(withGone(reading(20*s, one(7, 15*s, 0)), 160, 6*s), 8, 1*s), "60 (10s 20s) 7 (14.999999999s 20s) ", ""},
		{"told of again, half given back", withGone(reading(10*s, nil), 8, 1*s), withGone(reading(20*s, nil), 0, 1*s), "", "resets 1"},
		{"clock set back", reading(10*s, one(5, 0, 0)), meter.Reading{Boot: boot, Epoch: 1, At: 20 * s, Wall: start.Add(-time.Hour), Totals: one(6, 0, 0)}, "1 (10s 20s) ", "clock steps 1"},
		{"uncounted", meter.Reading{Boot: boot, Epoch: 1, At: 10 * s, Wall: start.Add(10 * s), Uncounted: meter.Uncounted{Packets: 2, Bytes: 90}},
			meter.Reading{Boot: boot, Epoch: 1, At: 20 * s, Wall: start.Add(20 * s), Uncounted: meter.Uncounted{Packets: 5, Bytes: 100}}, "", "uncounted 3 packets, 10 bytes"},
		{"uncounted from the beginning", meter.Reading{Boot: boot, Epoch: 1, Wall: start, Uncounted: meter.Uncounted{Packets: 9, Bytes: 90}},
			meter.Reading{Boot: boot, Epoch: 2, At: 20 * s, Wall: start.Add(20 * s), Uncounted: meter.Uncounted{Packets: 5, Bytes: 10}}, "", "uncounted 5 packets, 10 bytes"},
	} {
		deltas, lost := meter.Deltas(c.before, c.now)
		got := ""
		for _, d := range deltas {
			got += fmt.Sprintf("%d (%v %v) ", d.RequestBytes, d.Window.From, d.Window.To)
		}
		if got != c.want || lost.String() != c.lost {
			t.Errorf("%s: %q lost %q, want %q lost %q", c.name, got, lost, c.want, c.lost)
		}
	}
}

// machine counts as a kernel does, and remembers how much there ever was.
type machine struct {
	reading meter.Reading
	truth   map[meter.Key]model.FlowCount
	born    bool // tells when counters were made
	forgets bool // tells of each counter that was taken away once more, and again while it forgets
	again   []meter.Counter
}

func (m *machine) count(k meter.Key, n model.FlowCount) {
	t, ok := m.reading.Totals[k]
	if !ok && m.born {
		t.Born = m.reading.At
	}
	if m.born {
		t.Last = m.reading.At
	}
	t.Add(n)
	m.reading.Totals[k] = t
	all := m.truth[k]
	all.Add(n)
	m.truth[k] = all
}

func (m *machine) remove(k meter.Key) {
	if t, ok := m.reading.Totals[k]; ok {
		m.reading.Gone = append(m.reading.Gone, meter.Counter{Key: k, Totals: t})
		delete(m.reading.Totals, k)
	}
}

func (m *machine) read() meter.Reading {
	r := m.reading
	r.Totals = maps.Clone(r.Totals)
	r.Gone = append(slices.Clone(m.again), r.Gone...)
	m.again, m.reading.Gone = nil, nil
	if m.born && m.forgets {
		m.again = r.Gone
	}
	return r
}

// Whatever happens to counters between readings, what they counted is told, once.
func TestEveryByteIsToldOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &machine{reading: meter.Reading{Boot: boot, Epoch: 1, Wall: start, Totals: map[meter.Key]meter.Totals{}},
			truth: map[meter.Key]model.FlowCount{}, born: rapid.Bool().Draw(t, "born")}
		told := map[meter.Key]model.FlowCount{}
		before := m.read()
		tell := func(now meter.Reading) {
			deltas, lost := meter.Deltas(before, now)
			for _, d := range deltas {
				if d.Window.From < meter.Span(before, now).From || d.Window.To > now.At || d.Window.From > d.Window.To {
					t.Fatalf("window %v of readings at %v and %v", d.Window, before.At, now.At)
				}
				all := told[d.Key]
				all.Add(d.FlowCount)
				told[d.Key] = all
			}
			if lost.Adopted+lost.Uncounted.Bytes != 0 {
				t.Fatal(lost)
			}
			before = now
		}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			k := key(fmt.Sprintf("10.0.0.%d", rapid.IntRange(1, 4).Draw(t, "client")), "10.0.1.1:80")
			m.reading.At += time.Duration(rapid.IntRange(1, 1000).Draw(t, "ms")) * time.Millisecond
			m.reading.Wall = m.reading.Wall.Add(time.Duration(rapid.IntRange(-2000, 5000).Draw(t, "wall")) * time.Millisecond)
			switch rapid.SampledFrom([]string{"count", "count", "count", "remove", "read", "renew", "boot"}).Draw(t, "what") {
			case "count":
				m.count(k, model.FlowCount{RequestBytes: rapid.Uint64Range(1, 1<<40).Draw(t, "bytes"), ResponsePackets: 1})
			case "remove":
				m.remove(k)
			case "read":
				m.forgets = rapid.Bool().Draw(t, "forgets")
				tell(m.read())
			case "renew", "boot": // after a last look; what comes between is lost by nature
				tell(m.read())
				m.reading.Totals, m.again = map[meter.Key]meter.Totals{}, nil
				if m.reading.Epoch++; rapid.Bool().Draw(t, "boot") {
					m.reading.Boot, m.reading.At = fmt.Sprint(m.reading.Epoch), 1
				}
			}
		}
		tell(m.read())
		if !maps.Equal(told, m.truth) {
			t.Fatalf("told %v, there was %v", told, m.truth)
		}
	})
}

func TestLostAddsUp(t *testing.T) {
	l := meter.Lost{Uncounted: meter.Uncounted{Packets: 1, Bytes: 2}, Adopted: 3, Ambiguous: 4, Unattributed: 5, Restarts: 6, Resets: 7, Steps: 8, Disorders: 9}
	l.Add(l)
	if got, want := l.String(), "uncounted 2 packets, 4 bytes; adopted 6 bytes; ambiguous 8 bytes; unattributed 10 bytes; restarts 12; resets 14; clock steps 16; disorders 18"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// An interval is as long as it was, whatever the clock was set to.
func TestInterval(t *testing.T) {
	now := reading(20*time.Second, nil)
	rebooted := now
	rebooted.Boot, rebooted.At = "other", 3*time.Second
	set := now
	set.Wall = start.Add(-time.Hour)
	for _, c := range []struct {
		name string
		now  meter.Reading
		want time.Duration
	}{{"steady", now, 10 * time.Second}, {"the clock was set back", set, 10 * time.Second}, {"after a reboot", rebooted, 3 * time.Second}} {
		if from, to := meter.Interval(reading(10*time.Second, nil), c.now); to.Sub(from) != c.want || !to.Equal(c.now.Wall) {
			t.Errorf("%s: %v to %v", c.name, from, to)
		}
	}
}
