package bpf

import (
	"fmt"
	"os"
	"time"

	"github.com/zonewise/zonewise/internal/kernel/bpf"
)

// SocketLayout is the folder, among the socket path's pins, of what Options.Sockets wants: both rooms know it.
const SocketLayout = "sockets-v1"

// Now is the time on the clock of readings.
func (c *Counter) Now() (time.Duration, error) { return sinceBoot() }

// Capacity is for how many keys there are counters.
func (c *Counter) Capacity() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := int(c.objects.Maps[objectMapOwners].MaxEntries()) - 1 // counter 0 is none
	if c.options.Room > 0 {
		n = min(n, c.options.Room)
	}
	return n
}

// Remove takes away what any agent left, on a machine that is to have no meter: what is pinned is all that
// holds programs and counters.
func Remove(o Options) error {
	if !bpf.IsPinnable(o.Pins) || !bpf.Exists(o.Pins) {
		return nil
	}
	if err := os.RemoveAll(o.Pins); err != nil {
		return fmt.Errorf("meter: pins: %w", err)
	}
	return nil
}
