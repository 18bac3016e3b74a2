package ec2

import (
	"net/netip"
	"slices"
	"strings"
)

// Sizes of a subnet, in bits of its prefix.
const (
	largestSubnet  = 16
	smallestSubnet = 28
	subnetBitsIPv6 = 64
)

func (r *Records) createSubnet(zone string, cidr, ipv6 netip.Prefix, tags Tags) (*Subnet, error) {
	if !slices.Contains(r.Zones, zone) {
		return nil, refuse(codeValue, "Value (%s) for parameter availabilityZone is invalid. Subnets can currently only be created in the following availability zones: %s.",
			zone, strings.Join(r.Zones, ", "))
	}
	if err := r.checkRange(cidr); err != nil {
		return nil, err
	}
	if ipv6.IsValid() && (ipv6.Bits() != subnetBitsIPv6 || ipv6 != ipv6.Masked() || !within(r.VPC.IPv6, ipv6)) {
		return nil, refuse("InvalidSubnet.Range", "The CIDR '%s' is invalid.", ipv6)
	}
	for _, s := range r.Subnets {
		if ipv6.IsValid() && s.IPv6.Overlaps(ipv6) {
			return nil, refuse("InvalidSubnet.Conflict", "The CIDR '%s' conflicts with another subnet", ipv6)
		}
	}
	s := &Subnet{ID: r.identify("subnet"), Zone: zone, CIDR: cidr, IPv6: ipv6, Tags: tags}
	r.Subnets[s.ID] = s
	return s, nil
}

// checkRange tells whether a subnet can have a range.
func (r *Records) checkRange(cidr netip.Prefix) error {
	inVPC := slices.ContainsFunc(r.VPC.CIDRs, func(p netip.Prefix) bool { return within(p, cidr) })
	if !cidr.IsValid() || cidr != cidr.Masked() || cidr.Bits() < largestSubnet || cidr.Bits() > smallestSubnet || !inVPC {
		return refuse("InvalidSubnet.Range", "The CIDR '%s' is invalid.", cidr)
	}
	taken := slices.Clone(r.Kept)
	for _, s := range r.Subnets {
		taken = append(taken, s.CIDR)
	}
	if slices.ContainsFunc(taken, cidr.Overlaps) {
		return refuse("InvalidSubnet.Conflict", "The CIDR '%s' conflicts with another subnet", cidr)
	}
	return nil
}

func (r *Records) deleteSubnet(id string) error {
	s, err := r.subnet(id)
	if err != nil {
		return err
	}
	for _, n := range r.Interfaces {
		if n.Subnet == s.ID {
			return refuse(codeDependency, "The subnet '%s' has dependencies and cannot be deleted.", id)
		}
	}
	delete(r.Subnets, id)
	return nil
}

// reserve keeps a range of a subnet for one use.
func (r *Records) reserve(subnet string, want Reservation) (Reservation, error) {
	s, err := r.subnet(subnet)
	if err != nil {
		return Reservation{}, err
	}
	switch {
	case want.Type != ReservePrefix && want.Type != ReserveExplicit:
		return want, refuse(codeValue, "Value (%s) for parameter reservationType is invalid.", want.Type)
	case want.CIDR != want.CIDR.Masked() || !within(s.CIDR, want.CIDR) || want.Type == ReservePrefix && want.CIDR.Bits() > prefixBits:
		return want, refuse(codeValue, "Value (%s) for parameter cidr is invalid.", want.CIDR)
	case slices.ContainsFunc(s.Reservations, func(o Reservation) bool { return o.CIDR.Overlaps(want.CIDR) }):
		return want, refuse("InvalidSubnetCidrReservation.Conflict", "The CIDR '%s' conflicts with another reservation", want.CIDR)
	}
	want.ID = r.identify("scr")
	s = r.editSubnet(s)
	s.Reservations = append(s.Reservations, want)
	return want, nil
}

func (r *Records) unreserve(id string) (Reservation, string, error) {
	for _, s := range r.Subnets {
		for i, k := range s.Reservations {
			if k.ID == id {
				s = r.editSubnet(s)
				s.Reservations = slices.Delete(s.Reservations, i, i+1)
				return k, s.ID, nil
			}
		}
	}
	return Reservation{}, "", refuse("InvalidSubnetCidrReservationID.NotFound", "The subnet CIDR reservation '%s' does not exist", id)
}

// associate adds a range to the VPC.
func (r *Records) associate(cidr netip.Prefix) error {
	switch {
	case !cidr.IsValid() || cidr != cidr.Masked() || cidr.Bits() < largestSubnet || cidr.Bits() > smallestSubnet:
		return refuse("InvalidVpc.Range", "The CIDR '%s' is invalid.", cidr)
	case slices.ContainsFunc(r.VPC.CIDRs, cidr.Overlaps):
		return refuse(codeValue, "The CIDR '%s' conflicts with the existing CIDR block of VPC '%s'", cidr, r.VPC.ID)
	}
	r.VPC.CIDRs = append(r.VPC.CIDRs, cidr)
	return nil
}

func (r *Records) createGroup(name, description string, tags Tags) (*SecurityGroup, error) {
	for _, g := range r.Groups {
		if g.Name == name {
			return nil, refuse("InvalidGroup.Duplicate", "The security group '%s' already exists for VPC '%s'", name, r.VPC.ID)
		}
	}
	g := &SecurityGroup{ID: r.identify("sg"), Name: name, Description: description, Tags: tags}
	r.Groups[g.ID] = g
	return g, nil
}

func (r *Records) deleteGroup(id string) error {
	g, err := r.group(id)
	if err != nil {
		return err
	}
	if g.Name == defaultGroup {
		return refuse("CannotDelete", "the specified group: \"%s\" name: \"%s\" cannot be deleted by a user", g.ID, g.Name)
	}
	for _, n := range r.Interfaces {
		if slices.Contains(n.Groups, id) {
			return refuse(codeDependency, "resource %s has a dependent object", id)
		}
	}
	delete(r.Groups, id)
	return nil
}

// authorize adds rules to a group.
func (r *Records) authorize(group string, rules []Rule) ([]Rule, error) {
	g, err := r.group(group)
	if err != nil {
		return nil, err
	}
	g = r.editGroup(g)
	var added []Rule
	for _, rule := range rules {
		if slices.ContainsFunc(g.Ingress, rule.same) {
			return nil, refuse("InvalidPermission.Duplicate", "the specified rule \"peer: %s%s, protocol %s\" already exists", rule.CIDR, rule.Group, rule.Protocol)
		}
		rule.ID = r.identify("sgr")
		g.Ingress, added = append(g.Ingress, rule), append(added, rule)
	}
	return added, nil
}

// revoke takes rules from a group.
func (r *Records) revoke(group string, rules []Rule) error {
	g, err := r.group(group)
	if err != nil {
		return err
	}
	g = r.editGroup(g)
	for _, rule := range rules {
		i := slices.IndexFunc(g.Ingress, rule.same)
		if i < 0 {
			return refuse("InvalidPermission.NotFound", "The specified rule does not exist in this security group.")
		}
		g.Ingress = slices.Delete(g.Ingress, i, i+1)
	}
	return nil
}

// same tells whether two rules allow the same.
func (r Rule) same(o Rule) bool {
	r.ID, o.ID = "", ""
	return r == o
}

// tagged is every record that can have tags, by its identifier, as something that may be changed.
func (r *Records) tagged(id string) (*Tags, error) {
	kind, _, _ := strings.Cut(id, "-")
	switch kind {
	case "vpc":
		if id == r.VPC.ID {
			return &r.VPC.Tags, nil
		}
		return nil, refuse("InvalidVpcID.NotFound", "The vpc ID '%s' does not exist", id)
	case "subnet":
		s, err := r.subnet(id)
		if err != nil {
			return nil, err
		}
		return &r.editSubnet(s).Tags, nil
	case "sg":
		g, err := r.group(id)
		if err != nil {
			return nil, err
		}
		return &r.editGroup(g).Tags, nil
	case "i":
		i, err := r.instance(id)
		if err != nil {
			return nil, err
		}
		return &r.editInstance(i).Tags, nil
	case "eni":
		n, err := r.interfaceOf(id)
		if err != nil {
			return nil, err
		}
		return &r.editInterface(n).Tags, nil
	}
	return nil, refuse("InvalidID", "The ID '%s' is not valid", id)
}

// maxTags is how many tags a record can have.
const maxTags = 50

func (r *Records) tag(ids []string, tags Tags) error {
	for _, id := range ids {
		of, err := r.tagged(id)
		if err != nil {
			return err
		}
		if *of == nil {
			*of = Tags{}
		}
		for k, v := range tags {
			(*of)[k] = v
		}
		if len(*of) > maxTags {
			return refuse("TagLimitExceeded", "The maximum number of tags for the resource %s is %d", id, maxTags)
		}
	}
	return nil
}

// untag takes tags away: those of a key, or where a value is given those of key and value.
func (r *Records) untag(ids []string, tags map[string]*string) error {
	for _, id := range ids {
		of, err := r.tagged(id)
		if err != nil {
			return err
		}
		for k, v := range tags {
			if v == nil || (*of)[k] == *v {
				delete(*of, k)
			}
		}
		if len(tags) == 0 {
			clear(*of)
		}
	}
	return nil
}
