package ec2

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"testing"
)

// The largest lab there can be, with all its interfaces full: what one more address takes, and its end.
func BenchmarkAssign(b *testing.B) {
	const nodes, perSubnet = 500, 10
	p := Blueprint{Name: "lab", Region: "ap-northeast-2", VPC: netip.MustParsePrefix("10.0.0.0/16")}
	for i := range nodes / perSubnet {
		p.Subnets = append(p.Subnets, NewSubnet{Zone: "ap-northeast-2a", CIDR: netip.MustParsePrefix(fmt.Sprintf("10.0.%d.0/24", i))})
	}
	c, err := Open(p, Options{})
	if err != nil {
		b.Fatal(err)
	}
	var launched []*Instance
	for n := range nodes {
		subnet := p.Subnets[n/perSubnet].CIDR
		address := subnet.Addr().As4()
		address[3] = byte(10 + n%perSubnet)
		i, err := c.Launch(Launch{Node: fmt.Sprint(n), Type: "t3.medium", Subnet: subnet, Address: netip.AddrFrom4(address)})
		if err != nil {
			b.Fatal(err)
		}
		launched = append(launched, i)
	}
	var n *Interface
	for _, i := range launched {
		for device := 1; device < 3; device++ {
			if n, err = c.CreateInterface(NewInterface{Subnet: i.Subnet, IPv4: Ask{Count: 4}}); err != nil {
				b.Fatal(err)
			}
			if _, err := c.Attach(i.ID, n.ID, device, 0); err != nil {
				b.Fatal(err)
			}
		}
	}
	for _, file := range []string{"", filepath.Join(b.TempDir(), "region.json")} {
		b.Run(fmt.Sprint("file=", file != ""), func(b *testing.B) {
			c.options.File = file
			for b.Loop() {
				got, err := c.Assign(n.ID, Ask{Count: 1}, false)
				if err != nil {
					b.Fatal(err)
				}
				if err := c.Unassign(n.ID, got); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
