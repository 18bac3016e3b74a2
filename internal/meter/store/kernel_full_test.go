//go:build kernel

package store_test

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/zonewise/zonewise/internal/kernel/disktest"
	"github.com/zonewise/zonewise/internal/meter/store"
)

// TestFullDisk fills a disk of 2 MB: what does not fit is refused, all before it stays, and it goes on as soon
// as there is room.
func TestFullDisk(t *testing.T) {
	dir := disktest.Small(t)
	ballast := filepath.Join(dir, "ballast")
	must(t, os.WriteFile(ballast, make([]byte, 1<<20), 0o600))
	home := filepath.Join(dir, "store")
	s, err := store.Open(home, store.Options{})
	must(t, err)
	want, sequence, now := totals{}, uint64(0), start
	next := func() error {
		now = start.Add(time.Duration(sequence) * time.Minute)
		r := store.Report{Node: "n", Epoch: 1, Sequence: sequence + 1, At: now}
		for i := range 225 {
			r.Flows = append(r.Flows, flow(i/15, i%15, sequence*1000+uint64(i)))
		}
		if err := s.Append([]store.Report{r}); err != nil {
			return err
		}
		sequence++
		want.add(r.At, r.Flows)
		if err := s.Roll(now.Add(20 * time.Second)); !errors.Is(err, syscall.ENOSPC) {
			return err
		}
		return nil
	}
	check := func(when string, resolutions ...store.Resolution) {
		t.Helper()
		for _, by := range resolutions {
			want := want
			if by == store.Hour {
				want = want.hours()
			}
			got, err := scan(s, by)
			must(t, err)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Fatalf("%s: %v (-want +got):\n%s", when, time.Duration(by), diff)
			}
		}
	}
	for err = next(); err == nil && sequence < 10_000; err = next() {
	}
	if !errors.Is(err, syscall.ENOSPC) || s.Stats().Failures != 1 {
		t.Fatalf("the disk is full after %d reports: %v, %+v", sequence, err, s.Stats())
	}
	check("full", store.Minute, store.Hour)
	must(t, s.Close())
	s, err = store.Open(home, store.Options{})
	must(t, err)
	check("full and opened again", store.Minute, store.Hour)
	full := s.Stats().MinuteRows
	if err := s.Roll(now.Add(25 * time.Hour)); err != nil || s.Stats().MinuteRows > full-60 {
		t.Fatalf("what is too old does not go from a full disk: %v, %+v", err, s.Stats())
	}
	if err := next(); err != nil {
		t.Fatalf("when what is too old has gone: %v", err)
	}
	check("when what is too old has gone", store.Hour)

	must(t, os.Remove(ballast))
	if err := next(); err != nil {
		t.Fatalf("with room again: %v", err)
	}
	must(t, next())
	must(t, s.Roll(now.Add(time.Hour)))
	check("with room again", store.Hour)
	if got := s.Stats(); got.Damaged != 0 || got.Missing != 0 {
		t.Errorf("stats are %+v", got)
	}
	must(t, s.Close())
}
