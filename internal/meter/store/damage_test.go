package store_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/zonewise/zonewise/internal/meter/store"
	"github.com/zonewise/zonewise/internal/model"
)

// filled is a store with files of each kind: two hours of a report each minute.
func filled(t testing.TB) (dir string, want totals) {
	dir, want = t.TempDir(), totals{}
	s, err := store.Open(dir, store.Unsynced(store.Options{}))
	must(t, err)
	for m := range 120 {
		at := start.Add(time.Duration(m) * time.Minute)
		r := store.Report{Node: "n", Epoch: 1, Sequence: uint64(m + 1), At: at, Flows: []model.Flow{flow(1, 2, uint64(m)), flow(m%15, 3, 1)}}
		want.add(at, r.Flows)
		must(t, s.Append([]store.Report{r}))
		if m%10 == 9 {
			must(t, s.Roll(at.Add(10*time.Second)))
		}
	}
	must(t, s.Close())
	return dir, want
}

// TestDamage damages a file of each kind in several ways. The store opens, names the file and goes on; nothing
// but what was in that file is gone, and nothing counts twice.
func TestDamage(t *testing.T) {
	ways := map[string]func([]byte) []byte{
		"cut":    func(b []byte) []byte { return b[:len(b)/2] },
		"empty":  func([]byte) []byte { return nil },
		"bit":    func(b []byte) []byte { b[len(b)*2/3] ^= 4; return b },
		"head":   func(b []byte) []byte { b[20] ^= 1; return b },
		"zeroes": func(b []byte) []byte { clear(b[len(b)/2:]); return b },
		"longer": func(b []byte) []byte { return append(b, 0) },
	}
	for _, kind := range []string{"commit-", "minute-", "hour-", "positions-"} {
		for name, damage := range ways {
			t.Run(kind+name, func(t *testing.T) {
				dir, want := filled(t)
				path := oneOf(t, dir, kind)
				data, err := os.ReadFile(path)
				must(t, err)
				must(t, os.WriteFile(path, damage(data), 0o600))

				var noticed []error
				s := open(t, dir, store.Unsynced(store.Options{Notice: func(err error) { noticed = append(noticed, err) }}))
				minutes, err := scan(s, store.Minute)
				must(t, err)
				hours, err := scan(s, store.Hour)
				must(t, err)
				if len(noticed) != 1 || !strings.Contains(noticed[0].Error(), path) || s.Stats().Damaged != 1 {
					t.Errorf("noticed %v and counted %d, want one, of %s", noticed, s.Stats().Damaged, path)
				}
				if _, err := os.Stat(path + ".bad"); err != nil {
					t.Errorf("the file was not put aside: %v", err)
				}
				missing := 0
				for at, flows := range want {
					if diff := cmp.Diff(flows, minutes[at]); diff != "" {
						missing++
					}
				}
				if (kind == "minute-" || kind == "commit-") && missing != 1 || (kind == "hour-" || kind == "positions-") && missing != 0 {
					t.Errorf("%d minutes are not what they were", missing)
				}
				if diff := cmp.Diff(want.hours(), hours); (kind == "hour-" || kind == "positions-") && diff != "" {
					t.Errorf("hours (-want +got):\n%s", diff)
				}
				if had := s.Applied("n", 1); had != 120 && kind != "commit-" {
					t.Errorf("the agent is applied up to %d of 120", had)
				}
				goesOn(t, s, want)
			})
		}
	}
}

// goesOn reports and rolls, and looks that this is added and no more.
func goesOn(t *testing.T, s *store.Store, want totals) {
	t.Helper()
	before, err := scan(s, store.Minute)
	must(t, err)
	at := start.Add(2 * time.Hour)
	must(t, s.Append([]store.Report{{Node: "n", Epoch: 1, Sequence: 121, At: at, Flows: []model.Flow{flow(1, 2, 5)}}}))
	must(t, s.Roll(at.Add(80*time.Second)))
	must(t, s.Roll(at.Add(20*time.Minute)))
	before.add(at, []model.Flow{flow(1, 2, 5)})
	after, err := scan(s, store.Minute)
	must(t, err)
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("minutes after it went on (-want +got):\n%s", diff)
	}
	if len(after) > len(want)+1 {
		t.Errorf("%d minutes, want no more than %d", len(after), len(want)+1)
	}
}

// oneOf is the last file of a kind but for minutes: the last commit has what is nowhere else.
func oneOf(t *testing.T, dir, prefix string) string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, prefix+"*"))
	must(t, err)
	if len(paths) == 0 {
		t.Fatalf("there is no %s file", prefix)
	}
	if prefix == "minute-" {
		return paths[0]
	}
	return paths[len(paths)-1]
}

func TestVisitorsErrorEndsTheScan(t *testing.T) {
	dir, _ := filled(t)
	s := open(t, dir, store.Options{})
	wanted, seen := errors.New("enough"), 0
	err := s.Scan(start, start.Add(time.Hour), store.Minute, func(time.Time, []model.Flow) error { seen++; return wanted })
	if !errors.Is(err, wanted) || seen != 1 || s.Stats().Damaged != 0 {
		t.Errorf("the scan ended with %v after %d, and %d files are said to be damaged", err, seen, s.Stats().Damaged)
	}
}

// FuzzFile opens a directory with any bytes as each kind of file.
func FuzzFile(f *testing.F) {
	dir, _ := filled(f)
	for _, name := range []string{"commit-", "minute-", "hour-", "positions-"} {
		paths, err := filepath.Glob(filepath.Join(dir, name+"*"))
		must(f, err)
		data, err := os.ReadFile(paths[0])
		must(f, err)
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		for _, name := range []string{"commit-0000000000000001", "minute-20260301T2230Z", "hour-20260301T22Z", "positions-0000000000000001"} {
			must(t, os.WriteFile(filepath.Join(dir, name), data, 0o600))
		}
		s := open(t, dir, store.Unsynced(store.Options{}))
		_, err := scan(s, store.Minute)
		must(t, err)
		_, err = scan(s, store.Hour)
		must(t, err)
	})
}
