package report

import (
	"bytes"
	"testing"
	"time"

	"github.com/zonewise/zonewise/internal/agent/view"
	"github.com/zonewise/zonewise/internal/golden"
	"github.com/zonewise/zonewise/internal/vpc"
)

var midday = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// fewAddresses is a node with an address left.
func fewAddresses() view.Addresses {
	return view.Addresses{
		Schema: view.AddressesSchema, Name: "ip-192-168-1-10", Zone: "ap-northeast-2a", Instance: "i-0123456789abcdef0", InstanceType: "t3.medium",
		MaxPods: 17, Pods: 6, Doing: "warm target is met",
		Interfaces: []view.AddressInterface{
			{ID: "eni-0aaa", Device: "eth0", Primary: true, Address: "192.168.1.10", Slots: 5, Taken: 5, Addresses: 5, Used: 5},
			{ID: "eni-0bbb", Device: "eth1", Index: 1, Address: "192.168.1.30", Slots: 5, Taken: 5, Addresses: 5, Used: 1, Warm: 3, Cooling: 1},
			{ID: "eni-0ccc", Index: 2, Address: "192.168.1.40", Slots: 5, Taken: 5, Addresses: 5, Warm: 5, State: "attaching"},
		},
		Next:    vpc.Next{Free: 3, Grows: true, Room: 5, Limit: "t3.medium: 3 interfaces with 5 addresses each", Mend: "a larger instance type, another node"},
		Subnets: []view.AddressSubnet{{ID: "subnet-1", CIDR: "192.168.1.0/24", Free: 12, Empty: midday.Add(5 * time.Hour), PerHour: 2.4}},
	}
}

// noAddress is a node on which pods wait, for a subnet that is full.
func noAddress() view.Addresses {
	v := fewAddresses()
	v.Name, v.Zone, v.Pods = "ip-192-168-2-10", "ap-northeast-2b", 15
	v.Interfaces = v.Interfaces[:2]
	v.Next = vpc.Next{Waiting: 2, Waits: "the cloud: subnet-2: subnet full, asked again in 2m0s", Limit: "subnet subnet-2: subnet full", Mend: "a larger subnet"}
	v.Failure = "cloud: AssignPrivateIpAddresses: InsufficientFreeAddressesInSubnet: no."
	v.Warnings = []string{"kubelet takes 110 pods, but a t3.medium has addresses for 17: set its maxPods to that"}
	v.Subnets = []view.AddressSubnet{{ID: "subnet-2", CIDR: "192.168.2.0/24", Free: 0}, {ID: "subnet-3", CIDR: "192.168.3.0/24", Free: -1}}
	return v
}

func TestNodeText(t *testing.T) {
	var b bytes.Buffer
	for _, v := range []view.Addresses{fewAddresses(), noAddress()} {
		if err := NodeText(&b, v, midday); err != nil {
			t.Fatal(err)
		}
		b.WriteString("\n")
	}
	golden.Check(t, "node.txt", b.String())
}

func TestNodesTable(t *testing.T) {
	var b bytes.Buffer
	if err := NodesTable(&b, MakeNodes([]view.Addresses{noAddress(), fewAddresses()})); err != nil {
		t.Fatal(err)
	}
	golden.Check(t, "nodes.txt", b.String())
}

// Few addresses are told of a subnet before there are none.
func TestFewAddressesLeft(t *testing.T) {
	for _, c := range []struct {
		cidr string
		free int
		want string
	}{
		{"192.168.1.0/27", 2, "Only 2 of the 27 addresses of 192.168.1.0/27 are free."},
		{"192.168.1.0/27", 1, "Only 1 of the 27 addresses of 192.168.1.0/27 is free."},
		{"192.168.1.0/27", 3, ""},
		{"192.168.1.0/24", 25, "Only 25 of the 251 addresses of 192.168.1.0/24 are free."},
		{"192.168.1.0/24", 26, ""},
		{"192.168.1.0/24", -1, ""},
		{"", 1, ""},
	} {
		v := view.Addresses{Name: "n1", Subnets: []view.AddressSubnet{{ID: "subnet-1", CIDR: c.cidr, Free: c.free}}}
		got := ""
		for _, f := range MakeCheck(Answers{Now: midday, Addresses: []view.Addresses{v}}).Findings {
			if f.Kind == "Subnet" {
				got += f.What
			}
		}
		if got != c.want {
			t.Errorf("%s with %d free: %q, want %q", c.cidr, c.free, got, c.want)
		}
	}
}

// What nodes say of their addresses is found by a check; of a subnet that they share it is one finding.
func TestCheckOfAddresses(t *testing.T) {
	a := Answers{Now: midday, NoAddresses: map[string]string{"n9": "connection refused"}}
	late := fewAddresses()
	late.Name = "n2"
	late.Subnets[0].Empty = midday.Add(9 * time.Hour)
	a.Addresses = []view.Addresses{late, fewAddresses(), noAddress()}
	var b bytes.Buffer
	if err := CheckText(&b, MakeCheck(a)); err != nil {
		t.Fatal(err)
	}
	golden.Check(t, "check_addresses.txt", b.String())
}
