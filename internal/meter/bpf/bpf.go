// Package bpf counts in the kernel for the meter room: every packet that the node forwards, sends or
// receives, once, where netfilter has done with it, by what connection tracking knows of it.
package bpf

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"time"

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
	// Namespaces is the directory of named network namespaces in which pods are; empty: there are none.
	Namespaces string
	// Room is for how many keys there are counters at most; 0: 65,535.
	Room int
	// PodInterface is how the names of pods' interfaces on the node begin, 8 bytes at most.
	PodInterface string
}

// Unsupported says what the machine lacks for counting.
type Unsupported struct{ Missing string }

func (u *Unsupported) Error() string { return u.Missing }

// currentLayout is of what the maps hold. Another meaning or size is another layout: its agents take the
// hooks over, and read what the earlier one's maps hold before they remove them (see takeover.go). What
// hangs at the hooks, and the table of programs that it jumps into, outlives that.
const (
	currentLayout = "v1"
	linksDir      = "links"
)

// Counter counts the packets of the network namespace in which Attach is called. It is safe for concurrent use.
type Counter struct {
	options Options

	mu      sync.Mutex
	objects *ebpf.Collection
	links   map[string]link.Link // by program
	lock    *os.File
	grace   *ebpf.Map
	noting  bool // there is a socket path
	fresh   bool // our maps are new
	layout  string
	known   []string // earlier layouts whose maps have the shape of ours
	elders  []*elder // counters of those, which are final, and not told of
	finish  *elder   // told of by the last reading
	boot    string
	told    []uint32 // retired counters that the last reading told of
}

// New makes the maps, or adopts those that are there, and hands the programs to the kernel. Nothing
// is counted before Attach. The error is an *Unsupported where the machine cannot count so.
func New(o Options) (*Counter, error) { return open(o, currentLayout) }

func open(o Options, layout string, known ...string) (*Counter, error) {
	if !bpf.IsPinnable(o.Pins) {
		return nil, &Unsupported{o.Pins + " is not on a bpffs"}
	}
	c := &Counter{options: o, layout: layout, known: known, links: map[string]link.Link{}}
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
	if err := os.MkdirAll(filepath.Join(c.options.Pins, c.layout), 0o700); err != nil {
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
	if err := c.begin(); err != nil {
		return err
	}
	return c.sweep()
}

// settings are what the programs take for constants.
func (c *Counter) settings(spec *ebpf.CollectionSpec) (*settings, error) {
	s := &settings{Seed: rand.Uint64(), Room: uint64(spec.Maps[objectMapOwners].MaxEntries - 1)} // counter 0 is none
	if n := uint64(c.options.Room); n > 0 {
		s.Room = min(n, s.Room)
	}
	if c.noting {
		s.Noting = 1
	}
	for i := range copy(s.Pods[:], c.options.PodInterface) {
		s.PodsMask[i] = 0xff
	}
	tick, err := tick()
	if err != nil {
		return nil, err
	}
	s.Second = uint64(time.Second / tick)
	return s, nil
}

// begin gives new counters an epoch.
func (c *Counter) begin() error {
	var epoch uint64
	m := c.objects.Maps[objectMapEpoch]
	if err := m.Lookup(uint32(0), &epoch); err != nil {
		return fmt.Errorf("epoch: %w", err)
	}
	if epoch != 0 {
		return nil
	}
	now, err := sinceBoot()
	if err != nil {
		return err
	}
	if err := m.Put(uint32(0), uint64(now)); err != nil {
		return fmt.Errorf("epoch: %w", err)
	}
	return nil
}

// Read returns what was counted until now. Counters that were retired are told of once, as gone, and
// given back by the next call: who calls again has dealt with the reading before. The first readings
// are of the counters of earlier layouts, if there are any.
func (c *Counter) Read() (meter.Reading, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r, told, err := c.readElders(); told || err != nil {
		return r, err
	}
	if err := c.release(c.told); err != nil {
		return meter.Reading{}, fmt.Errorf("meter: %w", err)
	}
	c.told = nil
	clock, err := c.ticks()
	if err != nil {
		return meter.Reading{}, fmt.Errorf("meter: %w", err)
	}
	r, gone, err := c.tables().read(c.boot, clock)
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

// Detach takes the programs from their hooks, as to measure what they cost. What was counted stays, and is counted on after Attach.
func (c *Counter) Detach() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var errs []error
	for name, l := range c.links {
		errs = append(errs, os.RemoveAll(c.linkPin(name)), l.Close())
		delete(c.links, name)
	}
	if err := errors.Join(errs...); err != nil {
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
	for _, e := range append(c.elders, c.finish) {
		e.close()
	}
	c.elders, c.finish = nil, nil
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
