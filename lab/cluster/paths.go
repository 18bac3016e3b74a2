package cluster

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/zonewise/zonewise/lab/topology"
)

const defaultHome = "/var/lib/zonewise"

// Home is where labs keep their state: $ZONEWISE_LAB_HOME, or /var/lib/zonewise.
func Home() string {
	if dir := os.Getenv("ZONEWISE_LAB_HOME"); dir != "" {
		if full, err := filepath.Abs(dir); err == nil {
			return full
		}
		return dir
	}
	return defaultHome
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
func (p Paths) Cloud() string            { return filepath.Join(p.Dir, "cloud.json") }
func (p Paths) AWS() string              { return filepath.Join(p.Dir, "aws.env") }
func (p Paths) Nodes() string            { return filepath.Join(p.Dir, "nodes") }
func (p Paths) Node(alias string) string { return filepath.Join(p.Nodes(), alias) }
func (p Paths) Log(name string) string   { return filepath.Join(p.Logs(), name+".log") }
func (p Paths) NodeLog(alias, name string) string {
	return filepath.Join(p.Node(alias), "root/var/log", name+".log")
}

// Cgroup holds all processes of the lab, below the root of every hierarchy. Labs of the same name
// with different homes are different labs.
func (p Paths) Cgroup() string {
	name := "zonewise-" + filepath.Base(p.Dir)
	if Home() == defaultHome {
		return name
	}
	sum := sha256.Sum256([]byte(p.Dir))
	return name + "-" + hex.EncodeToString(sum[:4])
}

// NodeCgroup holds all processes of one node.
func (p Paths) NodeCgroup(alias string) string { return p.Cgroup() + "/" + alias }

// Cache holds unpacked images, which all labs of a host share and which are made again where they
// are missing.
func Cache() string {
	if home := Home(); home != defaultHome {
		return filepath.Join(home, "cache")
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
