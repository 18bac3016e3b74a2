// Package link wires a pod to its node: a veth pair, an address, and the routes that join them.
//
// The pod has its address with a /32 mask and knows one neighbour, 169.254.1.1, to which it sends
// everything. That address is on no device: a permanent entry says that it is the host's end of
// the wire, so nobody ever asks for it. An IPv6 address, where there is one, has a mask of /128 and
// fe80::1 for its neighbour. The host routes the pod's address to that end. Which ways
// packets then go, and by which elastic interface, is for the host's routes and rules to say: PlanHost
// has those that are the node's, and each pod's wiring those that are its own.
package link

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"

	"github.com/zonewise/zonewise/internal/kernel/link"
	"github.com/zonewise/zonewise/internal/vpc"
)

// Gateway is the next hop of every pod, and GatewayIPv6 that for the other family.
var (
	Gateway     = netip.AddrFrom4([4]byte{169, 254, 1, 1})
	GatewayIPv6 = netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 15: 1})
)

// DefaultMTU is used when neither the configuration nor the node's uplink says another.
const DefaultMTU = 1500

// prefix begins the names of the hosts' ends.
const prefix = "eni"

// Wiring is what must be there for one pod: the host's end of its wire, and its own.
type Wiring struct {
	Host, Pod link.Device
	Rules     []link.Rule // the pod's, on the host; none where all addresses are those of one interface
}

// Plan tells the wiring of a lease. MTU is in bytes. It depends on nothing else, so whoever calls
// again, for CHECK or after a crash, arrives at the same names and MACs.
//
// The MACs are set rather than left to the kernel, since a program such as udev changes those that
// the kernel made up, after the pod has been told.
func Plan(l vpc.Lease, mtu int) Wiring {
	id := sha256.Sum256([]byte(l.Key.String()))
	hostMAC, podMAC := mac(id[20:]), mac(id[26:])
	w := Wiring{
		Host: link.Device{Name: HostName(l.Key), Alias: alias(l), MAC: hostMAC, MTU: mtu, Up: true},
		Pod:  link.Device{Name: l.Interface, MAC: podMAC, MTU: mtu, Up: true},
	}
	for _, a := range []netip.Addr{l.Address, l.IPv6} {
		if a.IsValid() {
			w.add(a)
		}
	}
	return w
}

// add adds what an address of the pod needs. With IPv6 neither end asks for the other: neighbour
// discovery on a wire of two would only be one more thing that can be filtered.
func (w *Wiring) add(a netip.Addr) {
	gateway, everything := GatewayOf(a), netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	if a.Is4() {
		everything = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		w.Pod.Routes = append(w.Pod.Routes, link.Route{To: single(gateway)})
	} else {
		w.Host.Neighbours = append(w.Host.Neighbours, link.Neighbour{Address: a, MAC: w.Pod.MAC})
	}
	w.Host.Routes = append(w.Host.Routes, link.Route{To: single(a)})
	w.Pod.Addresses = append(w.Pod.Addresses, single(a))
	w.Pod.Neighbours = append(w.Pod.Neighbours, link.Neighbour{Address: gateway, MAC: w.Host.MAC})
	w.Pod.Routes = append(w.Pod.Routes, link.Route{To: everything, Via: gateway})
}

// GatewayOf is the next hop of a pod that has the address.
func GatewayOf(a netip.Addr) netip.Addr {
	if a.Is4() {
		return Gateway
	}
	return GatewayIPv6
}

// String prints both ends, the host's first.
func (w Wiring) String() string {
	s := fmt.Sprintf("host %spod %s", w.Host, w.Pod)
	for _, r := range w.Rules {
		s += fmt.Sprintf("rule %s\n", r)
	}
	return s
}

// HostName is the name of the host's end of an attachment: eni and 11 hex digits.
func HostName(k vpc.Key) string {
	id := sha256.Sum256([]byte(k.String()))
	return prefix + hex.EncodeToString(id[:])[:11]
}

// mac makes an address of six bytes: unicast, locally administered.
func mac(b []byte) (m link.MAC) {
	copy(m[:], b)
	m[0] = m[0]&^1 | 2
	return m
}

// alias tells whom the host's end serves: people see it in `ip link`, and a lost checkpoint is made
// anew from it. What does not fit is cut from the pod's name.
func alias(l vpc.Lease) string {
	s := "zonewise " + l.Key.String() + " " + l.Owner.String()
	return s[:min(len(s), link.MaxAlias)]
}

// lease reads back what Plan wrote on the host's end. A device that is not ours says no.
func lease(d link.Device) (vpc.Lease, bool) {
	words := strings.Fields(d.Alias)
	if len(words) != 3 || words[0] != "zonewise" {
		return vpc.Lease{}, false
	}
	var l vpc.Lease
	l.Container, l.Interface, _ = strings.Cut(words[1], "/")
	l.Namespace, l.Pod, _ = strings.Cut(words[2], "/")
	if HostName(l.Key) != d.Name {
		return vpc.Lease{}, false
	}
	for _, r := range d.Routes {
		switch {
		case !r.To.IsSingleIP() || r.Via.IsValid():
		case r.To.Addr().Is4():
			l.Address = r.To.Addr()
		default:
			l.IPv6 = r.To.Addr()
		}
	}
	if !l.Address.IsValid() { // a pod of IPv6 alone
		l.Address, l.IPv6 = l.IPv6, l.Address
	}
	return l, l.Address.IsValid()
}
