// Package store is the controller's memory of flows: each minute for a day, each hour for 13 months, on
// disk. A directory holds files that are written whole and never changed (see file.go):
//
//	commit-N      what one Append brought, with the sequence numbers of the agents' reports it has
//	minute-TIME   all of one minute, of commits up to the one that its head names
//	hour-TIME     all of one hour, coarser; -closed when it stays as it is
//	positions-N   the sequence numbers of every agent up to commit N; there are two of these
//
// A commit's rows of a minute count as long as that minute's file does not name the commit or a later
// one. So whatever is killed between two writes, every row counts once. A file that is damaged is
// renamed to *.bad, and costs what was in it alone.
package store

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/zonewise/zonewise/internal/model"
)

// Report is what one agent counted in one minute. Its place in line is by node, epoch (one life of that
// agent's memory) and sequence number, from 1 on: the store takes each once.
type Report struct {
	Node     string
	Epoch    uint64
	Sequence uint64
	At       time.Time // when it was counted; the minute it lies in is what is kept
	Flows    []model.Flow
}

// Options shape a store. The zero value keeps what the package says.
type Options struct {
	Minutes time.Duration // how long minutes are kept: 24 h
	Hours   time.Duration // how long hours are kept: 396 days
	// HourParty is who a party is in what is kept by hour. Unless set, nodes are left out: which node
	// a pod ran on a year ago matters to nobody, and costs ten times the space.
	HourParty func(model.Party) model.Party
	// Notice, if set, hears of every damaged file and whatever else the store went on in spite of.
	Notice func(error)

	unsynced bool // for tests that do not cut the power: nothing is forced to the disk
}

// Stats is what became of what the store was given, since it was opened, and what it has.
type Stats struct {
	Reports    uint64 // taken
	Duplicates uint64 // reports that it had already
	Missing    uint64 // reports that were never seen, by the gap in their sequence
	Moved      uint64 // flows put into a later hour, because theirs is closed
	Failures   uint64 // commits that could not be written; whoever sent them keeps them
	Damaged    uint64 // files put aside
	Commits    int    // on disk now, with the others below
	MinuteRows int
	HourRows   int
}

// Store is the memory. Its methods may be called side by side.
type Store struct {
	dir    string
	opts   Options
	packer packer
	lock   *os.File

	appending sync.Mutex // one commit at a time; before mu
	rolling   sync.Mutex // one Roll at a time; before appending

	mu        sync.RWMutex
	next      uint64 // number of the next commit
	applied   map[string][]position
	commits   map[uint64][]int64 // the minutes of each that is on disk
	minutes   map[int64]uint64   // through which commit
	hours     map[int64]head
	closing   *int64         // the hour that is being closed
	damaged   map[int64]bool // minutes whose file was damaged
	snapshots []uint64       // positions files, by number
	stats     Stats
}

const (
	commitPrefix    = "commit-"
	minutePrefix    = "minute-"
	hourPrefix      = "hour-"
	positionsPrefix = "positions-"
	temporarySuffix = ".tmp"
	damagedSuffix   = ".bad"
	closedSuffix    = "-closed" // of an hour: it stays as it is, its minutes may be gone
	lockName        = "lock"

	minuteLayout = "20060102T1504Z"
	hourLayout   = "20060102T15Z"

	secondsMinute = 60
	secondsHour   = 3600
)

// Open opens the store in a directory, which is made if need be. Damage does not keep it from opening.
func Open(dir string, opts Options) (*Store, error) {
	opts.Minutes = cmp.Or(opts.Minutes, 24*time.Hour)
	opts.Hours = cmp.Or(opts.Hours, 396*24*time.Hour)
	if opts.HourParty == nil {
		opts.HourParty = func(p model.Party) model.Party { p.Node = ""; return p }
	}
	if opts.Notice == nil {
		opts.Notice = func(error) {}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	packer, err := newPacker()
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	s := &Store{dir: dir, opts: opts, packer: packer, applied: map[string][]position{}, commits: map[uint64][]int64{},
		minutes: map[int64]uint64{}, hours: map[int64]head{}, damaged: map[int64]bool{}}
	if s.lock, err = lock(dir); err != nil {
		return nil, err
	}
	if err := s.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("store: %w", err), s.lock.Close())
	}
	return s, nil
}

// Close gives the directory back. Everything is on disk already.
func (s *Store) Close() error {
	s.rolling.Lock()
	defer s.rolling.Unlock()
	s.appending.Lock()
	defer s.appending.Unlock()
	return s.lock.Close()
}

// Stats tells what became of what the store was given.
func (s *Store) Stats() Stats {
	s.mu.RLock()
	defer s.mu.RUnlock()
	stats := s.stats
	stats.Commits, stats.MinuteRows, stats.HourRows = len(s.commits), len(s.minutes), len(s.hours)
	return stats
}

// load looks at what is in the directory.
func (s *Store) load() error {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), temporarySuffix); ok && known(name) {
			if err := remove(filepath.Join(s.dir, e.Name())); err != nil {
				return err
			}
			continue
		}
		if err := s.loadFile(e.Name()); errors.Is(err, errDamaged) {
			s.putAside(e.Name(), err)
		} else if err != nil {
			return fmt.Errorf("%s: %w", e.Name(), err)
		}
	}
	slices.Sort(s.snapshots)
	s.next++
	return nil
}

func known(name string) bool {
	return slices.ContainsFunc([]string{commitPrefix, minutePrefix, hourPrefix, positionsPrefix}, func(prefix string) bool {
		return strings.HasPrefix(name, prefix)
	})
}

// loadFile takes one file into the index. Names that are not ours are left alone.
func (s *Store) loadFile(name string) error {
	path := filepath.Join(s.dir, name)
	switch kind, rest, _ := strings.Cut(name, "-"); kind + "-" {
	case minutePrefix:
		at, err := time.Parse(minuteLayout, strings.TrimSuffix(rest, damagedSuffix))
		if err != nil {
			return nil
		}
		if strings.HasSuffix(name, damagedSuffix) {
			s.damaged[at.Unix()] = true
			return nil
		}
		h, err := readHead(path)
		if err != nil {
			return err
		}
		s.minutes[at.Unix()] = h.through
		s.next = max(s.next, h.through)
	case hourPrefix:
		rest, closed := strings.CutSuffix(rest, closedSuffix)
		at, err := time.Parse(hourLayout, rest)
		if err != nil {
			return nil
		}
		h, err := readHead(path)
		if err != nil {
			return err
		}
		h.closed = closed
		s.hours[at.Unix()] = h
		s.next = max(s.next, h.through)
	case commitPrefix, positionsPrefix:
		number, err := strconv.ParseUint(strings.TrimSuffix(rest, damagedSuffix), 16, 64)
		if err != nil {
			return nil
		}
		s.next = max(s.next, number) // also of damaged ones: no number is used twice
		if strings.HasSuffix(name, damagedSuffix) {
			return nil
		}
		return s.loadPositions(path, number, kind+"-" == commitPrefix)
	}
	return nil
}

// loadPositions reads a commit or a file of positions to its end.
func (s *Store) loadPositions(path string, number uint64, commit bool) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var minutes []int64
	_, at, err := s.packer.unpack(data, func(_ *book, minute int64, _ []row) error {
		if !slices.Contains(minutes, minute) {
			minutes = append(minutes, minute)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, p := range at {
		s.advance(p)
	}
	if commit {
		s.commits[number] = minutes
	} else {
		s.snapshots = append(s.snapshots, number)
	}
	return nil
}

// putAside renames a damaged file, so that it is seen by who looks and not by us. The index must know
// nothing of it any more.
func (s *Store) putAside(name string, cause error) {
	path := filepath.Join(s.dir, name)
	s.stats.Damaged++
	s.opts.Notice(fmt.Errorf("store: %s put aside: %w", path, errors.Join(cause, os.Rename(path, path+damagedSuffix))))
}

func commitName(number uint64) string    { return fmt.Sprintf("%s%016x", commitPrefix, number) }
func positionsName(number uint64) string { return fmt.Sprintf("%s%016x", positionsPrefix, number) }
func minuteName(at int64) string         { return minutePrefix + time.Unix(at, 0).UTC().Format(minuteLayout) }

// hourName is of an hour's file, which tells whether it is closed by its name.
func hourName(at int64, closed bool) string {
	name := hourPrefix + time.Unix(at, 0).UTC().Format(hourLayout)
	if closed {
		name += closedSuffix
	}
	return name
}

// floor is the start of the minute or hour that a second lies in.
func floor(at, unit int64) int64 { return at - ((at%unit)+unit)%unit }
