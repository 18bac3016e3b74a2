package topology

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/zonewise/zonewise/internal/vpc"
)

// Instance is what a node of one instance type reports, and how many interfaces and addresses it has room for.
type Instance struct {
	vpc.Limits
	CPUs      int
	MemoryMiB int
}

// MaxPods is the number of pods that AWS lets a node of this type hold, where nobody sets more: every interface
// gives all its addresses but the primary one, and two pods use the host's network
// (https://github.com/aws/amazon-vpc-cni-k8s/blob/master/README.md, "ENI Allocation").
func (i Instance) MaxPods() int { return vpc.MaxPods(i.Limits, vpc.DefaultTargets(), i.CPUs) }

// size is what a machine has besides its network.
type size struct{ cpus, memoryMiB int }

// Sizes of the instance types that a lab on one machine makes sense with
// (https://docs.aws.amazon.com/ec2/latest/instancetypes). What they have of the network is the product's to know.
var sizes = map[string]size{
	"t3.small":   {2, 2048},
	"t3.medium":  {2, 4096},
	"t3.large":   {2, 8192},
	"t3.xlarge":  {4, 16384},
	"m5.large":   {2, 8192},
	"m5.xlarge":  {4, 16384},
	"m5.2xlarge": {8, 32768},
	"c5.large":   {2, 4096},
	"c5.xlarge":  {4, 8192},
	"r5.large":   {2, 16384},
}

// InstanceOf returns what there is to know of a type. An unknown type is an error that lists the known ones.
func InstanceOf(name string) (Instance, error) {
	s, ok := sizes[name]
	if !ok {
		return Instance{}, fmt.Errorf("instance type %q is not known here: %s", name, use(name))
	}
	limits, err := vpc.LimitsOf(name)
	return Instance{Limits: limits, CPUs: s.cpus, MemoryMiB: s.memoryMiB}, err
}

// use names the types that can be had in place of one that cannot, and first the one that may be meant.
func use(name string) string {
	known := slices.Sorted(maps.Keys(sizes))
	all := "use one of " + strings.Join(known, ", ")
	near := slices.MinFunc(known, func(a, b string) int { return distance(name, a) - distance(name, b) })
	if distance(name, near) > slip {
		return all
	}
	return "is " + near + " meant? Else " + all
}

// slip is how many letters somebody gets wrong who means a name.
const slip = 2

// distance is how many letters have to be put in, left out or changed to make one text of another.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before := row[0]
		row[0] = i + 1
		for j := range len(b) {
			changed := before
			if a[i] != b[j] {
				changed++
			}
			before = row[j+1]
			row[j+1] = min(changed, before+1, row[j]+1)
		}
	}
	return row[len(b)]
}

// Instances are all types that are known here, by name.
func Instances() []Instance {
	var out []Instance
	for _, name := range slices.Sorted(maps.Keys(sizes)) {
		if i, err := InstanceOf(name); err == nil { // a test sees to it that there is none
			out = append(out, i)
		}
	}
	return out
}
