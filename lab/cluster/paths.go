package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/zonewise/zonewise/lab/topology"
)

// Home is where labs keep their state: $ZONEWISE_LAB_HOME, or /var/lib/zonewise.
func Home() string {
	if dir := os.Getenv("ZONEWISE_LAB_HOME"); dir != "" {
		return dir
	}
	return "/var/lib/zonewise"
}

// Paths are the files of one lab.
type Paths struct{ Dir string }

// PathsOf returns the paths of a lab, whether it exists or not.
func PathsOf(name string) Paths { return Paths{filepath.Join(Home(), "labs", name)} }

func (p Paths) Config() string           { return filepath.Join(p.Dir, "lab.json") }
func (p Paths) Lock() string             { return filepath.Join(p.Dir, "lock") }
func (p Paths) Socket() string           { return filepath.Join(p.Dir, "lab.sock") }
func (p Paths) PKI() string              { return filepath.Join(p.Dir, "pki") }
func (p Paths) Etcd() string             { return filepath.Join(p.Dir, "etcd") }
func (p Paths) Logs() string             { return filepath.Join(p.Dir, "logs") }
func (p Paths) Images() string           { return filepath.Join(p.Dir, "images") }
func (p Paths) Template() string         { return filepath.Join(p.Dir, "template") }
func (p Paths) Kubeconfig() string       { return filepath.Join(p.Dir, "kubeconfig") }
func (p Paths) Node(alias string) string { return filepath.Join(p.Dir, "nodes", alias) }
func (p Paths) Log(name string) string   { return filepath.Join(p.Logs(), name+".log") }
func (p Paths) NodeLog(alias, name string) string {
	return filepath.Join(p.Node(alias), "root/var/log", name+".log")
}

// Cache holds unpacked images, which all labs of a host share and which are made again where they
// are missing.
func Cache() string {
	if dir := os.Getenv("ZONEWISE_LAB_HOME"); dir != "" {
		return filepath.Join(dir, "cache")
	}
	return "/var/cache/zonewise"
}

// ErrNotFound is returned for a lab that does not exist.
var ErrNotFound = errors.New("no such lab")

// Names lists the labs that exist, running or not.
func Names() ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(Home(), "labs"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() && topology.ValidateName(e.Name()) == nil {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// errBusy is returned where another process holds the lab's lock.
var errBusy = errors.New("in use by another process")

// lock takes the lab's lock without waiting: it is held by whatever runs the lab, for as long as
// that lives.
func lock(p Paths) (*os.File, error) {
	f, err := os.OpenFile(p.Lock(), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("lab %s: %w", filepath.Base(p.Dir), errBusy)
		}
		return nil, err
	}
	return f, nil
}
