package ec2

import (
	"maps"
	"net"
	"net/netip"
	"slices"
	"time"
)

// Account is the number of the account to which everything belongs: one that AWS uses in its examples.
const Account = "111122223333"

// Records are all that the region knows at one time. Records that were handed out never change: a
// change makes new ones.
type Records struct {
	Region      string
	Zones       []string
	Seed        string // what identifiers are made of, with Serial
	Serial      uint64
	Credentials Credentials // of people, and of what they run outside of instances
	Role        Credentials // of what runs on instances: they find it in their metadata
	VPC         VPC
	Kept        []netip.Prefix // ranges of the VPC that hold what is no record, and cannot be subnets

	Subnets    map[string]*Subnet
	Groups     map[string]*SecurityGroup
	Instances  map[string]*Instance
	Interfaces map[string]*Interface
	// Homes are the addresses of nodes. While a node has no instance, nobody else gets its address by
	// chance, so that it can come back.
	Homes map[string]netip.Addr
}

// Credentials sign requests.
type Credentials struct {
	AccessKeyID, SecretAccessKey string
	Token                        string `json:",omitempty"` // of a session; empty where the key is one of a user
}

// Tags of a record.
type Tags map[string]string

// VPC is the one network of a region.
type VPC struct {
	ID, RouteTable, Gateway, DHCP string
	CIDRs                         []netip.Prefix // the first is the one with which it was made
	IPv6                          netip.Prefix   // the zero prefix: none
	Tags                          Tags
}

// Subnet is a range of the VPC in one zone.
type Subnet struct {
	ID, Zone     string
	CIDR         netip.Prefix
	IPv6         netip.Prefix // the zero prefix: none
	Reservations []Reservation
	Tags         Tags
}

// Reservation keeps a range of a subnet for one use.
type Reservation struct {
	ID          string
	CIDR        netip.Prefix
	Type        string // ReservePrefix or ReserveExplicit
	Description string
	Tags        Tags
}

// What a reservation is for: prefixes, or addresses that are asked for by value.
const (
	ReservePrefix   = "prefix"
	ReserveExplicit = "explicit"
)

// SecurityGroup is kept as a record: nothing is filtered by it.
type SecurityGroup struct {
	ID, Name, Description string
	Ingress               []Rule
	Tags                  Tags
}

// Rule of a security group allows a protocol from a range or from a group.
type Rule struct {
	ID, Protocol, Group string
	From, To            int // ports; -1: all
	CIDR                netip.Prefix
}

// Instance is a machine. Node is the lab's name for it.
type Instance struct {
	ID, Node, Type, Zone, Subnet, DNSName string
	Launched                              time.Time
	Stopped                               time.Time `json:",omitzero"` // the zero time: was not
	Terminated                            time.Time // the zero time: was not
	Boots                                 int       `json:",omitempty"` // how often it was rebooted, or started after a stop
	Tags                                  Tags
}

// Gone tells whether the instance was terminated.
func (i *Instance) Gone() bool { return !i.Terminated.IsZero() }

// Running tells whether the instance has power. One that was stopped keeps its interfaces.
func (i *Instance) Running() bool { return !i.Gone() && i.Stopped.IsZero() }

// Interface is an elastic network interface.
type Interface struct {
	ID, Subnet, Description, MAC string
	Groups                       []string
	Addresses                    []netip.Addr // the first is the primary one
	Prefixes                     []netip.Prefix
	IPv6                         []netip.Addr
	IPv6Prefixes                 []netip.Prefix
	SourceCheck                  bool
	Attachment                   *Attachment // nil: not attached
	Tags                         Tags
	// The token with which its creation was asked for, and the rest of that request.
	Token, Asked string `json:",omitempty"`
}

// Attachment is the bond of an interface and an instance. What state it is in, is a matter of the time.
type Attachment struct {
	ID, Instance        string
	Device, Card        int
	Since               time.Time
	Ready               time.Time // from then on it is attached
	Gone                time.Time // the zero time: not being detached; else until then it is detaching
	DeleteOnTermination bool
}

// States of an attachment.
const (
	Attaching = "attaching"
	Attached  = "attached"
	Detaching = "detaching"
)

// State of the attachment at a time.
func (a *Attachment) State(now time.Time) string {
	switch {
	case !a.Gone.IsZero():
		return Detaching
	case now.Before(a.Ready):
		return Attaching
	}
	return Attached
}

// Primary is the address that the interface keeps as long as it lives.
func (i *Interface) Primary() netip.Addr { return i.Addresses[0] }

// slots is how many of its instance type's addresses the interface uses, of each family.
func (i *Interface) slots() (ipv4, ipv6 int) {
	return len(i.Addresses) + len(i.Prefixes), len(i.IPv6) + len(i.IPv6Prefixes)
}

// clone copies what a change may touch, and shares the rest.
func (r *Records) clone() *Records {
	c := *r
	c.VPC.CIDRs, c.VPC.Tags = slices.Clone(r.VPC.CIDRs), maps.Clone(r.VPC.Tags)
	c.Subnets, c.Groups = maps.Clone(r.Subnets), maps.Clone(r.Groups)
	c.Instances, c.Interfaces, c.Homes = maps.Clone(r.Instances), maps.Clone(r.Interfaces), maps.Clone(r.Homes)
	return &c
}

// The functions below return a copy of a record, which takes the record's place and may be changed.

func (r *Records) editSubnet(s *Subnet) *Subnet {
	c := *s
	c.Reservations, c.Tags = slices.Clone(s.Reservations), maps.Clone(s.Tags)
	r.Subnets[c.ID] = &c
	return &c
}

func (r *Records) editGroup(g *SecurityGroup) *SecurityGroup {
	c := *g
	c.Ingress, c.Tags = slices.Clone(g.Ingress), maps.Clone(g.Tags)
	r.Groups[c.ID] = &c
	return &c
}

func (r *Records) editInstance(i *Instance) *Instance {
	c := *i
	c.Tags = maps.Clone(i.Tags)
	r.Instances[c.ID] = &c
	return &c
}

func (r *Records) editInterface(i *Interface) *Interface {
	c := *i
	c.Groups, c.Tags = slices.Clone(i.Groups), maps.Clone(i.Tags)
	c.Addresses, c.Prefixes = slices.Clone(i.Addresses), slices.Clone(i.Prefixes)
	c.IPv6, c.IPv6Prefixes = slices.Clone(i.IPv6), slices.Clone(i.IPv6Prefixes)
	if i.Attachment != nil {
		a := *i.Attachment
		c.Attachment = &a
	}
	r.Interfaces[c.ID] = &c
	return &c
}

// Attached lists the interfaces of an instance by device index, whatever the state of their attachment.
func (r *Records) Attached(instance string) []*Interface {
	var out []*Interface
	for _, i := range r.Interfaces {
		if i.Attachment != nil && i.Attachment.Instance == instance {
			out = append(out, i)
		}
	}
	slices.SortFunc(out, func(a, b *Interface) int { return a.Attachment.Device - b.Attachment.Device })
	return out
}

// Delivery is what the network has to do at a time for the records to be true.
func (r *Records) Delivery(now time.Time) Delivery {
	var d Delivery
	for _, id := range slices.Sorted(maps.Keys(r.Subnets)) {
		s := r.Subnets[id]
		d.Subnets = append(d.Subnets, SubnetDelivery{ID: s.ID, Zone: s.Zone, CIDR: s.CIDR, IPv6: s.IPv6})
	}
	byNode := map[string]*Instance{}
	for _, i := range r.Instances {
		if i.Running() {
			byNode[i.Node] = i
		}
	}
	for _, node := range slices.Sorted(maps.Keys(byNode)) {
		i := byNode[node]
		out := InstanceDelivery{ID: i.ID, Node: node, Zone: i.Zone}
		for _, n := range r.Attached(i.ID) {
			if n.Attachment.State(now) == Attached {
				out.Interfaces = append(out.Interfaces, r.deliver(n))
			}
		}
		d.Instances = append(d.Instances, out)
	}
	return d
}

func (r *Records) deliver(n *Interface) InterfaceDelivery {
	subnet := r.Subnets[n.Subnet]
	mac, _ := net.ParseMAC(n.MAC) // checked when it was read
	out := InterfaceDelivery{
		ID: n.ID, DeviceIndex: n.Attachment.Device, MAC: mac,
		Subnet: subnet.ID, CIDR: subnet.CIDR, SubnetIPv6: subnet.IPv6,
		Primary: n.Primary(), Addresses: slices.Clone(n.Addresses), Prefixes: slices.Clone(n.Prefixes),
		IPv6: slices.Clone(n.IPv6), IPv6Prefixes: slices.Clone(n.IPv6Prefixes), SourceCheck: n.SourceCheck,
	}
	slices.SortFunc(out.Addresses[1:], netip.Addr.Compare)
	slices.SortFunc(out.Prefixes, netip.Prefix.Compare)
	slices.SortFunc(out.IPv6, netip.Addr.Compare)
	slices.SortFunc(out.IPv6Prefixes, netip.Prefix.Compare)
	return out
}

// InstanceOf is the instance of a node; nil where it has none.
func (r *Records) InstanceOf(node string) *Instance {
	for _, i := range r.Instances {
		if i.Node == node && !i.Gone() {
			return i
		}
	}
	return nil
}

// RoleName is the role of every instance.
const RoleName = "node"
