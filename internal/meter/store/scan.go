package store

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/zonewise/zonewise/internal/model"
)

// Resolution is a length of time that flows are kept by.
type Resolution time.Duration

// The resolutions that there are.
const (
	Minute = Resolution(time.Minute)
	Hour   = Resolution(time.Hour)
)

// batch is how many flows a visitor is shown at a time.
const batch = 4096

// Scan shows all flows of the minutes or hours that begin in [from, to), in order of time. A time may come
// several times, and so may a key; the slice is used again after visit returns. An error of visit ends the scan.
// Appending and rolling go on meanwhile; each minute or hour is seen at one moment.
func (s *Store) Scan(from, to time.Time, by Resolution, visit func(at time.Time, flows []model.Flow) error) error {
	one, times := s.scanMinute, s.minutesBetween
	switch by {
	case Minute:
	case Hour:
		one, times = s.scanHour, s.hoursBetween
	default:
		return fmt.Errorf("store: no resolution of %v", time.Duration(by))
	}
	flows := make([]model.Flow, 0, batch)
	show := func(b *book, at int64, rows []row) error {
		for part := range slices.Chunk(rows, batch) {
			flows = flows[:0]
			for _, r := range part {
				flows = append(flows, b.flow(r))
			}
			if err := visit(time.Unix(at, 0).UTC(), flows); err != nil {
				return err
			}
		}
		return nil
	}
	for _, at := range times(from.Unix(), to.Unix()) {
		if err := one(at, show); err != nil {
			return fmt.Errorf("store: %s: %w", time.Unix(at, 0).UTC().Format(time.RFC3339), err)
		}
	}
	return nil
}

// Oldest returns the first minute or hour that there is something of; false if there is none.
func (s *Store) Oldest() (time.Time, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	times := s.minuteTimes()
	for at := range s.hours {
		times[at] = true
	}
	if len(times) == 0 {
		return time.Time{}, false
	}
	return time.Unix(slices.Min(slices.Collect(maps.Keys(times))), 0).UTC(), true
}

// minutesBetween are the minutes that there is something of, but for those of closed hours, of which
// some may be gone.
func (s *Store) minutesBetween(from, to int64) []int64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return between(s.minuteTimes(), from, to)
}

// minuteTimes is called with mu held.
func (s *Store) minuteTimes() map[int64]bool {
	times := map[int64]bool{}
	for at := range s.minutes {
		times[at] = true
	}
	for _, minutes := range s.commits {
		for _, at := range minutes {
			times[at] = true
		}
	}
	for at := range times {
		if s.hours[floor(at, secondsHour)].closed {
			delete(times, at)
		}
	}
	return times
}

func (s *Store) hoursBetween(from, to int64) []int64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	times := map[int64]bool{}
	for at := range s.hours {
		times[at] = true
	}
	for at := range s.minuteTimes() {
		times[floor(at, secondsHour)] = true
	}
	return between(times, from, to)
}

func between(times map[int64]bool, from, to int64) (found []int64) {
	for at := range times {
		if from <= at && at < to {
			found = append(found, at)
		}
	}
	slices.Sort(found)
	return found
}

func (s *Store) scanMinute(at int64, visit func(b *book, at int64, rows []row) error) error {
	s.mu.RLock()
	files, err := s.openMinute(at, true)
	s.mu.RUnlock()
	_, readErr := s.read(files, at, visit)
	return errors.Join(err, readErr)
}

// scanHour shows an hour's own file if that has all there is, else what its minutes add up to.
func (s *Store) scanHour(hour int64, visit func(b *book, at int64, rows []row) error) error {
	s.mu.RLock()
	if s.complete(hour) {
		name := hourName(hour, s.hours[hour].closed)
		f, err := os.Open(filepath.Join(s.dir, name))
		s.mu.RUnlock()
		if err != nil {
			return err
		}
		if damaged, err := s.read([]opened{{name: name, file: f, at: hour}}, hour, visit); !damaged {
			return err
		}
		s.mu.RLock()
	}
	s.mu.RUnlock()
	b, err := s.sumHour(hour, true)
	if err != nil {
		return err
	}
	return visit(b, hour, b.rows[hour])
}

// complete tells whether an hour's file has all that there is of that hour. The caller holds mu.
func (s *Store) complete(hour int64) bool {
	h, ok := s.hours[hour]
	if !ok || h.closed {
		return ok
	}
	for at := hour; at < hour+secondsHour; at += secondsMinute {
		if through := s.minutes[at]; through > h.through || len(s.waiting(at, through)) > 0 {
			return s.marred(hour)
		}
	}
	return true
}

// marred tells whether a minute of an hour was damaged, so that the hour's file may have more than its minutes
// have. The caller holds mu.
func (s *Store) marred(hour int64) bool {
	for at := hour; at < hour+secondsHour; at += secondsMinute {
		if s.damaged[at] {
			return true
		}
	}
	return false
}

// sumHour adds up an hour's minutes, with or without what waits in commits. Each minute is read as it
// is when its turn comes.
func (s *Store) sumHour(hour int64, commits bool) (*book, error) {
	g := &gather{into: newBook(), party: s.opts.HourParty, sums: map[[3]uint32]int{}}
	for at := hour; at < hour+secondsHour; at += secondsMinute {
		s.mu.RLock()
		files, err := s.openMinute(at, commits)
		s.mu.RUnlock()
		_, readErr := s.read(files, at, func(b *book, _ int64, rows []row) error {
			g.rows(b, hour, rows)
			return nil
		})
		if err := errors.Join(err, readErr); err != nil {
			return nil, err
		}
	}
	g.into.tidy()
	return g.into, nil
}
