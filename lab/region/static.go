package region

import (
	"net"
	"net/netip"

	"github.com/zonewise/zonewise/lab/region/ec2"
	"github.com/zonewise/zonewise/lab/topology"
)

// fixed is the delivery of a region without a cloud's records: each node has one interface, with its
// address and those that the blueprint gives its pods.
func fixed(t topology.Topology) ec2.Delivery {
	var out ec2.Delivery
	for _, z := range t.Zones {
		out.Subnets = append(out.Subnets, ec2.SubnetDelivery{ID: "subnet-" + z.Name, Zone: z.Name, CIDR: z.Subnet, IPv6: z.SubnetIPv6})
		for _, n := range z.Nodes {
			v := ec2.InterfaceDelivery{
				ID: "eni-" + n.Alias, MAC: append(net.HardwareAddr{0x02, 0}, n.Address.AsSlice()...),
				Subnet: "subnet-" + z.Name, CIDR: z.Subnet, SubnetIPv6: z.SubnetIPv6,
				Primary: n.Address, Addresses: append([]netip.Addr{n.Address}, n.Pool...), SourceCheck: true,
			}
			if n.AddressIPv6.IsValid() {
				v.IPv6 = []netip.Addr{n.AddressIPv6}
			}
			if n.PodsIPv6.IsValid() {
				v.IPv6Prefixes = []netip.Prefix{n.PodsIPv6}
			}
			out.Instances = append(out.Instances, ec2.InstanceDelivery{
				ID: "i-" + n.Alias, Node: n.Alias, Zone: z.Name, Interfaces: []ec2.InterfaceDelivery{v},
			})
		}
	}
	return out
}
