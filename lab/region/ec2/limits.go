package ec2

import (
	"github.com/zonewise/zonewise/internal/vpc"
	"github.com/zonewise/zonewise/lab/topology"
)

// Limits of an instance type.
type Limits struct {
	Interfaces int
	Addresses  int  // of each family on each interface; a prefix counts as one
	Prefixes   bool // can be had
	// What a node reports of itself; zero where no lab has such nodes.
	CPUs, MemoryMiB int
}

// LimitsOf returns the limits of a type that there is on EC2.
func LimitsOf(instanceType string) (Limits, error) {
	l, err := vpc.LimitsOf(instanceType)
	if err != nil {
		return Limits{}, refuse("InvalidInstanceType", "The following supplied instance types do not exist: [%s]", instanceType)
	}
	out := Limits{Interfaces: l.Interfaces, Addresses: l.IPv4, Prefixes: l.Prefixes}
	if i, err := topology.InstanceOf(instanceType); err == nil {
		out.CPUs, out.MemoryMiB = i.CPUs, i.MemoryMiB
	}
	return out, nil
}

// Types are the instance types that a lab can have.
func Types() []string {
	var out []string
	for _, i := range topology.Instances() {
		out = append(out, i.Type)
	}
	return out
}
