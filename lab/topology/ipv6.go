package topology

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

// IPv6 is what a lab has of that family, beside what zones and nodes have. With both families the API server,
// the resolver and cluster DNS stay with IPv4 alone.
type IPv6 struct {
	Alone       bool // pods and Services have no other family; nodes do
	VPC         netip.Prefix
	ServiceCIDR netip.Prefix
	Region      netip.Addr // of what is in the VPC outside of the cluster
	Resolver    netip.Addr // the VPC's DNS resolver, where pods have no IPv4
}

// networksIPv6 works out the ranges of the second family, where there is one.
func (t *Topology) networksIPv6(c Config) error {
	switch {
	case c.IPFamily != IPFamilyIPv4 && c.IPFamily != IPFamilyDual && c.IPFamily != IPFamilyIPv6:
		return fmt.Errorf("ipFamily %q: use %s, %s or %s", c.IPFamily, IPFamilyIPv4, IPFamilyDual, IPFamilyIPv6)
	case c.IPFamily == IPFamilyIPv6 && c.CNI == CNIStatic:
		return fmt.Errorf("ipFamily %s: needs cni: %s", IPFamilyIPv6, CNIZonewise)
	case c.IPFamily == IPFamilyIPv4 && c.VPCIPv6 != "":
		return fmt.Errorf("vpcIPv6 %s: needs ipFamily: %s", c.VPCIPv6, IPFamilyDual)
	case c.IPFamily == IPFamilyIPv4 && c.ServiceCIDRIPv6 != "":
		return fmt.Errorf("serviceCIDRIPv6 %s: needs ipFamily: %s", c.ServiceCIDRIPv6, IPFamilyDual)
	case c.IPFamily == IPFamilyIPv4:
		return nil
	}
	vpc, err := parseIPv6("vpcIPv6", c.VPCIPv6, 40, 56)
	if err != nil {
		return err
	}
	services, err := parseIPv6("serviceCIDRIPv6", c.ServiceCIDRIPv6, 108, 120) // the API server takes no more than 2^20
	if err != nil {
		return err
	}
	if vpc.Overlaps(services) {
		return fmt.Errorf("serviceCIDRIPv6 %s overlaps vpcIPv6 %s: Services need a range outside the VPC", services, vpc)
	}
	for _, r := range []struct {
		field  string
		prefix netip.Prefix
	}{{"vpcIPv6", vpc}, {"serviceCIDRIPv6", services}} {
		if r.prefix.Overlaps(OutsideIPv6) {
			return fmt.Errorf("%s %s overlaps %s, the world outside of the lab: use a private range such as fd00:192:168::/56", r.field, r.prefix, OutsideIPv6)
		}
	}
	t.IPv6 = &IPv6{Alone: c.IPFamily == IPFamilyIPv6, VPC: vpc, ServiceCIDR: services, Region: host(subnet64(vpc, 0), 10)}
	if t.IPv6.Alone {
		t.IPv6.Resolver = host(subnet64(vpc, 0), 2)
		t.ClusterDNS = host(services, 10)
	}
	return nil
}

// parseIPv6 reads a range of unicast addresses of a length between two.
func parseIPv6(field, value string, shortest, longest int) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(value)
	switch {
	case err != nil || !p.Addr().Is6() || p.Addr().Is4In6():
		return p, fmt.Errorf("%s %q: use an IPv6 range such as fd00:192:168::/56", field, value)
	case p != p.Masked():
		return p, fmt.Errorf("%s %q: has host bits set: use %s", field, value, p.Masked())
	case !p.Addr().IsGlobalUnicast():
		return p, fmt.Errorf("%s %s: has a meaning of its own: use a private range such as fd00:192:168::/56", field, p)
	case p.Bits() < shortest || p.Bits() > longest:
		return p, fmt.Errorf("%s %s: use a range from /%d to /%d", field, p, shortest, longest)
	}
	return p, nil
}

// zone gives the i-th zone its /64: the one after the control plane's and those of the zones before.
func (v *IPv6) zone(i int, z *Zone) error {
	if room := 1<<min(16, 64-v.VPC.Bits()) - 1; i >= room {
		return fmt.Errorf("zones[%d] (%s): vpcIPv6 %s holds %d zones: use a shorter prefix", i, z.Name, v.VPC, room)
	}
	z.SubnetIPv6 = subnet64(v.VPC, i+1)
	z.GatewayIPv6 = host(z.SubnetIPv6, 1)
	return nil
}

// podSubnet gives the i-th zone's pods a /64 of their own, of the second half of the range.
func (v *IPv6) podSubnet(i int, z *Zone) error {
	half := 1 << (min(16, 64-v.VPC.Bits()) - 1)
	if i+1 >= half {
		return fmt.Errorf("zones[%d] (%s): vpcIPv6 %s holds %d zones with subnets for pods: use a shorter prefix", i, z.Name, v.VPC, half-1)
	}
	z.PodSubnetIPv6 = subnet64(v.VPC, half+i)
	return nil
}

// nodeIPv6 is the address of the n-th node of a zone, and its pods' range. Both read like IPv4's: the
// node with the host number 28 ends in ::28, and the third node's pods are in SUBNET:3::/80. Range 0 is
// left to nodes.
func nodeIPv6(subnet netip.Prefix, n, number int) (netip.Addr, netip.Prefix) {
	b := subnet.Addr().As16()
	binary.BigEndian.PutUint16(b[8:], uint16(asRead(n+1)))
	return host(subnet, number), netip.PrefixFrom(netip.AddrFrom16(b), 80)
}

// subnet64 is the i-th /64 of a range.
func subnet64(p netip.Prefix, i int) netip.Prefix {
	b := p.Addr().As16()
	binary.BigEndian.PutUint64(b[:], binary.BigEndian.Uint64(b[:])+uint64(i))
	return netip.PrefixFrom(netip.AddrFrom16(b), 64)
}

// host is the address of a subnet whose text ends in the number.
func host(subnet netip.Prefix, number int) netip.Addr {
	b := subnet.Addr().As16()
	binary.BigEndian.PutUint32(b[12:], asRead(number))
	return netip.AddrFrom16(b)
}

// asRead is the number that is written in hexadecimal as n is in decimal.
func asRead(n int) uint32 {
	var out uint32
	for shift := 0; n > 0; n, shift = n/10, shift+4 {
		out |= uint32(n%10) << shift
	}
	return out
}
