package ec2

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/zonewise/zonewise/internal/vpc"
)

// Cloud is EC2 as one instance sees it. It is not safe for concurrent use.
type Cloud struct {
	door
	meta     *imds.Client
	self     Identity
	ranges   map[string]netip.Prefix // of subnets, by id: they never change
	seen     map[string]eni          // what Observe saw last, by id
	recent   recent
	detached []string // interfaces to be deleted as soon as EC2 lets us
	swept    bool     // what an earlier process left was looked for
}

// Open finds out which instance this is.
func Open(ctx context.Context, o Options) (*Cloud, error) {
	d, err := o.open(ctx)
	if err != nil {
		return nil, err
	}
	c := &Cloud{door: d, ranges: map[string]netip.Prefix{}, seen: map[string]eni{}}
	c.meta = imds.NewFromConfig(d.settings, func(m *imds.Options) {
		if o.Metadata != "" {
			m.Endpoint = o.Metadata
		}
	})
	if c.self, err = c.identify(ctx); err != nil {
		return nil, err
	}
	if c.api == nil {
		c.connect(c.self.Region)
	}
	return c, nil
}

// Self tells which instance this is.
func (c *Cloud) Self() Identity { return c.self }

// mainTable is the kernel's main table of routes.
const mainTable = 254

// Observe asks what is attached to this instance, by device index. What was done here a moment ago is in it, also
// where EC2's answer does not have it yet.
func (c *Cloud) Observe(ctx context.Context) ([]vpc.Interface, error) {
	found, err := c.describe(ctx, c.self.ID, filter("attachment.instance-id", c.self.ID))
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(found, func(i eni) bool { return i.Primary }) {
		// Taken for the truth, an empty answer would take every address away.
		return nil, fmt.Errorf("DescribeNetworkInterfaces: primary interface of %s: %w", c.self.ID, errIncomplete)
	}
	if err := c.learnRanges(ctx, found); err != nil {
		return nil, err
	}
	clear(c.seen)
	for _, i := range found {
		c.seen[i.ID] = i
		// Who began to detach it was ended, and it is not yet among those that are attached to nothing.
		if i.leaving && i.tags[tagOwner] == owner && i.tags[tagInstance] == c.self.ID && !slices.Contains(c.detached, i.ID) {
			c.detached = append(c.detached, i.ID)
		}
	}
	return c.Known(), nil
}

// Known is what Observe saw last, with what was done here since. It asks nobody.
func (c *Cloud) Known() []vpc.Interface {
	c.recent.over(c.seen, c.options.Now())
	var out []vpc.Interface
	for _, i := range c.seen {
		i.Subnet, i.Table = c.ranges[i.SubnetID], i.Index+1
		if i.Primary {
			i.Table = mainTable
		}
		if i.Subnet.IsValid() {
			i.Gateway = i.Subnet.Masked().Addr().Next() // as in every VPC
		}
		out = append(out, i.Interface)
	}
	slices.SortFunc(out, func(a, b vpc.Interface) int { return cmp.Or(cmp.Compare(a.Index, b.Index), cmp.Compare(a.ID, b.ID)) })
	return out
}

// learnRanges asks for the ranges of subnets that were not asked for yet.
func (c *Cloud) learnRanges(ctx context.Context, found []eni) error {
	var unknown []string
	for _, i := range found {
		if _, known := c.ranges[i.SubnetID]; !known && !slices.Contains(unknown, i.SubnetID) {
			unknown = append(unknown, i.SubnetID)
		}
	}
	if len(unknown) == 0 {
		return nil
	}
	_, err := c.Subnets(ctx, unknown...)
	return err
}

func filter(name string, values ...string) types.Filter {
	return types.Filter{Name: aws.String(name), Values: values}
}

// page is the most that EC2 tells in one answer.
const page = 1000

// describe does without the SDK's paginator, which takes the client as an interface.
func (d *door) describe(ctx context.Context, self string, filters ...types.Filter) ([]eni, error) {
	in := &ec2.DescribeNetworkInterfacesInput{Filters: filters, MaxResults: aws.Int32(page)}
	var out []eni
	for {
		answer, err := call(ctx, d, "DescribeNetworkInterfaces", d.api.describeInterfaces, in)
		if err != nil {
			return nil, err
		}
		for i := range answer.NetworkInterfaces {
			found, err := read(&answer.NetworkInterfaces[i], self)
			if err != nil {
				return nil, fmt.Errorf("DescribeNetworkInterfaces: %w", err)
			}
			out = append(out, found)
		}
		if aws.ToString(answer.NextToken) == "" {
			return out, nil
		}
		in.NextToken = answer.NextToken
	}
}

// Subnets asks for subnets by their ids.
func (c *Cloud) Subnets(ctx context.Context, ids ...string) ([]Subnet, error) {
	return c.subnets(ctx, &ec2.DescribeSubnetsInput{SubnetIds: ids})
}

// SubnetsHere asks for all subnets of the VPC that are in this instance's zone.
func (c *Cloud) SubnetsHere(ctx context.Context) ([]Subnet, error) {
	return c.subnets(ctx, &ec2.DescribeSubnetsInput{MaxResults: aws.Int32(page), Filters: []types.Filter{
		filter("vpc-id", c.self.VPC), filter("availability-zone", c.self.Zone),
	}})
}

func (c *Cloud) subnets(ctx context.Context, in *ec2.DescribeSubnetsInput) ([]Subnet, error) {
	var out []Subnet
	for {
		answer, err := call(ctx, &c.door, "DescribeSubnets", c.api.describeSubnets, in)
		if err != nil {
			return nil, err
		}
		for i := range answer.Subnets {
			s, err := readSubnet(&answer.Subnets[i])
			if err != nil {
				return nil, fmt.Errorf("DescribeSubnets: %w", err)
			}
			c.ranges[s.ID] = s.CIDR
			out = append(out, s)
		}
		if aws.ToString(answer.NextToken) == "" {
			return out, nil
		}
		in.NextToken = answer.NextToken
	}
}
