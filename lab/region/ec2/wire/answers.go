package wire

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/zonewise/zonewise/lab/region/ec2"
)

// The forms that records have in answers.

type textXML struct {
	Text string `xml:",chardata"`
}

func texts[T fmt.Stringer](all []T) set[textXML] {
	var out set[textXML]
	for _, v := range all {
		out.Items = append(out.Items, textXML{v.String()})
	}
	return out
}

type tagXML struct {
	Key   string `xml:"key"`
	Value string `xml:"value"`
}

func tagsOf(tags ec2.Tags) set[tagXML] {
	var out set[tagXML]
	for _, k := range slices.Sorted(maps.Keys(tags)) {
		out.Items = append(out.Items, tagXML{k, tags[k]})
	}
	return out
}

type groupXML struct {
	ID   string `xml:"groupId"`
	Name string `xml:"groupName"`
}

func groupsOf(r *ec2.Records, ids []string) set[groupXML] {
	var out set[groupXML]
	for _, id := range ids {
		if g, ok := r.Groups[id]; ok {
			out.Items = append(out.Items, groupXML{id, g.Name})
		}
	}
	return out
}

type attachmentXML struct {
	ID                  string `xml:"attachmentId"`
	Instance            string `xml:"instanceId,omitempty"`
	Owner               string `xml:"instanceOwnerId,omitempty"`
	Device              int    `xml:"deviceIndex"`
	Card                int    `xml:"networkCardIndex"`
	Status              string `xml:"status"`
	Time                string `xml:"attachTime"`
	DeleteOnTermination bool   `xml:"deleteOnTermination"`
}

func attachmentOf(a *ec2.Attachment, now time.Time) *attachmentXML {
	if a == nil {
		return nil
	}
	return &attachmentXML{
		ID: a.ID, Instance: a.Instance, Owner: ec2.Account, Device: a.Device, Card: a.Card,
		Status: a.State(now), Time: stamp(a.Since), DeleteOnTermination: a.DeleteOnTermination,
	}
}

type privateXML struct {
	Address string `xml:"privateIpAddress"`
	DNSName string `xml:"privateDnsName"`
	Primary bool   `xml:"primary"`
}

type ipv6XML struct {
	Address string `xml:"ipv6Address"`
}

type ipv6PrefixXML struct {
	Prefix string `xml:"ipv6Prefix"`
}

// interfaceXML is an interface, on its own or as one of an instance.
type interfaceXML struct {
	ID               string              `xml:"networkInterfaceId"`
	Subnet           string              `xml:"subnetId"`
	VPC              string              `xml:"vpcId"`
	Zone             string              `xml:"availabilityZone,omitempty"`
	Description      string              `xml:"description"`
	Owner            string              `xml:"ownerId"`
	RequesterManaged *bool               `xml:"requesterManaged"`
	Status           string              `xml:"status"`
	Type             string              `xml:"interfaceType"`
	MAC              string              `xml:"macAddress"`
	Address          string              `xml:"privateIpAddress"`
	DNSName          string              `xml:"privateDnsName"`
	SourceCheck      bool                `xml:"sourceDestCheck"`
	Groups           set[groupXML]       `xml:"groupSet"`
	Attachment       *attachmentXML      `xml:"attachment"`
	Addresses        set[privateXML]     `xml:"privateIpAddressesSet"`
	Prefixes         *set[prefixXML]     `xml:"ipv4PrefixSet"`
	IPv6             set[ipv6XML]        `xml:"ipv6AddressesSet"`
	IPv6Prefixes     *set[ipv6PrefixXML] `xml:"ipv6PrefixSet"`
	Tags             *set[tagXML]        `xml:"tagSet"`
}

// dnsName is the private name of an address.
func dnsName(r *ec2.Records, a netip.Addr) string {
	return "ip-" + strings.ReplaceAll(a.String(), ".", "-") + "." + r.Region + ".compute.internal"
}

func interfaceOf(r *ec2.Records, n *ec2.Interface, now time.Time) interfaceXML {
	managed, tags := false, tagsOf(n.Tags)
	out := interfaceXML{
		ID: n.ID, Subnet: n.Subnet, VPC: r.VPC.ID, Zone: r.Subnets[n.Subnet].Zone, Description: n.Description, Owner: ec2.Account,
		RequesterManaged: &managed, Status: statusOf(n), Type: "interface", MAC: n.MAC,
		Address: n.Primary().String(), DNSName: dnsName(r, n.Primary()), SourceCheck: n.SourceCheck,
		Groups: groupsOf(r, n.Groups), Attachment: attachmentOf(n.Attachment, now), Tags: &tags,
	}
	for i, a := range n.Addresses {
		out.Addresses.Items = append(out.Addresses.Items, privateXML{a.String(), dnsName(r, a), i == 0})
	}
	for _, a := range n.IPv6 {
		out.IPv6.Items = append(out.IPv6.Items, ipv6XML{a.String()})
	}
	if len(n.Prefixes) > 0 {
		out.Prefixes = &set[prefixXML]{}
		for _, p := range n.Prefixes {
			out.Prefixes.Items = append(out.Prefixes.Items, prefixXML{p.String()})
		}
	}
	if len(n.IPv6Prefixes) > 0 {
		out.IPv6Prefixes = &set[ipv6PrefixXML]{}
		for _, p := range n.IPv6Prefixes {
			out.IPv6Prefixes.Items = append(out.IPv6Prefixes.Items, ipv6PrefixXML{p.String()})
		}
	}
	return out
}

func statusOf(n *ec2.Interface) string {
	if n.Attachment == nil {
		return "available"
	}
	return "in-use"
}

type stateXML struct {
	Code int    `xml:"code"`
	Name string `xml:"name"`
}

func stateOf(i *ec2.Instance) stateXML {
	switch {
	case i.Gone():
		return stateXML{48, "terminated"}
	case !i.Running():
		return stateXML{80, "stopped"}
	}
	return stateXML{16, "running"}
}

type instanceXML struct {
	ID          string            `xml:"instanceId"`
	Image       string            `xml:"imageId"`
	State       stateXML          `xml:"instanceState"`
	PrivateDNS  string            `xml:"privateDnsName"`
	DNS         string            `xml:"dnsName"`
	Reason      string            `xml:"reason"`
	LaunchIndex int               `xml:"amiLaunchIndex"`
	Type        string            `xml:"instanceType"`
	Launched    string            `xml:"launchTime"`
	Placement   placementXML      `xml:"placement"`
	Monitoring  string            `xml:"monitoring>state"`
	Subnet      string            `xml:"subnetId,omitempty"`
	VPC         string            `xml:"vpcId,omitempty"`
	Address     string            `xml:"privateIpAddress,omitempty"`
	IPv6        string            `xml:"ipv6Address,omitempty"`
	SourceCheck bool              `xml:"sourceDestCheck"`
	Groups      set[groupXML]     `xml:"groupSet"`
	Arch        string            `xml:"architecture"`
	Root        string            `xml:"rootDeviceType"`
	Virtual     string            `xml:"virtualizationType"`
	Hypervisor  string            `xml:"hypervisor"`
	ENA         bool              `xml:"enaSupport"`
	Interfaces  set[interfaceXML] `xml:"networkInterfaceSet"`
	Tags        set[tagXML]       `xml:"tagSet"`
}

type placementXML struct {
	Zone    string `xml:"availabilityZone"`
	Group   string `xml:"groupName"`
	Tenancy string `xml:"tenancy"`
}

func instanceOf(r *ec2.Records, i *ec2.Instance, now time.Time) instanceXML {
	out := instanceXML{
		ID: i.ID, Image: "ami-" + strings.TrimPrefix(r.VPC.ID, "vpc-"), State: stateOf(i), PrivateDNS: i.DNSName, Type: i.Type, Launched: stamp(i.Launched),
		Placement: placementXML{Zone: i.Zone, Tenancy: "default"}, Monitoring: "disabled", SourceCheck: true,
		Arch: "x86_64", Root: "ebs", Virtual: "hvm", Hypervisor: "xen", ENA: true, Tags: tagsOf(i.Tags),
	}
	if i.Gone() {
		out.PrivateDNS, out.Reason = "", "User initiated"
		return out
	}
	out.Subnet, out.VPC = i.Subnet, r.VPC.ID
	for _, n := range r.Attached(i.ID) {
		x := interfaceOf(r, n, now)
		if n.Attachment.Device == 0 {
			out.Address, out.Groups, out.SourceCheck = x.Address, x.Groups, x.SourceCheck
			if len(n.IPv6) > 0 {
				out.IPv6 = n.IPv6[0].String()
			}
		}
		// Within an instance there is no need to say whose it is, nor has it tags there.
		x.Attachment.Instance, x.Attachment.Owner, x.Zone, x.RequesterManaged, x.Tags = "", "", "", nil, nil
		out.Interfaces.Items = append(out.Interfaces.Items, x)
	}
	return out
}

// associationXML is a range and what it belongs to.
type associationXML struct {
	ID    string `xml:"associationId"`
	CIDR  string `xml:"cidrBlock"`
	State string `xml:"cidrBlockState>state"`
}

type associationIPv6XML struct {
	ID     string `xml:"associationId"`
	CIDR   string `xml:"ipv6CidrBlock"`
	State  string `xml:"ipv6CidrBlockState>state"`
	Border string `xml:"networkBorderGroup,omitempty"`
	Pool   string `xml:"ipv6Pool,omitempty"`
}

// associationOf makes the identifier of whose range it is, which is all that it names.
func associationOf(owner string, cidr netip.Prefix, state string) associationXML {
	return associationXML{ID: association(owner, cidr), CIDR: cidr.String(), State: state}
}

func association(owner string, cidr netip.Prefix) string {
	kind, id, _ := strings.Cut(owner, "-")
	tail := fmt.Sprintf("%x", cidr.Masked().Addr().AsSlice())
	return kind + "-cidr-assoc-" + id[:len(id)-8] + tail[:8]
}

type vpcXML struct {
	ID      string                   `xml:"vpcId"`
	Owner   string                   `xml:"ownerId"`
	State   string                   `xml:"state"`
	CIDR    string                   `xml:"cidrBlock"`
	CIDRs   set[associationXML]      `xml:"cidrBlockAssociationSet"`
	IPv6    *set[associationIPv6XML] `xml:"ipv6CidrBlockAssociationSet"`
	DHCP    string                   `xml:"dhcpOptionsId"`
	Tags    set[tagXML]              `xml:"tagSet"`
	Tenancy string                   `xml:"instanceTenancy"`
	Default bool                     `xml:"isDefault"`
}

func vpcOf(r *ec2.Records) vpcXML {
	v := r.VPC
	out := vpcXML{
		ID: v.ID, Owner: ec2.Account, State: "available", CIDR: v.CIDRs[0].String(), DHCP: v.DHCP, Tags: tagsOf(v.Tags), Tenancy: "default",
	}
	for _, p := range v.CIDRs {
		out.CIDRs.Items = append(out.CIDRs.Items, associationOf(v.ID, p, "associated"))
	}
	if v.IPv6.IsValid() {
		out.IPv6 = &set[associationIPv6XML]{Items: []associationIPv6XML{{association(v.ID, v.IPv6), v.IPv6.String(), "associated", r.Region, "Amazon"}}}
	}
	return out
}

type subnetXML struct {
	ID         string                  `xml:"subnetId"`
	ARN        string                  `xml:"subnetArn"`
	State      string                  `xml:"state"`
	Owner      string                  `xml:"ownerId"`
	VPC        string                  `xml:"vpcId"`
	CIDR       string                  `xml:"cidrBlock"`
	IPv6       set[associationIPv6XML] `xml:"ipv6CidrBlockAssociationSet"`
	Free       int                     `xml:"availableIpAddressCount"`
	Zone       string                  `xml:"availabilityZone"`
	ZoneID     string                  `xml:"availabilityZoneId"`
	Default    bool                    `xml:"defaultForAz"`
	PublicIP   bool                    `xml:"mapPublicIpOnLaunch"`
	AssignIPv6 bool                    `xml:"assignIpv6AddressOnCreation"`
	IPv6Native bool                    `xml:"ipv6Native"`
	Tags       set[tagXML]             `xml:"tagSet"`
}

func subnetOf(r *ec2.Records, s *ec2.Subnet) subnetXML {
	out := subnetXML{
		ID: s.ID, ARN: "arn:aws:ec2:" + r.Region + ":" + ec2.Account + ":subnet/" + s.ID, State: "available", Owner: ec2.Account, VPC: r.VPC.ID,
		CIDR: s.CIDR.String(), Free: r.FreeAddresses(s), Zone: s.Zone, ZoneID: r.ZoneID(s.Zone), Tags: tagsOf(s.Tags),
	}
	if s.IPv6.IsValid() {
		out.IPv6.Items = []associationIPv6XML{{ID: association(s.ID, s.IPv6), CIDR: s.IPv6.String(), State: "associated"}}
	}
	return out
}

type reservationXML struct {
	ID          string      `xml:"subnetCidrReservationId"`
	Subnet      string      `xml:"subnetId"`
	CIDR        string      `xml:"cidr"`
	Type        string      `xml:"reservationType"`
	Owner       string      `xml:"ownerId"`
	Description string      `xml:"description"`
	Tags        set[tagXML] `xml:"tagSet"`
}

func reservationOf(subnet string, k ec2.Reservation) reservationXML {
	return reservationXML{k.ID, subnet, k.CIDR.String(), k.Type, ec2.Account, k.Description, tagsOf(k.Tags)}
}

type ruleXML struct {
	ID         string  `xml:"securityGroupRuleId"`
	Group      string  `xml:"groupId"`
	Owner      string  `xml:"groupOwnerId"`
	Egress     bool    `xml:"isEgress"`
	Protocol   string  `xml:"ipProtocol"`
	From       int     `xml:"fromPort"`
	To         int     `xml:"toPort"`
	IPv4       string  `xml:"cidrIpv4,omitempty"`
	IPv6       string  `xml:"cidrIpv6,omitempty"`
	Referenced *string `xml:"referencedGroupInfo>groupId"`
}

func ruleOf(group string, r ec2.Rule) ruleXML {
	out := ruleXML{ID: r.ID, Group: group, Owner: ec2.Account, Protocol: r.Protocol, From: r.From, To: r.To}
	switch {
	case r.Group != "":
		out.Referenced = &r.Group
	case r.CIDR.Addr().Is4():
		out.IPv4 = r.CIDR.String()
	default:
		out.IPv6 = r.CIDR.String()
	}
	return out
}

// permissionXML is what a group allows of one protocol and its ports.
type permissionXML struct {
	Protocol string            `xml:"ipProtocol"`
	From     *int              `xml:"fromPort"`
	To       *int              `xml:"toPort"`
	Groups   set[groupPairXML] `xml:"groups"`
	IPv4     set[rangeXML]     `xml:"ipRanges"`
	IPv6     set[rangeIPv6XML] `xml:"ipv6Ranges"`
	Lists    set[struct{}]     `xml:"prefixListIds"`
}

type groupPairXML struct {
	ID   string `xml:"groupId"`
	User string `xml:"userId"`
}

type rangeXML struct {
	CIDR string `xml:"cidrIp"`
}

type rangeIPv6XML struct {
	CIDR string `xml:"cidrIpv6"`
}

func permissionsOf(rules []ec2.Rule) set[permissionXML] {
	var out set[permissionXML]
	index := map[string]int{}
	for _, r := range rules {
		key := r.Protocol + " " + strconv.Itoa(r.From) + " " + strconv.Itoa(r.To)
		i, ok := index[key]
		if !ok {
			i = len(out.Items)
			index[key] = i
			p := permissionXML{Protocol: r.Protocol}
			if r.Protocol != "-1" {
				p.From, p.To = &r.From, &r.To
			}
			out.Items = append(out.Items, p)
		}
		p := &out.Items[i]
		switch {
		case r.Group != "":
			p.Groups.Items = append(p.Groups.Items, groupPairXML{r.Group, ec2.Account})
		case r.CIDR.Addr().Is4():
			p.IPv4.Items = append(p.IPv4.Items, rangeXML{r.CIDR.String()})
		default:
			p.IPv6.Items = append(p.IPv6.Items, rangeIPv6XML{r.CIDR.String()})
		}
	}
	return out
}

type securityGroupXML struct {
	Owner       string             `xml:"ownerId"`
	ID          string             `xml:"groupId"`
	Name        string             `xml:"groupName"`
	Description string             `xml:"groupDescription"`
	VPC         string             `xml:"vpcId"`
	Ingress     set[permissionXML] `xml:"ipPermissions"`
	Egress      set[permissionXML] `xml:"ipPermissionsEgress"`
	Tags        set[tagXML]        `xml:"tagSet"`
}

// everywhere is where every group lets its interfaces send to.
var everywhere = ec2.Rule{Protocol: "-1", From: -1, To: -1, CIDR: netip.MustParsePrefix("0.0.0.0/0")}

func securityGroupOf(r *ec2.Records, g *ec2.SecurityGroup) securityGroupXML {
	return securityGroupXML{
		Owner: ec2.Account, ID: g.ID, Name: g.Name, Description: g.Description, VPC: r.VPC.ID,
		Ingress: permissionsOf(g.Ingress), Egress: permissionsOf([]ec2.Rule{everywhere}), Tags: tagsOf(g.Tags),
	}
}
