package topology

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/zonewise/zonewise/internal/vpc"
)

// targets are the settings of the product's CNI, in the chart's values, by which it follows how many pods a node
// holds. With static addresses there are none.
func (c Config) targets() (vpc.Targets, error) {
	if c.CNI == CNIStatic {
		return vpc.DefaultTargets(), nil
	}
	settings, err := vpc.ParseSettings(c.environment) // all of them: a daemon that does not start says so too late
	if err != nil {
		return settings.Targets, fmt.Errorf("values.cni.env: %s", strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	return settings.Targets, nil
}

// Notes are of settings that have no effect, and why.
func (c Config) Notes() []string {
	if c.CNI == CNIStatic {
		return nil
	}
	_, notes, _ := vpc.ParseTargets(c.environment) // New tells the error
	return notes
}

// environment is a setting of the product's CNI, as it will be; "" where it is not set.
func (c Config) environment(name string) string {
	cni, _ := c.Values["cni"].(map[string]any)
	all, _ := cni["env"].(map[string]any)
	if value, ok := all[name]; ok && value != nil {
		return fmt.Sprint(value)
	}
	if c.IPFamily == IPFamilyIPv4 || c.IPFamily == "" {
		return ""
	}
	switch name {
	case "ENABLE_IPv4":
		return fmt.Sprint(c.IPFamily == IPFamilyDual)
	case "ENABLE_IPv6":
		return "true"
	}
	return ""
}

// customNetworking tells whether pods have subnets of their own. What is not true or false is told by New.
func (c Config) customNetworking() bool {
	targets, _, err := vpc.ParseTargets(c.environment)
	return c.CNI != CNIStatic && err == nil && targets.CustomNetworking
}

// customSetting is what puts pods into subnets of their own.
const customSetting = "AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG"

// podNetwork works out the range of the VPC that is for pods alone.
func (t *Topology) podNetwork(c Config, custom bool) error {
	if !custom {
		need := "needs cni: " + CNIZonewise + " or " + CNINone + " and, in values.cni.env, " + customSetting + ": true"
		for i, z := range c.Zones {
			if z.PodSubnet != "" {
				return fmt.Errorf("zones[%d].podSubnet %s: %s", i, z.PodSubnet, need)
			}
		}
		if c.PodCIDR != "" {
			return fmt.Errorf("podCIDR %s: %s", c.PodCIDR, need)
		}
		return nil
	}
	p, err := parseIPv4("podCIDR", c.PodCIDR, "100.64.0.0/16")
	switch {
	case err != nil:
		return err
	case p.Bits() < largestSubnet || p.Bits() > smallestSubnet:
		return fmt.Errorf("podCIDR %s: a VPC takes ranges from /%d to /%d", p, largestSubnet, smallestSubnet)
	case p.Overlaps(t.VPC):
		return fmt.Errorf("podCIDR %s overlaps vpc %s: use another range, such as 100.64.0.0/16", p, t.VPC)
	case p.Overlaps(t.ServiceCIDR):
		return fmt.Errorf("podCIDR %s overlaps serviceCIDR %s: Services need a range outside the VPC", p, t.ServiceCIDR)
	}
	t.PodCIDR = p
	return unreserved("podCIDR", p)
}

// Sizes of a subnet, and of a range of a VPC.
const largestSubnet, smallestSubnet = 16, 28

// podSubnet is where a zone's pods have their addresses.
func (t *Topology) podSubnet(i int, c ZoneConfig) (netip.Prefix, error) {
	if !t.PodCIDR.IsValid() {
		return netip.Prefix{}, nil
	}
	if c.PodSubnet == "" {
		return netip.Prefix{}, fmt.Errorf("zones[%d].podSubnet: podCIDR %s has no /%d left for it: use a larger range, or name smaller subnets", i, t.PodCIDR, podSubnetBits)
	}
	field := fmt.Sprintf("zones[%d].podSubnet", i)
	p, err := parseIPv4(field, c.PodSubnet, "100.64.0.0/20")
	switch {
	case err != nil:
		return p, err
	case !inside(t.PodCIDR, p):
		return p, fmt.Errorf("%s %s is not inside podCIDR %s", field, p, t.PodCIDR)
	case p.Bits() > smallestSubnet:
		return p, fmt.Errorf("%s %s: the smallest subnet is a /%d", field, p, smallestSubnet)
	}
	// Five are the cloud's, and a node takes two at least: its interface's own, and a pod's.
	if most := (1<<(32-p.Bits()) - 5) / 2; c.Nodes > most {
		return p, fmt.Errorf("%s %s has addresses for %d nodes with a pod each, not %d: use a larger subnet", field, p, most, c.Nodes)
	}
	return p, nil
}
