package region

import (
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/zonewise/zonewise/lab/region/ec2"
	"github.com/zonewise/zonewise/lab/topology"
)

// A delivery that cannot be true is refused, and the error names what is wrong with it.
func TestCheck(t *testing.T) {
	topo, err := topology.New(topology.Config{CNI: topology.CNIStatic, Zones: topology.Spread(2, 2)})
	if err != nil {
		t.Fatal(err)
	}
	if err := check(fixed(topo), topo.Zones); err != nil {
		t.Errorf("a true one: %v", err)
	}
	for want, spoil := range map[string]func(*ec2.Delivery){
		"192.168.1.11/32 belongs to interface eni-a1 and to eni-a2": func(d *ec2.Delivery) {
			v := &d.Instances[1].Interfaces[0]
			v.Addresses = append(v.Addresses, netip.MustParseAddr("192.168.1.11"))
		},
		"192.168.1.64/28 belongs to interface eni-a1 and to eni-b1": func(d *ec2.Delivery) {
			for _, i := range []int{0, 2} {
				d.Instances[i].Interfaces[0].Prefixes = []netip.Prefix{netip.MustParsePrefix("192.168.1.64/28")}
			}
		},
		`zone "moon"`:               func(d *ec2.Delivery) { d.Instances[3].Zone = "moon" },
		"node a1 has two instances": func(d *ec2.Delivery) { d.Instances[3].Node = "a1" },
		"lacks an id":               func(d *ec2.Delivery) { d.Instances[2].Interfaces[0].ID = "" },
		"a hardware address":        func(d *ec2.Delivery) { d.Instances[2].Interfaces[0].MAC = nil },
		"or a primary address":      func(d *ec2.Delivery) { d.Instances[2].Interfaces[0].Primary = netip.Addr{} },
		"two interfaces with device index 0": func(d *ec2.Delivery) {
			v := d.Instances[0].Interfaces[0]
			v.ID, v.MAC, v.Addresses = "eni-x", net.HardwareAddr{2, 0, 0, 0, 0, 9}, nil
			d.Instances[0].Interfaces = append(d.Instances[0].Interfaces, v)
		},
	} {
		d := fixed(topo)
		spoil(&d)
		if err := check(d, topo.Zones); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %s", err, want)
		}
	}
}

func TestLinkNames(t *testing.T) {
	for _, c := range []struct {
		alias string
		index int
		want  string
	}{{"a1", 0, "vpc-a1"}, {"a1", 2, "vpc-a1-2"}, {"ab500", 14, "vpc-ab500-14"}} {
		name := linkName(c.alias, c.index)
		alias, device := splitName(name)
		if name != c.want || len(name) > 15 || alias != c.alias || !strings.HasPrefix(device, "eth") {
			t.Errorf("%s %d: %s, back %s %s", c.alias, c.index, name, alias, device)
		}
	}
}
