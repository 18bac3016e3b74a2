package store

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/zonewise/zonewise/internal/meter"
	"github.com/zonewise/zonewise/internal/model"
)

// position is how far the reports of one life of an agent have come.
type position struct {
	node            string
	epoch, sequence uint64
	commit          uint64 // the last that had one of them
}

// epochs is how many lives of one agent are remembered: the present one, and those whose last reports
// may still be on their way.
const epochs = 4

// Applied tells the sequence number of the last report that the store has of an agent's life; 0: none.
func (s *Store) Applied(node string, epoch uint64) uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, p := range s.applied[node] {
		if p.epoch == epoch {
			return p.sequence
		}
	}
	return 0
}

// Nodes returns the nodes whose reports the store has, as far as it remembers.
func (s *Store) Nodes() []string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.Sorted(maps.Keys(s.applied))
}

// advance notes a position, in whatever order they come.
func (s *Store) advance(p position) {
	lives := s.applied[p.node]
	i := slices.IndexFunc(lives, func(o position) bool { return o.epoch == p.epoch })
	if i < 0 {
		lives, i = append(lives, p), len(lives)
	}
	if p.sequence > lives[i].sequence {
		lives[i].sequence = p.sequence
	}
	lives[i].commit = max(lives[i].commit, p.commit)
	slices.SortFunc(lives, func(x, y position) int {
		return cmp.Or(cmp.Compare(y.commit, x.commit), cmp.Compare(x.epoch, y.epoch))
	})
	s.applied[p.node] = lives[:min(len(lives), epochs)]
}

// Append takes reports, each once, all or none. When it returns without an error they are on disk, and
// whoever sent them may forget them. Reports of one agent must come in order.
func (s *Store) Append(reports []Report) error {
	s.appending.Lock()
	defer s.appending.Unlock()
	fresh, at, counted := s.sift(reports)
	if len(fresh) > 0 {
		if err := s.commit(fresh, at, &counted); err != nil {
			s.mu.Lock()
			s.stats.Failures++
			s.mu.Unlock()
			return fmt.Errorf("store: %w", err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.Reports += counted.Reports
	s.stats.Duplicates += counted.Duplicates
	s.stats.Missing += counted.Missing
	s.stats.Moved += counted.Moved
	return nil
}

type life struct {
	node  string
	epoch uint64
}

// sift leaves out what the store has, and tells how far each agent will have come.
func (s *Store) sift(reports []Report) (fresh []Report, at []position, counted Stats) {
	last := map[life]uint64{}
	for _, r := range reports {
		id := life{r.Node, r.Epoch}
		done, ok := last[id]
		if !ok {
			done = s.Applied(r.Node, r.Epoch)
		}
		if r.Sequence <= done {
			counted.Duplicates++
			continue
		}
		if done > 0 {
			counted.Missing += r.Sequence - done - 1
		}
		last[id] = r.Sequence
		counted.Reports++
		fresh = append(fresh, r)
	}
	for _, id := range slices.SortedFunc(maps.Keys(last), func(x, y life) int {
		return cmp.Or(cmp.Compare(x.node, y.node), cmp.Compare(x.epoch, y.epoch))
	}) {
		at = append(at, position{node: id.node, epoch: id.epoch, sequence: last[id], commit: s.next})
	}
	return fresh, at, counted
}

// commit writes reports and makes them seen.
func (s *Store) commit(reports []Report, at []position, counted *Stats) error {
	b := newBook()
	for _, r := range reports {
		minute, moved := s.place(floor(r.At.Unix(), secondsMinute))
		if moved {
			counted.Moved += uint64(len(r.Flows))
		}
		b.add(minute, r.Flows)
	}
	b.tidy()
	number := s.next
	data := s.packer.pack(head{through: number}, b, at)
	err := s.put(commitName(number), data)
	if errors.Is(err, errNotSynced) { // it is there, and what is sent again must not count again
		s.opts.Notice(fmt.Errorf("store: %s: %w", commitName(number), err))
		err = nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next++ // also after a failure: whatever is left of it must not pass for another
	if err != nil {
		return err
	}
	s.commits[number] = slices.Sorted(maps.Keys(b.rows))
	for _, p := range at {
		s.advance(p)
	}
	return nil
}

// place is the minute into which rows go: their own, or the first of an hour that is not closed.
func (s *Store) place(minute int64) (at int64, moved bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for at = minute; ; moved = true {
		hour := floor(at, secondsHour)
		if !s.hours[hour].closed && (s.closing == nil || *s.closing != hour) {
			return at, moved
		}
		at = hour + secondsHour
	}
}

// add takes flows over into the book.
func (b *book) add(at int64, flows []model.Flow) {
	rows := b.rows[at]
	for i := range flows {
		f := &flows[i]
		rows = append(rows, row{b.parties.Number(f.Client), b.parties.Number(f.Server),
			b.ways.Number(meter.WayOf(f.FlowKey)), f.FlowCount})
	}
	b.rows[at] = rows
}

func appendPositions(out []byte, at []position) []byte {
	out = binary.AppendUvarint(out, uint64(len(at)))
	for _, p := range at {
		out = binary.AppendUvarint(out, uint64(len(p.node)))
		out = append(out, p.node...)
		for _, v := range []uint64{p.epoch, p.sequence, p.commit} {
			out = binary.AppendUvarint(out, v)
		}
	}
	return out
}

func readPositions(data []byte) ([]position, error) {
	in := reader{data: data}
	at := make([]position, in.length())
	for i := range at {
		at[i] = position{node: string(in.bytes(in.length())), epoch: in.uvarint(), sequence: in.uvarint(), commit: in.uvarint()}
	}
	return at, in.end()
}
