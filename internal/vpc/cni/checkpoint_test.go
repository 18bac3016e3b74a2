package cni

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/zonewise/zonewise/internal/vpc"
)

var someLeases = vpc.Leases{
	Held: []vpc.Lease{{
		Key:     vpc.Key{Container: "c1", Interface: "eth0"},
		Owner:   vpc.Owner{Namespace: "default", Pod: "web"},
		Address: netip.MustParseAddr("10.0.0.1"),
		Since:   time.Date(2026, 1, 1, 0, 0, 0, 7, time.UTC),
	}},
	Resting: []vpc.Rest{{Address: netip.MustParseAddr("10.0.0.2")}},
}

func opened(t *testing.T, dir string) *checkpoint {
	t.Helper()
	c, err := openCheckpoint(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.close() })
	return c
}

func never() (vpc.Leases, error) { return vpc.Leases{}, errors.New("rebuilt without need") }

func TestCheckpointRoundTrip(t *testing.T) {
	c := opened(t, t.TempDir())
	if err := c.write(someLeases); err != nil {
		t.Fatal(err)
	}
	got, err := c.read(never)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(someLeases, got, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		t.Error(diff)
	}
	const want = `{"schema":"zonewise.leases/v1","leases":{"held":[{"container":"c1","interface":"eth0",` +
		`"namespace":"default","pod":"web","address":"10.0.0.1","since":"2026-01-01T00:00:00.000000007Z"}],` +
		`"resting":[{"address":"10.0.0.2","at":"0001-01-01T00:00:00Z"}]}}`
	data, _ := os.ReadFile(c.path())
	if diff := cmp.Diff(want, string(data)); diff != "" {
		t.Errorf("the form on disk has changed; a new form needs a new schema: %s", diff)
	}
}

// Whatever is not a checkpoint is set aside and made anew; nothing is lost silently.
func TestCorruptCheckpointIsRebuilt(t *testing.T) {
	for name, content := range map[string]string{
		"empty":     "",
		"cut":       `{"schema":"zonewise.leases/v1","leases":{"held":[{"cont`,
		"no schema": `{"leases":{}}`,
		"twice": `{"schema":"zonewise.leases/v1","leases":{"held":[
			{"container":"a","interface":"eth0","address":"10.0.0.1"},
			{"container":"b","interface":"eth0","address":"10.0.0.1"}]}}`,
	} {
		t.Run(name, func(t *testing.T) {
			c := opened(t, t.TempDir())
			if err := os.WriteFile(c.path(), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := c.read(func() (vpc.Leases, error) { return someLeases, nil })
			if err != nil || len(got.Held) != 1 {
				t.Fatalf("got %v, %v", got, err)
			}
			kept, err := os.ReadFile(c.path() + ".corrupt")
			if err != nil || string(kept) != content {
				t.Errorf("kept %q, %v", kept, err)
			}
		})
	}
}

func TestNewerCheckpointIsRefused(t *testing.T) {
	c := opened(t, t.TempDir())
	if err := os.WriteFile(c.path(), []byte(`{"schema":"zonewise.leases/v2"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := c.read(never)
	if !errors.Is(err, errNewer) || !strings.Contains(err.Error(), c.path()) || !strings.Contains(err.Error(), "remove it") {
		t.Errorf("got %v", err)
	}
}

// A write that was cut short by a crash leaves the file beside, and the old leases in force.
func TestCrashBetweenWriteAndRename(t *testing.T) {
	c := opened(t, t.TempDir())
	if err := c.write(someLeases); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(c.path()+".new", []byte(`{"schema":"zon`), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := c.read(never)
	if err != nil || len(got.Held) != 1 {
		t.Fatalf("got %v, %v", got, err)
	}
	if err := c.write(vpc.Leases{}); err != nil {
		t.Fatal(err)
	}
	left, _ := filepath.Glob(filepath.Join(c.dir, "*"))
	if want := []string{filepath.Join(c.dir, "leases.json"), filepath.Join(c.dir, "lock")}; !cmp.Equal(want, left) {
		t.Errorf("files: %v", left)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"schema":"zonewise.leases/v1","leases":{"held":[{"container":"a","interface":"eth0","address":"10.0.0.1"}]}}`))
	f.Add([]byte(`{"schema":"zonewise.leases/v2"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		leases, err := decode(data)
		if err == nil && leases.Validate() != nil {
			t.Fatalf("accepted %s", data)
		}
	})
}
