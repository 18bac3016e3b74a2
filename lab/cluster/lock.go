package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zonewise/zonewise/lab/topology"
)

// ErrBusy is returned where another process starts, runs or removes the lab.
var ErrBusy = errors.New("in use by another process")

// ErrDifferent is returned for a lab that exists with another configuration.
var ErrDifferent = errors.New("exists and is different")

// Claim is the right to run a lab. Its lock is the kernel's: it ends with the process, however
// that ends.
type Claim struct {
	Fresh bool // the lab did not exist before
	paths Paths
	lock  *os.File
}

// Take claims the lab of a configuration, and makes it where there is none.
func Take(c topology.Config) (*Claim, error) {
	p := PathsOf(c.Name)
	held, err := lockNew(p)
	if err != nil {
		return nil, err
	}
	claim := &Claim{paths: p, lock: held}
	if err := claim.adopt(c); err != nil {
		if claim.Fresh {
			err = errors.Join(err, claim.Undo())
		}
		return nil, errors.Join(err, held.Close())
	}
	return claim, nil
}

func (c *Claim) adopt(want topology.Config) error {
	have, err := LoadConfig(c.paths)
	switch {
	case errors.Is(err, ErrNotFound):
		c.Fresh = true
	case err != nil:
		return err
	case !Same(have, want):
		return ErrDifferent
	}
	if err := c.lock.Truncate(0); err != nil {
		return err
	}
	if _, err := c.lock.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0); err != nil {
		return err
	}
	return saveConfig(c.paths, want)
}

// Release lets go of a lab that stays.
func (c *Claim) Release() error { return c.lock.Close() }

// Same tells whether a lab that exists is the one that is asked for. Whether it asks registries may
// change from one start to the next.
func Same(have, want topology.Config) bool {
	have, want = have.WithDefaults(), want.WithDefaults() // a lab may be older than a field
	have.Offline = want.Offline
	return reflect.DeepEqual(have, want)
}

// lockNew makes the lab's directory and locks it. Another process may be removing it meanwhile.
func lockNew(p Paths) (*os.File, error) {
	deadline := time.Now().Add(time.Second)
	for {
		err := os.MkdirAll(p.Dir, 0o755)
		var held *os.File
		if err == nil {
			held, err = lock(p)
		}
		if !errors.Is(err, fs.ErrNotExist) || time.Now().After(deadline) {
			return held, err
		}
	}
}

// lock takes the lab's lock without waiting. fs.ErrNotExist: the lab is gone, or is going.
func lock(p Paths) (*os.File, error) {
	f, err := lockFile(p.Lock())
	if err != nil {
		return nil, fmt.Errorf("lab %s: %w", filepath.Base(p.Dir), err)
	}
	// The file may have been removed, with all of the lab, between its opening and the lock.
	if here, err := os.Stat(p.Lock()); err == nil {
		if mine, err := f.Stat(); err == nil && os.SameFile(here, mine) {
			return f, nil
		}
	}
	_ = f.Close()
	return nil, fmt.Errorf("lab %s: %w", filepath.Base(p.Dir), fs.ErrNotExist)
}

// lockFile locks a file, and makes it where there is none. ErrBusy if another process has it locked.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}); err != nil {
		_ = f.Close()
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
			err = ErrBusy
		}
		return nil, err
	}
	return f, nil
}

// Running tells whether some process runs the lab, or is about to. It takes no lock itself.
func Running(p Paths) bool {
	f, err := os.Open(p.Lock())
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }()
	held := unix.Flock_t{Type: unix.F_RDLCK}
	return unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &held) == nil && held.Type != unix.F_UNLCK
}

// RunnerPID reads from the lock who runs the lab, or did last; 0 if nobody ever did.
func RunnerPID(p Paths) int {
	data, err := os.ReadFile(p.Lock())
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil || pid < 0 {
		return 0
	}
	return pid
}

func saveConfig(p Paths, c topology.Config) error {
	data, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(p.Config(), data, 0o644)
}

// LoadConfig reads the configuration of a lab. ErrNotFound if there is no such lab.
func LoadConfig(p Paths) (topology.Config, error) {
	var c topology.Config
	data, err := os.ReadFile(p.Config())
	if errors.Is(err, fs.ErrNotExist) {
		return c, ErrNotFound
	}
	if err != nil {
		return c, err
	}
	if err := json.Unmarshal(data, &c); err != nil {
		return c, fmt.Errorf("%s: %w", p.Config(), err)
	}
	return c, nil
}

// writeFile replaces a file whole, or not at all.
func writeFile(path string, data []byte, mode fs.FileMode) error {
	temp := path + ".tmp"
	if err := os.WriteFile(temp, data, mode); err != nil {
		return err
	}
	return os.Rename(temp, path)
}
