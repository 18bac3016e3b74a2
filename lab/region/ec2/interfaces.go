package ec2

import (
	"encoding/json"
	"net/netip"
	"slices"
	"time"
)

// Ask is what of one family an interface is to be given: by value, and so many more that the region
// chooses.
type Ask struct {
	Addresses   []netip.Addr
	Count       int
	Prefixes    []netip.Prefix
	PrefixCount int
}

func (a Ask) slots() int { return len(a.Addresses) + a.Count + len(a.Prefixes) + a.PrefixCount }

// Granted is what an interface was given.
type Granted struct {
	Addresses []netip.Addr
	Prefixes  []netip.Prefix
}

// NewInterface is a request for an interface. The first of its IPv4 addresses becomes the primary one;
// where none is asked for by value, one more is chosen for that.
type NewInterface struct {
	Subnet, Description string
	Groups              []string // none: the default group
	IPv4, IPv6          Ask
	Token               string // the same token makes the same interface
	Tags                Tags
}

func (r *Records) createInterface(want NewInterface) (*Interface, error) {
	token := want.Token
	want.Token = ""
	text, err := json.Marshal(want)
	if err != nil {
		return nil, err
	}
	for _, n := range r.Interfaces {
		if token != "" && n.Token == token {
			if n.Asked != string(text) {
				return nil, refuse("IdempotentParameterMismatch", "The client token '%s' was used with other parameters", token)
			}
			return n, nil
		}
	}
	subnet, err := r.subnet(want.Subnet)
	if err != nil {
		return nil, err
	}
	groups, err := r.groupsOf(want.Groups)
	if err != nil {
		return nil, err
	}
	id, mac := r.identify("eni"), r.hardwareAddress()
	n := &Interface{
		ID: id, Subnet: subnet.ID, Description: want.Description, MAC: mac, Groups: groups,
		SourceCheck: true, Tags: want.Tags,
	}
	if token != "" {
		n.Token, n.Asked = token, string(text)
	}
	r.Interfaces[id] = n
	if len(want.IPv4.Addresses) == 0 {
		want.IPv4.Count++
	}
	if _, err := r.give(n, want.IPv4, false); err != nil {
		return nil, err
	}
	_, err = r.giveIPv6(n, want.IPv6)
	return n, err
}

func (r *Records) groupsOf(ids []string) ([]string, error) {
	if len(ids) == 0 {
		for _, g := range r.Groups {
			if g.Name == defaultGroup {
				return []string{g.ID}, nil
			}
		}
	}
	var out []string
	for _, id := range ids {
		g, err := r.group(id)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(out, g.ID) {
			out = append(out, g.ID)
		}
	}
	return out, nil
}

// give adds IPv4 addresses to an interface that may be changed. With reassign it takes those that
// another interface has as secondary ones.
func (r *Records) give(n *Interface, ask Ask, reassign bool) (Granted, error) {
	g := r.ground(r.Subnets[n.Subnet])
	var got Granted
	for _, a := range ask.Addresses {
		if err := g.usable(a); err != nil {
			return got, err
		}
		switch holder := g.holder(a); {
		case holder == n.ID && slices.Contains(n.Addresses, a):
			got.Addresses = append(got.Addresses, a)
			continue
		case holder != "" && !reassign:
			return got, refuse(codeInUse, "Address %s is in use.", a)
		case holder != "":
			if err := r.takeFrom(holder, a); err != nil {
				return got, err
			}
			g.release(a)
		}
		g.hold(n.ID, []netip.Addr{a}, nil)
		n.Addresses, got.Addresses = append(n.Addresses, a), append(got.Addresses, a)
	}
	if err := r.fits(n, ask.slots()-len(ask.Addresses)); err != nil {
		return got, err
	}
	blocks, err := g.grantBlocks(n.ID, ask)
	if err != nil {
		return got, err
	}
	chosen, err := g.take(n.ID, ask.Count)
	if err != nil {
		return got, err
	}
	got.Prefixes, n.Prefixes = blocks, append(n.Prefixes, blocks...)
	got.Addresses, n.Addresses = append(got.Addresses, chosen...), append(n.Addresses, chosen...)
	return got, r.fits(n, 0)
}

// takeFrom takes a secondary address from the interface that has it.
func (r *Records) takeFrom(holder string, a netip.Addr) error {
	from := r.editInterface(r.Interfaces[holder])
	i := slices.Index(from.Addresses, a)
	if i <= 0 {
		return refuse(codeInUse, "Address %s is in use: it is primary, or within a prefix, of %s.", a, holder)
	}
	from.Addresses = slices.Delete(from.Addresses, i, i+1)
	return nil
}

func (g *ground) grantBlocks(who string, ask Ask) ([]netip.Prefix, error) {
	for _, b := range ask.Prefixes {
		if err := g.usableBlock(b); err != nil {
			return nil, err
		}
		g.hold(who, nil, []netip.Prefix{b})
	}
	chosen, err := g.takeBlocks(who, ask.PrefixCount)
	return slices.Concat(ask.Prefixes, chosen), err
}

func (r *Records) giveIPv6(n *Interface, ask Ask) (Granted, error) {
	var got Granted
	if ask.slots() == 0 {
		return got, nil
	}
	subnet := r.Subnets[n.Subnet]
	if !subnet.IPv6.IsValid() {
		return got, refuse(codeValue, "The subnet '%s' does not have an IPv6 CIDR block", subnet.ID)
	}
	g := r.groundIPv6(subnet)
	for _, a := range ask.Addresses {
		if err := g.usable(a); err != nil {
			return got, err
		}
		if holder := g.holder(a); holder == n.ID && slices.Contains(n.IPv6, a) {
			got.Addresses = append(got.Addresses, a)
			continue
		} else if holder != "" {
			return got, refuse(codeInUse, "Address %s is in use.", a)
		}
		g.hold(n.ID, []netip.Addr{a}, nil)
		n.IPv6, got.Addresses = append(n.IPv6, a), append(got.Addresses, a)
	}
	if err := r.fitsIPv6(n, ask.slots()-len(ask.Addresses)); err != nil {
		return got, err
	}
	blocks, err := g.grantBlocks(n.ID, ask)
	if err != nil {
		return got, err
	}
	chosen, err := g.take(n.ID, ask.Count)
	if err != nil {
		return got, err
	}
	got.Prefixes, n.IPv6Prefixes = blocks, append(n.IPv6Prefixes, blocks...)
	got.Addresses, n.IPv6 = append(got.Addresses, chosen...), append(n.IPv6, chosen...)
	return got, r.fits(n, 0)
}

// fits tells whether the instance's type lets an attached interface have so many more.
func (r *Records) fits(n *Interface, more int) error {
	used, _ := n.slots()
	return r.fitsSlots(n, used+more)
}

func (r *Records) fitsIPv6(n *Interface, more int) error {
	_, used := n.slots()
	return r.fitsSlots(n, used+more)
}

func (r *Records) fitsSlots(n *Interface, slots int) error {
	if n.Attachment == nil {
		return nil
	}
	instanceType := r.Instances[n.Attachment.Instance].Type
	limits, err := LimitsOf(instanceType)
	switch {
	case err != nil:
		return err
	case slots > limits.Addresses:
		return refuse("PrivateIpAddressLimitExceeded", "Number of private addresses will exceed limit.")
	case len(n.Prefixes)+len(n.IPv6Prefixes) > 0 && !limits.Prefixes:
		return refuse("UnsupportedOperation", "Prefixes are not supported for the instance type %s", instanceType)
	}
	return nil
}

func (r *Records) assign(id string, ask Ask, reassign bool) (Granted, error) {
	n, err := r.interfaceOf(id)
	if err != nil {
		return Granted{}, err
	}
	if ask.slots() == 0 {
		return Granted{}, refuse("MissingParameter", "The request must contain an address, a prefix, or a number of them")
	}
	return r.give(r.editInterface(n), ask, reassign)
}

func (r *Records) assignIPv6(id string, ask Ask) (Granted, error) {
	n, err := r.interfaceOf(id)
	if err != nil {
		return Granted{}, err
	}
	if ask.slots() == 0 {
		return Granted{}, refuse("MissingParameter", "The request must contain an address, a prefix, or a number of them")
	}
	return r.giveIPv6(r.editInterface(n), ask)
}

func (r *Records) unassign(id string, what Granted) error {
	n, err := r.interfaceOf(id)
	if err != nil {
		return err
	}
	n = r.editInterface(n)
	if slices.Contains(what.Addresses, n.Primary()) {
		return refuse(codeValue, "The primary address %s of interface %s cannot be unassigned", n.Primary(), id)
	}
	if n.Addresses, err = strike(n.Addresses, what.Addresses, id); err != nil {
		return err
	}
	n.Prefixes, err = strike(n.Prefixes, what.Prefixes, id)
	return err
}

func (r *Records) unassignIPv6(id string, what Granted) error {
	n, err := r.interfaceOf(id)
	if err != nil {
		return err
	}
	n = r.editInterface(n)
	if n.IPv6, err = strike(n.IPv6, what.Addresses, id); err != nil {
		return err
	}
	n.IPv6Prefixes, err = strike(n.IPv6Prefixes, what.Prefixes, id)
	return err
}

// strike takes values out of those of an interface, which must have them.
func strike[T comparable](all, out []T, id string) ([]T, error) {
	for _, v := range out {
		i := slices.Index(all, v)
		if i < 0 {
			return nil, refuse(codeValue, "Some of %v are not assigned to interface %s", out, id)
		}
		all = slices.Delete(all, i, i+1)
	}
	return all, nil
}

func (r *Records) attach(instance, id string, device, card int, now time.Time, takes time.Duration) (*Attachment, error) {
	i, err := r.instance(instance)
	if err != nil {
		return nil, err
	}
	n, err := r.interfaceOf(id)
	if err != nil {
		return nil, err
	}
	limits, err := LimitsOf(i.Type)
	if err != nil {
		return nil, err
	}
	attached := r.Attached(instance)
	switch {
	case i.Gone():
		return nil, refuse(codeState, "Instance '%s' is not 'running' or 'stopped'.", instance)
	case n.Attachment != nil:
		return nil, refuse("InvalidNetworkInterface.InUse", "Interface: [%s] in use.", id)
	case r.Subnets[n.Subnet].Zone != i.Zone:
		return nil, refuse(codeCombination, "You may not attach a network interface to an instance if they are not in the same availability zone")
	case card != 0:
		return nil, refuse(codeValue, "Network card index %d exceeds the limit for %s.", card, i.Type)
	case device < 0:
		return nil, refuse(codeValue, "Value (%d) for parameter deviceIndex is invalid.", device)
	case slices.ContainsFunc(attached, func(o *Interface) bool { return o.Attachment.Device == device }):
		return nil, refuse(codeValue, "Instance '%s' already has an interface attached at device index '%d'.", instance, device)
	case len(attached) >= limits.Interfaces:
		return nil, refuse("AttachmentLimitExceeded", "Interface count %d exceeds the limit for %s", len(attached)+1, i.Type)
	}
	n = r.editInterface(n)
	n.Attachment = &Attachment{ID: r.identify("eni-attach"), Instance: instance, Device: device, Card: card, Since: now, Ready: now.Add(takes)}
	if err := r.fits(n, 0); err != nil {
		return nil, err
	}
	return n.Attachment, r.fitsIPv6(n, 0)
}

func (r *Records) detach(attachment string, now time.Time, takes time.Duration) error {
	n, ok := r.attachment(attachment)
	switch {
	case !ok:
		return refuse("InvalidAttachmentID.NotFound", "The attachment '%s' does not exist", attachment)
	case n.Attachment.Device == 0:
		return refuse("OperationNotPermitted", "The network interface at device index 0 and networkCard index 0 cannot be detached.")
	case !n.Attachment.Gone.IsZero():
		return refuse(codeState, "The attachment '%s' is being detached", attachment)
	}
	r.editInterface(n).Attachment.Gone = now.Add(takes)
	return nil
}

func (r *Records) attachment(id string) (*Interface, bool) {
	for _, n := range r.Interfaces {
		if n.Attachment != nil && n.Attachment.ID == id {
			return n, true
		}
	}
	return nil, false
}

func (r *Records) deleteInterface(id string) error {
	n, err := r.interfaceOf(id)
	if err != nil {
		return err
	}
	if n.Attachment != nil {
		return refuse(codeValue, "Network interface '%s' is currently in use.", id)
	}
	delete(r.Interfaces, id)
	return nil
}

// InterfaceChange is what to change of an interface; nil leaves as it is.
type InterfaceChange struct {
	Description         *string
	SourceCheck         *bool
	Groups              []string
	Attachment          string // whose DeleteOnTermination is meant
	DeleteOnTermination *bool
}

func (r *Records) modifyInterface(id string, change InterfaceChange) error {
	n, err := r.interfaceOf(id)
	if err != nil {
		return err
	}
	n = r.editInterface(n)
	if change.Description != nil {
		n.Description = *change.Description
	}
	if change.SourceCheck != nil {
		n.SourceCheck = *change.SourceCheck
	}
	if len(change.Groups) > 0 {
		if n.Groups, err = r.groupsOf(change.Groups); err != nil {
			return err
		}
	}
	if change.DeleteOnTermination != nil {
		if n.Attachment == nil || n.Attachment.ID != change.Attachment {
			return refuse("InvalidAttachmentID.NotFound", "The attachment '%s' does not exist", change.Attachment)
		}
		n.Attachment.DeleteOnTermination = *change.DeleteOnTermination
	}
	return nil
}

// settle carries out what was under way and has come to its end by now.
func (r *Records) settle(now time.Time) {
	for _, n := range r.Interfaces {
		if n.Attachment.over(now) {
			r.editInterface(n).Attachment = nil
		}
	}
	for id, i := range r.Instances {
		if i.forgotten(now) {
			delete(r.Instances, id)
		}
	}
}

// due tells whether settle would change anything.
func (r *Records) due(now time.Time) bool {
	for _, n := range r.Interfaces {
		if n.Attachment.over(now) {
			return true
		}
	}
	for _, i := range r.Instances {
		if i.forgotten(now) {
			return true
		}
	}
	return false
}

func (a *Attachment) over(now time.Time) bool {
	return a != nil && !a.Gone.IsZero() && !now.Before(a.Gone)
}

// remembered is how long a terminated instance is still listed.
const remembered = time.Hour

func (i *Instance) forgotten(now time.Time) bool {
	return i.Gone() && now.Sub(i.Terminated) >= remembered
}
