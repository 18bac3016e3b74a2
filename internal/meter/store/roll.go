package store

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"
)

const (
	// settle is how long after its end a minute is first made a file, so that agents have reported.
	settle = 15
	// again is how long after its end it is made anew with what came late, and its hour is made of it.
	again = 10 * secondsMinute
	// dropAtOnce is how many hours one Roll forgets at most: a clock that jumps ahead for a
	// moment must not cost the past.
	dropAtOnce = 2
	// maxLives is how many agents' positions are kept; there are never that many agents at once.
	maxLives = 50_000
)

// Roll makes minutes of commits and hours of minutes, and forgets what is too old. It is meant to be called
// once a minute. What cannot be written stays as it was, and is tried again by the next Roll.
func (s *Store) Roll(now time.Time) error {
	s.rolling.Lock()
	defer s.rolling.Unlock()
	at := now.Unix()
	err := errors.Join(s.forgetOld(at), s.snapshot(), s.foldMinutes(at), s.sweep(), s.foldHours(at))
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	return nil
}

// snapshot writes every agent's position, so that commits can go.
func (s *Store) snapshot() error {
	s.appending.Lock()
	s.mu.Lock()
	number := s.next - 1
	s.forgetLives()
	var at []position
	for _, node := range slices.Sorted(maps.Keys(s.applied)) {
		at = append(at, s.applied[node]...)
	}
	var last uint64
	if n := len(s.snapshots); n > 0 {
		last = s.snapshots[n-1]
	}
	s.mu.Unlock()
	s.appending.Unlock()
	if number == last || len(at) == 0 {
		return nil
	}
	if err := s.put(positionsName(number), s.packer.pack(head{through: number}, nil, at)); err != nil {
		return err
	}
	s.mu.Lock()
	s.snapshots = append(s.snapshots, number)
	s.mu.Unlock()
	return nil
}

// forgetLives forgets the agents that were silent for longest, if there are too many.
func (s *Store) forgetLives() {
	if len(s.applied) <= maxLives {
		return
	}
	nodes := slices.SortedFunc(maps.Keys(s.applied), func(x, y string) int {
		return cmp.Or(cmp.Compare(s.applied[y][0].commit, s.applied[x][0].commit), cmp.Compare(x, y))
	})
	for _, node := range nodes[maxLives/2:] {
		delete(s.applied, node)
	}
}

// foldMinutes makes files of the minutes that are over and have rows in commits. A minute far ahead is
// over, too: the clock was wrong.
func (s *Store) foldMinutes(now int64) (err error) {
	s.mu.RLock()
	due := map[int64]bool{}
	for number, minutes := range s.commits {
		for _, at := range minutes {
			_, folded := s.minutes[at]
			age := now - (at + secondsMinute)
			ripe := age >= settle && !folded || age >= again || age < -2*secondsMinute
			if !s.folded(at, number) && ripe {
				due[at] = true
			}
		}
	}
	s.mu.RUnlock()
	for _, at := range slices.Sorted(maps.Keys(due)) {
		if foldErr := s.foldMinute(at); foldErr != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", minuteName(at), foldErr))
		}
	}
	return err
}

// folded tells whether a commit's rows of a minute count elsewhere. The caller holds mu.
func (s *Store) folded(at int64, number uint64) bool {
	return s.minutes[at] >= number || s.hours[floor(at, secondsHour)].closed
}

func (s *Store) foldMinute(at int64) error {
	for {
		s.mu.RLock()
		through := s.minutes[at]
		for _, number := range s.waiting(at, through) {
			through = max(through, number)
		}
		files, err := s.openMinute(at, true)
		s.mu.RUnlock()
		g := &gather{into: newBook(), party: same}
		damaged, readErr := s.read(files, at, func(b *book, at int64, rows []row) error {
			g.rows(b, at, rows)
			return nil
		})
		if err := errors.Join(err, readErr); err != nil {
			return err
		}
		if damaged {
			continue // without the damaged file, and with commits that it had: they may be there still
		}
		if len(g.into.rows) == 0 {
			return nil
		}
		g.into.tidy()
		if err := s.put(minuteName(at), s.packer.pack(head{through: through}, g.into, nil)); err != nil {
			return err
		}
		s.mu.Lock()
		s.minutes[at] = through
		s.mu.Unlock()
		return nil
	}
}

// sweep deletes commits whose rows are all in minutes and whose positions are in two files, and all
// files of positions but the last two.
func (s *Store) sweep() (err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.snapshots)
	if n < 2 {
		return nil
	}
	for _, number := range s.snapshots[:n-2] {
		err = errors.Join(err, remove(filepath.Join(s.dir, positionsName(number))))
	}
	s.snapshots = slices.Clone(s.snapshots[n-2:])
	for number, minutes := range s.commits {
		if number > s.snapshots[0] || slices.ContainsFunc(minutes, func(at int64) bool { return !s.folded(at, number) }) {
			continue
		}
		if removeErr := remove(filepath.Join(s.dir, commitName(number))); removeErr != nil {
			err = errors.Join(err, removeErr)
			continue
		}
		delete(s.commits, number)
	}
	return err
}

// foldHours makes files of the hours that are over.
func (s *Store) foldHours(now int64) (err error) {
	s.mu.RLock()
	due := map[int64]bool{}
	for at := range s.minutes {
		if hour := floor(at, secondsHour); hour+secondsHour+again+secondsMinute <= now {
			due[hour] = true
		}
	}
	for hour := range due {
		if s.hours[hour].closed || s.upToDate(hour) {
			delete(due, hour)
		}
	}
	s.mu.RUnlock()
	for _, hour := range slices.Sorted(maps.Keys(due)) {
		if foldErr := s.foldHour(hour); foldErr != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", hourName(hour, false), foldErr))
		}
	}
	return err
}

// upToDate tells whether an hour's file has all that its minutes' files have. The caller holds mu.
func (s *Store) upToDate(hour int64) bool {
	h, ok := s.hours[hour]
	return ok && (h.through >= s.hourThrough(hour) || s.marred(hour))
}

func (s *Store) hourThrough(hour int64) (through uint64) {
	for at := hour; at < hour+secondsHour; at += secondsMinute {
		through = max(through, s.minutes[at])
	}
	return through
}

// foldHour makes an hour's file of its minutes.
func (s *Store) foldHour(hour int64) error {
	s.mu.RLock()
	h := head{through: s.hourThrough(hour)}
	s.mu.RUnlock()
	b, err := s.sumHour(hour, false)
	if err != nil {
		return err
	}
	if err := s.put(hourName(hour, false), s.packer.pack(h, b, nil)); err != nil {
		return err
	}
	s.mu.Lock()
	s.hours[hour] = h
	s.mu.Unlock()
	return nil
}

// forgetOld closes hours whose minutes are too old, deletes those minutes, and deletes hours too old.
func (s *Store) forgetOld(now int64) (err error) {
	s.mu.RLock()
	var minutes, hours []int64
	for at := range s.minutes {
		hour := floor(at, secondsHour)
		if hour+secondsHour+int64(s.opts.Minutes/time.Second) <= now && !slices.Contains(minutes, hour) {
			minutes = append(minutes, hour)
		}
	}
	for hour := range s.hours {
		if hour+secondsHour+int64(s.opts.Hours/time.Second) <= now {
			hours = append(hours, hour)
		}
	}
	s.mu.RUnlock()
	slices.Sort(minutes)
	slices.Sort(hours)
	for _, hour := range minutes[:min(len(minutes), dropAtOnce)] {
		err = errors.Join(err, s.closeHour(hour))
	}
	for _, hour := range hours[:min(len(hours), dropAtOnce)] {
		err = errors.Join(err, s.drop(s.hourFile(hour), func() { delete(s.hours, hour) }))
	}
	return err
}

// closeHour makes an hour final and deletes its minutes. In that order: were a minute gone first, the hour
// could be made anew without it.
func (s *Store) closeHour(hour int64) error {
	ready := s.beginClosing(hour)
	if !ready {
		return nil // the next Roll, when what waits is folded
	}
	err := s.finish(hour)
	s.mu.Lock()
	s.closing = nil
	s.mu.Unlock()
	if err != nil {
		return err
	}
	for at := hour; at < hour+secondsHour; at += secondsMinute {
		s.mu.RLock()
		_, ok := s.minutes[at]
		s.mu.RUnlock()
		if ok {
			err = errors.Join(err, s.drop(minuteName(at), func() { delete(s.minutes, at) }))
		}
	}
	return err
}

// beginClosing keeps new rows out of an hour, unless some wait for it in commits.
func (s *Store) beginClosing(hour int64) bool {
	s.appending.Lock()
	defer s.appending.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	for at := hour; at < hour+secondsHour; at += secondsMinute {
		if !s.hours[hour].closed && len(s.waiting(at, s.minutes[at])) > 0 {
			return false
		}
	}
	s.closing = &hour
	return true
}

// finish closes an hour's file, having looked that it has all that its minutes have. That is a change of name: it
// needs no room on a disk that is full of minutes.
func (s *Store) finish(hour int64) error {
	s.mu.RLock()
	h, current := s.hours[hour], s.upToDate(hour)
	s.mu.RUnlock()
	if h.closed {
		return nil
	}
	if current {
		data, err := os.ReadFile(filepath.Join(s.dir, hourName(hour, false)))
		if err != nil {
			return err
		}
		if _, _, err := s.packer.unpack(data, nil); err != nil {
			s.opts.Notice(fmt.Errorf("store: %s is made anew: %w", hourName(hour, false), err))
			current = false
		}
	}
	if !current {
		if err := s.foldHour(hour); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := os.Rename(filepath.Join(s.dir, hourName(hour, false)), filepath.Join(s.dir, hourName(hour, true))); err != nil {
		return err
	}
	h = s.hours[hour]
	h.closed = true
	s.hours[hour] = h
	if s.opts.unsynced {
		return nil
	}
	return syncDir(s.dir)
}

// hourFile is the name of an hour's file as it is now.
func (s *Store) hourFile(hour int64) string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return hourName(hour, s.hours[hour].closed)
}

// drop deletes a file and forgets it.
func (s *Store) drop(name string, forget func()) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := remove(filepath.Join(s.dir, name)); err != nil {
		return err
	}
	forget()
	return nil
}
