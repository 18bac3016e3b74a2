package wire

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/zonewise/zonewise/lab/region/ec2"
)

func one(s string) []string { return []string{s} }

func yesNo(b bool) []string { return one(strconv.FormatBool(b)) }

func texted[T interface{ String() string }](all []T) []string {
	var out []string
	for _, v := range all {
		out = append(out, v.String())
	}
	return out
}

func (s *Server) describeInstances(q *query) (any, error) {
	r, now := s.cloud.Records(), s.cloud.Now()
	all := chosen(q, "InstanceId", r.Instances, missingInstance)
	all = selectBy(q, all, instanceFilters(r), func(i *ec2.Instance) ec2.Tags { return i.Tags })
	page, next := paged(q, "InstanceId", all, func(i *ec2.Instance) string { return i.ID })
	if err := q.err(); err != nil {
		return nil, err
	}
	type reservation struct {
		ID        string           `xml:"reservationId"`
		Owner     string           `xml:"ownerId"`
		Groups    set[groupXML]    `xml:"groupSet"`
		Instances set[instanceXML] `xml:"instancesSet"`
	}
	out := &struct {
		reply
		Reservations set[reservation] `xml:"reservationSet"`
		Next         string           `xml:"nextToken,omitempty"`
	}{Next: next}
	for _, i := range page {
		out.Reservations.Items = append(out.Reservations.Items, reservation{
			ID: "r-" + strings.TrimPrefix(i.ID, "i-"), Owner: ec2.Account,
			Instances: set[instanceXML]{[]instanceXML{instanceOf(r, i, now)}},
		})
	}
	return out, nil
}

func instanceFilters(r *ec2.Records) filters[*ec2.Instance] {
	// of makes a filter of what an instance's interfaces have.
	of := func(values func(*ec2.Interface) []string) func(*ec2.Instance) []string {
		return func(i *ec2.Instance) []string {
			var out []string
			for _, n := range r.Attached(i.ID) {
				out = append(out, values(n)...)
			}
			return out
		}
	}
	primary := func(values func(*ec2.Interface) []string) func(*ec2.Instance) []string {
		return of(func(n *ec2.Interface) []string {
			if n.Attachment.Device != 0 {
				return nil
			}
			return values(n)
		})
	}
	groups := func(n *ec2.Interface) []string { return n.Groups }
	return filters[*ec2.Instance]{
		"architecture":                           func(*ec2.Instance) []string { return one("x86_64") },
		"availability-zone":                      func(i *ec2.Instance) []string { return one(i.Zone) },
		"group-id":                               primary(groups),
		"instance.group-id":                      primary(groups),
		"group-name":                             primary(func(n *ec2.Interface) []string { return groupNames(r, n) }),
		"instance.group-name":                    primary(func(n *ec2.Interface) []string { return groupNames(r, n) }),
		"instance-id":                            func(i *ec2.Instance) []string { return one(i.ID) },
		"instance-state-code":                    func(i *ec2.Instance) []string { return one(strconv.Itoa(stateOf(i).Code)) },
		"instance-state-name":                    func(i *ec2.Instance) []string { return one(stateOf(i).Name) },
		"instance-type":                          func(i *ec2.Instance) []string { return one(i.Type) },
		"owner-id":                               func(*ec2.Instance) []string { return one(ec2.Account) },
		"private-dns-name":                       func(i *ec2.Instance) []string { return one(i.DNSName) },
		"private-ip-address":                     primary(func(n *ec2.Interface) []string { return one(n.Primary().String()) }),
		"subnet-id":                              func(i *ec2.Instance) []string { return one(i.Subnet) },
		"vpc-id":                                 func(*ec2.Instance) []string { return one(r.VPC.ID) },
		"network-interface.network-interface-id": of(func(n *ec2.Interface) []string { return one(n.ID) }),
		"network-interface.addresses.private-ip-address": of(func(n *ec2.Interface) []string { return texted(n.Addresses) }),
		"network-interface.private-ip-address":           of(func(n *ec2.Interface) []string { return one(n.Primary().String()) }),
		"network-interface.mac-address":                  of(func(n *ec2.Interface) []string { return one(n.MAC) }),
		"network-interface.subnet-id":                    of(func(n *ec2.Interface) []string { return one(n.Subnet) }),
	}
}

func groupNames(r *ec2.Records, n *ec2.Interface) []string {
	var out []string
	for _, g := range groupsOf(r, n.Groups).Items {
		out = append(out, g.Name)
	}
	return out
}

func missingInterface(id string) error {
	return fault("InvalidNetworkInterfaceID.NotFound", "The networkInterface ID '%s' does not exist", id)
}

func (s *Server) describeInterfaces(q *query) (any, error) {
	r, now := s.cloud.Records(), s.cloud.Now()
	all := chosen(q, "NetworkInterfaceId", r.Interfaces, missingInterface)
	all = selectBy(q, all, interfaceFilters(r, now), func(n *ec2.Interface) ec2.Tags { return n.Tags })
	page, next := paged(q, "NetworkInterfaceId", all, func(n *ec2.Interface) string { return n.ID })
	if err := q.err(); err != nil {
		return nil, err
	}
	out := &struct {
		reply
		Interfaces set[interfaceXML] `xml:"networkInterfaceSet"`
		Next       string            `xml:"nextToken,omitempty"`
	}{Next: next}
	for _, n := range page {
		out.Interfaces.Items = append(out.Interfaces.Items, interfaceOf(r, n, now))
	}
	return out, nil
}

func interfaceFilters(r *ec2.Records, now time.Time) filters[*ec2.Interface] {
	attachment := func(values func(*ec2.Attachment) string) func(*ec2.Interface) []string {
		return func(n *ec2.Interface) []string {
			if n.Attachment == nil {
				return nil
			}
			return one(values(n.Attachment))
		}
	}
	status := attachment(func(a *ec2.Attachment) string { return a.State(now) })
	return filters[*ec2.Interface]{
		"addresses.private-ip-address":     func(n *ec2.Interface) []string { return texted(n.Addresses) },
		"attachment.attachment-id":         attachment(func(a *ec2.Attachment) string { return a.ID }),
		"attachment.delete-on-termination": attachment(func(a *ec2.Attachment) string { return strconv.FormatBool(a.DeleteOnTermination) }),
		"attachment.device-index":          attachment(func(a *ec2.Attachment) string { return strconv.Itoa(a.Device) }),
		"attachment.instance-id":           attachment(func(a *ec2.Attachment) string { return a.Instance }),
		"attachment.instance-owner-id":     attachment(func(*ec2.Attachment) string { return ec2.Account }),
		"attachment.status": func(n *ec2.Interface) []string {
			if n.Attachment == nil {
				return one("detached")
			}
			return status(n)
		},
		"availability-zone":           func(n *ec2.Interface) []string { return one(r.Subnets[n.Subnet].Zone) },
		"description":                 func(n *ec2.Interface) []string { return one(n.Description) },
		"group-id":                    func(n *ec2.Interface) []string { return n.Groups },
		"group-name":                  func(n *ec2.Interface) []string { return groupNames(r, n) },
		"interface-type":              func(*ec2.Interface) []string { return one("interface") },
		"ipv6-addresses.ipv6-address": func(n *ec2.Interface) []string { return texted(n.IPv6) },
		"mac-address":                 func(n *ec2.Interface) []string { return one(n.MAC) },
		"network-interface-id":        func(n *ec2.Interface) []string { return one(n.ID) },
		"owner-id":                    func(*ec2.Interface) []string { return one(ec2.Account) },
		"private-dns-name":            func(n *ec2.Interface) []string { return one(dnsName(r, n.Primary())) },
		"private-ip-address":          func(n *ec2.Interface) []string { return texted(n.Addresses) },
		"requester-managed":           func(*ec2.Interface) []string { return yesNo(false) },
		"source-dest-check":           func(n *ec2.Interface) []string { return yesNo(n.SourceCheck) },
		"status":                      func(n *ec2.Interface) []string { return one(statusOf(n)) },
		"subnet-id":                   func(n *ec2.Interface) []string { return one(n.Subnet) },
		"vpc-id":                      func(*ec2.Interface) []string { return one(r.VPC.ID) },
	}
}

func (s *Server) describeAttribute(q *query) (any, error) {
	id, attribute := q.need("NetworkInterfaceId"), q.text("Attribute")
	if err := q.err(); err != nil {
		return nil, err
	}
	r, now := s.cloud.Records(), s.cloud.Now()
	n, ok := r.Interfaces[id]
	if !ok {
		return nil, missingInterface(id)
	}
	out := &struct {
		reply
		ID          string         `xml:"networkInterfaceId"`
		Description *string        `xml:"description>value"`
		SourceCheck *bool          `xml:"sourceDestCheck>value"`
		Groups      *set[groupXML] `xml:"groupSet"`
		Attachment  *attachmentXML `xml:"attachment"`
	}{ID: id}
	switch groups := groupsOf(r, n.Groups); attribute {
	case "description":
		out.Description = &n.Description
	case "sourceDestCheck":
		out.SourceCheck = &n.SourceCheck
	case "groupSet":
		out.Groups = &groups
	case "attachment":
		out.Attachment = attachmentOf(n.Attachment, now)
	default:
		return nil, fault(codeValue, "Value (%s) for parameter attribute is invalid.", attribute)
	}
	return out, nil
}

func (s *Server) describeSubnets(q *query) (any, error) {
	r := s.cloud.Records()
	all := chosen(q, "SubnetId", r.Subnets, missingSubnet)
	all = selectBy(q, all, subnetFilters(r), func(s *ec2.Subnet) ec2.Tags { return s.Tags })
	page, next := paged(q, "SubnetId", all, func(s *ec2.Subnet) string { return s.ID })
	if err := q.err(); err != nil {
		return nil, err
	}
	out := &struct {
		reply
		Subnets set[subnetXML] `xml:"subnetSet"`
		Next    string         `xml:"nextToken,omitempty"`
	}{Next: next}
	for _, subnet := range page {
		out.Subnets.Items = append(out.Subnets.Items, subnetOf(r, subnet))
	}
	return out, nil
}

func missingSubnet(id string) error {
	return fault("InvalidSubnetID.NotFound", "The subnet ID '%s' does not exist", id)
}

func subnetFilters(r *ec2.Records) filters[*ec2.Subnet] {
	zone := func(s *ec2.Subnet) []string { return one(s.Zone) }
	cidr := func(s *ec2.Subnet) []string { return one(s.CIDR.String()) }
	return filters[*ec2.Subnet]{
		"availability-zone": zone, "availabilityZone": zone,
		"availability-zone-id":       func(s *ec2.Subnet) []string { return one(r.ZoneID(s.Zone)) },
		"available-ip-address-count": func(s *ec2.Subnet) []string { return one(strconv.Itoa(r.FreeAddresses(s))) },
		"cidr-block":                 cidr, "cidrBlock": cidr, "cidr": cidr,
		"default-for-az": func(*ec2.Subnet) []string { return yesNo(false) },
		"ipv6-cidr-block-association.ipv6-cidr-block": func(s *ec2.Subnet) []string { return one(s.IPv6.String()) },
		"map-public-ip-on-launch":                     func(*ec2.Subnet) []string { return yesNo(false) },
		"owner-id":                                    func(*ec2.Subnet) []string { return one(ec2.Account) },
		"state":                                       func(*ec2.Subnet) []string { return one("available") },
		"subnet-id":                                   func(s *ec2.Subnet) []string { return one(s.ID) },
		"vpc-id":                                      func(*ec2.Subnet) []string { return one(r.VPC.ID) },
	}
}

func (s *Server) reservations(q *query) (any, error) {
	id := q.need("SubnetId")
	if err := q.err(); err != nil {
		return nil, err
	}
	subnet, ok := s.cloud.Records().Subnets[id]
	if !ok {
		return nil, missingSubnet(id)
	}
	all := slices.SortedFunc(slices.Values(subnet.Reservations), func(a, b ec2.Reservation) int { return cmp.Compare(a.ID, b.ID) })
	all = selectBy(q, all, filters[ec2.Reservation]{
		"reservationType": func(k ec2.Reservation) []string { return one(k.Type) },
	}, func(k ec2.Reservation) ec2.Tags { return k.Tags })
	page, next := paged(q, "SubnetCidrReservationId", all, func(k ec2.Reservation) string { return k.ID })
	if err := q.err(); err != nil {
		return nil, err
	}
	out := &struct {
		reply
		IPv4 set[reservationXML] `xml:"subnetIpv4CidrReservationSet"`
		IPv6 set[reservationXML] `xml:"subnetIpv6CidrReservationSet"`
		Next string              `xml:"nextToken,omitempty"`
	}{Next: next}
	for _, k := range page {
		out.IPv4.Items = append(out.IPv4.Items, reservationOf(id, k))
	}
	return out, nil
}

func (s *Server) describeVPCs(q *query) (any, error) {
	r := s.cloud.Records()
	all := chosen(q, "VpcId", map[string]ec2.VPC{r.VPC.ID: r.VPC}, func(id string) error { return checkVPC(r, id) })
	all = selectBy(q, all, filters[ec2.VPC]{
		"cidr":                              func(v ec2.VPC) []string { return one(v.CIDRs[0].String()) },
		"cidr-block-association.cidr-block": func(v ec2.VPC) []string { return texted(v.CIDRs) },
		"dhcp-options-id":                   func(v ec2.VPC) []string { return one(v.DHCP) },
		"is-default":                        func(ec2.VPC) []string { return yesNo(false) },
		"isDefault":                         func(ec2.VPC) []string { return yesNo(false) },
		"owner-id":                          func(ec2.VPC) []string { return one(ec2.Account) },
		"state":                             func(ec2.VPC) []string { return one("available") },
		"vpc-id":                            func(v ec2.VPC) []string { return one(v.ID) },
	}, func(v ec2.VPC) ec2.Tags { return v.Tags })
	if err := q.err(); err != nil {
		return nil, err
	}
	out := &struct {
		reply
		VPCs set[vpcXML] `xml:"vpcSet"`
	}{}
	for range all {
		out.VPCs.Items = append(out.VPCs.Items, vpcOf(r))
	}
	return out, nil
}

func (s *Server) describeGroups(q *query) (any, error) {
	r := s.cloud.Records()
	all := chosen(q, "GroupId", r.Groups, func(id string) error {
		return fault("InvalidGroup.NotFound", "The security group '%s' does not exist", id)
	})
	if names := q.list("GroupName"); len(names) > 0 {
		all = slices.DeleteFunc(all, func(g *ec2.SecurityGroup) bool { return !slices.Contains(names, g.Name) })
	}
	permits := func(values func(ec2.Rule) string) func(*ec2.SecurityGroup) []string {
		return func(g *ec2.SecurityGroup) []string {
			var out []string
			for _, rule := range g.Ingress {
				out = append(out, values(rule))
			}
			return out
		}
	}
	all = selectBy(q, all, filters[*ec2.SecurityGroup]{
		"description":            func(g *ec2.SecurityGroup) []string { return one(g.Description) },
		"group-id":               func(g *ec2.SecurityGroup) []string { return one(g.ID) },
		"group-name":             func(g *ec2.SecurityGroup) []string { return one(g.Name) },
		"ip-permission.cidr":     permits(func(p ec2.Rule) string { return p.CIDR.String() }),
		"ip-permission.group-id": permits(func(p ec2.Rule) string { return p.Group }),
		"ip-permission.protocol": permits(func(p ec2.Rule) string { return p.Protocol }),
		"owner-id":               func(*ec2.SecurityGroup) []string { return one(ec2.Account) },
		"vpc-id":                 func(*ec2.SecurityGroup) []string { return one(r.VPC.ID) },
	}, func(g *ec2.SecurityGroup) ec2.Tags { return g.Tags })
	page, next := paged(q, "GroupId", all, func(g *ec2.SecurityGroup) string { return g.ID })
	if err := q.err(); err != nil {
		return nil, err
	}
	out := &struct {
		reply
		Groups set[securityGroupXML] `xml:"securityGroupInfo"`
		Next   string                `xml:"nextToken,omitempty"`
	}{Next: next}
	for _, g := range page {
		out.Groups.Items = append(out.Groups.Items, securityGroupOf(r, g))
	}
	return out, nil
}

// tagged is one tag of one record.
type tagged struct {
	Key      string `xml:"key"`
	Resource string `xml:"resourceId"`
	Kind     string `xml:"resourceType"`
	Value    string `xml:"value"`
}

func (s *Server) describeTags(q *query) (any, error) {
	r := s.cloud.Records()
	var all []tagged
	add := func(id, kind string, tags ec2.Tags) {
		for k, v := range tags {
			all = append(all, tagged{k, id, kind, v})
		}
	}
	add(r.VPC.ID, "vpc", r.VPC.Tags)
	for id, s := range r.Subnets {
		add(id, "subnet", s.Tags)
	}
	for id, g := range r.Groups {
		add(id, "security-group", g.Tags)
	}
	for id, i := range r.Instances {
		add(id, "instance", i.Tags)
	}
	for id, n := range r.Interfaces {
		add(id, "network-interface", n.Tags)
	}
	name := func(t tagged) string { return t.Resource + " " + t.Key }
	slices.SortFunc(all, func(a, b tagged) int { return cmp.Compare(name(a), name(b)) })
	all = selectBy(q, all, filters[tagged]{
		"key":           func(t tagged) []string { return one(t.Key) },
		"resource-id":   func(t tagged) []string { return one(t.Resource) },
		"resource-type": func(t tagged) []string { return one(t.Kind) },
		"value":         func(t tagged) []string { return one(t.Value) },
	}, func(t tagged) ec2.Tags { return ec2.Tags{t.Key: t.Value} })
	page, next := paged(q, "ResourceId", all, name)
	if err := q.err(); err != nil {
		return nil, err
	}
	return &struct {
		reply
		Tags set[tagged] `xml:"tagSet"`
		Next string      `xml:"nextToken,omitempty"`
	}{Tags: set[tagged]{page}, Next: next}, nil
}

func (s *Server) describeZones(q *query) (any, error) {
	type zone struct {
		Name    string        `xml:"zoneName"`
		State   string        `xml:"zoneState"`
		Region  string        `xml:"regionName"`
		ID      string        `xml:"zoneId"`
		Group   string        `xml:"groupName"`
		Border  string        `xml:"networkBorderGroup"`
		Type    string        `xml:"zoneType"`
		OptIn   string        `xml:"optInStatus"`
		Message set[struct{}] `xml:"messageSet"`
	}
	r := s.cloud.Records()
	known := map[string]zone{}
	for _, z := range r.Zones {
		known[z] = zone{
			Name: z, State: "available", Region: r.Region, ID: r.ZoneID(z), Group: r.Region, Border: r.Region,
			Type: "availability-zone", OptIn: "opt-in-not-required",
		}
	}
	all := chosen(q, "ZoneName", known, func(name string) error { return fault(codeValue, "Invalid availability zone: [%s]", name) })
	if ids := q.list("ZoneId"); len(ids) > 0 {
		all = slices.DeleteFunc(all, func(z zone) bool { return !slices.Contains(ids, z.ID) })
	}
	all = selectBy(q, all, filters[zone]{
		"group-name":    func(z zone) []string { return one(z.Group) },
		"opt-in-status": func(z zone) []string { return one(z.OptIn) },
		"region-name":   func(z zone) []string { return one(z.Region) },
		"state":         func(z zone) []string { return one(z.State) },
		"zone-id":       func(z zone) []string { return one(z.ID) },
		"zone-name":     func(z zone) []string { return one(z.Name) },
		"zone-type":     func(z zone) []string { return one(z.Type) },
	}, nil)
	if err := q.err(); err != nil {
		return nil, err
	}
	return &struct {
		reply
		Zones set[zone] `xml:"availabilityZoneInfo"`
	}{Zones: set[zone]{all}}, nil
}

func (s *Server) describeRouteTables(q *query) (any, error) {
	type route struct {
		IPv4    string `xml:"destinationCidrBlock,omitempty"`
		IPv6    string `xml:"destinationIpv6CidrBlock,omitempty"`
		Gateway string `xml:"gatewayId"`
		State   string `xml:"state"`
		Origin  string `xml:"origin"`
	}
	type table struct {
		ID          string        `xml:"routeTableId"`
		VPC         string        `xml:"vpcId"`
		Owner       string        `xml:"ownerId"`
		Routes      set[route]    `xml:"routeSet"`
		Association string        `xml:"associationSet>item>routeTableAssociationId"`
		Of          string        `xml:"associationSet>item>routeTableId"`
		Main        bool          `xml:"associationSet>item>main"`
		Propagating set[struct{}] `xml:"propagatingVgwSet"`
		Tags        set[tagXML]   `xml:"tagSet"`
	}
	r := s.cloud.Records()
	main := table{ID: r.VPC.RouteTable, VPC: r.VPC.ID, Owner: ec2.Account, Main: true, Of: r.VPC.RouteTable,
		Association: "rtbassoc-" + strings.TrimPrefix(r.VPC.RouteTable, "rtb-")}
	for _, p := range r.VPC.CIDRs {
		main.Routes.Items = append(main.Routes.Items, route{p.String(), "", "local", "active", "CreateRouteTable"})
	}
	if r.VPC.IPv6.IsValid() {
		main.Routes.Items = append(main.Routes.Items, route{"", r.VPC.IPv6.String(), "local", "active", "CreateRouteTable"})
	}
	main.Routes.Items = append(main.Routes.Items, route{netip.PrefixFrom(netip.IPv4Unspecified(), 0).String(), "", r.VPC.Gateway, "active", "CreateRoute"})
	all := chosen(q, "RouteTableId", map[string]table{main.ID: main}, func(id string) error {
		return fault("InvalidRouteTableID.NotFound", "The routeTable ID '%s' does not exist", id)
	})
	all = selectBy(q, all, filters[table]{
		"association.main":           func(table) []string { return yesNo(true) },
		"association.route-table-id": func(t table) []string { return one(t.ID) },
		// Subnets have no table of their own here, and so are of none explicitly, as on EC2.
		"association.subnet-id": func(table) []string { return nil },
		"owner-id":              func(table) []string { return one(ec2.Account) },
		"route-table-id":        func(t table) []string { return one(t.ID) },
		"route.gateway-id":      func(table) []string { return []string{"local", r.VPC.Gateway} },
		"vpc-id":                func(table) []string { return one(r.VPC.ID) },
	}, func(table) ec2.Tags { return nil })
	if err := q.err(); err != nil {
		return nil, err
	}
	return &struct {
		reply
		Tables set[table] `xml:"routeTableSet"`
	}{Tables: set[table]{all}}, nil
}

func (s *Server) describeTypes(q *query) (any, error) {
	type card struct {
		Index       int    `xml:"networkCardIndex"`
		Performance string `xml:"networkPerformance"`
		Interfaces  int    `xml:"maximumNetworkInterfaces"`
	}
	type instanceType struct {
		Name       string       `xml:"instanceType"`
		Current    bool         `xml:"currentGeneration"`
		BareMetal  bool         `xml:"bareMetal"`
		Hypervisor string       `xml:"hypervisor"`
		Arch       set[textXML] `xml:"processorInfo>supportedArchitectures"`
		CPUs       int          `xml:"vCpuInfo>defaultVCpus,omitempty"`
		Memory     int          `xml:"memoryInfo>sizeInMiB,omitempty"`
		Interfaces int          `xml:"networkInfo>maximumNetworkInterfaces"`
		CardCount  int          `xml:"networkInfo>maximumNetworkCards"`
		Card       int          `xml:"networkInfo>defaultNetworkCardIndex"`
		Cards      set[card]    `xml:"networkInfo>networkCards"`
		IPv4       int          `xml:"networkInfo>ipv4AddressesPerInterface"`
		IPv6       int          `xml:"networkInfo>ipv6AddressesPerInterface"`
		HasIPv6    bool         `xml:"networkInfo>ipv6Supported"`
		ENA        string       `xml:"networkInfo>enaSupport"`
	}
	known := map[string]instanceType{}
	for _, name := range slices.Concat(ec2.Types(), q.list("InstanceType")) {
		l, err := ec2.LimitsOf(name)
		if err != nil {
			return nil, err
		}
		known[name] = instanceType{
			Name: name, Current: true, Hypervisor: "nitro", Arch: set[textXML]{[]textXML{{"x86_64"}}}, CPUs: l.CPUs, Memory: l.MemoryMiB,
			Interfaces: l.Interfaces, CardCount: 1, Cards: set[card]{[]card{{0, "Up to 5 Gigabit", l.Interfaces}}},
			IPv4: l.Addresses, IPv6: l.Addresses, HasIPv6: true, ENA: "required",
		}
	}
	all := chosen(q, "InstanceType", known, func(name string) error {
		return fault("InvalidInstanceType", "The following supplied instance types do not exist: [%s]", name)
	})
	all = selectBy(q, all, filters[instanceType]{
		"bare-metal":         func(instanceType) []string { return yesNo(false) },
		"current-generation": func(instanceType) []string { return yesNo(true) },
		"hypervisor":         func(t instanceType) []string { return one(t.Hypervisor) },
		"instance-type":      func(t instanceType) []string { return one(t.Name) },
		"network-info.ipv4-addresses-per-interface": func(t instanceType) []string { return one(strconv.Itoa(t.IPv4)) },
		"network-info.maximum-network-interfaces":   func(t instanceType) []string { return one(strconv.Itoa(t.Interfaces)) },
		"vcpu-info.default-vcpus":                   func(t instanceType) []string { return one(strconv.Itoa(t.CPUs)) },
	}, nil)
	page, next := paged(q, "InstanceType", all, func(t instanceType) string { return t.Name })
	if err := q.err(); err != nil {
		return nil, err
	}
	return &struct {
		reply
		Types set[instanceType] `xml:"instanceTypeSet"`
		Next  string            `xml:"nextToken,omitempty"`
	}{Types: set[instanceType]{page}, Next: next}, nil
}
