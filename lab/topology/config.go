// Package topology is the lab's blueprint: what the user asked for (Config) and what that
// means in zones, nodes and addresses (Topology). It is pure; nothing here touches the machine.
package topology

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

// Config is what lab.yaml holds. The zero value of a field means its default.
type Config struct {
	// Name of the lab: lower-case letters, digits and '-', at most 32. Default "zonewise".
	Name string `json:"name,omitempty"`
	// Region of every node. Default ap-northeast-2.
	Region string `json:"region,omitempty"`
	// VPC holds every subnet. Default 192.168.0.0/16.
	VPC string `json:"vpc,omitempty"`
	// ControlPlaneSubnet holds the API server and the VPC's resolver. Default: the VPC's first /24.
	ControlPlaneSubnet string `json:"controlPlaneSubnet,omitempty"`
	// ServiceCIDR is the range of ClusterIPs. Default 10.100.0.0/16; DNS is its tenth address.
	ServiceCIDR string `json:"serviceCIDR,omitempty"`
	// IPFamily of nodes, pods and Services: ipv4 (default), or dual for both; or ipv6: pods and Services have that
	// alone, as on EKS, with cni: zonewise.
	IPFamily string `json:"ipFamily,omitempty"`
	// VPCIPv6 holds a /64 for the control plane and each zone, with dual and ipv6. Default fd00:192:168::/56.
	VPCIPv6 string `json:"vpcIPv6,omitempty"`
	// ServiceCIDRIPv6 is the range of IPv6 ClusterIPs, with dual and ipv6. Default fd00:10:100::/108.
	ServiceCIDRIPv6 string `json:"serviceCIDRIPv6,omitempty"`
	// InstanceType of nodes that name none. Default t3.medium.
	InstanceType string `json:"instanceType,omitempty"`
	// CNI is where pods' addresses come from: zonewise (default), the cloud's API, by interfaces that come and go;
	// static (default with dual), a fixed range for each node; or none: the same cloud, and a plugin is for the user
	// to install.
	CNI string `json:"cni,omitempty"`
	// Cloud is how the cloud behaves, with cni: zonewise or none.
	Cloud CloudConfig `json:"cloud,omitzero"`
	// Proxy that programs Services on the nodes: zonewise (default) or kube-proxy.
	Proxy string `json:"proxy,omitempty"`
	// Values for the chart of Zonewise, as in its values.yaml.
	Values map[string]any `json:"values,omitempty"`
	// APIPort on 127.0.0.1 of the host; 0 takes a free one.
	APIPort int `json:"apiPort,omitempty"`
	// Offline never asks a registry: images come from archives alone.
	Offline bool `json:"offline,omitempty"`
	// PodCIDR is a second range of the VPC, with custom networking: pods have addresses of it. Default 100.64.0.0/16.
	PodCIDR string `json:"podCIDR,omitempty"`
	// CrossZoneLatency is added to packets between zones; 0s for none. Default 0.5ms. Needs netem in the kernel.
	CrossZoneLatency string `json:"crossZoneLatency,omitempty"`
	// Zones of the region. Default: three zones a, b, c with two nodes each.
	Zones []ZoneConfig `json:"zones,omitempty"`
}

// CloudConfig is how the cloud of a lab behaves. By default it does all at once, however often it is asked.
type CloudConfig struct {
	// AttachTime from the answer to an attachment until the interface is there, and DetachTime until it is gone.
	AttachTime string `json:"attachTime,omitempty"`
	DetachTime string `json:"detachTime,omitempty"`
	// MetadataLag is how far a node's metadata may be behind the records.
	MetadataLag string `json:"metadataLag,omitempty"`
	// Latency before every answer of its API.
	Latency string `json:"latency,omitempty"`
	// Throttle limits calls as AWS does by default for an account in a region.
	Throttle bool `json:"throttle,omitempty"`
}

// ZoneConfig is one zone of lab.yaml.
type ZoneConfig struct {
	// Name as in the zone label. Default: region plus a letter.
	Name string `json:"name,omitempty"`
	// Subnet of the zone's nodes and pods. Default: the VPC's next /24.
	Subnet string `json:"subnet,omitempty"`
	// PodSubnet is where the zone's pods have addresses, with custom networking. Default: the PodCIDR's next /20.
	PodSubnet string `json:"podSubnet,omitempty"`
	// Nodes in this zone, at least one.
	Nodes int `json:"nodes"`
	// InstanceType of this zone's nodes, if it differs.
	InstanceType string `json:"instanceType,omitempty"`
}

// Proxies that a lab can run.
const (
	ProxyZonewise  = "zonewise"
	ProxyKubeProxy = "kube-proxy"
)

// What CNI may be.
const (
	CNIStatic   = "static"
	CNIZonewise = "zonewise"
	CNINone     = "none"
)

// What IPFamily may be.
const (
	IPFamilyIPv4 = "ipv4"
	IPFamilyDual = "dual"
	IPFamilyIPv6 = "ipv6"
)

// DefaultName is the lab that commands mean when none is named.
const DefaultName = "zonewise"

var (
	namePattern  = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?$`)
	labelPattern = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`)
)

// ValidateName tells whether a lab can have this name.
func ValidateName(name string) error {
	if !namePattern.MatchString(name) {
		return fmt.Errorf("name %q: use 1 to 32 lower-case letters, digits and '-'", name)
	}
	return nil
}

// Parse reads lab.yaml. Unknown fields are errors that name the field.
func Parse(data []byte) (Config, error) {
	var c Config
	if err := yaml.UnmarshalStrict(data, &c); err != nil {
		text := err.Error()
		for _, noise := range []string{"error converting YAML to JSON: ", "error unmarshaling JSON: ", "while decoding JSON: ", "json: "} {
			text = strings.Replace(text, noise, "", 1)
		}
		return Config{}, errors.New(text)
	}
	return c, nil
}

// HasCloud tells whether there is a cloud to ask for addresses.
func (c Config) HasCloud() bool { return c.WithDefaults().CNI != CNIStatic }

// Spread returns n zones of nodes each, for the flags --zones and --nodes-per-zone.
func Spread(zones, nodes int) []ZoneConfig {
	out := make([]ZoneConfig, zones)
	for i := range out {
		out[i].Nodes = nodes
	}
	return out
}

// WithDefaults fills every empty field.
func (c Config) WithDefaults() Config {
	set := func(field *string, value string) {
		if *field == "" {
			*field = value
		}
	}
	set(&c.Name, DefaultName)
	set(&c.Region, "ap-northeast-2")
	set(&c.VPC, "192.168.0.0/16")
	set(&c.ServiceCIDR, "10.100.0.0/16")
	set(&c.IPFamily, IPFamilyIPv4)
	if c.IPFamily == IPFamilyDual || c.IPFamily == IPFamilyIPv6 {
		set(&c.VPCIPv6, "fd00:192:168::/56")
		set(&c.ServiceCIDRIPv6, "fd00:10:100::/108")
	}
	set(&c.InstanceType, "t3.medium")
	if c.IPFamily == IPFamilyDual {
		set(&c.CNI, CNIStatic)
	}
	set(&c.CNI, CNIZonewise)
	set(&c.Proxy, ProxyZonewise)
	set(&c.CrossZoneLatency, "0.5ms")
	if c.Zones == nil {
		c.Zones = Spread(3, 2)
	}
	vpc, err := netip.ParsePrefix(c.VPC)
	if err == nil {
		set(&c.ControlPlaneSubnet, subnetOf(vpc, 24, 0))
	}
	var pods netip.Prefix
	if c.customNetworking() {
		set(&c.PodCIDR, "100.64.0.0/16")
		pods, _ = netip.ParsePrefix(c.PodCIDR) // New says what is wrong with it
	}
	zones := make([]ZoneConfig, len(c.Zones))
	for i, z := range c.Zones {
		set(&z.Name, c.Region+letter(i))
		set(&z.InstanceType, c.InstanceType)
		if err == nil {
			set(&z.Subnet, subnetOf(vpc, 24, i+1))
		}
		if pods.IsValid() {
			set(&z.PodSubnet, subnetOf(pods, podSubnetBits, i))
		}
		zones[i] = z
	}
	c.Zones = zones
	return c
}

// WithoutCloud leaves out what a lab with static addresses has no use for.
func (c Config) WithoutCloud() Config {
	c.Cloud, c.PodCIDR = CloudConfig{}, ""
	c.Zones = slices.Clone(c.Zones)
	for i := range c.Zones {
		c.Zones[i].PodSubnet = ""
	}
	return c
}

func letter(i int) string {
	if i < 26 {
		return string(rune('a' + i))
	}
	return letter(i/26-1) + letter(i%26)
}

// podSubnetBits is the length of the subnets that pods have where nobody says otherwise.
const podSubnetBits = 20

// subnetOf is the i-th subnet of a length in a range of IPv4, or "" where the range has none.
func subnetOf(r netip.Prefix, bits, i int) string {
	base := r.Masked().Addr()
	if !base.Is4() || r.Bits() > bits || i >= 1<<(bits-r.Bits()) {
		return ""
	}
	b := base.As4()
	binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(b[:])+uint32(i)<<(32-bits))
	return netip.PrefixFrom(netip.AddrFrom4(b), bits).String()
}
