// Package files keeps what the plugin and the daemon of a node both know: who holds which address
// (leases.json), and which addresses the cloud has given to the node (pool.json). Both are read and
// written under one lock, so neither of the two ever sees the other half done.
package files

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/zonewise/zonewise/internal/vpc"
)

// DefaultDir is where the files are when nobody says otherwise. It goes with a reboot, as the wires do.
const DefaultDir = "/run/zonewise/cni"

// The names of the files.
const (
	Leases = "leases.json"
	Pool   = "pool.json"
)

// The versions of the files. A newer one is refused: to read it half would be to forget leases.
const (
	leasesSchema = "zonewise.leases/v1"
	poolSchema   = "zonewise.pool/v1"
)

var (
	// ErrNewer says that another version of the program wrote a file.
	ErrNewer = errors.New("written by another version")
	// ErrNoPool says that the daemon has not written a pool yet.
	ErrNoPool = errors.New("not there")
	// ErrBadPool says that the pool makes no sense.
	ErrBadPool = errors.New("makes no sense")
)

// Dir is the files of one node, held by their lock. One process has it at a time. The lock is on a file
// of its own, since each write replaces the others.
type Dir struct {
	path string
	lock *os.File
	was  map[string][]byte // by name: what was read and found good, or written
}

// Open waits until nobody else has the files. The holder lets them go when it closes them or ends, in
// whatever way.
func Open(path string) (*Dir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("leases: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(path, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("leases: %w", err)
	}
	for {
		err = unix.Flock(int(lock.Fd()), unix.LOCK_EX)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("leases: lock: %w", err), lock.Close())
	}
	return &Dir{path: path, lock: lock, was: map[string][]byte{}}, nil
}

// Close lets the files go.
func (d *Dir) Close() error { return d.lock.Close() }

func (d *Dir) file(name string) string { return filepath.Join(d.path, name) }

// ReadLeases returns the leases. When there is no file, or one that makes no sense, rebuild says what
// they are; the senseless file is kept beside for whoever wants to know.
func (d *Dir) ReadLeases(rebuild func() (vpc.Leases, error)) (vpc.Leases, error) {
	path := d.file(Leases)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return rebuild()
	}
	if err != nil {
		return vpc.Leases{}, fmt.Errorf("leases: %w", err)
	}
	leases, err := DecodeLeases(data)
	if errors.Is(err, ErrNewer) {
		return vpc.Leases{}, fmt.Errorf("leases: %s: %w; remove it to have it made anew from the node's wires", path, err)
	}
	if err != nil {
		if err := os.Rename(path, path+".corrupt"); err != nil {
			return vpc.Leases{}, fmt.Errorf("leases: %w", err)
		}
		return rebuild()
	}
	d.was[Leases] = data
	return leases, nil
}

type leasesDocument struct {
	Schema string     `json:"schema"`
	Leases vpc.Leases `json:"leases"`
}

// DecodeLeases reads the content of leases.json.
func DecodeLeases(data []byte) (vpc.Leases, error) {
	var d leasesDocument
	if err := json.Unmarshal(data, &d); err != nil {
		return vpc.Leases{}, err
	}
	if err := known(d.Schema, leasesSchema); err != nil {
		return vpc.Leases{}, err
	}
	return d.Leases, d.Leases.Validate()
}

// WriteLeases replaces the leases: after a crash at any point the file is wholly the old or wholly the
// new one. What is there already is not written again.
func (d *Dir) WriteLeases(l vpc.Leases) error {
	return d.write(Leases, leasesDocument{Schema: leasesSchema, Leases: l})
}

type poolDocument struct {
	Schema string `json:"schema"`
	vpc.Supply
}

// ReadPool returns what the daemon wrote last. The error is ErrNoPool when it has not written yet,
// ErrBadPool when the file makes no sense, or ErrNewer; each with the mend.
func (d *Dir) ReadPool() (vpc.Supply, error) {
	path := d.file(Pool)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return vpc.Supply{}, fmt.Errorf("pool: %s: %w: it is written by `zonewise addresses`, which the DaemonSet zonewise-cni runs; "+
			"see whether its pod on this node is well", path, ErrNoPool)
	}
	if err != nil {
		return vpc.Supply{}, fmt.Errorf("pool: %w", err)
	}
	supply, err := DecodePool(data)
	switch {
	case errors.Is(err, ErrNewer):
		return vpc.Supply{}, fmt.Errorf("pool: %s: %w; let the plugin and the DaemonSet zonewise-cni be of the same version", path, err)
	case err != nil:
		return vpc.Supply{}, fmt.Errorf("pool: %s: %w: %w; remove it, and `zonewise addresses` makes it anew from what the cloud says",
			path, ErrBadPool, err)
	}
	d.was[Pool] = data
	return supply, nil
}

// DecodePool reads the content of pool.json.
func DecodePool(data []byte) (vpc.Supply, error) {
	var d poolDocument
	if err := json.Unmarshal(data, &d); err != nil {
		return vpc.Supply{}, err
	}
	if err := known(d.Schema, poolSchema); err != nil {
		return vpc.Supply{}, err
	}
	return d.Supply, d.Supply.Validate()
}

// WritePool replaces the pool, as WriteLeases does the leases.
func (d *Dir) WritePool(s vpc.Supply) error {
	return d.write(Pool, poolDocument{Schema: poolSchema, Supply: s})
}

// HasPool tells whether the pool is what was written, to the byte.
func (d *Dir) HasPool(s vpc.Supply) bool {
	want, err := json.Marshal(poolDocument{Schema: poolSchema, Supply: s})
	have, failed := os.ReadFile(d.file(Pool))
	return err == nil && failed == nil && bytes.Equal(have, want)
}

func known(have, want string) error {
	switch have {
	case want:
		return nil
	case "":
		return errors.New("no schema")
	}
	return fmt.Errorf("schema %q, not %q: %w", have, want, ErrNewer)
}

func (d *Dir) write(name string, document any) error {
	data, err := json.Marshal(document)
	if err == nil && !bytes.Equal(data, d.was[name]) {
		err = d.replace(d.file(name), data)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	d.was[name] = data
	return nil
}

func (d *Dir) replace(path string, data []byte) error {
	// One name, not a random one: what a crash leaves behind is overwritten by the next.
	temp := path + ".new"
	if err := writeSynced(temp, data); err != nil {
		return err
	}
	if err := os.Rename(temp, path); err != nil {
		return err
	}
	return syncDir(d.path)
}

func writeSynced(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
