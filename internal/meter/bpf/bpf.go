// Package bpf counts in the kernel for the meter room: every packet that the node forwards, sends or
// receives, once, where netfilter has done with it, by what connection tracking knows of it.
package bpf

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/zonewise/zonewise/internal/kernel/bpf"
	"github.com/zonewise/zonewise/internal/meter"
)

// Options of a Counter.
type Options struct {
	// Pins is a directory on a bpffs, made if missing, in which programs and counters outlive the agent.
	Pins string
	// Sockets is the directory in which the socket path pins what sockets were led to; empty: there is none.
	Sockets string
	// Cgroup is the directory of the cgroup v2 whose sockets the socket path leads, if there is one.
	Cgroup string
	// Room is for how many keys there are counters at most; 0: 65,535.
	Room int
	// PodInterface is how the names of pods' interfaces on the node begin, 8 bytes at most.
	PodInterface string
}

// Unsupported says what the machine lacks for counting.
type Unsupported struct{ Missing string }

func (u *Unsupported) Error() string { return u.Missing }

// layout is of what the maps hold. Whoever makes another must read this one's totals as well, or
// what was counted since the last reading is lost with an upgrade.
const (
	layout   = "v1"
	linksDir = "links"
)

// Counter counts the packets of the network namespace in which Attach is called. It is safe for concurrent use.
type Counter struct {
	options Options

	mu      sync.Mutex
	objects *ebpf.Collection
	links   map[string]link.Link // by program
	lock    *os.File
	grace   *ebpf.Map
	boot    string
	told    []uint32 // retired counters that the last reading told of
}

// New makes the maps, or adopts those that are there, and hands the programs to the kernel. Nothing
// is counted before Attach. The error is an *Unsupported where the machine cannot count so.
func New(o Options) (*Counter, error) {
	if !bpf.IsPinnable(o.Pins) {
		return nil, &Unsupported{o.Pins + " is not on a bpffs"}
	}
	c := &Counter{options: o, links: map[string]link.Link{}}
	if err := c.open(); err != nil {
		return nil, errors.Join(fmt.Errorf("meter: %w", err), c.Close())
	}
	return c, nil
}

func (c *Counter) open() error {
	var err error
	if c.boot, err = bootID(); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(c.options.Pins, layout), 0o700); err != nil {
		return fmt.Errorf("pins: %w", err)
	}
	if c.lock, err = bpf.Lock(c.options.Pins); err != nil {
		return err
	}
	if c.grace, err = newGrace(); err != nil {
		return &Unsupported{"the kernel makes no map of maps: " + err.Error()}
	}
	if err := c.load(); err != nil {
		return err
	}
	if err := c.openLinks(); err != nil {
		return err
	}
	if err := c.describe(); err != nil {
		return err
	}
	return c.sweep()
}

// describe gives new counters an epoch, and tells the programs which interfaces are pods'.
func (c *Counter) describe() error {
	var s settings
	m := c.objects.Maps[objectMapSettings]
	if err := m.Lookup(uint32(0), &s); err != nil {
		return fmt.Errorf("settings: %w", err)
	}
	before := s
	if s.Noting = 0; c.objects.Programs[objectProgEgress] != nil {
		s.Noting = 1
	}
	s.Room = uint64(c.objects.Maps[objectMapOwners].MaxEntries() - 1) // counter 0 is none
	if n := uint64(c.options.Room); n > 0 {
		s.Room = min(n, s.Room)
	}
	s.Pods = [8]byte{}
	copy(s.Pods[:], c.options.PodInterface)
	if s.Epoch == 0 {
		now, err := sinceBoot()
		if err != nil {
			return err
		}
		s.Epoch = uint64(now)
	}
	if s == before {
		return nil
	}
	if err := m.Put(uint32(0), &s); err != nil {
		return fmt.Errorf("settings: %w", err)
	}
	return nil
}

// Read returns what was counted until now. Counters that were retired are told of once, as gone, and
// given back by the next call: who calls again has dealt with the reading before.
func (c *Counter) Read() (meter.Reading, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.release(c.told); err != nil {
		return meter.Reading{}, fmt.Errorf("meter: %w", err)
	}
	c.told = nil
	r, gone, err := c.read()
	if err != nil {
		return meter.Reading{}, fmt.Errorf("meter: %w", err)
	}
	c.told = gone
	return r, nil
}

// Retire takes the counters of these keys away: the next reading tells what they held at the end.
// Who is counted by such a key again gets a new counter.
func (c *Counter) Retire(keys []meter.Key) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.retire(keys); err != nil {
		return fmt.Errorf("meter: %w", err)
	}
	return nil
}

// Attach makes the kernel count, in the network namespace of the calling thread. Where an earlier
// agent's programs count, ours take over between two packets.
func (c *Counter) Attach() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.attach(); err != nil {
		return fmt.Errorf("meter: %w", err)
	}
	return nil
}

// Remove takes programs and counters away.
func (c *Counter) Remove() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var errs []error
	for name, l := range c.links {
		errs = append(errs, os.RemoveAll(c.linkPin(name)), l.Close())
		delete(c.links, name)
	}
	errs = append(errs, os.RemoveAll(filepath.Join(c.options.Pins, linksDir)), os.RemoveAll(filepath.Join(c.options.Pins, layout)))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("meter: %w", err)
	}
	if err := os.Remove(c.options.Pins); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("meter: %w", err)
	}
	return nil
}

// Close lets go of the kernel, which counts on.
func (c *Counter) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var errs []error
	for _, l := range c.links {
		errs = append(errs, l.Close())
	}
	c.links = nil
	if c.objects != nil {
		c.objects.Close()
		c.objects = nil
	}
	if c.grace != nil {
		errs = append(errs, c.grace.Close())
		c.grace = nil
	}
	if c.lock != nil {
		errs = append(errs, c.lock.Close())
		c.lock = nil
	}
	return errors.Join(errs...)
}
