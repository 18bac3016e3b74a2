// Package rig makes the small world in which dataplanes are tried and measured: one node with six
// pods, and everything else behind the node's gateway, all of it network namespaces of this machine.
// It needs root, and touches nothing of the host but a cgroup and a directory of its own: nothing is mounted.
package rig

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/zonewise/zonewise/internal/kernel/bpf"
	"github.com/zonewise/zonewise/internal/kernel/netns"
)

// The addresses of a world. All of Outside's are one machine: the gateway, pods of other nodes, and
// a stranger who is nobody of the cluster. Outside finds everything else by way of the node.
const (
	NodeV4 = "192.168.1.10"
	NodeV6 = "fd00:192:168:1::10"
	// Second is another address of the node: it has it, and the API does not say so.
	SecondV4 = "192.168.1.110"
	SecondV6 = "fd00:192:168:1::110"

	OutsideV4 = "192.168.1.1"
	OutsideV6 = "fd00:192:168:1::1"
	// Remote and Other are pods of other nodes.
	RemoteV4 = "192.168.2.11"
	RemoteV6 = "fd00:192:168:2::11"
	OtherV4  = "192.168.3.11"
	OtherV6  = "fd00:192:168:3::11"
	// Stranger is far away, and nobody's neighbour.
	StrangerV4 = "203.0.113.7"
	StrangerV6 = "2001:db8:203::7"
)

// clients and servers are how many pods of each sort there are.
const (
	clients = 2
	servers = 4
)

// Options of a World. The zero value is good.
type Options struct {
	// Dir is where the world has a directory of its own. Empty: the directory for temporary files.
	Dir string
}

// World is a node, its pods and all others.
//
//	pod 0, 1 (clients)          192.168.1.11, .12 ─ eni… ┐
//	                                                     node 192.168.1.10 ─ eth0 ─ 192.168.1.1 outside
//	pod 2, 3, 4, 5 (servers)    192.168.1.13 … .16 ─ eni… ┘
type World struct {
	Node, Outside *netns.NS
	Pods          []Pod  // two clients, then four servers
	Cgroup        string // a cgroup of version 2, made for this world; empty of processes at first
	BPF           string // a BPF file system of this world's own, by a path that holds while this process lives
	Namespaces    string // a directory with the pods' network namespaces by name, while this process lives

	name   string
	dir    string
	cgroup *os.File // Cgroup, open: processes are born in it
	bpf    *os.File // the root of BPF
	spaces []*netns.NS
	home   string // the cgroup that this process was in before it entered
}

// Pod is a pod of the node, wired as the CNI plugin does.
type Pod struct {
	NS        *netns.NS
	V4, V6    netip.Addr
	Interface string // its device on the node
}

// New makes a world. What a dead process left of worlds is removed on the way.
func New(o Options) (*World, error) {
	if o.Dir == "" {
		o.Dir = os.TempDir()
	}
	mount, err := bpf.CgroupMount()
	if err != nil {
		return nil, fmt.Errorf("rig: %w", err)
	}
	if err := sweep(o.Dir, mount); err != nil {
		return nil, fmt.Errorf("rig: leftovers: %w", err)
	}
	w := &World{}
	if err := w.make(o.Dir, mount); err != nil {
		return nil, fmt.Errorf("rig: %w", errors.Join(err, w.Close()))
	}
	return w, nil
}

func (w *World) make(dir, mount string) error {
	var err error
	if w.dir, err = os.MkdirTemp(dir, fmt.Sprintf("%s%d-", prefix, os.Getpid())); err != nil {
		return err
	}
	w.name = filepath.Base(w.dir)
	if err := w.makeCgroup(mount); err != nil {
		return fmt.Errorf("cgroup: %w", err)
	}
	if err := w.makeNetwork(); err != nil {
		return fmt.Errorf("network: %w", err)
	}
	return w.makePlaces()
}

// Close removes the world, with every process in its cgroup save this one. It is safe to repeat.
func (w *World) Close() error {
	errs := []error{w.leave(), w.removeCgroup()}
	if w.dir != "" {
		errs = append(errs, os.RemoveAll(w.dir))
	}
	if w.bpf != nil {
		errs = append(errs, w.bpf.Close())
		w.bpf = nil
	}
	for _, ns := range w.spaces {
		errs = append(errs, ns.Close())
	}
	w.spaces = nil
	return errors.Join(errs...)
}

func (w *World) space() (*netns.NS, error) {
	ns, err := netns.New()
	if err == nil {
		w.spaces = append(w.spaces, ns)
	}
	return ns, err
}
