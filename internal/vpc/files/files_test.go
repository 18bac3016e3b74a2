package files

import (
	"encoding/json"
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

func opened(t *testing.T) *Dir {
	t.Helper()
	d, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

func spoil(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func never() (vpc.Leases, error) { return vpc.Leases{}, errors.New("rebuilt without need") }

func TestLeasesRoundTrip(t *testing.T) {
	d := opened(t)
	if err := d.WriteLeases(someLeases); err != nil {
		t.Fatal(err)
	}
	got, err := d.ReadLeases(never)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(someLeases, got, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		t.Error(diff)
	}
	const want = `{"schema":"zonewise.leases/v1","leases":{"held":[{"container":"c1","interface":"eth0",` +
		`"namespace":"default","pod":"web","address":"10.0.0.1","since":"2026-01-01T00:00:00.000000007Z"}],` +
		`"resting":[{"address":"10.0.0.2","at":"0001-01-01T00:00:00Z"}]}}`
	data, _ := os.ReadFile(d.file(Leases))
	if diff := cmp.Diff(want, string(data)); diff != "" {
		t.Errorf("the form on disk has changed; a new form needs a new schema: %s", diff)
	}
}

// Whatever is no list of leases is set aside and made anew; nothing is lost silently.
func TestCorruptLeasesAreRebuilt(t *testing.T) {
	for name, content := range map[string]string{
		"empty":     "",
		"cut":       `{"schema":"zonewise.leases/v1","leases":{"held":[{"cont`,
		"no schema": `{"leases":{}}`,
		"twice": `{"schema":"zonewise.leases/v1","leases":{"held":[
			{"container":"a","interface":"eth0","address":"10.0.0.1"},
			{"container":"b","interface":"eth0","address":"10.0.0.1"}]}}`,
	} {
		t.Run(name, func(t *testing.T) {
			d := opened(t)
			spoil(t, d.file(Leases), content)
			got, err := d.ReadLeases(func() (vpc.Leases, error) { return someLeases, nil })
			if err != nil || len(got.Held) != 1 {
				t.Fatalf("got %v, %v", got, err)
			}
			kept, err := os.ReadFile(d.file(Leases) + ".corrupt")
			if err != nil || string(kept) != content {
				t.Errorf("kept %q, %v", kept, err)
			}
		})
	}
}

func TestNewerLeasesAreRefused(t *testing.T) {
	d := opened(t)
	spoil(t, d.file(Leases), `{"schema":"zonewise.leases/v2"}`)
	_, err := d.ReadLeases(never)
	if !errors.Is(err, ErrNewer) || !strings.Contains(err.Error(), d.file(Leases)) || !strings.Contains(err.Error(), "remove it") {
		t.Errorf("got %v", err)
	}
}

// A write that was cut short by a crash leaves the file beside, and the old leases in force.
func TestCrashBetweenWriteAndRename(t *testing.T) {
	d := opened(t)
	if err := d.WriteLeases(someLeases); err != nil {
		t.Fatal(err)
	}
	spoil(t, d.file(Leases)+".new", `{"schema":"zon`)
	got, err := d.ReadLeases(never)
	if err != nil || len(got.Held) != 1 {
		t.Fatalf("got %v, %v", got, err)
	}
	if err := d.WriteLeases(vpc.Leases{}); err != nil {
		t.Fatal(err)
	}
	left, _ := filepath.Glob(filepath.Join(d.path, "*"))
	if want := []string{filepath.Join(d.path, "leases.json"), filepath.Join(d.path, "lock")}; !cmp.Equal(want, left) {
		t.Errorf("files: %v", left)
	}
}

func FuzzDecodeLeases(f *testing.F) {
	f.Add([]byte(`{"schema":"zonewise.leases/v1","leases":{"held":[{"container":"a","interface":"eth0","address":"10.0.0.1"}]}}`))
	f.Add([]byte(`{"schema":"zonewise.leases/v2"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		leases, err := DecodeLeases(data)
		if err == nil && leases.Validate() != nil {
			t.Fatalf("accepted %s", data)
		}
	})
}

var somePool = vpc.Supply{
	Interfaces: []vpc.Interface{{
		ID: "eni-1", Device: "eth0", MAC: "02:00:00:00:00:01", Primary: true, SubnetID: "subnet-1",
		Subnet: netip.MustParsePrefix("192.168.1.0/24"), Gateway: netip.MustParseAddr("192.168.1.1"), Table: 254,
		Address: netip.MustParseAddr("192.168.1.10"), Addresses: []netip.Addr{netip.MustParseAddr("192.168.1.11")},
		Prefixes: []netip.Prefix{netip.MustParsePrefix("192.168.1.32/28")}, Attached: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
	}},
	Cooldown: 30 * time.Second, VPC: []netip.Prefix{netip.MustParsePrefix("192.168.0.0/16")},
	Grows: true, Why: "the next is an interface", Node: vpc.Instance{ID: "i-1", Type: "t3.medium", Zone: "a", MaxPods: 17},
	Written: time.Date(2026, 1, 1, 0, 0, 1, 0, time.UTC),
}

func TestPoolRoundTrip(t *testing.T) {
	d := opened(t)
	for range 2 {
		if err := d.WritePool(somePool); err != nil {
			t.Fatal(err)
		}
		got, err := d.ReadPool()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(somePool, got, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}), cmpopts.EquateEmpty()); diff != "" {
			t.Error(diff)
		}
	}
	data, _ := os.ReadFile(d.file(Pool))
	if !strings.HasPrefix(string(data), `{"schema":"zonewise.pool/v1","interfaces":[{"id":"eni-1","device":"eth0",`) {
		t.Errorf("form on disk: %s", data)
	}
}

// What is wrong with a pool is said with the file's name and the mend; the file stays for a look.
func TestPoolThatCannotBeRead(t *testing.T) {
	for name, c := range map[string]struct {
		content string
		is      error
		mend    string
	}{
		"missing":    {"", ErrNoPool, "DaemonSet zonewise-cni"},
		"cut":        {`{"schema":"zonewise.pool/v1","interf`, ErrBadPool, "remove it"},
		"no schema":  {`{"interfaces":[]}`, ErrBadPool, "no schema"},
		"no address": {`{"schema":"zonewise.pool/v1","interfaces":[{"addresses":["x"]}]}`, ErrBadPool, "remove it"},
		"twice": {`{"schema":"zonewise.pool/v1","interfaces":[{"id":"eni-1","addresses":["10.0.0.1"]},` +
			`{"id":"eni-2","addresses":["10.0.0.1"]}]}`, ErrBadPool, "eni-2"},
		"newer": {`{"schema":"zonewise.pool/v2"}`, ErrNewer, "same version"},
	} {
		t.Run(name, func(t *testing.T) {
			d := opened(t)
			if c.content != "" {
				spoil(t, d.file(Pool), c.content)
			}
			_, err := d.ReadPool()
			if !errors.Is(err, c.is) || !strings.Contains(err.Error(), d.file(Pool)) || !strings.Contains(err.Error(), c.mend) {
				t.Errorf("got %v", err)
			}
			if data, _ := os.ReadFile(d.file(Pool)); string(data) != c.content {
				t.Errorf("left %q", data)
			}
		})
	}
}

// What is there already is not written again: who watches is not woken for nothing.
func TestSameIsNotWritten(t *testing.T) {
	d := opened(t)
	w, err := Follow(d.path, Leases)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := d.WriteLeases(someLeases); err != nil {
		t.Fatal(err)
	}
	before, _ := os.Stat(d.file(Leases))
	if err := d.WriteLeases(someLeases); err != nil {
		t.Fatal(err)
	}
	if after, _ := os.Stat(d.file(Leases)); !os.SameFile(before, after) {
		t.Error("written twice")
	}
	<-w.Changed
}

// A watch tells of its own files alone, however often they change, and ends.
func TestWatch(t *testing.T) {
	d := opened(t)
	w, err := Follow(d.path, Pool)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 50 {
		if err := d.WriteLeases(vpc.Leases{Resting: []vpc.Rest{{Address: netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})}}}); err != nil {
			t.Fatal(err)
		}
	}
	pool := somePool
	for pool.Node.MaxPods = range 3 {
		if err := d.WritePool(pool); err != nil {
			t.Fatal(err)
		}
		<-w.Changed
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

func FuzzDecodePool(f *testing.F) {
	f.Add([]byte(`{"schema":"zonewise.pool/v1","interfaces":[{"id":"eni-1","addresses":["10.0.0.1"],"prefixes":["10.0.0.16/28"]}]}`))
	f.Add([]byte(`{"schema":"zonewise.pool/v2"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		pool, err := DecodePool(data)
		if err != nil {
			return
		}
		once, err := json.Marshal(poolDocument{poolSchema, pool})
		if err != nil {
			t.Fatalf("accepted %s, and cannot write it: %v", data, err)
		}
		again, err := DecodePool(once)
		if twice, _ := json.Marshal(poolDocument{poolSchema, again}); err != nil || string(twice) != string(once) {
			t.Fatalf("wrote %s, read %s, %v", once, twice, err)
		}
	})
}
