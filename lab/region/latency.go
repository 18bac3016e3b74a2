package region

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// delay holds back what reaches a node from another zone: a netem queue behind a filter on the
// mark that the counting rule of such packets sets. Without netem in the kernel the lab goes on
// and says so.
func (f *Fabric) delay(link netlink.Link) error {
	if f.topo.CrossZoneLatency == 0 || f.latency != nil {
		return nil
	}
	index := link.Attrs().Index
	if !hasNetem(index) {
		f.latency = errors.New("this kernel has no netem (CONFIG_NET_SCH_NETEM)")
		return nil
	}
	root := netlink.NewPrio(netlink.QdiscAttrs{LinkIndex: index, Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT})
	root.PriorityMap = [16]uint8{} // everything to the first band, which does not wait
	netem := netlink.NewNetem(
		netlink.QdiscAttrs{LinkIndex: index, Handle: netlink.MakeHandle(2, 0), Parent: netlink.MakeHandle(1, 2)},
		netlink.NetemQdiscAttrs{Latency: uint32(f.topo.CrossZoneLatency.Microseconds()), Limit: 10000})
	filter := &netlink.FwFilter{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: index, Parent: netlink.MakeHandle(1, 0), Handle: crossMark, Priority: 1, Protocol: unix.ETH_P_ALL,
		},
		ClassId: netlink.MakeHandle(1, 2),
	}
	for _, step := range []struct {
		what string
		do   func() error
	}{
		{"prio queue (CONFIG_NET_SCH_PRIO)", func() error { return netlink.QdiscAdd(root) }},
		{"netem (CONFIG_NET_SCH_NETEM)", func() error { return netlink.QdiscAdd(netem) }},
		{"fw filter (CONFIG_NET_CLS_FW)", func() error { return netlink.FilterAdd(filter) }},
	} {
		err := step.do()
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP) {
			f.latency = fmt.Errorf("this kernel has no %s", step.what)
			_ = netlink.QdiscDel(root) // nothing half-done stays; the link falls back to its default queue
			return nil
		}
		if err != nil {
			return fmt.Errorf("latency: %s: %w", step.what, err)
		}
	}
	return nil
}

// hasNetem tries netem out as a link's only queue.
func hasNetem(index int) bool {
	trial := netlink.NewNetem(
		netlink.QdiscAttrs{LinkIndex: index, Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT}, netlink.NetemQdiscAttrs{})
	return netlink.QdiscAdd(trial) == nil && netlink.QdiscDel(trial) == nil
}

// Latency says how packets between zones are held back, for people.
func (f *Fabric) Latency() string {
	switch {
	case f.latency != nil:
		return fmt.Sprintf("%s wanted, not simulated: %v", f.topo.CrossZoneLatency, f.latency)
	case f.topo.CrossZoneLatency == 0:
		return "none"
	}
	return f.topo.CrossZoneLatency.String()
}
