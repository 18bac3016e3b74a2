package ec2

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
)

// leaked is the age at which an interface that is attached to nothing belongs to nobody: from making one to attaching
// it is a matter of seconds.
const leaked = 5 * time.Minute

// Account is EC2 as seen by no instance in particular.
type Account struct{ door }

// OpenAccount needs a cluster's name, so that one cluster does not collect what another is about to use.
func OpenAccount(ctx context.Context, o Options) (*Account, error) {
	if o.Cluster == "" {
		return nil, errors.New("name of the cluster: empty; interfaces are told from those of other clusters by it")
	}
	d, err := o.open(ctx)
	if err != nil {
		return nil, err
	}
	if d.api == nil {
		return nil, errors.New("AWS region: not known; set AWS_REGION")
	}
	return &Account{d}, nil
}

// Leaked asks for the cluster's interfaces that were made by us, are attached to nothing, and are too old to be about to be.
func (a *Account) Leaked(ctx context.Context) ([]string, error) {
	in := &ec2.DescribeNetworkInterfacesInput{MaxResults: aws.Int32(page), Filters: []types.Filter{
		filter("status", "available"), filter("tag:"+tagOwner, owner), filter("tag:"+tagCluster, a.options.Cluster),
	}}
	var out []string
	for {
		answer, err := call(ctx, &a.door, "DescribeNetworkInterfaces", a.api.describeInterfaces, in)
		if err != nil {
			return nil, err
		}
		for _, n := range answer.NetworkInterfaces {
			if a.leaked(n) {
				out = append(out, aws.ToString(n.NetworkInterfaceId))
			}
		}
		if aws.ToString(answer.NextToken) == "" {
			return out, nil
		}
		in.NextToken = answer.NextToken
	}
}

// leaked looks again at what EC2 was asked to filter by: a delete cannot be taken back.
func (a *Account) leaked(n types.NetworkInterface) bool {
	tags := map[string]string{}
	for _, t := range n.TagSet {
		tags[aws.ToString(t.Key)] = aws.ToString(t.Value)
	}
	created, err := time.Parse(time.RFC3339, tags[tagCreated])
	return err == nil && a.options.Now().Sub(created) >= leaked &&
		n.Status == types.NetworkInterfaceStatusAvailable && n.Attachment == nil &&
		tags[tagOwner] == owner && tags[tagCluster] == a.options.Cluster &&
		strings.HasPrefix(aws.ToString(n.Description), description)
}

// Delete removes an interface that is attached to nothing; one that is gone already is fine.
func (a *Account) Delete(ctx context.Context, id string) error {
	if err := a.delete(ctx, id); err != nil {
		return fmt.Errorf("%s: %w", id, err)
	}
	return nil
}
