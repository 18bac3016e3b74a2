package ec2

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// defaultGroup is the security group of whatever names none.
const defaultGroup = "default"

// Blueprint is what a region has before anybody asks it for anything.
type Blueprint struct {
	Name    string // of the cluster, for tags and names of security groups
	Region  string
	VPC     netip.Prefix
	More    []netip.Prefix // of the VPC: ranges besides its first
	IPv6    netip.Prefix   // of the VPC; the zero prefix: none
	Kept    []netip.Prefix // ranges of the VPC that hold what is no record, and cannot be subnets
	Subnets []NewSubnet
}

// NewSubnet is a subnet to be made.
type NewSubnet struct {
	Name       string // after the cluster's, in a tag; empty: PublicSubnet and its number
	Zone       string
	CIDR, IPv6 netip.Prefix
}

// newRecords makes the records of a region in which nothing runs yet.
func newRecords(b Blueprint, seed string) (*Records, error) {
	r := &Records{
		Region: b.Region, Seed: seed, Kept: b.Kept,
		Subnets: map[string]*Subnet{}, Groups: map[string]*SecurityGroup{},
		Instances: map[string]*Instance{}, Interfaces: map[string]*Interface{}, Homes: map[string]netip.Addr{},
	}
	owned := func(name string) Tags {
		return Tags{"Name": name, "kubernetes.io/cluster/" + b.Name: "owned"}
	}
	r.VPC = VPC{
		ID: r.identify("vpc"), RouteTable: r.identify("rtb"), Gateway: r.identify("igw"), DHCP: r.identify("dopt"),
		CIDRs: append([]netip.Prefix{b.VPC}, b.More...), IPv6: b.IPv6, Tags: owned(b.Name + "-VPC"),
	}
	r.Credentials = Credentials{AccessKeyID: r.key("AKIA"), SecretAccessKey: r.secret(40)}
	r.Role = Credentials{AccessKeyID: r.key("ASIA"), SecretAccessKey: r.secret(40), Token: r.secret(64)}
	for _, g := range []struct{ name, description string }{
		{defaultGroup, "default VPC security group"},
		{"eks-cluster-sg-" + b.Name, "EKS created security group applied to ENI that is attached to EKS Control Plane master nodes, as well as any managed workloads."},
		{b.Name + "-ng1-remoteAccess", "Allow SSH access"},
	} {
		if _, err := r.createGroup(g.name, g.description, owned(g.name)); err != nil {
			return nil, err
		}
	}
	for _, s := range b.Subnets {
		addZone(r, s.Zone)
	}
	for i, s := range b.Subnets {
		name := cmp.Or(s.Name, fmt.Sprint("PublicSubnet", i+1))
		if _, err := r.createSubnet(s.Zone, s.CIDR, s.IPv6, owned(b.Name+"-"+name)); err != nil {
			return nil, err
		}
	}
	return r, nil
}

func addZone(r *Records, zone string) {
	for _, z := range r.Zones {
		if z == zone {
			return
		}
	}
	r.Zones = append(r.Zones, zone)
}

// Launch is an instance to be made with fixed addresses, which RunInstances cannot promise.
type Launch struct {
	Node    string // the same node is the same instance
	Type    string
	Subnet  netip.Prefix
	DNSName string
	Address netip.Addr
	IPv6    []netip.Addr
	// IPv6Prefixes of the primary interface, /80.
	IPv6Prefixes []netip.Prefix
	Tags         Tags
}

func (r *Records) launch(want Launch, now time.Time) (*Instance, error) {
	if i := r.InstanceOf(want.Node); i != nil {
		n := r.Attached(i.ID)[0]
		if i.Type != want.Type || n.Primary() != want.Address {
			return nil, fmt.Errorf("node %s: is a %s at %s, not a %s at %s: take the lab down before its nodes change",
				want.Node, i.Type, n.Primary(), want.Type, want.Address)
		}
		err := r.power(i.ID, PowerOn, now)
		return r.Instances[i.ID], err
	}
	if _, err := LimitsOf(want.Type); err != nil {
		return nil, err
	}
	var subnet *Subnet
	for _, s := range r.Subnets {
		if s.CIDR == want.Subnet {
			subnet = s
		}
	}
	if subnet == nil {
		return nil, fmt.Errorf("node %s: no subnet %s: use one of the region's", want.Node, want.Subnet)
	}
	i := &Instance{
		ID: r.identify("i"), Node: want.Node, Type: want.Type, Zone: subnet.Zone, Subnet: subnet.ID,
		DNSName: want.DNSName, Launched: now, Tags: want.Tags,
	}
	r.Instances[i.ID], r.Homes[i.Node] = i, want.Address
	n, err := r.createInterface(NewInterface{
		Subnet: subnet.ID,
		Groups: r.groupsNamed("eks-cluster-sg-", "-ng1-"),
		IPv4:   Ask{Addresses: []netip.Addr{want.Address}},
		IPv6:   Ask{Addresses: want.IPv6, Prefixes: want.IPv6Prefixes},
	})
	if err != nil {
		return nil, err
	}
	a, err := r.attach(i.ID, n.ID, 0, 0, now, 0)
	if err != nil {
		return nil, err
	}
	a.DeleteOnTermination = true
	return i, nil
}

// groupsNamed lists the groups whose name holds one of some texts, in the order of these.
func (r *Records) groupsNamed(parts ...string) []string {
	var out []string
	for _, part := range parts {
		for _, g := range r.Groups {
			if strings.Contains(g.Name, part) {
				out = append(out, g.ID)
			}
		}
	}
	return out
}

// terminate ends an instance. Interfaces that are to go with it go; others are left unattached.
func (r *Records) terminate(id string, now time.Time) error {
	i, err := r.instance(id)
	if err != nil {
		return err
	}
	if i.Gone() {
		return nil
	}
	r.editInstance(i).Terminated = now
	for _, n := range r.Attached(id) {
		if n.Attachment.DeleteOnTermination {
			delete(r.Interfaces, n.ID)
		} else {
			r.editInterface(n).Attachment = nil
		}
	}
	return nil
}

// Power is what is to become of an instance's.
type Power string

// What can be done with it. To do it again changes nothing, but for a reboot.
const (
	PowerOn  Power = "started"
	PowerOff Power = "stopped"
	Reboot   Power = "rebooted"
)

func (r *Records) power(id string, p Power, now time.Time) error {
	i, err := r.instance(id)
	switch {
	case err != nil:
		return err
	case i.Gone() || p == Reboot && !i.Running():
		return refuse("IncorrectInstanceState", "The instance '%s' is not in a state from which it can be %s.", id, p)
	case p != Reboot && i.Running() == (p == PowerOn):
		return nil
	}
	i = r.editInstance(i)
	if p == PowerOff {
		i.Stopped = now
		return nil
	}
	i.Stopped = time.Time{}
	i.Boots++
	return nil
}

// identify makes an identifier that the region never made before.
func (r *Records) identify(kind string) string { return kind + "-0" + r.random()[:16] }

// hardwareAddress is one of those that anybody may give.
func (r *Records) hardwareAddress() string {
	d := r.random()
	return fmt.Sprintf("02:%s:%s:%s:%s:%s", d[0:2], d[2:4], d[4:6], d[6:8], d[8:10])
}

func (r *Records) key(kind string) string { return kind + strings.ToUpper(r.random()[:16]) }

func (r *Records) secret(length int) string { return r.random()[:length] }

// random is 64 hexadecimal digits that nobody foresees who does not know the seed.
func (r *Records) random() string {
	r.Serial++
	sum := sha256.Sum256(fmt.Appendf(nil, "%s/%d", r.Seed, r.Serial))
	return hex.EncodeToString(sum[:])
}
