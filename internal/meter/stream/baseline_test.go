package stream

import (
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/zonewise/zonewise/internal/meter"
	"github.com/zonewise/zonewise/internal/model"
)

// slot is a counter of the kernel. It is free if it is neither led to by its key nor live nor retired.
type slot struct {
	key   meter.Key
	born  time.Duration
	count model.FlowCount
	state int
}

const (
	free = iota
	live
	retired
)

// counters are the kernel's: they outlive agents, and do what those of the room's bpf folder do, one step after another.
type counters struct {
	now      time.Duration
	attached bool
	slots    []*slot
	numbers  map[meter.Key]*slot
	truth    map[uint16]uint64 // bytes by server's port
}

func (k *counters) add(port uint16, bytes uint64) {
	k.now += time.Millisecond
	if !k.attached {
		return
	}
	key := meter.Key{Client: netip.MustParseAddr("10.0.0.1"), Server: netip.AddrPortFrom(netip.MustParseAddr("10.0.1.1"), port), Protocol: model.TCP, Side: meter.ClientEnd}
	s := k.numbers[key]
	if s == nil {
		s = k.take()
		*s = slot{key: key, born: k.now, state: live}
		k.numbers[key] = s
	}
	s.count.Add(model.FlowCount{RequestBytes: bytes, RequestPackets: 1})
	k.truth[port] += bytes
}

func (k *counters) take() *slot {
	for _, s := range k.slots {
		if s.state == free {
			return s
		}
	}
	k.slots = append(k.slots, &slot{})
	return k.slots[len(k.slots)-1]
}

// retire takes a counter from its key. An agent that dies after the first step leaves it live.
func (k *counters) retire(s *slot, dies bool) {
	delete(k.numbers, s.key)
	if !dies {
		s.state = retired
	}
}

// sweep is what a new agent does first.
func (k *counters) sweep() {
	for _, s := range k.slots {
		if s.state == live && k.numbers[s.key] != s {
			s.state = retired
		}
	}
}

// release gives retired counters back. An agent may die after some steps, of which each counter has two.
func (k *counters) release(told []*slot, steps int) {
	for i, s := range told {
		if steps > 2*i {
			s.count = model.FlowCount{}
		}
		if steps > 2*i+1 {
			*s = slot{}
		}
	}
}

func (k *counters) read() (r meter.Reading, told []*slot) {
	k.now += time.Millisecond
	r = meter.Reading{Boot: "b", Epoch: 1, At: k.now, Wall: time.Unix(1_800_000_000, 0).Add(k.now), Totals: map[meter.Key]meter.Totals{}}
	for _, s := range k.slots {
		t := meter.Totals{FlowCount: s.count, Born: s.born}
		switch s.state {
		case live:
			r.Totals[s.key] = t
		case retired:
			r.Gone, told = append(r.Gone, meter.Counter{Key: s.key, Totals: t}), append(told, s)
		}
	}
	return r, told
}

// controller takes each number once.
type controller struct {
	applied map[uint64]uint64 // by epoch
	taken   map[uint16]uint64
}

func (c *controller) receive(t *rapid.T, epoch uint64, b *Batch) {
	if b.Sequence <= c.applied[epoch] {
		return
	}
	if b.Sequence != c.applied[epoch]+1 {
		t.Fatalf("batch %d follows %d", b.Sequence, c.applied[epoch])
	}
	c.applied[epoch] = b.Sequence
	flows, err := decode(b)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range flows {
		c.taken[f.Port] += f.Bytes()
	}
}

// life is one life of an agent, from its beginning until it is killed.
type life struct {
	*Client
	kernel *counters
	told   []*slot        // what the last reading told of as gone
	before meter.Reading  // the last one that was put
	now    *meter.Reading // one that was read, and not put
	behind bool           // the journal has not what was put last
	last   uint64         // batch that was sent on this stream
}

// begin is how an agent has to begin: what the counters hold before they count is put before they do.
func begin(t *rapid.T, k *counters, at *controller, journal string, unlucky bool) *life {
	c, err := NewClient(nil, ClientOptions{Node: "n", Journal: journal, MaxMinutes: 2, MaxFlows: 6, Notice: func(err error) { t.Fatal(err) }})
	if err != nil {
		t.Fatal(err)
	}
	k.sweep()
	l := &life{Client: c, kernel: k, last: at.applied[c.queue.epoch]}
	c.heard(&FromController{Applied: l.last})
	if mark := c.Mark(); mark != nil {
		if err := l.before.UnmarshalBinary(mark); err != nil {
			t.Fatal(err)
		}
	} else {
		l.read()
		if unlucky || !l.put(t) {
			return nil
		}
	}
	k.attached = true
	return l
}

// read reads, unless the reading before is not in the journal: the next agent would need what this gives back.
func (l *life) read() {
	if l.now != nil || l.behind {
		return
	}
	l.kernel.release(l.told, 2*len(l.told))
	var r meter.Reading
	r, l.told = l.kernel.read()
	l.now = &r
}

// put puts what was read, or once more what the journal did not take, and tells whether the journal has it.
func (l *life) put(t *rapid.T) bool {
	var flows []meter.Observed
	if l.now != nil {
		var lost meter.Lost
		flows, lost = meter.Fold(l.before, *l.now, meter.NewOwners(model.Party{Kind: model.NodeParty, Node: "n"}, 0))
		if lost.Adopted != 0 || lost.Restarts != 0 || lost.Disorders != 0 {
			t.Fatal(lost)
		}
		l.before, l.now = *l.now, nil
	}
	mark, err := l.before.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	l.behind = l.Put(l.before.Wall, flows, mark) != nil
	return !l.behind
}

// send sends what may be sent.
func (l *life) send(t *rapid.T, to *controller) {
	for {
		b, _, err := l.ready(l.last)
		if err != nil || b.Batch == nil {
			return
		}
		to.receive(t, l.queue.epoch, b.Batch)
		l.last = b.Sequence
	}
}

// undone does something in whose course the agent dies while it writes its journal: that is as it was.
func undone(t *rapid.T, journal string, do func()) {
	was, err := os.ReadFile(journal)
	do()
	if err != nil {
		err = os.RemoveAll(journal)
	} else {
		err = os.WriteFile(journal, was, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestAgentDiesAtAnyMoment kills agents between any two steps of what they do, and while they write. Each next one begins
// with what the journal and the kernel have. In the end the controller has what the kernel counted, each byte once.
func TestAgentDiesAtAnyMoment(t *testing.T) {
	dir, tries := t.TempDir(), 0
	rapid.Check(t, func(t *rapid.T) {
		tries++
		journal := filepath.Join(dir, fmt.Sprint(tries))
		k := &counters{now: time.Second, numbers: map[meter.Key]*slot{}, truth: map[uint16]uint64{}}
		to := &controller{applied: map[uint64]uint64{}, taken: map[uint16]uint64{}}
		var l *life // nil: killed
		alive := func(do func(t *rapid.T)) func(*rapid.T) {
			return func(t *rapid.T) {
				if l == nil {
					l = begin(t, k, to, journal, rapid.Bool().Draw(t, "dies at once"))
				}
				if l != nil {
					do(t)
				}
			}
		}
		full := false
		fill := func(on bool) { // nothing can be written where a directory is
			if full = on; on {
				must(t, os.MkdirAll(journal+".tmp", 0o700))
			} else {
				must(t, os.RemoveAll(journal+".tmp"))
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"count": func(t *rapid.T) {
				k.add(rapid.Uint16Range(1, 4).Draw(t, "port"), rapid.Uint64Range(1, 1000).Draw(t, "bytes"))
			},
			"count more": func(t *rapid.T) {
				k.add(rapid.Uint16Range(1, 4).Draw(t, "port"), rapid.Uint64Range(1, 1000).Draw(t, "bytes"))
			},
			"retire": alive(func(t *rapid.T) {
				dies := rapid.Bool().Draw(t, "dies")
				for _, s := range slices.Clone(k.slots) {
					if s.state == live && s.key.Server.Port() == rapid.Uint16Range(1, 4).Draw(t, "port") {
						k.retire(s, dies)
					}
				}
				if dies {
					l = nil
				}
			}),
			"read": alive(func(*rapid.T) { l.read() }),
			"put":  alive(func(t *rapid.T) { l.put(t) }),
			"send": alive(func(t *rapid.T) { l.send(t, to) }),
			"hear": alive(func(*rapid.T) { l.heard(&FromController{Applied: to.applied[l.queue.epoch]}) }),
			"kill": func(*rapid.T) { l = nil },
			"kill while reading": alive(func(t *rapid.T) {
				if l.now == nil && !l.behind {
					k.release(l.told, rapid.IntRange(0, 2*len(l.told)).Draw(t, "steps"))
				}
				l = nil
			}),
			"kill while putting": alive(func(t *rapid.T) {
				undone(t, journal, func() { l.put(t) })
				l = nil
			}),
			"kill while numbering": alive(func(t *rapid.T) {
				undone(t, journal, func() {
					if _, _, err := l.ready(l.last); err != nil && !full {
						t.Fatal(err)
					}
				})
				l = nil
			}),
			"disk": func(t *rapid.T) { fill(rapid.IntRange(0, 3).Draw(t, "full") == 0) },
		})
		fill(false)
		l = begin(t, k, to, journal, false)
		l.read()
		l.put(t)
		for range window { // each makes room in the window for what waits
			l.send(t, to)
			l.heard(&FromController{Applied: l.last})
		}
		if !maps.Equal(to.taken, k.truth) {
			t.Fatalf("%v arrived, the kernel counted %v", to.taken, k.truth)
		}
	})
}

func must(t *rapid.T, err error) {
	if err != nil {
		t.Fatal(err)
	}
}
