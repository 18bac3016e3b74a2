package ec2

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/zonewise/zonewise/internal/vpc"
)

// Tags of interfaces. The one with the instance is upstream's, too: whoever moves from the one plugin to the other
// keeps what is attached.
const (
	tagInstance  = "node.k8s.amazonaws.com/instance_id"
	tagUnmanaged = "node.k8s.amazonaws.com/no_manage"
	tagCluster   = "cluster.k8s.amazonaws.com/name"
	tagOwner     = "zonewise.io/owner"
	tagCreated   = "zonewise.io/created-at"
)

// owner is the value of tagOwner: only what has it is ours to collect.
const owner = "zonewise-cni"

// eni is an interface, and what vpc need not know of it.
type eni struct {
	vpc.Interface
	instance   string // to which it is attached; empty: to none
	attachment string
	lasting    bool // it would outlive its instance
	leaving    bool // it is being detached
	tags       map[string]string
}

// read takes what EC2 says of an interface, as an instance sees it, and refuses what is not whole.
func read(n *types.NetworkInterface, self string) (eni, error) {
	out := eni{Interface: vpc.Interface{ID: aws.ToString(n.NetworkInterfaceId), MAC: aws.ToString(n.MacAddress),
		SubnetID: aws.ToString(n.SubnetId)}, tags: map[string]string{}}
	if out.ID == "" || out.MAC == "" || out.SubnetID == "" {
		return out, fmt.Errorf("interface %q with MAC %q in subnet %q: %w", out.ID, out.MAC, out.SubnetID, errIncomplete)
	}
	for _, t := range n.TagSet {
		out.tags[aws.ToString(t.Key)] = aws.ToString(t.Value)
	}
	for _, g := range n.Groups {
		out.SecurityGroups = append(out.SecurityGroups, aws.ToString(g.GroupId))
	}
	// Trunks and interfaces for EFA alone have no addresses for pods.
	ordinary := n.InterfaceType == "" || n.InterfaceType == types.NetworkInterfaceTypeInterface
	card := 0
	if a := n.Attachment; a != nil {
		out.instance, out.attachment, out.lasting = aws.ToString(a.InstanceId), aws.ToString(a.AttachmentId), !aws.ToBool(a.DeleteOnTermination)
		out.Index, card = int(aws.ToInt32(a.DeviceIndex)), int(aws.ToInt32(a.NetworkCardIndex))
		out.Attached = aws.ToTime(a.AttachTime)
		out.Primary = out.instance != "" && out.Index == 0 && card == 0
		out.leaving = a.Status == types.AttachmentStatusDetaching || a.Status == types.AttachmentStatusDetached
	}
	ours := out.Primary || out.tags[tagInstance] == self
	out.Unmanaged = !ours || !ordinary || out.leaving || card > 0 || out.tags[tagUnmanaged] == "true"
	return out, errors.Join(out.readIPv4(n), out.readIPv6(n))
}

func (i *eni) readIPv4(n *types.NetworkInterface) error {
	for _, p := range n.PrivateIpAddresses {
		a, err := netip.ParseAddr(aws.ToString(p.PrivateIpAddress))
		switch {
		case err != nil || !a.Is4():
			return fmt.Errorf("interface %s: address %q: %w", i.ID, aws.ToString(p.PrivateIpAddress), errIncomplete)
		case aws.ToBool(p.Primary):
			i.Address = a
		default:
			i.Addresses = append(i.Addresses, a)
		}
	}
	for _, p := range n.Ipv4Prefixes {
		prefix, err := netip.ParsePrefix(aws.ToString(p.Ipv4Prefix))
		if err != nil || !prefix.Addr().Is4() {
			return fmt.Errorf("interface %s: prefix %q: %w", i.ID, aws.ToString(p.Ipv4Prefix), errIncomplete)
		}
		i.Prefixes = append(i.Prefixes, prefix)
	}
	slices.SortFunc(i.Addresses, netip.Addr.Compare)
	slices.SortFunc(i.Prefixes, netip.Prefix.Compare)
	return nil
}

// readIPv6 takes the first prefix: nobody asks for more than one.
func (i *eni) readIPv6(n *types.NetworkInterface) error {
	if len(n.Ipv6Prefixes) == 0 {
		return nil
	}
	prefix, err := netip.ParsePrefix(aws.ToString(n.Ipv6Prefixes[0].Ipv6Prefix))
	if err != nil || prefix.Addr().Is4() {
		return fmt.Errorf("interface %s: prefix %q: %w", i.ID, aws.ToString(n.Ipv6Prefixes[0].Ipv6Prefix), errIncomplete)
	}
	i.IPv6Prefix = prefix
	return nil
}

// Subnet is a range of addresses in one zone.
type Subnet struct {
	ID, Zone string
	CIDR     netip.Prefix // the zero prefix: none
	Free     int          // IPv4 addresses that are left
	Tags     map[string]string
}

func readSubnet(s *types.Subnet) (Subnet, error) {
	out := Subnet{ID: aws.ToString(s.SubnetId), Zone: aws.ToString(s.AvailabilityZone), Tags: map[string]string{}, Free: -1}
	if out.ID == "" || out.Zone == "" {
		return out, fmt.Errorf("subnet %q in zone %q: %w", out.ID, out.Zone, errIncomplete)
	}
	if s.AvailableIpAddressCount != nil {
		out.Free = int(*s.AvailableIpAddressCount)
	}
	for _, t := range s.Tags {
		out.Tags[aws.ToString(t.Key)] = aws.ToString(t.Value)
	}
	if text := aws.ToString(s.CidrBlock); text != "" {
		var err error
		if out.CIDR, err = netip.ParsePrefix(text); err != nil {
			return out, fmt.Errorf("subnet %s: range %q: %w", out.ID, text, errIncomplete)
		}
	}
	return out, nil
}
