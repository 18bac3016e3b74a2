package vpc

import (
	_ "embed"
	"fmt"
	"strconv"
	"strings"
)

// instances has a line for each instance type: its name, how many interfaces the card of the primary
// takes, how many addresses each has, and whether prefixes can be had. It is made by the test in
// lab/upstream that also holds it against its source.
//
//go:embed instances.txt
var instances string

// Limits is how many interfaces and addresses an instance type has room for.
type Limits struct {
	Type       string
	Interfaces int  // on the card that the primary is on
	IPv4       int  // addresses of one interface, with its own
	Prefixes   bool // can be had in place of addresses
}

// LimitsOf returns the limits of an instance type.
func LimitsOf(instanceType string) (Limits, error) {
	for line := range strings.Lines(instances) {
		name, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		if name != instanceType {
			continue
		}
		f := strings.Fields(rest)
		interfaces, err := strconv.Atoi(f[0])
		if err != nil {
			return Limits{}, fmt.Errorf("instance type %s: %w", name, err)
		}
		addresses, err := strconv.Atoi(f[1])
		if err != nil {
			return Limits{}, fmt.Errorf("instance type %s: %w", name, err)
		}
		return Limits{Type: name, Interfaces: interfaces, IPv4: addresses, Prefixes: f[2] == "yes"}, nil
	}
	return Limits{}, fmt.Errorf("instance type %q is not known; a newer one is found by `aws ec2 describe-instance-types --instance-types %s`, "+
		"under NetworkInfo", instanceType, instanceType)
}

// Slots is how many addresses or prefixes for pods one interface has room for.
func (l Limits) Slots() int { return max(l.IPv4-1, 0) }

// prefixSize is the addresses of one prefix: the cloud gives /28s.
const prefixSize = 16

// hostPods is how many pods live in the network of the node, and need no address: the agent's and the
// daemon's, as upstream counts kube-proxy's and its own.
const hostPods = 2

// With prefixes an instance has far more addresses than pods that it could run; these are AWS's bounds.
const (
	maxPodsSmall = 110 // up to smallCPUs
	maxPodsLarge = 250
	smallCPUs    = 30
)

// MaxPods is how many pods a node can hold: kubelet is to be told, since nothing else stops the
// scheduler.
func MaxPods(l Limits, t Targets, cpus int) int {
	interfaces := t.interfaces(l)
	if t.CustomNetworking {
		interfaces--
	}
	if t.byPrefix(l) || t.Family == IPv6 {
		ceiling := maxPodsLarge
		if cpus <= smallCPUs {
			ceiling = maxPodsSmall
		}
		return min(interfaces*l.Slots()*prefixSize+hostPods, ceiling)
	}
	return interfaces*l.Slots() + hostPods
}
