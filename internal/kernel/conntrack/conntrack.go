// Package conntrack is a thin door to the kernel's table of tracked flows. Fake stands in for it.
package conntrack

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// Flow is a tracked UDP flow: the address that its first packet was sent to, and the address
// that answers come from. They differ when the destination was translated.
type Flow struct {
	To   netip.AddrPort
	From netip.AddrPort
}

// Conn reaches the flow table of the network namespace of the calling thread.
type Conn struct{}

// CutUDP forgets the UDP flows of a family that the function names, so that their next packet is a
// first one again. It reads all UDP flows of the family, once. It returns how many it cut.
//
// What it costs is the kernel's walk through its table, some 10 ms where that has 262,144 buckets, and
// no question that may be put spares that: a deletion by addresses walks as long. So the kernel is asked
// for UDP alone, and of that is read what is needed: others' flows may be hundreds of thousands.
func (Conn) CutUDP(v6 bool, cut func(Flow) bool) (total int, err error) {
	d, err := open(v6)
	if err != nil {
		return 0, fmt.Errorf("conntrack: %w", err)
	}
	defer d.socket.Close()
	for try := 0; ; try++ {
		n, err := d.cut(cut)
		total += n
		// A table that changes while it is read may hide a flow: read it again.
		if errors.Is(err, netlink.ErrDumpInterrupted) && try < 3 {
			continue
		}
		if err != nil {
			return total, fmt.Errorf("conntrack: %w", err)
		}
		return total, nil
	}
}
