package vpc

import (
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// Supply is what the cloud has given to a node for its pods: the content of pool.json, written by the
// daemon, read by the plugin. Pool makes of it what Assign gives addresses from.
type Supply struct {
	Interfaces   []Interface    `json:"interfaces"`
	Family       Family         `json:"family"`             // of the pods' addresses
	Cooldown     time.Duration  `json:"cooldown"`           // nanoseconds; an address that was released rests for as long
	VPC          []netip.Prefix `json:"vpc"`                // what is reached without NAT
	Excluded     []netip.Prefix `json:"excluded,omitempty"` // so is this, though it lies outside
	ExternalSNAT bool           `json:"externalSNAT"`       // NAT to the outside is somebody else's work
	Grows        bool           `json:"grows"`              // more can be had from the cloud
	Why          string         `json:"why"`                // which limit bites or is next, and the mend
	Node         Instance       `json:"node"`
	Memory       Memory         `json:"memory"` // what the daemon wants to know again after a restart
	Written      time.Time      `json:"written"`
}

// Instance is the node, as the cloud knows it.
type Instance struct {
	ID      string `json:"id"`
	Type    string `json:"type"`
	Zone    string `json:"zone"`
	MaxPods int    `json:"maxPods"` // as kubelet says
}

// Interface is an elastic network interface (ENI) of the node.
type Interface struct {
	ID         string         `json:"id"`     // eni-…
	Device     string         `json:"device"` // its name in the node, such as eth1; empty until it appears there
	Index      int            `json:"index"`  // device index at the cloud; the primary's is 0
	MAC        string         `json:"mac"`
	Primary    bool           `json:"primary"`
	SubnetID   string         `json:"subnetId"`
	Subnet     netip.Prefix   `json:"subnet"`
	Gateway    netip.Addr     `json:"gateway"`
	Table      int            `json:"table"`   // of routes; 254 (main) for the primary
	Address    netip.Addr     `json:"address"` // its own; no pod has it
	Addresses  []netip.Addr   `json:"addresses"`
	Prefixes   []netip.Prefix `json:"prefixes,omitempty"` // /28
	IPv6Prefix netip.Prefix   `json:"ipv6Prefix,omitzero"`
	Attached   time.Time      `json:"attached"` // when
	// SecurityGroups are what the cloud says, in any order.
	SecurityGroups []string `json:"securityGroups,omitempty"`
	Unmanaged      bool     `json:"unmanaged,omitempty"` // somebody else's: takes a place, gives nothing
	Draining       bool     `json:"draining,omitempty"`  // to be given back: pods get nothing from it
}

// Has tells whether the interface brings packets for the address to the node, other than for its own.
func (i Interface) Has(a netip.Addr) bool {
	return slices.Contains(i.Addresses, a) ||
		slices.ContainsFunc(i.Prefixes, func(p netip.Prefix) bool { return p.Contains(a) }) ||
		i.IPv6Prefix.IsValid() && i.IPv6Prefix.Contains(a)
}

// ready tells whether pods may have addresses of the interface.
func (i Interface) ready() bool { return i.Device != "" && !i.Unmanaged && !i.Draining }

// Size is the number of IPv4 addresses that the interface has for pods.
func (i Interface) Size() int {
	n := len(i.Addresses)
	for _, p := range i.Prefixes {
		n += 1 << (32 - p.Bits())
	}
	return n
}

// Find returns the interface that has the address.
func (s Supply) Find(a netip.Addr) (Interface, bool) {
	k := slices.IndexFunc(s.Interfaces, func(i Interface) bool { return i.Has(a) })
	if k < 0 {
		return Interface{}, false
	}
	return s.Interfaces[k], true
}

// Validate tells what is wrong with a supply that was read from outside.
func (s Supply) Validate() error {
	ids, seen := map[string]bool{}, map[netip.Addr]bool{}
	for k, i := range s.Interfaces {
		if i.ID == "" || ids[i.ID] {
			return fmt.Errorf("interfaces[%d] %q: no id, or one that another has", k, i.ID)
		}
		ids[i.ID] = true
		for _, a := range i.Addresses {
			if !a.IsValid() || seen[a] {
				return fmt.Errorf("interface %s: address %s is not one, or is there twice", i.ID, a)
			}
			seen[a] = true
		}
		for _, p := range i.Prefixes {
			if !p.IsValid() || !p.Addr().Is4() || p != p.Masked() || p.Bits() < 16 || seen[p.Addr()] {
				return fmt.Errorf("interface %s: prefix %s is not one of IPv4 such as 192.168.1.16/28, or is there twice", i.ID, p)
			}
			seen[p.Addr()] = true
		}
		if p := i.IPv6Prefix; p.IsValid() && (!p.Addr().Is6() || p.Bits() > MaxIPv6Bits) {
			return fmt.Errorf("interface %s: prefix %s is not one of IPv6, of at most /%d", i.ID, p, MaxIPv6Bits)
		}
	}
	if s.Cooldown < 0 {
		return fmt.Errorf("cooldown %s: less than nothing", s.Cooldown)
	}
	return nil
}

// Usage is how an interface is used.
type Usage struct {
	ID      string `json:"id"`
	Device  string `json:"device"`
	Primary bool   `json:"primary"`
	Slots   int    `json:"slots"` // addresses for pods that it has room for
	Used    int    `json:"used"`  // by pods
	Warm    int    `json:"warm"`  // it has them, and no pod does
	Cooling int    `json:"cooling"`
}

// Usage counts, interface by interface.
func (s Supply) Usage(l Leases, limits Limits, now time.Time) []Usage {
	var out []Usage
	for _, i := range s.Interfaces {
		u := Usage{ID: i.ID, Device: i.Device, Primary: i.Primary}
		for _, h := range l.Held {
			if i.Has(h.Address) {
				u.Used++
			}
		}
		for _, r := range l.Resting {
			held := slices.ContainsFunc(l.Held, func(h Lease) bool { return h.Address == r.Address })
			if !held && i.Has(r.Address) && r.cools(now, s.Cooldown) {
				u.Cooling++
			}
		}
		u.Warm = max(i.Size()-u.Used-u.Cooling, 0)
		open := max(limits.Slots()-len(i.Addresses)-len(i.Prefixes), 0)
		if len(i.Prefixes) > 0 {
			open *= prefixSize
		}
		u.Slots = i.Size() + open
		out = append(out, u)
	}
	return out
}
