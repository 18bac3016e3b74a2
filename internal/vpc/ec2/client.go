package ec2

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/ec2"

	"github.com/zonewise/zonewise/internal/vpc"
)

// patience is how long one call may take, with the SDK's own retries. Somebody may be waiting for an address: what
// takes longer is tried again by the caller, who can say so.
const patience = 30 * time.Second

// reach is how long it may take to get a connection. EC2 is milliseconds away, or its packets go nowhere: then the next
// try is to find out soon that they arrive again.
const reach = 3 * time.Second

// attempts is how often the SDK tries one call. It slows down by itself where EC2 throttles.
const attempts = 3

// Options say how to reach the cloud. Whatever is empty is looked for where every program of AWS looks: in the
// environment, in the pod's account, in the metadata service.
type Options struct {
	Region   string
	Endpoint string            // of EC2, as a URL
	Metadata string            // of the metadata service, as a URL
	Cluster  string            // name of the cluster, for the tags of what we make
	Tags     map[string]string // more tags for it
	Agent    string            // named in the user agent
	// Called hears of every call of EC2 that was made, for metrics; nil does not.
	Called func(action string, took time.Duration, err error)
	Now    func() time.Time // nil: time.Now

	attempts int // tests have no time for more than one; 0: as below
}

// door is a way to call EC2.
type door struct {
	options  Options
	settings aws.Config
	api      *calls // nil: the region is not known yet
}

// operation is one call of EC2.
type operation[In, Out any] func(context.Context, *In, ...func(*ec2.Options)) (*Out, error)

// calls are those that we make. The client itself has some 700 methods, and the linker keeps all of those whose type is
// to be found in what goes into an interface: that would be a third of the program.
type calls struct {
	describeInterfaces operation[ec2.DescribeNetworkInterfacesInput, ec2.DescribeNetworkInterfacesOutput]
	describeSubnets    operation[ec2.DescribeSubnetsInput, ec2.DescribeSubnetsOutput]
	createInterface    operation[ec2.CreateNetworkInterfaceInput, ec2.CreateNetworkInterfaceOutput]
	attachInterface    operation[ec2.AttachNetworkInterfaceInput, ec2.AttachNetworkInterfaceOutput]
	modifyInterface    operation[ec2.ModifyNetworkInterfaceAttributeInput, ec2.ModifyNetworkInterfaceAttributeOutput]
	detachInterface    operation[ec2.DetachNetworkInterfaceInput, ec2.DetachNetworkInterfaceOutput]
	deleteInterface    operation[ec2.DeleteNetworkInterfaceInput, ec2.DeleteNetworkInterfaceOutput]
	assign             operation[ec2.AssignPrivateIpAddressesInput, ec2.AssignPrivateIpAddressesOutput]
	assignIPv6         operation[ec2.AssignIpv6AddressesInput, ec2.AssignIpv6AddressesOutput]
	unassign           operation[ec2.UnassignPrivateIpAddressesInput, ec2.UnassignPrivateIpAddressesOutput]
}

func (o Options) open(ctx context.Context) (door, error) {
	if o.Called == nil {
		o.Called = func(string, time.Duration, error) {}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	o.attempts = cmp.Or(o.attempts, attempts)
	with := []func(*config.LoadOptions) error{
		config.WithHTTPClient(http.NewBuildableClient().WithDialerOptions(func(d *net.Dialer) { d.Timeout = reach })),
		config.WithRetryer(func() aws.Retryer {
			return retry.NewAdaptiveMode(func(a *retry.AdaptiveModeOptions) {
				a.StandardOptions = append(a.StandardOptions, func(s *retry.StandardOptions) { s.MaxAttempts = o.attempts })
			})
		}),
	}
	if o.Region != "" {
		with = append(with, config.WithRegion(o.Region))
	}
	if o.Agent != "" {
		with = append(with, config.WithAppID(o.Agent))
	}
	settings, err := config.LoadDefaultConfig(ctx, with...)
	if err != nil {
		return door{}, fmt.Errorf("AWS settings: %w", err)
	}
	d := door{options: o, settings: settings}
	if settings.Region != "" {
		d.connect(settings.Region)
	}
	return d, nil
}

// connect makes the client, when the region is known.
func (d *door) connect(region string) {
	d.settings.Region = region
	c := ec2.NewFromConfig(d.settings, func(e *ec2.Options) {
		if d.options.Endpoint != "" {
			e.BaseEndpoint = aws.String(d.options.Endpoint)
		}
	})
	d.api = &calls{
		describeInterfaces: c.DescribeNetworkInterfaces, describeSubnets: c.DescribeSubnets,
		createInterface: c.CreateNetworkInterface, attachInterface: c.AttachNetworkInterface,
		modifyInterface: c.ModifyNetworkInterfaceAttribute, detachInterface: c.DetachNetworkInterface,
		deleteInterface: c.DeleteNetworkInterface, assign: c.AssignPrivateIpAddresses,
		assignIPv6: c.AssignIpv6Addresses, unassign: c.UnassignPrivateIpAddresses,
	}
}

// call makes one call of EC2. Credentials are asked for first, so that their lack is told from an answer of EC2.
func call[In, Out any](ctx context.Context, d *door, action string, do operation[In, Out], in *In) (*Out, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if _, err := d.settings.Credentials.Retrieve(ctx); err != nil {
		return nil, &failed{action, fmt.Errorf("%w: %w", errCredentials, err)}
	}
	begin := d.options.Now()
	out, err := do(ctx, in)
	d.options.Called(action, d.options.Now().Sub(begin), err)
	if err != nil {
		if cache, ok := d.settings.Credentials.(*aws.CredentialsCache); ok && Classify(err) == vpc.Credentials {
			cache.Invalidate() // they may have been changed long before they expire
		}
		return nil, &failed{action, short(err)}
	}
	return out, nil
}

var (
	errCredentials = errors.New("no AWS credentials; give the node a role with the policy AmazonEKS_CNI_Policy, or the pod's account one")
	errNoAnswer    = errors.New("no answer in time")
	errIncomplete  = errors.New("answer incomplete")
)
