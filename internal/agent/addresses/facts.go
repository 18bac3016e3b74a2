package addresses

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/zonewise/zonewise/internal/vpc"
	"github.com/zonewise/zonewise/internal/vpc/ec2"
)

// Tags by which subnets say whether pods may live in them, as upstream's users set them.
const (
	tagSubnet  = "kubernetes.io/role/cni"          // "1": yes; "0": no, the node's own either
	tagCluster = "cni.networking.k8s.aws/cluster/" // followed by a name: of these clusters alone
	configPath = "/apis/crd.k8s.amazonaws.com/v1alpha1/eniconfigs/"
)

// ask asks the cloud, and Kubernetes, for all that is decided from. What is lacking besides the interfaces is told to
// people, and what was known of it holds.
func (d *Daemon) ask(ctx context.Context) error {
	interfaces, err := d.cloud.Observe(ctx)
	if err != nil {
		return err
	}
	d.notes = nil
	note := func(what string, err error) {
		if err != nil && ctx.Err() == nil {
			d.notes = append(d.notes, what+": "+err.Error())
			d.wrong(what, err)
		}
	}
	ranges, err := d.cloud.Ranges(ctx)
	if err == nil {
		d.ranges = ranges
	}
	note("ranges of the VPC", err)
	if d.config.Targets.CustomNetworking {
		note("ENIConfig", d.askConfig(ctx))
	} else {
		note("subnets", d.askSubnets(ctx, interfaces))
	}
	if len(d.ranges) == 0 {
		return err // without them every packet would leave with the node's address
	}
	return nil
}

// askSubnets finds where interfaces may be made: in the node's subnet, and in those of its zone that are tagged for it.
func (d *Daemon) askSubnets(ctx context.Context, interfaces []vpc.Interface) error {
	now := time.Now()
	all, err := d.cloud.SubnetsHere(ctx)
	if err != nil {
		return err
	}
	home := ""
	for _, i := range interfaces {
		if i.Primary {
			home = i.SubnetID
		}
	}
	var out []vpc.Subnet
	for _, s := range all {
		if d.mayUse(s, s.ID == home) {
			out = append(out, vpc.Subnet{ID: s.ID, CIDR: s.CIDR, Free: s.Free, Asked: now})
		}
	}
	d.subnets = out
	d.stock.note(out, now)
	if len(out) == 0 {
		return fmt.Errorf("none for pods: the node's own has the tag %s=0, and no other in zone %s has %s=1", tagSubnet, d.cloud.Self().Zone, tagSubnet)
	}
	return nil
}

func (d *Daemon) mayUse(s ec2.Subnet, home bool) bool {
	if home {
		return s.Tags[tagSubnet] != "0"
	}
	if !d.config.DiscoverSubnets || s.Tags[tagSubnet] != "1" {
		return false
	}
	reserved, ours := false, false
	for tag := range s.Tags {
		if name, ok := strings.CutPrefix(tag, tagCluster); ok {
			reserved, ours = true, ours || name == d.config.Cluster
		}
	}
	return ours || !reserved
}

// eniConfig is what custom networking says of a zone, in upstream's form.
type eniConfig struct {
	Spec struct {
		Subnet         string   `json:"subnet"`
		SecurityGroups []string `json:"securityGroups"`
	} `json:"spec"`
}

// askConfig finds where interfaces may be made in custom networking: in the subnet of the node's ENIConfig.
func (d *Daemon) askConfig(ctx context.Context) error {
	if !d.node.known() {
		return errors.New("the Node has not been read yet")
	}
	node := d.node.facts()
	name := d.config.ConfigName(node.labels, node.annotations)
	data, err := d.config.Get(ctx, configPath+name)
	if apierrors.IsNotFound(err) {
		return fmt.Errorf("%s: not found; make one with the subnet and security groups of the pods' interfaces, or label the node with another name", name)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	subnet, groups, err := parseConfig(data)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	now := time.Now()
	found, err := d.cloud.Subnets(ctx, subnet)
	switch {
	case err != nil:
		return fmt.Errorf("%s: subnet %s: %w", name, subnet, err)
	case len(found) != 1:
		return fmt.Errorf("%s: subnet %s: not found", name, subnet)
	case found[0].Zone != d.cloud.Self().Zone:
		d.subnets = nil
		return fmt.Errorf("%s: subnet %s is in zone %s, and the node in %s; give each zone its own, by ENI_CONFIG_LABEL_DEF=topology.kubernetes.io/zone",
			name, subnet, found[0].Zone, d.cloud.Self().Zone)
	}
	d.subnets = []vpc.Subnet{{ID: subnet, CIDR: found[0].CIDR, Free: found[0].Free, Asked: now, SecurityGroups: groups}}
	d.stock.note(d.subnets, now)
	return nil
}

func parseConfig(data []byte) (subnet string, groups []string, err error) {
	var c eniConfig
	if err := json.Unmarshal(data, &c); err != nil {
		return "", nil, err
	}
	if !strings.HasPrefix(c.Spec.Subnet, "subnet-") {
		return "", nil, fmt.Errorf("spec.subnet: %q is not the id of a subnet, such as subnet-0123456789abcdef0", c.Spec.Subnet)
	}
	for _, g := range c.Spec.SecurityGroups {
		if !strings.HasPrefix(g, "sg-") {
			return "", nil, fmt.Errorf("spec.securityGroups: %q is not the id of a security group, such as sg-0123456789abcdef0", g)
		}
	}
	return c.Spec.Subnet, c.Spec.SecurityGroups, nil
}
