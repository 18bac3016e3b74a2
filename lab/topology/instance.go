package topology

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Instance is what a node of one instance type reports and how many pods it holds.
type Instance struct {
	Type      string
	CPUs      int
	MemoryMiB int
	ENIs      int
	IPsPerENI int
}

// MaxPods is the number of pods that AWS lets a node of this type hold: every interface gives all
// its addresses but the primary one, and two pods use the host's network
// (https://github.com/aws/amazon-vpc-cni-k8s/blob/master/README.md, "ENI Allocation").
func (i Instance) MaxPods() int { return i.ENIs*(i.IPsPerENI-1) + 2 }

// Limits of the instance types that a lab on one machine makes sense with
// (https://docs.aws.amazon.com/ec2/latest/instancetypes, "Network specifications").
var instances = map[string]Instance{
	"t3.small":   {"t3.small", 2, 2048, 3, 4},
	"t3.medium":  {"t3.medium", 2, 4096, 3, 6},
	"t3.large":   {"t3.large", 2, 8192, 3, 12},
	"t3.xlarge":  {"t3.xlarge", 4, 16384, 4, 15},
	"m5.large":   {"m5.large", 2, 8192, 3, 10},
	"m5.xlarge":  {"m5.xlarge", 4, 16384, 4, 15},
	"m5.2xlarge": {"m5.2xlarge", 8, 32768, 4, 15},
	"c5.large":   {"c5.large", 2, 4096, 3, 10},
	"c5.xlarge":  {"c5.xlarge", 4, 8192, 4, 15},
	"r5.large":   {"r5.large", 2, 16384, 3, 10},
}

// InstanceOf returns the limits of a type. An unknown type is an error that lists the known ones.
func InstanceOf(name string) (Instance, error) {
	i, ok := instances[name]
	if !ok {
		known := slices.Sorted(maps.Keys(instances))
		return Instance{}, fmt.Errorf("instance type %q is not known here: use one of %s", name, strings.Join(known, ", "))
	}
	return i, nil
}

// Instances are all types that are known here, by name.
func Instances() []Instance {
	return slices.SortedFunc(maps.Values(instances), func(a, b Instance) int { return strings.Compare(a.Type, b.Type) })
}
