package ec2

import (
	"net"
	"net/netip"
)

// Delivery is what the network has to do for the records to be true: every subnet with its zone, every
// instance with the interfaces that are attached to it, and every address with the one interface that
// owns it. What is not in it is not there: an interface that is still being attached, or is being
// detached, is delivered nothing.
//
// It is a copy, sorted so that equal records make equal deliveries.
type Delivery struct {
	Subnets   []SubnetDelivery   // by ID
	Instances []InstanceDelivery // by node
}

// SubnetDelivery is a range of addresses and the zone to which traffic from and to it is counted. Its
// gateway is the first address.
type SubnetDelivery struct {
	ID, Zone string
	CIDR     netip.Prefix
	IPv6     netip.Prefix // the zero prefix: none
}

// InstanceDelivery is a running instance. Node is the name under which it was launched: the alias of
// the lab's node.
type InstanceDelivery struct {
	ID, Node, Zone string
	Interfaces     []InterfaceDelivery // by device index
}

// InterfaceDelivery is an interface in its instance: named eth and its device index, with this hardware
// address, down and without addresses, as on EC2. Whoever runs on the instance sets it up.
type InterfaceDelivery struct {
	ID           string // eni-…
	DeviceIndex  int
	MAC          net.HardwareAddr
	Subnet       string         // ID of its subnet
	CIDR         netip.Prefix   // of its subnet, whose first address is the gateway
	SubnetIPv6   netip.Prefix   // of its subnet; the zero prefix: none
	Primary      netip.Addr     // the address that is not to be taken away
	Addresses    []netip.Addr   // IPv4, the primary one first, then in order of value
	Prefixes     []netip.Prefix // /28
	IPv6         []netip.Addr   // in order of value
	IPv6Prefixes []netip.Prefix // /80
	// SourceCheck drops what the instance sends by this interface from an address that the interface does
	// not own, as EC2 does unless the check was switched off.
	SourceCheck bool
}
