package cni

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

// schema is the version of the checkpoint. A newer one is refused: to read it half would be to
// forget leases.
const schema = "zonewise.leases/v1"

var errNewer = errors.New("written by another version")

// checkpoint is the leases on disk. One process has it at a time; it is held by a lock on a file of
// its own, since the leases' file is replaced by each write.
type checkpoint struct {
	dir  string
	lock *os.File
	was  []byte // what read found good; nil: nothing
}

type document struct {
	Schema string     `json:"schema"`
	Leases vpc.Leases `json:"leases"`
}

// openCheckpoint waits until nobody else has the checkpoint. The holder lets it go when it closes
// it or ends, in whatever way.
func openCheckpoint(dir string) (*checkpoint, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("leases: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
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
	return &checkpoint{dir: dir, lock: lock}, nil
}

func (c *checkpoint) close() error { return c.lock.Close() }

func (c *checkpoint) path() string { return filepath.Join(c.dir, "leases.json") }

// read returns the leases. When there is no file, or one that makes no sense, rebuild says what
// they are; the senseless file is kept beside for whoever wants to know.
func (c *checkpoint) read(rebuild func() (vpc.Leases, error)) (vpc.Leases, error) {
	data, err := os.ReadFile(c.path())
	if errors.Is(err, fs.ErrNotExist) {
		return rebuild()
	}
	if err != nil {
		return vpc.Leases{}, fmt.Errorf("leases: %w", err)
	}
	leases, err := decode(data)
	if errors.Is(err, errNewer) {
		return vpc.Leases{}, fmt.Errorf("leases: %s: %w; remove it to have it made anew from the node's wires", c.path(), err)
	}
	if err != nil {
		if err := os.Rename(c.path(), c.path()+".corrupt"); err != nil {
			return vpc.Leases{}, fmt.Errorf("leases: %w", err)
		}
		return rebuild()
	}
	c.was = data
	return leases, nil
}

func decode(data []byte) (vpc.Leases, error) {
	var d document
	if err := json.Unmarshal(data, &d); err != nil {
		return vpc.Leases{}, err
	}
	if d.Schema == "" {
		return vpc.Leases{}, errors.New("no schema")
	}
	if d.Schema != schema {
		return vpc.Leases{}, fmt.Errorf("schema %q, not %q: %w", d.Schema, schema, errNewer)
	}
	return d.Leases, d.Leases.Validate()
}

// write replaces the leases: after a crash at any point the file is wholly the old or wholly the
// new one. What is there already is not written again.
func (c *checkpoint) write(l vpc.Leases) error {
	data, err := json.Marshal(document{Schema: schema, Leases: l})
	if err != nil {
		return fmt.Errorf("leases: %w", err)
	}
	if bytes.Equal(data, c.was) {
		return nil
	}
	// One name, not a random one: what a crash leaves behind is overwritten by the next.
	temp := c.path() + ".new"
	if err := writeSynced(temp, data); err != nil {
		return fmt.Errorf("leases: %w", err)
	}
	if err := os.Rename(temp, c.path()); err != nil {
		return fmt.Errorf("leases: %w", err)
	}
	return syncDir(c.dir)
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

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("leases: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("leases: %w", err)
	}
	return nil
}
