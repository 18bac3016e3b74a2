package store

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/zonewise/zonewise/internal/model"
)

// gather brings rows of several books into one.
type gather struct {
	into  *book
	party func(model.Party) model.Party
	// sums, if set, adds up rows of one key as they come, for when they are many times what remains.
	sums map[[3]uint32]int

	from          *book    // of the rows that came last; below, the numbers that its numbers got
	parties, ways []uint32 // more by one, 0: not yet seen
}

func same(p model.Party) model.Party { return p }

// rows takes rows of a book over as rows of a time.
func (g *gather) rows(b *book, at int64, rows []row) {
	if g.from != b {
		g.from, g.parties, g.ways = b, make([]uint32, len(b.parties.Values)), make([]uint32, len(b.ways.Values))
	}
	kept := g.into.rows[at]
	for _, r := range rows {
		r.client, r.server, r.way = g.number(r.client), g.number(r.server), g.wayNumber(r.way)
		if g.sums != nil {
			key := [3]uint32{r.client, r.server, r.way}
			if i, ok := g.sums[key]; ok {
				kept[i].count.Add(r.count)
				continue
			}
			g.sums[key] = len(kept)
		}
		kept = append(kept, r)
	}
	g.into.rows[at] = kept
}

func (g *gather) number(n uint32) uint32 {
	if g.parties[n] == 0 {
		g.parties[n] = g.into.parties.Number(g.party(g.from.parties.Values[n])) + 1
	}
	return g.parties[n] - 1
}

func (g *gather) wayNumber(n uint32) uint32 {
	if g.ways[n] == 0 {
		g.ways[n] = g.into.ways.Number(g.from.ways.Values[n]) + 1
	}
	return g.ways[n] - 1
}

// opened is a file as it was when a reader began: it can be read to its end though it be replaced.
type opened struct {
	name   string
	file   *os.File
	commit uint64 // 0: of a minute or an hour
	at     int64
}

// openMinute opens all that has rows of a minute. commits is false for the minute's own file alone.
// The caller holds mu.
func (s *Store) openMinute(minute int64, commits bool) (files []opened, err error) {
	through, ok := s.minutes[minute]
	open := func(o opened) {
		f, openErr := os.Open(filepath.Join(s.dir, o.name))
		if openErr != nil {
			err = errors.Join(err, openErr)
			return
		}
		o.file = f
		files = append(files, o)
	}
	if ok {
		open(opened{name: minuteName(minute), at: minute})
	}
	if commits {
		for _, number := range s.waiting(minute, through) {
			open(opened{name: commitName(number), commit: number})
		}
	}
	return files, err
}

// waiting are the commits after one that have rows of a minute. The caller holds mu.
func (s *Store) waiting(minute int64, through uint64) (numbers []uint64) {
	for number, minutes := range s.commits {
		if number > through && slices.Contains(minutes, minute) {
			numbers = append(numbers, number)
		}
	}
	slices.Sort(numbers)
	return numbers
}

// read visits the rows of opened files that are of one time, closes the files, and puts those aside that are
// damaged, which it tells.
func (s *Store) read(files []opened, only int64, visit func(b *book, at int64, rows []row) error) (damaged bool, err error) {
	defer func() {
		for _, o := range files {
			err = errors.Join(err, o.file.Close())
		}
	}()
	for _, o := range files {
		data, err := io.ReadAll(o.file)
		if err != nil {
			return damaged, fmt.Errorf("%s: %w", o.name, err)
		}
		_, _, err = s.packer.unpack(data, func(b *book, at int64, rows []row) error {
			if at != only {
				return nil
			}
			return visit(b, at, rows)
		})
		if errors.Is(err, errDamaged) {
			damaged = true
			s.forget(o, err)
		} else if err != nil {
			return damaged, err
		}
	}
	return damaged, nil
}

// forget puts a damaged file aside, unless it was replaced meanwhile.
func (s *Store) forget(o opened, cause error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now, err := os.Stat(filepath.Join(s.dir, o.name))
	was, errWas := o.file.Stat()
	if err != nil || errWas != nil || !os.SameFile(now, was) {
		return
	}
	switch _, minute := s.minutes[o.at]; {
	case o.commit != 0:
		delete(s.commits, o.commit)
	case minute && o.name == minuteName(o.at):
		delete(s.minutes, o.at)
		s.damaged[o.at] = true
	default:
		delete(s.hours, o.at)
	}
	s.putAside(o.name, cause)
}
