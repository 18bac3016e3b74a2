package region

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/zonewise/zonewise/lab/region/ec2"
)

// place is where a node runs.
type place struct {
	alias string
	pid   int
	life  *os.File // of the process: readable once it has ended
}

func newPlace(alias string, pid int) (*place, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, fmt.Errorf("process %d: %w", pid, err)
	}
	return &place{alias: alias, pid: pid, life: os.NewFile(uintptr(fd), "life of "+alias)}, nil
}

// alive tells whether the number still is that of the node's process.
func (p *place) alive() bool {
	poll := []unix.PollFd{{Fd: int32(p.life.Fd()), Events: unix.POLLIN}}
	n, err := unix.Poll(poll, 0)
	return err == nil && n == 0
}

func (p *place) forget() { _ = p.life.Close() }

// attachment is an interface of the cloud at a node that runs: a pair of devices.
type attachment struct {
	ec2.InterfaceDelivery
	name   string // of the fabric's end
	device string // of the node's end
	zone   int    // place among the topology's zones
	pid    int
}

// attachments are what a node is to have, by device index.
func (f *Fabric) attachments(p *place) []attachment {
	i := slices.IndexFunc(f.delivery.Instances, func(i ec2.InstanceDelivery) bool { return i.Node == p.alias })
	if i < 0 {
		return nil
	}
	instance := f.delivery.Instances[i]
	var out []attachment
	for _, v := range instance.Interfaces {
		out = append(out, attachment{
			InterfaceDelivery: v, name: linkName(p.alias, v.DeviceIndex), device: fmt.Sprintf("eth%d", v.DeviceIndex),
			zone: zoneIndex(f.topo.Zones, instance.Zone), pid: p.pid,
		})
	}
	return out
}

const linkPrefix = "vpc-"

// linkName is the fabric's end of a node's interface.
func linkName(alias string, index int) string {
	if index == 0 {
		return linkPrefix + alias
	}
	return fmt.Sprintf("%s%s-%d", linkPrefix, alias, index)
}

// splitName is what linkName made a name of.
func splitName(name string) (alias, device string) {
	alias, index, secondary := strings.Cut(strings.TrimPrefix(name, linkPrefix), "-")
	if !secondary {
		index = "0"
	}
	return alias, "eth" + index
}

// nodeLinks are the fabric's ends of all interfaces, by name.
func nodeLinks() (map[string]netlink.Link, error) {
	all, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("links: %w", err)
	}
	out := map[string]netlink.Link{}
	for _, l := range all {
		if name := l.Attrs().Name; strings.HasPrefix(name, linkPrefix) {
			out[name] = l
		}
	}
	return out, nil
}

// remove takes an interface away, both ends. It may go by itself meanwhile, with its node.
func remove(link netlink.Link) error {
	if err := netlink.LinkDel(link); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("remove link %s: %w", link.Attrs().Name, err)
	}
	return nil
}

// link makes an interface. The id of the cloud's is put on it last, as the sign that it is complete.
func (f *Fabric) link(a attachment) (netlink.Link, error) {
	link, err := f.makeLink(a)
	if err != nil {
		return nil, fmt.Errorf("interface %s of %s: %w", a.ID, a.name, err)
	}
	return link, nil
}

func (f *Fabric) makeLink(a attachment) (netlink.Link, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.Group = a.name, MTU, zoneGroup(a.zone)
	pair := &netlink.Veth{LinkAttrs: attrs, PeerName: a.device, PeerMTU: MTU, PeerHardwareAddr: a.MAC, PeerNamespace: netlink.NsPid(a.pid)}
	if err := netlink.LinkAdd(pair); err != nil {
		return nil, err
	}
	link, err := netlink.LinkByName(a.name)
	if err != nil {
		return nil, err
	}
	index := link.Attrs().Index
	neighbours := []*netlink.Neigh{{LinkIndex: index, IP: a.Primary.AsSlice(), HardwareAddr: a.MAC, State: netlink.NUD_PERMANENT}}
	if f.topo.IPv6 != nil {
		neighbours = append(neighbours, &netlink.Neigh{
			LinkIndex: index, Family: netlink.FAMILY_V6, IP: farEndIPv6.AsSlice(), HardwareAddr: a.MAC, State: netlink.NUD_PERMANENT,
		})
	}
	if err := sysctls(map[string]string{
		// The fabric answers for every address of the VPC, at once, as AWS does.
		"net/ipv4/conf/" + a.name + "/proxy_arp":    "1",
		"net/ipv4/neigh/" + a.name + "/proxy_delay": "0",
		"net/ipv4/conf/" + a.name + "/rp_filter":    "0",
	}); err != nil {
		return nil, err
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return nil, fmt.Errorf("up: %w", err)
	}
	if f.topo.IPv6 != nil {
		if err := netlink.AddrAdd(link, own(routerIPv6)); err != nil {
			return nil, fmt.Errorf("router %s: %w", routerIPv6, err)
		}
	}
	for _, n := range neighbours {
		if err := netlink.NeighSet(n); err != nil {
			return nil, fmt.Errorf("neighbour %s: %w", n.IP, err)
		}
	}
	if err := f.delay(link); err != nil {
		return nil, err
	}
	if err := netlink.LinkSetAlias(link, a.ID); err != nil {
		return nil, fmt.Errorf("name %s: %w", strconv.Quote(a.ID), err)
	}
	return link, nil
}
