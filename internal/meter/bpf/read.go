package bpf

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/zonewise/zonewise/internal/meter"
)

// batch is how many counters come from the kernel in one call.
const batch = 4096

// tables are the maps that hold what was counted.
type tables struct{ owners, counters, given, others, epoch *ebpf.Map }

func (c *Counter) tables() tables {
	m := c.objects.Maps
	return tables{m[objectMapOwners], m[objectMapCounters], m[objectMapGiven], m[objectMapOthers], m[objectMapEpoch]}
}

// used is below which number counters are in use.
func (t tables) used() (uint32, error) {
	var n uint64
	if err := t.given.Lookup(uint32(0), &n); err != nil {
		return 0, fmt.Errorf("given: %w", err)
	}
	return uint32(min(n+1, uint64(t.owners.MaxEntries()))), nil
}

// each calls f with the elements below n of an array.
func each[V any](m *ebpf.Map, n uint32, f func(number uint32, v *V)) error {
	var cursor ebpf.MapBatchCursor
	size := min(batch, n)
	keys, values := make([]uint32, size), make([]V, size)
	for done := uint32(0); done < n; {
		got, err := m.BatchLookup(&cursor, keys, values, nil)
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("map %s: %w", m.String(), err)
		}
		for i := range got {
			if keys[i] < n {
				f(keys[i], &values[i])
			}
		}
		done += uint32(got)
		if err != nil {
			return nil
		}
	}
	return nil
}

// read returns what was counted, and the numbers of the retired.
func (t tables) read(boot string, clock ticks) (r meter.Reading, gone []uint32, err error) {
	n, err := t.used()
	if err != nil {
		return r, nil, err
	}
	// Owners first: a counter is given back by nobody but us, so its owner holds.
	owners := make([]owner, n)
	if err := each(t.owners, n, func(i uint32, o *owner) { owners[i] = *o }); err != nil {
		return r, nil, err
	}
	if err := t.epoch.Lookup(uint32(0), &r.Epoch); err != nil {
		return r, nil, fmt.Errorf("epoch: %w", err)
	}
	r.Boot, r.At, r.Wall, r.Totals = boot, clock.since, time.Now(), make(map[meter.Key]meter.Totals, n)
	if err := each(t.counters, n, func(i uint32, v *counts) {
		if *v == (counts{}) && owners[i].State == live {
			return // just made; or two packets made it at once, and this one goes back
		}
		switch o := &owners[i]; o.State {
		case live:
			r.Totals[o.Key.meter()] = o.totals(v, clock)
		case retired:
			r.Gone = append(r.Gone, meter.Counter{Key: o.Key.meter(), Totals: o.totals(v, clock)})
			gone = append(gone, i)
		}
	}); err != nil {
		return r, nil, err
	}
	return r, gone, t.readOthers(&r)
}

// readOthers adds what has no counter: a full map's by side; untracked packets, of which nobody
// knows who opened what, as uncounted.
func (t tables) readOthers(r *meter.Reading) error {
	return each(t.others, reasons*sides*ways, func(i uint32, w *way) {
		if *w == (way{}) {
			return
		}
		if i/ways/sides == untracked {
			r.Uncounted.Packets += w.Packets
			r.Uncounted.Bytes += w.Bytes
			return
		}
		v := counts{Request: *w}
		if i%ways == 1 {
			v = counts{Response: *w}
		}
		k := meter.Key{Side: meter.Side(i / ways % sides)}
		sum := r.Totals[k]
		sum.Add(v.flow())
		r.Totals[k] = sum
	})
}

// retire takes counters from their keys, waits until no program counts by them any more, and so
// makes what they hold final.
func (c *Counter) retire(keys []meter.Key) error {
	if len(keys) == 0 {
		return nil
	}
	wanted := make(map[meter.Key]bool, len(keys))
	for _, k := range keys {
		wanted[k] = true
	}
	return c.end(func(_ uint32, o *owner) bool { return o.State == live && wanted[o.Key.meter()] })
}

// end retires the counters that which tells.
func (c *Counter) end(which func(uint32, *owner) bool) error {
	n, err := c.tables().used()
	if err != nil {
		return err
	}
	ended := map[uint32]owner{}
	if err := each(c.objects.Maps[objectMapOwners], n, func(i uint32, o *owner) {
		if i != 0 && which(i, o) {
			ended[i] = *o
		}
	}); err != nil {
		return err
	}
	if len(ended) == 0 {
		return nil
	}
	for i, o := range ended {
		var there uint32
		err := c.objects.Maps[objectMapNumbers].Lookup(&o.Key, &there)
		if err == nil && there == i {
			err = c.objects.Maps[objectMapNumbers].Delete(&o.Key)
		}
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("numbers: %w", err)
		}
		o.State = retired
		if err := c.objects.Maps[objectMapOwners].Put(i, &o); err != nil {
			return fmt.Errorf("owners: %w", err)
		}
	}
	// From here on nobody finds one of these by its key, and who did before has kept it for his flow.
	if err := c.wait(); err != nil {
		return err
	}
	for i := range ended {
		var g uint32
		generations := c.objects.Maps[objectMapGenerations]
		if err := generations.Lookup(i, &g); err != nil {
			return fmt.Errorf("generations: %w", err)
		}
		if err := generations.Put(i, g+1); err != nil {
			return fmt.Errorf("generations: %w", err)
		}
	}
	return c.wait()
}

// release gives retired counters back.
func (c *Counter) release(numbers []uint32) error {
	for _, i := range numbers {
		if err := c.objects.Maps[objectMapCounters].Put(i, &counts{}); err != nil {
			return fmt.Errorf("counters: %w", err)
		}
		if err := c.objects.Maps[objectMapOwners].Put(i, &owner{}); err != nil {
			return fmt.Errorf("owners: %w", err)
		}
		if err := c.objects.Maps[objectMapReturned].Put(nil, i); err != nil {
			return fmt.Errorf("returned: %w", err)
		}
	}
	return nil
}

// sweep mends what an agent left that died on the way: counters that no key leads to are retired,
// and free ones are handed out again. A program owns a counter before its key leads there: so who
// is looked at was live before a wait, and no key led there after it.
func (c *Counter) sweep() error {
	free, err := c.unreturn()
	if err != nil {
		return err
	}
	born, err := c.live()
	if err != nil {
		return err
	}
	if err := c.wait(); err != nil {
		return err
	}
	var k key
	var i uint32
	leads := c.objects.Maps[objectMapNumbers].Iterate()
	for leads.Next(&k, &i) {
		delete(born, i)
	}
	// One that was cut short by changes leaves too many: these are retired like any other counter.
	if err := leads.Err(); err != nil && !errors.Is(err, ebpf.ErrIterationAborted) {
		return fmt.Errorf("numbers: %w", err)
	}
	if err := c.end(func(i uint32, o *owner) bool {
		b, suspect := born[i]
		return suspect && o.State == live && o.Born == b
	}); err != nil {
		return err
	}
	for _, i := range free {
		if err := c.objects.Maps[objectMapReturned].Put(nil, i); err != nil {
			return fmt.Errorf("returned: %w", err)
		}
	}
	return nil
}

// live lists the counters that have an owner, and since when.
func (c *Counter) live() (map[uint32]uint64, error) {
	n, err := c.tables().used()
	if err != nil {
		return nil, err
	}
	born := map[uint32]uint64{}
	return born, each(c.objects.Maps[objectMapOwners], n, func(i uint32, o *owner) {
		if o.State == live {
			born[i] = o.Born
		}
	})
}

// unreturn takes all returned counters out, and lists those that are free. A program that has just
// taken one has made it its own when the wait is over.
func (c *Counter) unreturn() (numbers []uint32, err error) {
	for {
		var i uint32
		err := c.objects.Maps[objectMapReturned].LookupAndDelete(nil, &i)
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("returned: %w", err)
		}
	}
	n, err := c.tables().used()
	if err != nil {
		return nil, err
	}
	if err := c.wait(); err != nil {
		return nil, err
	}
	return numbers, each(c.objects.Maps[objectMapOwners], n, func(i uint32, o *owner) {
		if i != 0 && o.State == free {
			numbers = append(numbers, i)
		}
	})
}

// newGrace makes a map of maps. Whoever changes one waits until no program runs that has seen the
// map as it was.
func newGrace() (*ebpf.Map, error) {
	return ebpf.NewMap(&ebpf.MapSpec{
		Name: "grace", Type: ebpf.ArrayOfMaps, KeySize: 4, ValueSize: 4, MaxEntries: 1, InnerMap: graceInner(),
	})
}

func graceInner() *ebpf.MapSpec {
	return &ebpf.MapSpec{Name: "grace", Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1}
}

// wait returns when every program that was running has ended.
func (c *Counter) wait() error {
	inner, err := ebpf.NewMap(graceInner())
	if err != nil {
		return fmt.Errorf("grace: %w", err)
	}
	defer inner.Close()
	if err := c.grace.Put(uint32(0), uint32(inner.FD())); err != nil {
		return fmt.Errorf("grace: %w", err)
	}
	return nil
}

func bootID() (string, error) {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("boot id: %w", err)
	}
	return strings.TrimSpace(string(id)), nil
}

// sinceBoot is the time on the clock that nobody sets.
func sinceBoot() (time.Duration, error) {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		return 0, fmt.Errorf("time since boot: %w", err)
	}
	return time.Duration(t.Nano()), nil
}

// ticks reads both clocks.
func (c *Counter) ticks() (t ticks, err error) {
	if _, err := c.objects.Programs[objectProgNow].Run(&ebpf.RunOptions{Context: &t.jiffies, ContextOut: &t.jiffies}); err != nil {
		return t, fmt.Errorf("program %s: %w", objectProgNow, err)
	}
	if t.each, err = tick(); err != nil {
		return t, err
	}
	t.since, err = sinceBoot()
	return t, err
}

// tick is how long a jiffy is: so fine is a coarse clock.
func tick() (time.Duration, error) {
	var t unix.Timespec
	if err := unix.ClockGetres(unix.CLOCK_MONOTONIC_COARSE, &t); err != nil {
		return 0, fmt.Errorf("length of a tick: %w", err)
	}
	return time.Duration(t.Nano()), nil
}
