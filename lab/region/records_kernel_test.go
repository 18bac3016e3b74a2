//go:build kernel

package region

import (
	"net/netip"
	"testing"
	"time"

	"github.com/zonewise/zonewise/lab/region/ec2"
	"github.com/zonewise/zonewise/lab/topology"
)

// What is asked of the cloud's records is what the network does: an interface is there when its attachment
// says so, has the addresses that it was assigned, and its prefix, and takes them along to another node.
func TestNetworkFollowsRecords(t *testing.T) {
	topo, err := topology.New(topology.Config{CNI: topology.CNIZonewise, Zones: topology.Spread(2, 2)})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(0, 0)
	due := func() {}
	blueprint := ec2.Blueprint{Name: "x", Region: topo.Region, VPC: topo.VPC}
	for _, z := range topo.Zones {
		blueprint.Subnets = append(blueprint.Subnets, ec2.NewSubnet{Zone: z.Name, CIDR: z.Subnet})
	}
	cloud, err := ec2.Open(blueprint, ec2.Options{
		AttachTime: time.Second, Now: func() time.Time { return now }, After: func(_ time.Duration, f func()) { due = f },
	})
	if err != nil {
		t.Fatal(err)
	}
	ids := map[string]string{}
	for _, z := range topo.Zones {
		for _, n := range z.Nodes {
			i, err := cloud.Launch(ec2.Launch{Node: n.Alias, Type: n.Instance.Type, Subnet: z.Subnet, Address: n.Address})
			if err != nil {
				t.Fatal(err)
			}
			ids[n.Alias] = i.ID
		}
	}
	f := newFabric(t, topology.Config{CNI: topology.CNIZonewise, Zones: topology.Spread(2, 2)})
	changes := cloud.Changes()
	follow := func() {
		t.Helper()
		<-changes // that there was one
		apply(t, f, cloud.Delivery())
	}
	follow()
	a1, a2, b1 := attach(t, f, "a1"), attach(t, f, "a2"), attach(t, f, "b1")
	subnet := cloud.Delivery().Instances[0].Interfaces[0].Subnet
	n, err := cloud.CreateInterface(ec2.NewInterface{Subnet: subnet, IPv4: ec2.Ask{Count: 1}})
	if err != nil {
		t.Fatal(err)
	}
	attachment, err := cloud.Attach(ids["a1"], n.ID, 1, 0)
	if err != nil {
		t.Fatal(err)
	}
	follow()
	if links := indexes(t, f); len(cloud.Delivery().Instances[0].Interfaces) != 1 {
		t.Errorf("there before its time: %s", links)
	}
	now = now.Add(time.Second)
	due()
	follow()
	v := cloud.Delivery().Instances[0].Interfaces[1]
	setUp(t, f, a1, v)
	granted, err := cloud.Assign(n.ID, ec2.Ask{Count: 2}, false)
	if err != nil {
		t.Fatal(err)
	}
	follow()
	have(t, a1, granted.Addresses...)
	for _, a := range granted.Addresses {
		send(t, b1, b1.Address, a1, a, 1, 100)
	}
	if err := cloud.Unassign(n.ID, granted); err != nil {
		t.Fatal(err)
	}
	if granted, err = cloud.Assign(n.ID, ec2.Ask{PrefixCount: 1}, false); err != nil {
		t.Fatal(err)
	}
	follow()
	inside := granted.Prefixes[0].Addr().Next()
	have(t, a1, inside)
	send(t, b1, b1.Address, a1, inside, 1, 100)
	if err := cloud.Detach(attachment.ID); err != nil {
		t.Fatal(err)
	}
	follow()
	due()
	if _, err := cloud.Attach(ids["a2"], n.ID, 1, 0); err != nil {
		t.Fatal(err)
	}
	now = now.Add(time.Second)
	due()
	follow()
	v.Addresses = []netip.Addr{v.Primary, inside}
	setUp(t, f, a2, v)
	send(t, b1, b1.Address, a2, inside, 1, 100)
	if dropped, err := f.Dropped(); err != nil || len(dropped) != 0 {
		t.Errorf("dropped %+v, %v", dropped, err)
	}
}
