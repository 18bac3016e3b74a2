package bpf

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cilium/ebpf"

	"github.com/zonewise/zonewise/internal/meter"
)

// elder is what programs of an earlier layout counted.
type elder struct {
	tables
	dir string
}

func (e *elder) close() {
	if e == nil {
		return
	}
	for _, m := range []*ebpf.Map{e.owners, e.counters, e.given, e.others, e.epoch} {
		m.Close()
	}
}

// openElder opens the maps of an earlier layout.
func openElder(dir string) (*elder, error) {
	e := &elder{dir: dir}
	for name, m := range map[string]**ebpf.Map{
		objectMapOwners: &e.owners, objectMapCounters: &e.counters, objectMapGiven: &e.given, objectMapOthers: &e.others, objectMapEpoch: &e.epoch,
	} {
		var err error
		if *m, err = ebpf.LoadPinnedMap(filepath.Join(dir, name), nil); err != nil {
			e.close()
			return nil, fmt.Errorf("map %s of %s: %w", name, filepath.Base(dir), err)
		}
	}
	return e, nil
}

// takeOver finds what programs of other layouts counted, which count no more. What a layout holds that
// is not known to us, being later than ours, goes with it: what it has not told of is lost, as is what
// cannot be read.
func (c *Counter) takeOver() error {
	entries, err := os.ReadDir(c.options.Pins)
	if err != nil {
		return fmt.Errorf("pins: %w", err)
	}
	var others []string
	for _, e := range entries {
		if n := e.Name(); n != c.layout && strings.HasPrefix(n, "v") {
			others = append(others, n)
		}
	}
	if len(others) == 0 || c.elders != nil || c.finish != nil {
		return nil
	}
	if err := c.wait(); err != nil { // for those of their programs that were running
		return err
	}
	for _, n := range others {
		dir := filepath.Join(c.options.Pins, n)
		if slices.Contains(c.known, n) {
			if e, err := openElder(dir); err == nil {
				c.elders = append(c.elders, e)
				continue
			}
		}
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("pins: %w", err)
		}
	}
	return nil
}

// readElders reads the counters of earlier layouts, one layout at a time, and removes them when they
// have been told of.
func (c *Counter) readElders() (r meter.Reading, told bool, err error) {
	if c.finish != nil {
		err := os.RemoveAll(c.finish.dir)
		c.finish.close()
		c.finish = nil
		if err != nil {
			return r, false, fmt.Errorf("meter: pins: %w", err)
		}
	}
	if len(c.elders) == 0 {
		return r, false, nil
	}
	e := c.elders[0]
	clock, err := c.ticks()
	if err == nil {
		r, _, err = e.read(c.boot, clock)
	}
	if err != nil {
		return r, false, fmt.Errorf("meter: counters of %s: %w", filepath.Base(e.dir), err)
	}
	c.elders, c.finish = c.elders[1:], e
	return r, true, nil
}
