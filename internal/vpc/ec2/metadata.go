package ec2

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"

	"github.com/zonewise/zonewise/internal/vpc"
)

// Identity is who we are. It does not change as long as the instance lives.
type Identity struct {
	ID, Type, Zone, Region string
	MAC, VPC               string // of the primary interface
}

// maxMetadata is more than the longest answer that makes sense: somebody else may be answering.
const maxMetadata = 1 << 16

func (c *Cloud) identify(ctx context.Context) (Identity, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	doc, err := c.meta.GetInstanceIdentityDocument(ctx, nil)
	if err != nil {
		return Identity{}, fmt.Errorf("metadata service: identity: %w", short(err))
	}
	i := Identity{ID: doc.InstanceID, Type: doc.InstanceType, Zone: doc.AvailabilityZone, Region: doc.Region}
	if i.ID == "" || i.Type == "" || i.Zone == "" {
		return i, fmt.Errorf("metadata service: instance %q of type %q in zone %q: %w", i.ID, i.Type, i.Zone, errIncomplete)
	}
	if i.MAC, err = c.metadata(ctx, "mac"); err != nil {
		return i, err
	}
	i.VPC, err = c.metadata(ctx, "network/interfaces/macs/"+i.MAC+"/vpc-id")
	return i, err
}

// Ranges asks which ranges the VPC has, of both families: one can be added at any time. It asks the metadata service,
// and not EC2: whoever may manage interfaces need not be allowed to describe VPCs.
func (c *Cloud) Ranges(ctx context.Context) ([]netip.Prefix, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var out []netip.Prefix
	for _, name := range []string{"vpc-ipv4-cidr-blocks", "vpc-ipv6-cidr-blocks"} {
		text, err := c.metadata(ctx, "network/interfaces/macs/"+c.self.MAC+"/"+name)
		if Classify(err) == vpc.Gone {
			continue // a VPC without IPv6 has no such page
		}
		if err != nil {
			return nil, err
		}
		for _, word := range strings.Fields(text) {
			p, err := netip.ParsePrefix(word)
			if err != nil {
				return nil, fmt.Errorf("metadata service: %s: %q is no range of addresses", name, word)
			}
			out = append(out, p)
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("metadata service: ranges of the VPC: %w", errIncomplete)
	}
	return out, nil
}

// aside is the time for what is not worth waiting for.
const aside = 2 * time.Second

// Groups asks which security groups the primary interface has. It is a call of the metadata service, of which there can
// be many: EC2 is to be asked when something has changed there.
func (c *Cloud) Groups(ctx context.Context) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, aside)
	defer cancel()
	text, err := c.metadata(ctx, "network/interfaces/macs/"+c.self.MAC+"/security-group-ids")
	return slices.Sorted(slices.Values(strings.Fields(text))), err
}

// Missing names what Observe has seen of ours and the metadata service does not have any more: somebody has taken it
// away by hand. That costs no call of EC2. What was got a moment ago may not be there yet, and is not missed.
func (c *Cloud) Missing(ctx context.Context) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, aside)
	defer cancel()
	const macs = "network/interfaces/macs/"
	text, err := c.metadata(ctx, macs)
	if err != nil {
		return nil, err
	}
	there := strings.Fields(text)
	var out []string
	for _, i := range c.Known() {
		if i.Unmanaged || c.recent.has(i.ID, netip.Prefix{}) {
			continue
		}
		if !slices.Contains(there, i.MAC+"/") {
			out = append(out, i.ID)
			continue
		}
		have, err := c.owned(ctx, macs+i.MAC)
		if err != nil {
			return nil, err
		}
		for _, p := range wholes(i) {
			if !have[p] && !c.recent.has(i.ID, p) {
				out = append(out, p.String()+" of "+i.ID)
			}
		}
	}
	return out, nil
}

// wholes are the addresses and prefixes of an interface, as prefixes.
func wholes(i vpc.Interface) []netip.Prefix {
	out := slices.Clone(i.Prefixes)
	for _, a := range i.Addresses {
		out = append(out, host(a))
	}
	return out
}

// owned are the addresses and prefixes of IPv4 that the metadata service says an interface has.
func (c *Cloud) owned(ctx context.Context, path string) (map[netip.Prefix]bool, error) {
	have := map[netip.Prefix]bool{}
	for _, name := range []string{"local-ipv4s", "ipv4-prefix"} {
		text, err := c.metadata(ctx, path+"/"+name)
		if Classify(err) == vpc.Gone {
			continue // an interface without prefixes has no such page
		}
		if err != nil {
			return nil, err
		}
		for _, word := range strings.Fields(text) {
			if !strings.Contains(word, "/") {
				word += "/32"
			}
			p, err := netip.ParsePrefix(word)
			if err != nil {
				return nil, fmt.Errorf("metadata service: %s: %q is no address", name, word)
			}
			have[p] = true
		}
	}
	return have, nil
}

func (c *Cloud) metadata(ctx context.Context, path string) (string, error) {
	answer, err := c.meta.GetMetadata(ctx, &imds.GetMetadataInput{Path: path})
	if err != nil {
		return "", fmt.Errorf("metadata service: %s: %w", path, short(err))
	}
	defer answer.Content.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Content, maxMetadata))
	if err != nil {
		return "", fmt.Errorf("metadata service: %s: %w", path, err)
	}
	return strings.TrimSpace(string(text)), nil
}
