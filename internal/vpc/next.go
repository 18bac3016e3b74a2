package vpc

import (
	"fmt"
	"slices"
	"strings"
)

// next says what the next pod waits for, and what ends the pool's growth.
func (s *survey) next(d Decision) Next {
	n := Next{Free: max(s.free-s.waiting, 0), Waiting: s.waiting, Room: s.room()}
	n.Grows = n.Room > 0 || s.unfinished()
	n.Limit, n.Mend = s.limit(n)
	if n.Free > 0 {
		return n
	}
	switch {
	case s.coming > 0:
		n.Waits = "an interface that is being attached"
	case d.Action.Verb != None:
		n.Waits = "the cloud: " + d.Action.String()
	case n.Grows && s.shortage(0) > 0:
		n.Waits = "the cloud: " + d.Reason
	case n.Grows:
		n.Waits = "the cloud, which is asked when the pod is there"
	case s.cooling > 0:
		n.Waits = fmt.Sprintf("one of %s, for %s at most", count(s.cooling, "address that cools", "addresses that cool"), s.Targets.Cooldown)
	default:
		n.Waits = "another pod to go"
	}
	return n
}

// unfinished tells whether an interface that is there already will give addresses.
func (s *survey) unfinished() bool {
	return slices.ContainsFunc(s.ports, func(p *port) bool {
		return p.free > 0 && !p.Draining && (p.Device == "" || s.Targets.Family == Dual && !p.IPv6Prefix.IsValid())
	})
}

// room is how many addresses more the interfaces could have, and those that can still be made.
func (s *survey) room() int {
	if s.Targets.Family == IPv6 {
		if s.behindPrefix() {
			return 0
		}
		return MaxPool
	}
	each := 1
	if s.Targets.byPrefix(s.Limits) {
		each = prefixSize
	}
	slots := max(s.Targets.interfaces(s.Limits)-len(s.Interfaces), 0) * s.Limits.Slots()
	for _, p := range s.ports {
		if p.gives {
			slots += max(p.open, 0)
		}
	}
	return slots * each
}

// limit names what bites, or will be the first to.
func (s *survey) limit(n Next) (limit, mend string) {
	pods := s.held + s.elsewhere
	if s.Targets.Family == IPv6 {
		return fmt.Sprintf("max pods %d", s.Node.MaxPods), "raise kubelet's maxPods"
	}
	if s.Memory.Retry.After(s.Now) {
		return "the cloud's API: " + string(s.Memory.Failure), s.Memory.Failure.mend()
	}
	for _, r := range s.Memory.Refusals {
		if r.Until.After(s.Now) {
			return s.told(map[bool]string{true: "subnet " + r.Place, false: r.Place}[r.Failure != Limit], r), r.Failure.mend()
		}
	}
	all := s.free + s.coming + s.cooling + n.Room // that pods to come could have
	for _, x := range s.Subnets {
		if x.Free >= 0 && x.Free < n.Room && s.free+s.coming+x.Free < s.Node.MaxPods-pods {
			return fmt.Sprintf("subnet %s has %s", x.ID, count(x.Free, "free address", "free addresses")), SubnetFull.mend()
		}
	}
	if left := s.Node.MaxPods - pods; s.Node.MaxPods > 0 && left <= all {
		return fmt.Sprintf("max pods %d, of which %d have addresses", s.Node.MaxPods, pods), "raise kubelet's maxPods, or add a node"
	}
	unit := "addresses"
	if s.Targets.byPrefix(s.Limits) {
		unit = "prefixes of 16 addresses"
	}
	limit = fmt.Sprintf("%s: %d interfaces with %d %s each", s.Limits.Type, s.Targets.interfaces(s.Limits), s.Limits.Slots(), unit)
	if s.Targets.CustomNetworking {
		limit += ", the primary's left out"
	}
	mend = "a larger instance type, another node"
	if s.Limits.Prefixes && !s.Targets.Prefixes {
		mend += ", or ENABLE_PREFIX_DELEGATION=true"
	}
	return limit, mend
}

// mend is what to do about a failure.
func (f Failure) mend() string {
	switch f {
	case SubnetFull:
		return "a larger subnet, a second CIDR by custom networking, or fewer addresses kept warm (WARM_IP_TARGET)"
	case Fragmented:
		return "reserve room for prefixes: aws ec2 create-subnet-cidr-reservation --reservation-type prefix"
	case Denied:
		return "let the node's role do ec2:AssignPrivateIpAddresses and the others of AmazonEKS_CNI_Policy"
	case Limit:
		return "ask for a higher quota, or give back interfaces that nobody uses"
	case Throttled:
		return "wait; fewer calls are made with WARM_ENI_TARGET or prefixes than with WARM_IP_TARGET"
	case Away:
		return "see whether the node reaches the EC2 API"
	}
	return "see the log of zonewise-cni on this node"
}

// String is the limit and the mend.
func (n Next) String() string {
	if n.Waits == "" {
		return fmt.Sprintf("next limit: %s; mend: %s", n.Limit, n.Mend)
	}
	return fmt.Sprintf("the next pod waits for %s; limit: %s; mend: %s", n.Waits, n.Limit, n.Mend)
}

// String is the Action as a sentence without its verb's subject.
func (a Action) String() string {
	what := "addresses"
	if a.OfPrefixes {
		what = "prefixes"
	}
	switch a.Verb {
	case None:
		return "nothing"
	case CreateInterface:
		return fmt.Sprintf("CreateInterface eth%d in %s with %d %s", a.Index, a.Subnet, a.Count, what)
	case UnassignAddresses:
		return fmt.Sprintf("UnassignAddresses %s: %s", a.Interface, join(a.Addresses))
	case UnassignPrefixes:
		return fmt.Sprintf("UnassignPrefixes %s: %s", a.Interface, join(a.Prefixes))
	case DeleteInterface:
		return "DeleteInterface " + a.Interface
	}
	return fmt.Sprintf("%s %s: %d", a.Verb, a.Interface, a.Count)
}

func join[T fmt.Stringer](all []T) string {
	parts := make([]string, len(all))
	for i, x := range all {
		parts[i] = x.String()
	}
	return strings.Join(parts, " ")
}

// String is the Decision as people read it, and as golden files hold it.
func (d Decision) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "do: %s\n", d.Action)
	fmt.Fprintf(&b, "because: %s\n", d.Reason)
	fmt.Fprintf(&b, "%s\n", d.Next)
	for _, w := range d.Warnings {
		fmt.Fprintf(&b, "warning: %s\n", w)
	}
	return b.String()
}
