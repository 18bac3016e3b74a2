package topology

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/zonewise/zonewise/internal/vpc"
)

// Topology is a Config worked out: every zone, node and address of the lab.
type Topology struct {
	Name             string
	Region           string
	VPC              netip.Prefix
	ControlPlane     netip.Prefix
	ServiceCIDR      netip.Prefix
	Resolver         netip.Addr // the VPC's DNS resolver, as on AWS the subnet's base plus two
	API              netip.Addr
	EC2              netip.Addr // of the cloud's own API, in a lab with records of it
	ClusterDNS       netip.Addr
	IPv6             *IPv6        // nil in a lab of IPv4 alone
	PodCIDR          netip.Prefix // a second range of the VPC, for pods; the zero prefix: none
	CNI              string
	Cloud            Cloud
	Proxy            string
	Values           map[string]any // of the product's chart
	APIPort          int
	Offline          bool
	CrossZoneLatency time.Duration
	Zones            []Zone
}

// Cloud is how the cloud behaves, where there is one.
type Cloud struct {
	AttachTime, DetachTime, MetadataLag, Latency time.Duration
	Throttle                                     bool
}

// Zone is a failure domain with a subnet of its own.
type Zone struct {
	Name    string
	Subnet  netip.Prefix
	Gateway netip.Addr
	Nodes   []Node
	// With IPv6, else zero: as on AWS a /64 of the VPC's range.
	SubnetIPv6  netip.Prefix
	GatewayIPv6 netip.Addr
	// With custom networking, else zero: where the zone's pods have their addresses.
	PodSubnet, PodSubnetIPv6 netip.Prefix
}

// Node is one machine: a primary address and the pool that its pods get.
type Node struct {
	Name     string // as on EKS: ip-192-168-1-10.ap-northeast-2.compute.internal
	Alias    string // short, for people: a1 is the first node of the first zone
	Zone     string
	Instance Instance
	MaxPods  int
	Address  netip.Addr
	Pool     []netip.Addr // with static addresses: those of the interface for pods, one each
	Gateway  netip.Addr
	// With IPv6, else zero: an address, and with static addresses as on AWS a /80 for pods.
	AddressIPv6 netip.Addr
	PodsIPv6    netip.Prefix
}

// The world outside of the VPC: networks of documentation addresses, which nothing real has, and the server
// in them.
var (
	Outside           = netip.MustParsePrefix("203.0.113.0/24")
	OutsideServer     = netip.MustParseAddr("203.0.113.10")
	OutsideIPv6       = netip.MustParsePrefix("2001:db8:203:113::/64")
	OutsideServerIPv6 = netip.MustParseAddr("2001:db8:203:113::10")
)

// firstHost leaves the addresses that AWS reserves in each subnet, and a few more that people
// like to use for things of their own.
const firstHost = 10

// maxRegion keeps a node's name, ip-255-255-255-255.REGION.compute.internal, within the 64 bytes of a
// Linux host name.
const maxRegion = 25

const maxNodes = 500

// New works a Config out. Errors name the field and the mend.
func New(c Config) (Topology, error) {
	c = c.WithDefaults()
	t := Topology{Name: c.Name, Region: c.Region, CNI: c.CNI, Proxy: c.Proxy, Values: c.Values, APIPort: c.APIPort, Offline: c.Offline}
	if err := ValidateName(c.Name); err != nil {
		return t, err
	}
	if !labelPattern.MatchString(c.Region) || len(c.Region) > maxRegion {
		return t, fmt.Errorf("region %q: use at most %d lower-case letters, digits and '-', such as ap-northeast-2", c.Region, maxRegion)
	}
	if c.Proxy != ProxyZonewise && c.Proxy != ProxyKubeProxy {
		return t, fmt.Errorf("proxy %q: use %s or %s", c.Proxy, ProxyZonewise, ProxyKubeProxy)
	}
	if c.CNI != CNIStatic && c.CNI != CNIZonewise && c.CNI != CNINone {
		return t, fmt.Errorf("cni %q: use %s, %s or %s", c.CNI, CNIStatic, CNIZonewise, CNINone)
	}
	if err := t.cloud(c); err != nil {
		return t, err
	}
	if c.APIPort < 0 || c.APIPort > 65535 {
		return t, fmt.Errorf("apiPort %d: use a port, or 0 for a free one", c.APIPort)
	}
	if c.CrossZoneLatency != "" {
		d, err := time.ParseDuration(c.CrossZoneLatency)
		if err != nil || d < 0 {
			return t, fmt.Errorf("crossZoneLatency %q: use a duration such as 0.5ms", c.CrossZoneLatency)
		}
		t.CrossZoneLatency = d
	}
	if err := t.networks(c); err != nil {
		return t, err
	}
	if err := t.networksIPv6(c); err != nil {
		return t, err
	}
	if len(c.Zones) == 0 {
		return t, fmt.Errorf("zones: a lab needs at least one")
	}
	targets, err := c.targets()
	if err != nil {
		return t, err
	}
	if err := t.podNetwork(c, targets.CustomNetworking); err != nil {
		return t, err
	}
	total := 0
	for i, z := range c.Zones {
		if total += max(0, min(z.Nodes, maxNodes+1)); total > maxNodes {
			return t, fmt.Errorf("zones[%d] (%s): a lab has at most %d nodes in all, since they share one machine", i, z.Name, maxNodes)
		}
		zone, err := t.zone(i, z, targets)
		if err != nil {
			return t, err
		}
		t.Zones = append(t.Zones, zone)
	}
	return t, t.disjoint()
}

// HasCloud tells whether there is a cloud to ask for addresses.
func (t Topology) HasCloud() bool { return t.CNI != CNIStatic }

func (t *Topology) cloud(c Config) error {
	if c.CNI == CNIStatic && c.Cloud != (CloudConfig{}) {
		return fmt.Errorf("cloud: needs cni: %s or %s", CNIZonewise, CNINone)
	}
	t.Cloud.Throttle = c.Cloud.Throttle
	for _, d := range []struct {
		field, value string
		into         *time.Duration
	}{
		{"attachTime", c.Cloud.AttachTime, &t.Cloud.AttachTime}, {"detachTime", c.Cloud.DetachTime, &t.Cloud.DetachTime},
		{"metadataLag", c.Cloud.MetadataLag, &t.Cloud.MetadataLag}, {"latency", c.Cloud.Latency, &t.Cloud.Latency},
	} {
		if d.value == "" {
			continue
		}
		var err error
		if *d.into, err = time.ParseDuration(d.value); err != nil || *d.into < 0 || *d.into > time.Hour {
			return fmt.Errorf("cloud.%s %q: use a duration up to 1h, such as 2s", d.field, d.value)
		}
	}
	return nil
}

func (t *Topology) networks(c Config) (err error) {
	if t.VPC, err = parseIPv4("vpc", c.VPC, "192.168.0.0/16"); err != nil {
		return err
	}
	if t.ServiceCIDR, err = parseIPv4("serviceCIDR", c.ServiceCIDR, "10.100.0.0/16"); err != nil {
		return err
	}
	if t.ControlPlane, err = parseIPv4("controlPlaneSubnet", c.ControlPlaneSubnet, "192.168.0.0/24"); err != nil {
		return err
	}
	if err := unreserved("vpc", t.VPC); err != nil {
		return err
	}
	if err := unreserved("serviceCIDR", t.ServiceCIDR); err != nil {
		return err
	}
	if !inside(t.VPC, t.ControlPlane) {
		return fmt.Errorf("controlPlaneSubnet %s is not inside vpc %s", t.ControlPlane, t.VPC)
	}
	if t.ControlPlane.Bits() > 28 {
		return fmt.Errorf("controlPlaneSubnet %s: needs room for 16 addresses", t.ControlPlane)
	}
	if t.ServiceCIDR.Bits() < 12 || t.ServiceCIDR.Bits() > 24 {
		return fmt.Errorf("serviceCIDR %s: use a range from /12 to /24", t.ServiceCIDR)
	}
	if t.VPC.Overlaps(t.ServiceCIDR) {
		return fmt.Errorf("serviceCIDR %s overlaps vpc %s: Services need a range outside the VPC", t.ServiceCIDR, t.VPC)
	}
	t.Resolver = nth(t.ControlPlane, 2)
	t.API = nth(t.ControlPlane, 10)
	t.EC2 = nth(t.ControlPlane, 12)
	t.ClusterDNS = nth(t.ServiceCIDR, 10)
	return nil
}

func (t *Topology) zone(i int, c ZoneConfig, targets vpc.Targets) (Zone, error) {
	subnet, err := netip.ParsePrefix(c.Subnet)
	if err != nil || !subnet.Addr().Is4() || subnet != subnet.Masked() {
		return Zone{}, fmt.Errorf("zones[%d].subnet %q: use an IPv4 range inside the VPC such as 192.168.1.0/24", i, c.Subnet)
	}
	if !inside(t.VPC, subnet) {
		return Zone{}, fmt.Errorf("zones[%d].subnet %s is not inside vpc %s", i, subnet, t.VPC)
	}
	if !labelPattern.MatchString(c.Name) || len(c.Name) > 63 {
		return Zone{}, fmt.Errorf("zones[%d].name %q: use at most 63 lower-case letters, digits and '-', such as ap-northeast-2a", i, c.Name)
	}
	if c.Nodes < 1 {
		return Zone{}, fmt.Errorf("zones[%d] (%s): nodes is %d: a zone needs at least one", i, c.Name, c.Nodes)
	}
	instance, err := InstanceOf(c.InstanceType)
	if err != nil {
		return Zone{}, fmt.Errorf("zones[%d] (%s): %w", i, c.Name, err)
	}
	perNode := 1 + instance.MaxPods()
	room := max(1<<(32-subnet.Bits())-firstHost-1, 0)
	if t.HasCloud() {
		if err := t.inCloud(i, c.Name, subnet); err != nil {
			return Zone{}, err
		}
		if c.Nodes*perNode > room {
			perNode = 1 // nodes are beside each other then, and pods get what the subnet has left
		}
	}
	if c.Nodes*perNode > room {
		return Zone{}, fmt.Errorf("zones[%d].subnet %s holds %d nodes of %s, not %d: use a larger subnet or fewer nodes",
			i, subnet, room/perNode, instance.Type, c.Nodes)
	}
	z := Zone{Name: c.Name, Subnet: subnet, Gateway: nth(subnet, 1)}
	if t.IPv6 != nil {
		if err := t.IPv6.zone(i, &z); err != nil {
			return Zone{}, err
		}
	}
	if z.PodSubnet, err = t.podSubnet(i, c); err != nil {
		return Zone{}, err
	}
	if z.PodSubnet.IsValid() && t.IPv6 != nil {
		if err := t.IPv6.podSubnet(i, &z); err != nil {
			return Zone{}, err
		}
	}
	pods := vpc.MaxPods(instance.Limits, targets, instance.CPUs)
	for n := range c.Nodes {
		first := firstHost + n*perNode
		node := Node{
			Alias: letter(i) + fmt.Sprint(n+1), Zone: z.Name, Instance: instance, MaxPods: pods,
			Address: nth(subnet, first), Gateway: z.Gateway,
		}
		node.Name = "ip-" + strings.ReplaceAll(node.Address.String(), ".", "-") + "." + t.Region + ".compute.internal"
		if t.IPv6 != nil {
			node.AddressIPv6, node.PodsIPv6 = nodeIPv6(z.SubnetIPv6, n, first)
		}
		if t.CNI == CNIStatic {
			for p := 1; p < perNode; p++ {
				node.Pool = append(node.Pool, nth(subnet, first+p))
			}
		} else { // the cloud says which
			node.PodsIPv6 = netip.Prefix{}
		}
		z.Nodes = append(z.Nodes, node)
	}
	return z, nil
}

// inCloud tells whether the cloud can have a zone and its subnet.
func (t *Topology) inCloud(i int, name string, subnet netip.Prefix) error {
	if !strings.HasPrefix(name, t.Region) {
		return fmt.Errorf("zones[%d].name %q: with cni: %s a zone of region %s, such as %sa; or use cni: static", i, name, t.CNI, t.Region, t.Region)
	}
	if subnet.Bits() < 16 || subnet.Bits() > 28 {
		return fmt.Errorf("zones[%d].subnet %s: with cni: %s a range from /16 to /28, as the cloud has them", i, subnet, t.CNI)
	}
	return nil
}

func (t *Topology) disjoint() error {
	type named struct {
		what   string
		prefix netip.Prefix
	}
	seen := []named{{"controlPlaneSubnet", t.ControlPlane}}
	names := map[string]bool{}
	for i, z := range t.Zones {
		what := fmt.Sprintf("zones[%d].subnet", i)
		for _, s := range seen {
			if s.prefix.Overlaps(z.Subnet) {
				return fmt.Errorf("%s %s overlaps %s %s", what, z.Subnet, s.what, s.prefix)
			}
		}
		if names[z.Name] {
			return fmt.Errorf("zones[%d].name %q is there twice", i, z.Name)
		}
		names[z.Name] = true
		seen = append(seen, named{what, z.Subnet})
	}
	for i, z := range t.Zones {
		for j, o := range t.Zones[:i] {
			if z.PodSubnet.IsValid() && z.PodSubnet.Overlaps(o.PodSubnet) {
				return fmt.Errorf("zones[%d].podSubnet %s overlaps zones[%d].podSubnet %s: a subnet is in one zone", i, z.PodSubnet, j, o.PodSubnet)
			}
		}
	}
	return nil
}

// Addresses of the node, one of each family.
func (n Node) Addresses() []netip.Addr {
	if n.AddressIPv6.IsValid() {
		return []netip.Addr{n.Address, n.AddressIPv6}
	}
	return []netip.Addr{n.Address}
}

// Families of the addresses of pods and Services, as the API names them.
func (t Topology) Families() []string {
	switch {
	case t.IPv6Alone():
		return []string{"IPv6"}
	case t.IPv6 != nil:
		return []string{"IPv4", "IPv6"}
	}
	return []string{"IPv4"}
}

// IPv6Alone tells whether pods and Services have IPv6 and nothing else.
func (t Topology) IPv6Alone() bool { return t.IPv6 != nil && t.IPv6.Alone }

// APIServer is the address at which nodes and pods reach the API server.
func (t Topology) APIServer() netip.Addr {
	if t.IPv6Alone() {
		return t.IPv6.Region
	}
	return t.API
}

// Nameserver is the address at which nodes and pods ask the VPC's resolver.
func (t Topology) Nameserver() netip.Addr {
	if t.IPv6Alone() {
		return t.IPv6.Resolver
	}
	return t.Resolver
}

// NodeIPs are the addresses of a node that Kubernetes knows.
func (t Topology) NodeIPs(n Node) []netip.Addr {
	if t.IPv6Alone() {
		return []netip.Addr{n.AddressIPv6}
	}
	return n.Addresses()
}

// Nodes returns the nodes of all zones, in order.
func (t Topology) Nodes() []Node {
	var out []Node
	for _, z := range t.Zones {
		out = append(out, z.Nodes...)
	}
	return out
}

// Node finds a node by name or alias.
func (t Topology) Node(name string) (Node, bool) {
	for _, n := range t.Nodes() {
		if n.Name == name || n.Alias == name {
			return n, true
		}
	}
	return Node{}, false
}

// parseIPv4 reads a range.
func parseIPv4(field, value, example string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(value)
	switch {
	case err != nil || !p.Addr().Is4():
		return p, fmt.Errorf("%s %q: use an IPv4 range such as %s", field, value, example)
	case p != p.Masked():
		return p, fmt.Errorf("%s %q: has host bits set: use %s", field, value, p.Masked())
	}
	return p, nil
}

// unreserved refuses ranges that mean something else to a kernel, or to the lab.
func unreserved(field string, p netip.Prefix) error {
	for _, reserved := range []string{"0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3"} {
		if p.Overlaps(netip.MustParsePrefix(reserved)) {
			return fmt.Errorf("%s %s overlaps %s, which has a meaning of its own: use a private range such as 192.168.0.0/16", field, p, reserved)
		}
	}
	if p.Overlaps(Outside) {
		return fmt.Errorf("%s %s overlaps %s, the world outside of the lab: use a private range such as 192.168.0.0/16", field, p, Outside)
	}
	return nil
}

func inside(outer, inner netip.Prefix) bool {
	return outer.Contains(inner.Addr()) && inner.Bits() >= outer.Bits()
}

func nth(p netip.Prefix, i int) netip.Addr {
	b := p.Masked().Addr().As4()
	binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(b[:])+uint32(i))
	return netip.AddrFrom4(b)
}
