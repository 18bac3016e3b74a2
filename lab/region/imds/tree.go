package imds

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/zonewise/zonewise/lab/region/ec2"
)

// tree is what can be asked for, by its path below /latest.
type tree map[string]string

// grow makes the tree of an instance at a time; false where it does not run.
func grow(r *ec2.Records, id string, now time.Time) (tree, bool) {
	i, ok := r.Instances[id]
	if !ok || i.Gone() {
		return nil, false
	}
	t := tree{}
	image := "ami-" + strings.TrimPrefix(r.VPC.ID, "vpc-")
	var primary *ec2.Interface
	for _, n := range r.Attached(id) {
		if n.Attachment.State(now) != ec2.Attached {
			continue
		}
		if n.Attachment.Device == 0 {
			primary = n
		}
		t.plant(r, n)
	}
	if primary == nil {
		return nil, false
	}
	for path, value := range map[string]string{
		"ami-id": image, "ami-launch-index": "0", "hostname": i.DNSName, "local-hostname": i.DNSName,
		"instance-action": "none", "instance-id": i.ID, "instance-life-cycle": "on-demand", "instance-type": i.Type,
		"local-ipv4": primary.Primary().String(), "mac": primary.MAC, "profile": "default-hvm",
		"placement/availability-zone": i.Zone, "placement/availability-zone-id": r.ZoneID(i.Zone), "placement/region": r.Region,
		"reservation-id":  "r-" + strings.TrimPrefix(i.ID, "i-"),
		"security-groups": groupNames(r, primary),
		"services/domain": "amazonaws.com", "services/partition": "aws",
		"iam/info": text(map[string]string{
			"Code": "Success", "LastUpdated": stamp(now),
			"InstanceProfileArn": "arn:aws:iam::" + ec2.Account + ":instance-profile/" + ec2.RoleName,
			"InstanceProfileId":  "AIPA" + strings.TrimPrefix(r.Role.AccessKeyID, "ASIA"),
		}),
		"iam/security-credentials/" + ec2.RoleName: text(map[string]string{
			"Code": "Success", "Type": "AWS-HMAC", "LastUpdated": stamp(now), "Expiration": stamp(now.Add(6 * time.Hour)),
			"AccessKeyId": r.Role.AccessKeyID, "SecretAccessKey": r.Role.SecretAccessKey, "Token": r.Role.Token,
		}),
	} {
		t["meta-data/"+path] = value
	}
	if len(primary.IPv6) > 0 {
		t["meta-data/ipv6"] = primary.IPv6[0].String()
	}
	t["dynamic/instance-identity/document"] = text(map[string]string{
		"accountId": ec2.Account, "architecture": "x86_64", "availabilityZone": i.Zone, "imageId": image, "instanceId": i.ID,
		"instanceType": i.Type, "pendingTime": stamp(i.Launched), "privateIp": primary.Primary().String(), "region": r.Region, "version": "2017-09-30",
	})
	return t, true
}

// plant adds what there is to know of one interface.
func (t tree) plant(r *ec2.Records, n *ec2.Interface) {
	subnet := r.Subnets[n.Subnet]
	values := map[string]string{
		"device-number": fmt.Sprint(n.Attachment.Device), "network-card": fmt.Sprint(n.Attachment.Card),
		"interface-id": n.ID, "mac": n.MAC, "owner-id": ec2.Account,
		"local-hostname":     "ip-" + strings.ReplaceAll(n.Primary().String(), ".", "-") + "." + r.Region + ".compute.internal",
		"local-ipv4s":        lines(n.Addresses),
		"ipv4-prefix":        lines(n.Prefixes),
		"ipv6s":              lines(n.IPv6),
		"ipv6-prefix":        lines(n.IPv6Prefixes),
		"security-group-ids": strings.Join(n.Groups, "\n"), "security-groups": groupNames(r, n),
		"subnet-id": subnet.ID, "subnet-ipv4-cidr-block": subnet.CIDR.String(),
		"vpc-id": r.VPC.ID, "vpc-ipv4-cidr-block": r.VPC.CIDRs[0].String(), "vpc-ipv4-cidr-blocks": lines(r.VPC.CIDRs),
	}
	if subnet.IPv6.IsValid() {
		values["subnet-ipv6-cidr-blocks"], values["vpc-ipv6-cidr-blocks"] = subnet.IPv6.String(), r.VPC.IPv6.String()
	}
	for k, v := range values {
		if v != "" {
			t["meta-data/network/interfaces/macs/"+n.MAC+"/"+k] = v
		}
	}
}

// at is what a path says: a value, or a list of what is below, in which a slash marks what has more below.
func (t tree) at(path string) (string, bool) {
	path = strings.Trim(path, "/")
	if v, ok := t[path]; ok {
		return v, true
	}
	if path != "" {
		path += "/"
	}
	below := map[string]bool{}
	for p := range t {
		if rest, ok := strings.CutPrefix(p, path); ok {
			name, _, more := strings.Cut(rest, "/")
			if more {
				name += "/"
			}
			below[name] = true
		}
	}
	return strings.Join(slices.Sorted(maps.Keys(below)), "\n"), len(below) > 0
}

func groupNames(r *ec2.Records, n *ec2.Interface) string {
	var out []string
	for _, id := range n.Groups {
		if g, ok := r.Groups[id]; ok {
			out = append(out, g.Name)
		}
	}
	return strings.Join(out, "\n")
}

func lines[T fmt.Stringer](all []T) string {
	var out []string
	for _, v := range all {
		out = append(out, v.String())
	}
	return strings.Join(out, "\n")
}

func text(document map[string]string) string {
	data, _ := json.MarshalIndent(document, "", "  ") // texts always have a form
	return string(data)
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05Z") }
