package topology

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

// The default lab is the one that the design names, address by address.
func TestDefault(t *testing.T) {
	topo, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ what, got, want string }{
		{"name", topo.Name, "zonewise"},
		{"region", topo.Region, "ap-northeast-2"},
		{"VPC", topo.VPC.String(), "192.168.0.0/16"},
		{"control plane", topo.ControlPlane.String(), "192.168.0.0/24"},
		{"resolver", topo.Resolver.String(), "192.168.0.2"},
		{"API server", topo.API.String(), "192.168.0.10"},
		{"services", topo.ServiceCIDR.String(), "10.100.0.0/16"},
		{"cluster DNS", topo.ClusterDNS.String(), "10.100.0.10"},
		{"latency", topo.CrossZoneLatency.String(), "500µs"},
		{"proxy", topo.Proxy, "zonewise"},
		{"CNI", topo.CNI, "zonewise"},
	} {
		if c.got != c.want {
			t.Errorf("%s is %s, want %s", c.what, c.got, c.want)
		}
	}
	var got strings.Builder
	for _, z := range topo.Zones {
		got.WriteString(z.Name + " " + z.Subnet.String() + " via " + z.Gateway.String() + "\n")
		for _, n := range z.Nodes {
			got.WriteString("  " + n.Alias + " " + n.Name + " " + n.Address.String() + " " + n.Instance.Type + "\n")
		}
	}
	const want = `ap-northeast-2a 192.168.1.0/24 via 192.168.1.1
  a1 ip-192-168-1-10.ap-northeast-2.compute.internal 192.168.1.10 t3.medium
  a2 ip-192-168-1-28.ap-northeast-2.compute.internal 192.168.1.28 t3.medium
ap-northeast-2b 192.168.2.0/24 via 192.168.2.1
  b1 ip-192-168-2-10.ap-northeast-2.compute.internal 192.168.2.10 t3.medium
  b2 ip-192-168-2-28.ap-northeast-2.compute.internal 192.168.2.28 t3.medium
ap-northeast-2c 192.168.3.0/24 via 192.168.3.1
  c1 ip-192-168-3-10.ap-northeast-2.compute.internal 192.168.3.10 t3.medium
  c2 ip-192-168-3-28.ap-northeast-2.compute.internal 192.168.3.28 t3.medium
`
	if got.String() != want {
		t.Errorf("zones and nodes:\n%swant:\n%s", got.String(), want)
	}
	if n := topo.Nodes()[0].Instance; n.CPUs != 2 || n.MemoryMiB != 4096 || n.MaxPods() != 17 {
		t.Errorf("t3.medium is %+v with %d pods", n, n.MaxPods())
	}
	for _, name := range []string{"b2", "ip-192-168-2-28.ap-northeast-2.compute.internal"} {
		if n, ok := topo.Node(name); !ok || n.Alias != "b2" {
			t.Errorf("node %s is %+v, %t", name, n, ok)
		}
	}
}

// With static addresses the nodes are the same, and each has those of its interfaces after its own.
func TestStatic(t *testing.T) {
	topo, err := New(Config{CNI: CNIStatic})
	if err != nil {
		t.Fatal(err)
	}
	for alias, want := range map[string]string{"a1": "192.168.1.10 192.168.1.11-192.168.1.27", "c2": "192.168.3.28 192.168.3.29-192.168.3.45"} {
		n, _ := topo.Node(alias)
		if len(n.Pool) != 17 || n.Address.String()+" "+n.Pool[0].String()+"-"+n.Pool[16].String() != want {
			t.Errorf("%s: %s with %v, want %s", alias, n.Address, n.Pool, want)
		}
	}
}

// A lab of both families is the default one with a second address for everything.
func TestDual(t *testing.T) {
	four, err := New(Config{CNI: CNIStatic})
	if err != nil {
		t.Fatal(err)
	}
	topo, err := New(Config{IPFamily: IPFamilyDual, CNI: CNIStatic})
	if err != nil {
		t.Fatal(err)
	}
	if four.IPv6 != nil || four.Nodes()[0].AddressIPv6.IsValid() || four.Zones[0].SubnetIPv6.IsValid() {
		t.Errorf("IPv6 that nobody asked for: %+v", four)
	}
	if got := *topo.IPv6; got.VPC.String() != "fd00:192:168::/56" || got.ServiceCIDR.String() != "fd00:10:100::/108" || got.Region.String() != "fd00:192:168::10" {
		t.Errorf("ranges %+v", got)
	}
	var got strings.Builder
	for i, z := range topo.Zones {
		got.WriteString(z.SubnetIPv6.String() + " via " + z.GatewayIPv6.String() + "\n")
		for j, n := range z.Nodes {
			got.WriteString("  " + n.Alias + " " + n.AddressIPv6.String() + " pods " + n.PodsIPv6.String() + "\n")
			if o := four.Zones[i].Nodes[j]; n.Name != o.Name || n.Address != o.Address || len(n.Pool) != len(o.Pool) {
				t.Errorf("node %+v, with IPv4 alone %+v", n, o)
			}
		}
	}
	const want = `fd00:192:168:1::/64 via fd00:192:168:1::1
  a1 fd00:192:168:1::10 pods fd00:192:168:1:1::/80
  a2 fd00:192:168:1::28 pods fd00:192:168:1:2::/80
fd00:192:168:2::/64 via fd00:192:168:2::1
  b1 fd00:192:168:2::10 pods fd00:192:168:2:1::/80
  b2 fd00:192:168:2::28 pods fd00:192:168:2:2::/80
fd00:192:168:3::/64 via fd00:192:168:3::1
  c1 fd00:192:168:3::10 pods fd00:192:168:3:1::/80
  c2 fd00:192:168:3::28 pods fd00:192:168:3:2::/80
`
	if got.String() != want {
		t.Errorf("zones and nodes:\n%swant:\n%s", got.String(), want)
	}
}

// In a lab of IPv6 alone nodes have both families, and what pods ask is at an address of IPv6.
func TestIPv6Alone(t *testing.T) {
	topo, err := New(Config{IPFamily: IPFamilyIPv6, CNI: CNIZonewise})
	if err != nil {
		t.Fatal(err)
	}
	n := topo.Nodes()[1]
	if got, want := fmt.Sprint(topo.APIServer(), topo.Nameserver(), topo.ClusterDNS, topo.Families(), n.Addresses(), topo.NodeIPs(n), n.MaxPods),
		"fd00:192:168::10 fd00:192:168::2 fd00:10:100::10 [IPv6] [192.168.1.28 fd00:192:168:1::28] [fd00:192:168:1::28] 110"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	both, err := New(Config{IPFamily: IPFamilyDual})
	if got, want := fmt.Sprint(both.APIServer(), both.Nameserver(), both.ClusterDNS, both.NodeIPs(n), err), "192.168.0.10 192.168.0.2 10.100.0.10 [192.168.1.28 fd00:192:168:1::28] <nil>"; got != want {
		t.Errorf("of both families: got %s, want %s", got, want)
	}
}

// Every address belongs to one thing only, whatever the size of the lab.
func TestAddressesAreDisjoint(t *testing.T) {
	for _, c := range []Config{{}, {Zones: Spread(30, 5)}, {InstanceType: "m5.large", Zones: Spread(2, 8)},
		{IPFamily: IPFamilyDual, Zones: Spread(30, 5)}, {IPFamily: IPFamilyDual, VPC: "172.16.0.0/12", Zones: []ZoneConfig{{Nodes: 400, Subnet: "172.17.0.0/16"}}}} {
		c.CNI = CNIStatic
		topo, err := New(c)
		if err != nil {
			t.Fatal(err)
		}
		owner := map[netip.Addr]string{topo.API: "API", topo.Resolver: "resolver", topo.EC2: "EC2"}
		own := func(a netip.Addr, who string) {
			if other, taken := owner[a]; taken {
				t.Errorf("%s belongs to %s and %s", a, other, who)
			}
			owner[a] = who
		}
		for _, z := range topo.Zones {
			own(z.Gateway, z.Name)
			for _, n := range z.Nodes {
				for _, a := range append([]netip.Addr{n.Address}, n.Pool...) {
					own(a, n.Alias)
					if !z.Subnet.Contains(a) {
						t.Errorf("%s of %s is outside of %s", a, n.Alias, z.Subnet)
					}
				}
			}
		}
		if topo.IPv6 == nil {
			continue
		}
		own(topo.IPv6.Region, "region")
		for _, z := range topo.Zones {
			own(z.GatewayIPv6, z.Name)
			for _, n := range z.Nodes {
				own(n.AddressIPv6, n.Alias)
				own(n.PodsIPv6.Addr(), n.Alias+"'s pods")
				if !inside(z.SubnetIPv6, n.PodsIPv6) || !z.SubnetIPv6.Contains(n.AddressIPv6) || !inside(topo.IPv6.VPC, z.SubnetIPv6) {
					t.Errorf("%s and %s of %s, in %s of %s", n.AddressIPv6, n.PodsIPv6, n.Alias, z.SubnetIPv6, topo.IPv6.VPC)
				}
				for _, other := range topo.Nodes() {
					if n.PodsIPv6.Contains(other.AddressIPv6) {
						t.Errorf("%s of %s is among %s's pods", other.AddressIPv6, other.Alias, n.Alias)
					}
				}
			}
		}
	}
}

// custom is a lab whose pods have subnets of their own.
const custom = "cni: zonewise\nvalues: {cni: {env: {AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG: true}}}"

// With custom networking each zone has a subnet for pods, of a second range of the VPC.
func TestCustomNetworking(t *testing.T) {
	for _, c := range []struct{ yaml, want string }{
		{custom, "100.64.0.0/16: 100.64.0.0/20 100.64.16.0/20 100.64.32.0/20"},
		{custom + "\nipFamily: dual\nzones: [{nodes: 1}, {nodes: 1}]", "100.64.0.0/16: 100.64.0.0/20 fd00:192:168:80::/64 100.64.16.0/20 fd00:192:168:81::/64"},
		{custom + "\npodCIDR: 10.64.0.0/16\nzones: [{nodes: 1, podSubnet: 10.64.0.0/24}, {nodes: 1, podSubnet: 10.64.1.0/24}]", "10.64.0.0/16: 10.64.0.0/24 10.64.1.0/24"},
	} {
		config, err := Parse([]byte(c.yaml))
		if err != nil {
			t.Fatal(err)
		}
		topo, err := New(config)
		if err != nil {
			t.Fatal(err)
		}
		got := topo.PodCIDR.String() + ":"
		for _, z := range topo.Zones {
			got += " " + z.PodSubnet.String()
			if z.PodSubnetIPv6.IsValid() {
				got += " " + z.PodSubnetIPv6.String()
			}
		}
		if got != c.want || topo.Nodes()[0].MaxPods != 12 {
			t.Errorf("%s: %s with %d pods a node, want %s", c.yaml, got, topo.Nodes()[0].MaxPods, c.want)
		}
		if _, err := New(config.WithDefaults()); err != nil {
			t.Errorf("%s: a second time: %v", c.yaml, err)
		}
		static := config.WithDefaults().WithoutCloud()
		static.CNI = CNIStatic
		if topo, err := New(static); err != nil || topo.PodCIDR.IsValid() {
			t.Errorf("%s: static: %v", c.yaml, err)
		}
	}
}

// Who sets two things of which one goes before the other is told.
func TestNotes(t *testing.T) {
	c := Config{Values: map[string]any{"cni": map[string]any{"env": map[string]any{"WARM_IP_TARGET": 2, "WARM_ENI_TARGET": 1}}}}
	c.CNI = CNIStatic
	if notes := c.WithDefaults().Notes(); len(notes) > 0 {
		t.Errorf("with static addresses: %q", notes)
	}
	c.CNI = CNIZonewise
	if notes := strings.Join(c.Notes(), "; "); notes != "WARM_ENI_TARGET has no effect: WARM_IP_TARGET and MINIMUM_IP_TARGET go before it" {
		t.Error(notes)
	}
}

// What the network of every type has room for is known.
func TestInstances(t *testing.T) {
	if got := len(Instances()); got != len(sizes) {
		t.Errorf("%d of %d instance types", got, len(sizes))
	}
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"t3.medium", "t3.medium", 0}, {"t3.medum", "t3.medium", 1}, {"t3.medium", "t2.mediumx", 2}, {"", "abc", 3}, {"abc", "", 3}} {
		if got := distance(c.a, c.b); got != c.want {
			t.Errorf("%q and %q: %d, want %d", c.a, c.b, got, c.want)
		}
	}
}

func TestErrorsNameTheThingAndTheMend(t *testing.T) {
	for _, c := range []struct{ yaml, want string }{
		{"nodes: 3", `unknown field "nodes"`},
		{"zones: [{nodes: 1, color: red}]", `unknown field "color"`},
		{"{", "yaml: "},
		{"zones: 3", "zones"},
		{"name: My Lab", `name "My Lab": use 1 to 32 lower-case letters`},
		{"region: Seoul", `region "Seoul": use at most 25 lower-case letters`},
		{"proxy: ipvs", `proxy "ipvs": use zonewise or kube-proxy`},
		{"cni: cilium", `cni "cilium": use static, zonewise or none`},
		{"cni: static\ncloud: {attachTime: 2s}", "cloud: needs cni: zonewise or none"},
		{"cni: zonewise\ncloud: {attachTime: soon}", `cloud.attachTime "soon": use a duration up to 1h, such as 2s`},
		{"cni: zonewise\ncloud: {latency: -1s}", `cloud.latency "-1s": use a duration`},
		{"cni: zonewise\nvalues: {cni: {env: {WARM_IP_TARGET: some}}}", `values.cni.env: WARM_IP_TARGET: "some" is not a number`},
		{"cni: zonewise\nvalues: {cni: {env: {AWS_VPC_ENI_MTU: 99, ENABLE_PREFIX_DELEGATION: maybe}}}", `values.cni.env: AWS_VPC_ENI_MTU: "99" is not a number from 1280 to 9001; ENABLE_PREFIX_DELEGATION: "maybe" is not true or false`},
		{strings.Replace(custom, "true", "true, MAX_ENI: 1", 1), "values.cni.env: AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG: not with MAX_ENI=1"},
		{"podCIDR: 100.64.0.0/16", "podCIDR 100.64.0.0/16: needs cni: zonewise or none and, in values.cni.env, AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG: true"},
		{"cni: zonewise\nzones: [{nodes: 1, podSubnet: 100.64.0.0/20}]", "zones[0].podSubnet 100.64.0.0/20: needs cni: zonewise or none and"},
		{custom + "\npodCIDR: 192.168.128.0/20", "podCIDR 192.168.128.0/20 overlaps vpc 192.168.0.0/16: use another range"},
		{custom + "\npodCIDR: 10.100.0.0/20", "podCIDR 10.100.0.0/20 overlaps serviceCIDR 10.100.0.0/16"},
		{custom + "\npodCIDR: 100.64.0.0/10", "podCIDR 100.64.0.0/10: a VPC takes ranges from /16 to /28"},
		{custom + "\npodCIDR: 203.0.0.0/16", "podCIDR 203.0.0.0/16 overlaps 203.0.113.0/24, the world outside of the lab"},
		{custom + "\npodCIDR: fd00::/64", `podCIDR "fd00::/64": use an IPv4 range such as 100.64.0.0/16`},
		{custom + "\npodCIDR: 100.64.0.0/19", "zones[2].podSubnet: podCIDR 100.64.0.0/19 has no /20 left for it: use a larger range"},
		{custom + "\nzones: [{nodes: 1, podSubnet: 100.65.0.0/20}]", "zones[0].podSubnet 100.65.0.0/20 is not inside podCIDR 100.64.0.0/16"},
		{custom + "\nzones: [{nodes: 1, podSubnet: 100.64.0.0/29}]", "zones[0].podSubnet 100.64.0.0/29: the smallest subnet is a /28"},
		{custom + "\nzones: [{nodes: 6, podSubnet: 100.64.0.0/28}]", "zones[0].podSubnet 100.64.0.0/28 has addresses for 5 nodes with a pod each, not 6"},
		{custom + "\nzones: [{nodes: 1}, {nodes: 1, podSubnet: 100.64.8.0/24}]", "zones[1].podSubnet 100.64.8.0/24 overlaps zones[0].podSubnet 100.64.0.0/20"},
		{custom + "\nzones: [{nodes: 1, podSubnet: 100.64.1.1/24}]", `zones[0].podSubnet "100.64.1.1/24": has host bits set: use 100.64.1.0/24`},
		{"instanceType: t3.medum", `instance type "t3.medum" is not known here: is t3.medium meant? Else use one of c5.large,`},
		{"instanceType: m6i.large", `instance type "m6i.large" is not known here: is m5.large meant?`},
		{"vpc: 203.0.0.0/16", "vpc 203.0.0.0/16 overlaps 203.0.113.0/24, the world outside of the lab"},
		{"ipFamily: dual\nvpcIPv6: 2001:db8:200::/40", "vpcIPv6 2001:db8:200::/40 overlaps 2001:db8:203:113::/64"},
		{"apiPort: 70000", "apiPort 70000: use a port, or 0 for a free one"},
		{"crossZoneLatency: slow", `crossZoneLatency "slow": use a duration such as 0.5ms`},
		{"crossZoneLatency: -1ms", `crossZoneLatency "-1ms": use a duration`},
		{"instanceType: t9.huge", `zones[0] (ap-northeast-2a): instance type "t9.huge" is not known here: use one of c5.large,`},
		{"zones: []", "zones: a lab needs at least one"},
		{"zones: [{name: a}]", "zones[0] (a): nodes is 0: a zone needs at least one"},
		{"cni: static\nzones: [{name: a, nodes: 1}, {name: a, nodes: 1}]", `zones[1].name "a" is there twice`},
		{"zones: [{name: Zone A, nodes: 1}]", `zones[0].name "Zone A": use at most 63`},
		{"zones: [{nodes: 1, subnet: 192.168.1.0/24}, {nodes: 1, subnet: 192.168.1.128/25}]",
			"zones[1].subnet 192.168.1.128/25 overlaps zones[0].subnet 192.168.1.0/24"},
		{"zones: [{nodes: 1, subnet: 192.168.0.0/24}]", "zones[0].subnet 192.168.0.0/24 overlaps controlPlaneSubnet 192.168.0.0/24"},
		{"zones: [{nodes: 1, subnet: 10.0.0.0/24}]", "zones[0].subnet 10.0.0.0/24 is not inside vpc 192.168.0.0/16"},
		{"zones: [{nodes: 1, subnet: here}]", `zones[0].subnet "here": use an IPv4 range inside the VPC`},
		{"cni: static\nzones: [{nodes: 20}]", "zones[0].subnet 192.168.1.0/24 holds 13 nodes of t3.medium, not 20: use a larger subnet or fewer nodes"},
		{"cni: static\nzones: [{nodes: 1, subnet: 192.168.1.0/29}]", "zones[0].subnet 192.168.1.0/29 holds 0 nodes of t3.medium, not 1"},
		{"cni: zonewise\nzones: [{nodes: 6, subnet: 192.168.1.0/28}]", "zones[0].subnet 192.168.1.0/28 holds 5 nodes of t3.medium, not 6: use a larger subnet or fewer nodes"},
		{"cni: zonewise\nzones: [{nodes: 1, subnet: 192.168.1.0/29}]", "zones[0].subnet 192.168.1.0/29: with cni: zonewise a range from /16 to /28"},
		{"cni: zonewise\nvpc: 10.0.0.0/8\nserviceCIDR: 172.20.0.0/16\nzones: [{nodes: 1, subnet: 10.128.0.0/9}]", "zones[0].subnet 10.128.0.0/9: with cni: zonewise a range from /16 to /28"},
		{"cni: zonewise\nzones: [{nodes: 1, name: us-east-1a}]", `zones[0].name "us-east-1a": with cni: zonewise a zone of region ap-northeast-2, such as ap-northeast-2a`},
		{"zones: [{nodes: 5}, {nodes: 1000000000}]", "zones[1] (ap-northeast-2b): a lab has at most 500 nodes in all"},
		{"vpc: 192.168.1.1/16", `vpc "192.168.1.1/16": has host bits set: use 192.168.0.0/16`},
		{"vpc: fd00::/48", `vpc "fd00::/48": use an IPv4 range`},
		{"vpc: 127.0.0.0/8", "vpc 127.0.0.0/8 overlaps 127.0.0.0/8"},
		{"serviceCIDR: 192.168.0.0/20", "serviceCIDR 192.168.0.0/20 overlaps vpc 192.168.0.0/16"},
		{"serviceCIDR: 10.0.0.0/8", "serviceCIDR 10.0.0.0/8: use a range from /12 to /24"},
		{"ipFamily: ipv5", `ipFamily "ipv5": use ipv4, dual or ipv6`},
		{"ipFamily: ipv6\ncni: static", "ipFamily ipv6: needs cni: zonewise"},
		{"vpcIPv6: fd00::/56", "vpcIPv6 fd00::/56: needs ipFamily: dual"},
		{"serviceCIDRIPv6: fd01::/108", "serviceCIDRIPv6 fd01::/108: needs ipFamily: dual"},
		{"ipFamily: dual\nvpcIPv6: 10.0.0.0/8", `vpcIPv6 "10.0.0.0/8": use an IPv6 range`},
		{"ipFamily: dual\nvpcIPv6: fd00::1/56", `vpcIPv6 "fd00::1/56": has host bits set: use fd00::/56`},
		{"ipFamily: dual\nvpcIPv6: fe80::/56", "vpcIPv6 fe80::/56: has a meaning of its own"},
		{"ipFamily: dual\nvpcIPv6: fd00::/64", "vpcIPv6 fd00::/64: use a range from /40 to /56"},
		{"ipFamily: dual\nserviceCIDRIPv6: fd00::/64", "serviceCIDRIPv6 fd00::/64: use a range from /108 to /120"},
		{"ipFamily: dual\nserviceCIDRIPv6: fd00:192:168::/108", "serviceCIDRIPv6 fd00:192:168::/108 overlaps vpcIPv6 fd00:192:168::/56"},
		{"controlPlaneSubnet: 10.0.0.0/24", "controlPlaneSubnet 10.0.0.0/24 is not inside vpc"},
		{"controlPlaneSubnet: 192.168.0.0/30", "controlPlaneSubnet 192.168.0.0/30: needs room for 16 addresses"},
	} {
		config, err := Parse([]byte(c.yaml))
		if err == nil {
			_, err = New(config)
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %s", c.yaml, err, c.want)
			continue
		}
		if strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: more than one line: %q", c.yaml, err)
		}
	}
}

// With addresses of the cloud a subnet may be smaller than what its nodes could hold.
func TestSmallSubnet(t *testing.T) {
	c, err := Parse([]byte("cni: zonewise\nzones: [{nodes: 5, subnet: 192.168.1.0/28}, {nodes: 2}]"))
	if err != nil {
		t.Fatal(err)
	}
	topo, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, n := range topo.Nodes() {
		got = append(got, n.Address.String())
	}
	if want := "192.168.1.10 192.168.1.11 192.168.1.12 192.168.1.13 192.168.1.14 192.168.2.10 192.168.2.28"; strings.Join(got, " ") != want {
		t.Errorf("nodes at %v, want %s", got, want)
	}
}

// How many pods a node holds follows from its type, and with the cloud's addresses from how these are given.
func TestMaxPods(t *testing.T) {
	for text, want := range map[string]int{
		"": 17, "cni: static": 17, "cni: zonewise": 17, "cni: none": 17, "instanceType: t3.small\ncni: zonewise": 11,
		"cni: zonewise\nvalues: {cni: {env: {ENABLE_PREFIX_DELEGATION: true}}}":             110,
		"cni: zonewise\nvalues: {cni: {env: {AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG: 'true'}}}": 12,
		"cni: static\nvalues: {cni: {env: {ENABLE_PREFIX_DELEGATION: true}}}":               17,
	} {
		c, err := Parse([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		topo, err := New(c)
		if err != nil || topo.Nodes()[0].MaxPods != want {
			t.Errorf("%q: %d pods, %v, want %d", text, topo.Nodes()[0].MaxPods, err, want)
		}
	}
}

// What has its defaults filled in means the same, and stays so.
func TestWithDefaultsTwice(t *testing.T) {
	once := Config{Zones: Spread(4, 1), InstanceType: "c5.large"}.WithDefaults()
	a, err := New(once)
	if err != nil {
		t.Fatal(err)
	}
	if a.Zones[3].Name != "ap-northeast-2d" || a.Zones[3].Nodes[0].Instance.Type != "c5.large" {
		t.Errorf("fourth zone is %+v", a.Zones[3])
	}
	twice := once.WithDefaults()
	for i := range once.Zones {
		if once.Zones[i] != twice.Zones[i] {
			t.Errorf("zone %d: %+v, then %+v", i, once.Zones[i], twice.Zones[i])
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{"", "name: x", "zones: [{nodes: 2}]", "vpc: 10.0.0.0/8\nserviceCIDR: 172.20.0.0/16", "vpc: 192.168.0.0/30", "zones: [{nodes: -1}]", "ipFamily: dual\nvpcIPv6: 2001:db8::/48", "cni: zonewise", "a: &a [*a]"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse(data)
		if err != nil || len(c.Zones) > 64 {
			return
		}
		topo, err := New(c)
		if err != nil {
			return
		}
		for _, n := range topo.Nodes() {
			if len(n.Name) > 64 || topo.CNI == CNIStatic && len(n.Pool) != n.Instance.MaxPods() || !topo.VPC.Contains(n.Address) {
				t.Errorf("node %+v", n)
			}
		}
	})
}
