package ec2

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/zonewise/zonewise/internal/vpc"
)

// description begins that of every interface that we make.
const description = "zonewise "

// Do carries an action out, and tells what it gave. Whether one that failed was done in part, or wholly, Observe tells.
func (c *Cloud) Do(ctx context.Context, a vpc.Action) (vpc.Outcome, error) {
	got, err := c.do(ctx, a)
	out := vpc.Outcome{Failure: Classify(err), Call: CallOf(err)}
	for _, p := range got {
		if p.IsSingleIP() {
			out.Addresses = append(out.Addresses, p.Addr())
		} else {
			out.Prefixes = append(out.Prefixes, p)
		}
	}
	return out, err
}

func (c *Cloud) do(ctx context.Context, a vpc.Action) (got []netip.Prefix, err error) {
	switch a.Verb {
	case vpc.CreateInterface:
		return c.create(ctx, a)
	case vpc.AssignAddresses:
		return c.assign(ctx, a.Interface, &ec2.AssignPrivateIpAddressesInput{SecondaryPrivateIpAddressCount: aws.Int32(int32(a.Count))})
	case vpc.AssignPrefixes:
		return c.assign(ctx, a.Interface, &ec2.AssignPrivateIpAddressesInput{Ipv4PrefixCount: aws.Int32(int32(a.Count))})
	case vpc.AssignIPv6Prefix:
		return c.assignIPv6(ctx, a.Interface)
	case vpc.UnassignAddresses, vpc.UnassignPrefixes:
		return nil, c.unassign(ctx, a)
	case vpc.DeleteInterface:
		return nil, c.detach(ctx, a.Interface)
	case vpc.SetSecurityGroups:
		return nil, c.regroup(ctx, a)
	}
	return nil, fmt.Errorf("action %q: %w", a.Verb, errUnknown)
}

var errUnknown = errors.New("not known")

// create makes an interface and attaches it. What was made and could not be attached is deleted: at once, or by Tidy.
func (c *Cloud) create(ctx context.Context, a vpc.Action) ([]netip.Prefix, error) {
	made, err := c.make(ctx, a)
	if err != nil {
		return nil, err
	}
	answer, err := call(ctx, &c.door, "AttachNetworkInterface", c.api.attachInterface, &ec2.AttachNetworkInterfaceInput{
		InstanceId: aws.String(c.self.ID), NetworkInterfaceId: aws.String(made.ID), DeviceIndex: aws.Int32(int32(a.Index)),
	})
	if err != nil {
		// The caller may have been stopped; what was made must go in spite of it.
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
		defer cancel()
		if left := c.delete(clean, made.ID); left != nil {
			c.detached = append(c.detached, made.ID)
		}
		return nil, err
	}
	made.attachment, made.instance, made.Index, made.Attached = aws.ToString(answer.AttachmentId), c.self.ID, a.Index, c.options.Now()
	made.lasting = true
	c.recent.born(made, c.options.Now())
	got := slices.Clone(made.Prefixes)
	for _, address := range made.Addresses {
		got = append(got, host(address))
	}
	if err := c.bind(ctx, made); err != nil {
		return got, fmt.Errorf("%s is attached, but would outlive its instance: %w", made.ID, err)
	}
	return got, nil
}

func (c *Cloud) make(ctx context.Context, a vpc.Action) (eni, error) {
	groups := a.SecurityGroups
	if len(groups) == 0 {
		for _, i := range c.seen {
			if i.Primary {
				groups = i.SecurityGroups
			}
		}
	}
	in := &ec2.CreateNetworkInterfaceInput{
		SubnetId: aws.String(a.Subnet), Groups: groups, Description: aws.String(description + c.self.ID),
		TagSpecifications: []types.TagSpecification{{ResourceType: types.ResourceTypeNetworkInterface, Tags: c.tags()}},
	}
	switch {
	case a.Count == 0:
	case a.OfPrefixes:
		in.Ipv4PrefixCount = aws.Int32(int32(a.Count))
	default:
		in.SecondaryPrivateIpAddressCount = aws.Int32(int32(a.Count))
	}
	answer, err := call(ctx, &c.door, "CreateNetworkInterface", c.api.createInterface, in)
	if err != nil {
		return eni{}, err
	}
	if answer.NetworkInterface == nil {
		return eni{}, fmt.Errorf("CreateNetworkInterface: %w", errIncomplete)
	}
	made, err := read(answer.NetworkInterface, c.self.ID)
	if err != nil {
		c.swept = false // what was made is found by its tag
		return made, fmt.Errorf("CreateNetworkInterface: %w", err)
	}
	made.Unmanaged = false
	return made, nil
}

// tags are those of an interface that we make.
func (c *Cloud) tags() []types.Tag {
	all := map[string]string{tagInstance: c.self.ID, tagOwner: owner, tagCreated: c.options.Now().UTC().Format(time.RFC3339)}
	if c.options.Cluster != "" {
		all[tagCluster] = c.options.Cluster
	}
	maps.Copy(all, c.options.Tags)
	var out []types.Tag
	for _, key := range slices.Sorted(maps.Keys(all)) {
		out = append(out, types.Tag{Key: aws.String(key), Value: aws.String(all[key])})
	}
	return out
}

// bind makes an attached interface end with its instance.
func (c *Cloud) bind(ctx context.Context, i eni) error {
	_, err := call(ctx, &c.door, "ModifyNetworkInterfaceAttribute", c.api.modifyInterface, &ec2.ModifyNetworkInterfaceAttributeInput{
		NetworkInterfaceId: aws.String(i.ID),
		Attachment:         &types.NetworkInterfaceAttachmentChanges{AttachmentId: aws.String(i.attachment), DeleteOnTermination: aws.Bool(true)},
	})
	if err != nil {
		return err
	}
	c.recent.bound(i.ID)
	if i, known := c.seen[i.ID]; known {
		i.lasting = false
		c.seen[i.ID] = i
	}
	return nil
}

func (c *Cloud) assign(ctx context.Context, id string, in *ec2.AssignPrivateIpAddressesInput) (got []netip.Prefix, err error) {
	in.NetworkInterfaceId = aws.String(id)
	answer, err := call(ctx, &c.door, "AssignPrivateIpAddresses", c.api.assign, in)
	if err != nil {
		return nil, err
	}
	for _, a := range answer.AssignedPrivateIpAddresses {
		address, err := netip.ParseAddr(aws.ToString(a.PrivateIpAddress))
		if err != nil {
			return nil, fmt.Errorf("AssignPrivateIpAddresses: address %q: %w", aws.ToString(a.PrivateIpAddress), errIncomplete)
		}
		got = append(got, host(address))
	}
	for _, p := range answer.AssignedIpv4Prefixes {
		prefix, err := netip.ParsePrefix(aws.ToString(p.Ipv4Prefix))
		if err != nil {
			return nil, fmt.Errorf("AssignPrivateIpAddresses: prefix %q: %w", aws.ToString(p.Ipv4Prefix), errIncomplete)
		}
		got = append(got, prefix)
	}
	c.recent.added(id, got, c.options.Now())
	return got, nil
}

func (c *Cloud) assignIPv6(ctx context.Context, id string) (got []netip.Prefix, err error) {
	answer, err := call(ctx, &c.door, "AssignIpv6Addresses", c.api.assignIPv6, &ec2.AssignIpv6AddressesInput{
		NetworkInterfaceId: aws.String(id), Ipv6PrefixCount: aws.Int32(1)})
	if err != nil {
		return nil, err
	}
	for _, text := range answer.AssignedIpv6Prefixes {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, fmt.Errorf("AssignIpv6Addresses: prefix %q: %w", text, errIncomplete)
		}
		got = append(got, prefix)
	}
	c.recent.added(id, got, c.options.Now())
	return got, nil
}

// unassign takes addresses or prefixes away. What the interface does not have any more is fine.
func (c *Cloud) unassign(ctx context.Context, a vpc.Action) error {
	in := &ec2.UnassignPrivateIpAddressesInput{NetworkInterfaceId: aws.String(a.Interface)}
	var gone []netip.Prefix
	for _, address := range a.Addresses {
		in.PrivateIpAddresses, gone = append(in.PrivateIpAddresses, address.String()), append(gone, host(address))
	}
	for _, p := range a.Prefixes {
		in.Ipv4Prefixes, gone = append(in.Ipv4Prefixes, p.String()), append(gone, p)
	}
	if len(gone) == 0 {
		return nil
	}
	_, err := call(ctx, &c.door, "UnassignPrivateIpAddresses", c.api.unassign, in)
	if err != nil && !notThere(err) {
		return err
	}
	c.recent.removed(a.Interface, gone)
	if i, known := c.seen[a.Interface]; known {
		for _, p := range gone {
			i.put(p, false)
		}
		c.seen[a.Interface] = i
	}
	return nil
}

// detach begins to take an interface off this instance. That takes seconds; Tidy deletes it then.
func (c *Cloud) detach(ctx context.Context, id string) error {
	i, known := c.seen[id]
	if !known {
		return nil // it is not here any more
	}
	_, err := call(ctx, &c.door, "DetachNetworkInterface", c.api.detachInterface, &ec2.DetachNetworkInterfaceInput{
		AttachmentId: aws.String(i.attachment)})
	if err != nil && Classify(err) != vpc.Gone {
		return err
	}
	c.recent.died(id)
	i.Unmanaged = true // it takes its place until it is off
	c.seen[id] = i
	c.detached = append(c.detached, id)
	return nil
}

// regroup gives an interface other security groups.
func (c *Cloud) regroup(ctx context.Context, a vpc.Action) error {
	_, err := call(ctx, &c.door, "ModifyNetworkInterfaceAttribute", c.api.modifyInterface, &ec2.ModifyNetworkInterfaceAttributeInput{
		NetworkInterfaceId: aws.String(a.Interface), Groups: a.SecurityGroups})
	if err != nil {
		return err
	}
	c.recent.regrouped(a.Interface, a.SecurityGroups)
	if i, known := c.seen[a.Interface]; known {
		i.SecurityGroups = a.SecurityGroups
		c.seen[a.Interface] = i
	}
	return nil
}

// delete removes an interface that is attached to nothing; one that is gone already is fine.
func (d *door) delete(ctx context.Context, id string) error {
	_, err := call(ctx, d, "DeleteNetworkInterface", d.api.deleteInterface, &ec2.DeleteNetworkInterfaceInput{
		NetworkInterfaceId: aws.String(id)})
	if err != nil && Classify(err) != vpc.Gone {
		return err
	}
	return nil
}

// Tidy deletes interfaces that were detached, or left by a process that was ended half-way, and makes those of ours end
// with the instance. Busy is how many EC2 does not let go yet: call again in some seconds.
func (c *Cloud) Tidy(ctx context.Context) (busy int, err error) {
	var errs []error
	if !c.swept {
		left, err := c.describe(ctx, c.self.ID, filter("tag:"+tagInstance, c.self.ID), filter("tag:"+tagOwner, owner), filter("status", "available"))
		if err != nil {
			return 0, err
		}
		for _, i := range left {
			if !slices.Contains(c.detached, i.ID) {
				c.detached = append(c.detached, i.ID)
			}
		}
		c.swept = true
	}
	c.detached = slices.DeleteFunc(c.detached, func(id string) bool {
		err := c.delete(ctx, id)
		switch {
		case inUse(err):
			busy++
		case err != nil:
			errs = append(errs, err)
		default:
			delete(c.seen, id) // its place is free
		}
		return err == nil
	})
	for _, i := range c.seen {
		if i.lasting && !i.Unmanaged && !i.Primary {
			errs = append(errs, c.bind(ctx, i))
		}
	}
	return busy, errors.Join(errs...)
}

// Sweep makes the next Tidy look again for what was left.
func (c *Cloud) Sweep() { c.swept = false }

func host(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }
