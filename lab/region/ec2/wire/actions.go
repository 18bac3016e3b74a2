package wire

import (
	"net/netip"
	"slices"

	"github.com/zonewise/zonewise/lab/region/ec2"
)

// action is what a request can ask for.
type action struct {
	mutates bool
	run     func(*Server, *query) (any, error)
}

func reads(f func(*Server, *query) (any, error)) action  { return action{run: f} }
func writes(f func(*Server, *query) (any, error)) action { return action{mutates: true, run: f} }

var actions = map[string]action{
	"AssignIpv6Addresses":               writes((*Server).assignIPv6),
	"AssignPrivateIpAddresses":          writes((*Server).assign),
	"AssociateVpcCidrBlock":             writes((*Server).associate),
	"AttachNetworkInterface":            writes((*Server).attach),
	"AuthorizeSecurityGroupIngress":     writes((*Server).authorize),
	"CreateNetworkInterface":            writes((*Server).createInterface),
	"CreateSecurityGroup":               writes((*Server).createGroup),
	"CreateSubnet":                      writes((*Server).createSubnet),
	"CreateSubnetCidrReservation":       writes((*Server).reserve),
	"CreateTags":                        writes((*Server).createTags),
	"DeleteNetworkInterface":            writes((*Server).deleteInterface),
	"DeleteSecurityGroup":               writes((*Server).deleteGroup),
	"DeleteSubnet":                      writes((*Server).deleteSubnet),
	"DeleteSubnetCidrReservation":       writes((*Server).unreserve),
	"DeleteTags":                        writes((*Server).deleteTags),
	"DescribeAvailabilityZones":         reads((*Server).describeZones),
	"DescribeInstanceStatus":            reads((*Server).describeInstanceStatus),
	"DescribeInstanceTypes":             reads((*Server).describeTypes),
	"DescribeInstances":                 reads((*Server).describeInstances),
	"DescribeNetworkInterfaceAttribute": reads((*Server).describeAttribute),
	"DescribeNetworkInterfaces":         reads((*Server).describeInterfaces),
	"DescribeRegions":                   reads((*Server).describeRegions),
	"DescribeRouteTables":               reads((*Server).describeRouteTables),
	"DescribeSecurityGroupRules":        reads((*Server).describeRules),
	"DescribeSecurityGroups":            reads((*Server).describeGroups),
	"DescribeSubnets":                   reads((*Server).describeSubnets),
	"DescribeTags":                      reads((*Server).describeTags),
	"DescribeVpcs":                      reads((*Server).describeVPCs),
	"DetachNetworkInterface":            writes((*Server).detach),
	"GetSubnetCidrReservations":         reads((*Server).reservations),
	"ModifyNetworkInterfaceAttribute":   writes((*Server).modifyInterface),
	"RebootInstances":                   writes((*Server).reboot),
	"RevokeSecurityGroupIngress":        writes((*Server).revoke),
	"StartInstances":                    writes(power(ec2.PowerOn, true, stateXML{0, "pending"})),
	"StopInstances":                     writes(power(ec2.PowerOff, false, stateXML{64, "stopping"})),
	"TerminateInstances":                writes((*Server).terminate),
	"UnassignIpv6Addresses":             writes((*Server).unassignIPv6),
	"UnassignPrivateIpAddresses":        writes((*Server).unassign),
}

// ask is what the request wants to have of IPv4, under the names that one call has for it.
func (q *query) ask(addresses, below, count, prefixesBelow string) ec2.Ask {
	return ec2.Ask{
		Addresses: q.addresses(addresses, below), Count: q.count(count),
		Prefixes: q.prefixes("Ipv4Prefix", prefixesBelow), PrefixCount: q.count("Ipv4PrefixCount"),
	}
}

func (q *query) askIPv6(below, prefixesBelow string) ec2.Ask {
	return ec2.Ask{
		Addresses: q.addresses("Ipv6Addresses", below), Count: q.count("Ipv6AddressCount"),
		Prefixes: q.prefixes("Ipv6Prefix", prefixesBelow), PrefixCount: q.count("Ipv6PrefixCount"),
	}
}

// exclusive refuses what EC2 does not take together: values and a number of them.
func (q *query) exclusive(a ec2.Ask) {
	if len(a.Addresses) > 0 && a.Count > 0 || len(a.Prefixes) > 0 && a.PrefixCount > 0 {
		q.fail(fault("InvalidParameterCombination", "You can specify values or a number of them, but not both"))
	}
}

func (s *Server) createInterface(q *query) (any, error) {
	want := ec2.NewInterface{
		Subnet: q.need("SubnetId"), Description: q.text("Description"), Groups: q.list("SecurityGroupId"),
		IPv4: q.ask("", "", "SecondaryPrivateIpAddressCount", "Ipv4Prefix"), IPv6: q.askIPv6("Ipv6Address", "Ipv6Prefix"),
		Token: q.text("ClientToken"), Tags: q.tags("network-interface"),
	}
	q.exclusive(want.IPv4)
	q.exclusive(want.IPv6)
	want.IPv4.Addresses = q.privateAddresses()
	if err := q.err(); err != nil {
		return nil, err
	}
	n, err := s.cloud.CreateInterface(want)
	if err != nil {
		return nil, err
	}
	out := interfaceOf(s.cloud.Records(), n, s.cloud.Now())
	out.Status = "pending" // as EC2 says until somebody asks again
	return &struct {
		reply
		Interface   interfaceXML `xml:"networkInterface"`
		ClientToken string       `xml:"clientToken,omitempty"`
	}{Interface: out, ClientToken: want.Token}, nil
}

// privateAddresses of a new interface, the primary one first.
func (q *query) privateAddresses() []netip.Addr {
	var out []netip.Addr
	primary, named := q.address("PrivateIpAddress")
	if named {
		out = append(out, primary)
	}
	for _, item := range q.items("PrivateIpAddresses") {
		a, ok := item.address("PrivateIpAddress")
		switch {
		case !ok:
		case !item.yes("Primary"):
			out = append(out, a)
		case named:
			q.fail(fault("InvalidParameterCombination", "Only one primary private IP address can be specified"))
		default:
			out, named = append([]netip.Addr{a}, out...), true
		}
	}
	if len(out) > 0 && !named {
		q.fail(fault("InvalidParameterCombination", "A primary private IP address must be specified with secondary ones"))
	}
	return out
}

func (s *Server) deleteInterface(q *query) (any, error) {
	id := q.need("NetworkInterfaceId")
	if err := q.err(); err != nil {
		return nil, err
	}
	return &done{Return: true}, s.cloud.DeleteInterface(id)
}

func (s *Server) attach(q *query) (any, error) {
	instance, id, device, card := q.need("InstanceId"), q.need("NetworkInterfaceId"), q.number("DeviceIndex"), q.number("NetworkCardIndex")
	q.need("DeviceIndex")
	if err := q.err(); err != nil {
		return nil, err
	}
	a, err := s.cloud.Attach(instance, id, device, card)
	if err != nil {
		return nil, err
	}
	return &struct {
		reply
		ID   string `xml:"attachmentId"`
		Card int    `xml:"networkCardIndex"`
	}{ID: a.ID, Card: a.Card}, nil
}

func (s *Server) detach(q *query) (any, error) {
	id := q.need("AttachmentId")
	if err := q.err(); err != nil {
		return nil, err
	}
	return &done{Return: true}, s.cloud.Detach(id)
}

func (s *Server) modifyInterface(q *query) (any, error) {
	id := q.need("NetworkInterfaceId")
	change := ec2.InterfaceChange{Groups: q.list("SecurityGroupId"), Attachment: q.text("Attachment.AttachmentId")}
	if v := q.at("Description.Value"); v.has {
		change.Description = &v.value
	}
	if q.at("SourceDestCheck.Value").has {
		yes := q.yes("SourceDestCheck.Value")
		change.SourceCheck = &yes
	}
	if q.at("Attachment.DeleteOnTermination").has {
		yes := q.yes("Attachment.DeleteOnTermination")
		change.DeleteOnTermination = &yes
	}
	if err := q.err(); err != nil {
		return nil, err
	}
	return &done{Return: true}, s.cloud.ModifyInterface(id, change)
}

type addressXML struct {
	Address string `xml:"privateIpAddress"`
}

type prefixXML struct {
	Prefix string `xml:"ipv4Prefix"`
}

func (s *Server) assign(q *query) (any, error) {
	id, reassign := q.need("NetworkInterfaceId"), q.yes("AllowReassignment")
	ask := q.ask("PrivateIpAddress", "", "SecondaryPrivateIpAddressCount", "")
	q.exclusive(ask)
	if err := q.err(); err != nil {
		return nil, err
	}
	got, err := s.cloud.Assign(id, ask, reassign)
	if err != nil {
		return nil, err
	}
	out := &struct {
		reply
		ID        string          `xml:"networkInterfaceId"`
		Addresses set[addressXML] `xml:"assignedPrivateIpAddressesSet"`
		Prefixes  set[prefixXML]  `xml:"assignedIpv4PrefixSet"`
		Return    bool            `xml:"return"`
	}{ID: id, Return: true}
	for _, a := range got.Addresses {
		out.Addresses.Items = append(out.Addresses.Items, addressXML{a.String()})
	}
	for _, p := range got.Prefixes {
		out.Prefixes.Items = append(out.Prefixes.Items, prefixXML{p.String()})
	}
	return out, nil
}

func (s *Server) unassign(q *query) (any, error) {
	id := q.need("NetworkInterfaceId")
	what := ec2.Granted{Addresses: q.addresses("PrivateIpAddress", ""), Prefixes: q.prefixes("Ipv4Prefix", "")}
	if err := q.err(); err != nil {
		return nil, err
	}
	return &done{Return: true}, s.cloud.Unassign(id, what)
}

func (s *Server) assignIPv6(q *query) (any, error) {
	id, ask := q.need("NetworkInterfaceId"), q.askIPv6("", "")
	q.exclusive(ask)
	if err := q.err(); err != nil {
		return nil, err
	}
	got, err := s.cloud.AssignIPv6(id, ask)
	if err != nil {
		return nil, err
	}
	return &struct {
		reply
		ID        string       `xml:"networkInterfaceId"`
		Addresses set[textXML] `xml:"assignedIpv6Addresses"`
		Prefixes  set[textXML] `xml:"assignedIpv6PrefixSet"`
	}{ID: id, Addresses: texts(got.Addresses), Prefixes: texts(got.Prefixes)}, nil
}

func (s *Server) unassignIPv6(q *query) (any, error) {
	id := q.need("NetworkInterfaceId")
	what := ec2.Granted{Addresses: q.addresses("Ipv6Addresses", ""), Prefixes: q.prefixes("Ipv6Prefix", "")}
	if err := q.err(); err != nil {
		return nil, err
	}
	return &struct {
		reply
		ID        string       `xml:"networkInterfaceId"`
		Addresses set[textXML] `xml:"unassignedIpv6Addresses"`
		Prefixes  set[textXML] `xml:"unassignedIpv6PrefixSet"`
	}{ID: id, Addresses: texts(what.Addresses), Prefixes: texts(what.Prefixes)}, s.cloud.UnassignIPv6(id, what)
}

func (s *Server) createSubnet(q *query) (any, error) {
	r := s.cloud.Records()
	want := ec2.NewSubnet{Zone: q.text("AvailabilityZone"), CIDR: q.prefix("CidrBlock"), IPv6: q.prefix("Ipv6CidrBlock")}
	vpc, tags := q.need("VpcId"), q.tags("subnet")
	q.need("CidrBlock")
	if id := q.text("AvailabilityZoneId"); want.Zone == "" && id != "" {
		want.Zone = id
		if i := slices.IndexFunc(r.Zones, func(z string) bool { return r.ZoneID(z) == id }); i >= 0 {
			want.Zone = r.Zones[i]
		}
	}
	if want.Zone == "" {
		want.Zone = r.Zones[0]
	}
	if err := q.err(); err != nil {
		return nil, err
	}
	if err := checkVPC(r, vpc); err != nil {
		return nil, err
	}
	made, err := s.cloud.CreateSubnet(want, tags)
	if err != nil {
		return nil, err
	}
	return &struct {
		reply
		Subnet subnetXML `xml:"subnet"`
	}{Subnet: subnetOf(s.cloud.Records(), made)}, nil
}

func checkVPC(r *ec2.Records, id string) error {
	if id != r.VPC.ID {
		return fault("InvalidVpcID.NotFound", "The vpc ID '%s' does not exist", id)
	}
	return nil
}

func (s *Server) deleteSubnet(q *query) (any, error) {
	id := q.need("SubnetId")
	if err := q.err(); err != nil {
		return nil, err
	}
	return &done{Return: true}, s.cloud.DeleteSubnet(id)
}

func (s *Server) reserve(q *query) (any, error) {
	subnet := q.need("SubnetId")
	want := ec2.Reservation{
		CIDR: q.prefix("Cidr"), Type: q.need("ReservationType"), Description: q.text("Description"), Tags: q.tags("subnet-cidr-reservation"),
	}
	q.need("Cidr")
	if err := q.err(); err != nil {
		return nil, err
	}
	k, err := s.cloud.Reserve(subnet, want)
	if err != nil {
		return nil, err
	}
	return &struct {
		reply
		Reservation reservationXML `xml:"subnetCidrReservation"`
	}{Reservation: reservationOf(subnet, k)}, nil
}

func (s *Server) unreserve(q *query) (any, error) {
	id := q.need("SubnetCidrReservationId")
	if err := q.err(); err != nil {
		return nil, err
	}
	k, subnet, err := s.cloud.Unreserve(id)
	if err != nil {
		return nil, err
	}
	return &struct {
		reply
		Reservation reservationXML `xml:"deletedSubnetCidrReservation"`
	}{Reservation: reservationOf(subnet, k)}, nil
}

func (s *Server) associate(q *query) (any, error) {
	vpc, cidr := q.need("VpcId"), q.prefix("CidrBlock")
	q.need("CidrBlock")
	if err := q.err(); err != nil {
		return nil, err
	}
	if err := checkVPC(s.cloud.Records(), vpc); err != nil {
		return nil, err
	}
	if err := s.cloud.Associate(cidr); err != nil {
		return nil, err
	}
	return &struct {
		reply
		VPC   string         `xml:"vpcId"`
		Block associationXML `xml:"cidrBlockAssociation"`
	}{VPC: vpc, Block: associationOf(vpc, cidr, "associating")}, nil
}

func (s *Server) createTags(q *query) (any, error) {
	ids, tags := q.list("ResourceId"), ec2.Tags{}
	for _, t := range q.items("Tag") {
		tags[t.text("Key")] = t.text("Value")
	}
	if len(ids) == 0 || len(tags) == 0 {
		return nil, fault("MissingParameter", "The request must contain the parameters resourceIdSet and tagSet")
	}
	return &done{Return: true}, s.cloud.Tag(ids, tags)
}

func (s *Server) deleteTags(q *query) (any, error) {
	ids, tags := q.list("ResourceId"), map[string]*string{}
	for _, t := range q.items("Tag") {
		tags[t.text("Key")] = nil
		if v := t.at("Value"); v.has {
			tags[t.text("Key")] = &v.value
		}
	}
	if len(ids) == 0 {
		return nil, fault("MissingParameter", "The request must contain the parameter resourceIdSet")
	}
	return &done{Return: true}, s.cloud.Untag(ids, tags)
}

func (s *Server) createGroup(q *query) (any, error) {
	name, description, tags := q.need("GroupName"), q.need("GroupDescription"), q.tags("security-group")
	if err := q.err(); err != nil {
		return nil, err
	}
	if vpc := q.text("VpcId"); vpc != "" {
		if err := checkVPC(s.cloud.Records(), vpc); err != nil {
			return nil, err
		}
	}
	g, err := s.cloud.CreateGroup(name, description, tags)
	if err != nil {
		return nil, err
	}
	return &struct {
		reply
		ID     string      `xml:"groupId"`
		Tags   set[tagXML] `xml:"tagSet"`
		Return bool        `xml:"return"`
	}{ID: g.ID, Tags: tagsOf(g.Tags), Return: true}, nil
}

func (s *Server) deleteGroup(q *query) (any, error) {
	id := q.need("GroupId")
	if err := q.err(); err != nil {
		return nil, err
	}
	return &done{Return: true}, s.cloud.DeleteGroup(id)
}

// rules of a request, in its short form for one of them, or its long form.
func (q *query) rules() []ec2.Rule {
	var out []ec2.Rule
	protocol := func(q *query) ec2.Rule {
		rule := ec2.Rule{Protocol: q.need("IpProtocol"), From: -1, To: -1}
		if q.at("FromPort").has {
			rule.From, rule.To = q.number("FromPort"), q.number("ToPort")
		}
		return rule
	}
	if q.at("CidrIp").has {
		rule := protocol(q)
		rule.CIDR = q.prefix("CidrIp")
		out = append(out, rule)
	}
	for _, p := range q.items("IpPermissions") {
		for _, r := range p.items("IpRanges") {
			rule := protocol(p)
			rule.CIDR = r.prefix("CidrIp")
			out = append(out, rule)
		}
		for _, r := range p.items("Ipv6Ranges") {
			rule := protocol(p)
			rule.CIDR = r.prefix("CidrIpv6")
			out = append(out, rule)
		}
		for _, g := range p.items("Groups") {
			rule := protocol(p)
			rule.Group = g.text("GroupId")
			out = append(out, rule)
		}
	}
	if len(out) == 0 {
		q.fail(fault("MissingParameter", "The request must contain the parameter ipPermissions"))
	}
	return out
}

func (s *Server) authorize(q *query) (any, error) {
	group, rules := s.groupNamed(q), q.rules()
	if err := q.err(); err != nil {
		return nil, err
	}
	added, err := s.cloud.Authorize(group, rules)
	if err != nil {
		return nil, err
	}
	out := &struct {
		reply
		Return bool         `xml:"return"`
		Rules  set[ruleXML] `xml:"securityGroupRuleSet"`
	}{Return: true}
	for _, r := range added {
		out.Rules.Items = append(out.Rules.Items, ruleOf(group, r))
	}
	return out, nil
}

func (s *Server) revoke(q *query) (any, error) {
	group, rules := s.groupNamed(q), q.rules()
	if err := q.err(); err != nil {
		return nil, err
	}
	return &done{Return: true}, s.cloud.Revoke(group, rules)
}

// groupNamed is the group that a request names by its identifier or its name.
func (s *Server) groupNamed(q *query) string {
	name := q.text("GroupName")
	if name == "" {
		return q.need("GroupId")
	}
	for _, g := range s.cloud.Records().Groups {
		if g.Name == name {
			return g.ID
		}
	}
	q.fail(fault("InvalidGroup.NotFound", "The security group '%s' does not exist", name))
	return ""
}

// changed are instances, each with the state that it comes from and the one that it is on its way to.
type changed struct {
	reply
	Instances set[stateChange] `xml:"instancesSet"`
}

type stateChange struct {
	ID       string   `xml:"instanceId"`
	Current  stateXML `xml:"currentState"`
	Previous stateXML `xml:"previousState"`
}

// instances are those that a request names.
func (s *Server) instances(q *query) ([]*ec2.Instance, error) {
	if len(q.list("InstanceId")) == 0 {
		return nil, fault("MissingParameter", "The request must contain the parameter InstanceId")
	}
	out := chosen(q, "InstanceId", s.cloud.Records().Instances, missingInstance)
	return out, q.err()
}

func (s *Server) terminate(q *query) (any, error) {
	instances, err := s.instances(q)
	if err != nil {
		return nil, err
	}
	out := &changed{}
	for _, i := range instances {
		if err := s.cloud.Terminate(i.ID); err != nil {
			return nil, err
		}
		now := stateXML{32, "shutting-down"}
		if i.Gone() {
			now = stateOf(i)
		}
		out.Instances.Items = append(out.Instances.Items, stateChange{i.ID, now, stateOf(i)})
	}
	return out, nil
}

// power is StopInstances or StartInstances, by way of a state. Who is there already stays there.
func power(p ec2.Power, running bool, way stateXML) func(*Server, *query) (any, error) {
	return func(s *Server, q *query) (any, error) {
		instances, err := s.instances(q)
		if err != nil {
			return nil, err
		}
		out, ids := &changed{}, []string{}
		for _, i := range instances {
			now := way
			if i.Running() == running {
				now = stateOf(i)
			}
			ids = append(ids, i.ID)
			out.Instances.Items = append(out.Instances.Items, stateChange{i.ID, now, stateOf(i)})
		}
		return out, s.cloud.Power(p, ids...)
	}
}

func (s *Server) reboot(q *query) (any, error) {
	instances, err := s.instances(q)
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, i := range instances {
		ids = append(ids, i.ID)
	}
	return &done{Return: true}, s.cloud.Power(ec2.Reboot, ids...)
}

func missingInstance(id string) error {
	return fault("InvalidInstanceID.NotFound", "The instance ID '%s' does not exist", id)
}
