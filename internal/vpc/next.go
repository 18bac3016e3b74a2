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
	// A call that is made once more is not on its way, as long as the one before has failed.
	failing := n.Grows && s.Memory.Failures > 0 && (s.retry().After(s.Now) || d.Action.Verb != None)
	if n.Limit, n.Mend = s.limit(n); failing {
		n.Limit, n.Mend = s.Memory.failing(), s.Memory.mend()
	}
	if n.Free > 0 {
		return n
	}
	switch {
	case s.coming > 0:
		n.Waits, n.Coming = "an interface that is being attached", true
	case d.Action.Verb != None && !failing:
		n.Waits, n.Coming = "the cloud: "+d.Action.String(), true
	case failing || n.Grows && s.shortage(0) > 0:
		n.Waits = "the cloud, which is asked again and again"
	case n.Grows:
		n.Waits, n.Coming = "the cloud, which is asked when the pod is there", true
	case s.cooling > 0:
		n.Coming = true
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
	for _, r := range s.Memory.Refusals {
		if r.Until.After(s.Now) && r.bars() {
			return s.refused(r), r.Failure.mend()
		}
	}
	all := s.free + s.coming + s.cooling + n.Room // that pods to come could have
	for _, x := range s.Subnets {
		if x.Free >= 0 && x.Free < n.Room && s.free+s.coming+x.Free < s.Node.MaxPods-pods {
			return s.subnet(x.ID), SubnetFull.mend()
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
	if n := s.foreign(); n > 0 {
		limit += fmt.Sprintf(", %d of them somebody else's", n)
	}
	mend = "a larger instance type, another node"
	if s.Limits.Prefixes && !s.Targets.Prefixes {
		mend += ", or ENABLE_PREFIX_DELEGATION=true"
	}
	return limit, mend
}

// failing says how the API failed last.
func (m Memory) failing() string {
	text := "the cloud's API: " + string(m.Failure)
	if m.Call != "" {
		text += " (" + m.Call + ")"
	}
	return text
}

func (m Memory) mend() string {
	if m.Failure == Denied && m.Call != "" {
		return "let the role of zonewise-cni do ec2:" + m.Call + ", as the policy AmazonEKS_CNI_Policy does"
	}
	return m.Failure.mend()
}

// refused says which place has nothing to give. When it is asked again is told elsewhere: what is told to
// pods must not change each second.
func (s *survey) refused(r Refusal) string {
	switch {
	case r.Failure == Fragmented:
		return s.subnet(r.Place) + ", and no block of 16"
	case r.Failure == SubnetFull && s.hasRoom(r.Place, r):
		return s.subnet(r.Place)
	case r.Failure == SubnetFull:
		return s.subnet(r.Place) + " and gave none when it was asked for " + fmt.Sprint(r.Count)
	case r.Place == nowhere:
		return "the cloud attaches no interface more to the instance"
	}
	return "the cloud gives no address more to interface " + r.Place
}

// subnet names a subnet so that people find it.
func (s *survey) subnet(id string) string {
	text := "subnet " + id
	i := slices.IndexFunc(s.Subnets, func(x Subnet) bool { return x.ID == id })
	if i >= 0 && s.Node.Zone != "" {
		text += fmt.Sprintf(" (%s in %s)", s.Subnets[i].CIDR, s.Node.Zone)
	}
	if i < 0 || s.Subnets[i].Free < 0 {
		return text + " has few free addresses"
	}
	text += " has " + count(s.Subnets[i].Free, "free address", "free addresses")
	open := slices.ContainsFunc(s.ports, func(p *port) bool { return p.gives && p.open > 0 })
	if s.Subnets[i].Free == 1 && !open {
		text += ", which the next interface would need for itself"
	}
	return text
}

// mend is what to do about a failure.
func (f Failure) mend() string {
	switch f {
	case SubnetFull:
		return "give pods another subnet (tag one of the zone with kubernetes.io/role/cni=1, or custom networking), or keep fewer addresses warm (WARM_IP_TARGET)"
	case Fragmented:
		return "reserve room for prefixes: aws ec2 create-subnet-cidr-reservation --reservation-type prefix"
	case Credentials:
		return "give zonewise-cni credentials that hold: by the node's role, a role of its service account, or the Secret cni.credentialsSecret"
	case Denied:
		return "let the role of zonewise-cni do what the policy AmazonEKS_CNI_Policy does"
	case Limit:
		return "ask for a higher quota, or give back interfaces that nobody uses"
	case Throttled:
		return "wait; fewer calls are made with WARM_ENI_TARGET or prefixes than with WARM_IP_TARGET"
	case Away:
		return "see whether the node reaches the EC2 API"
	}
	return "see the log of zonewise-cni on this node"
}

// String is the limit and the mend: first of all where somebody has to do something.
func (n Next) String() string {
	switch {
	case n.Waits == "":
		return fmt.Sprintf("next limit: %s; mend: %s", n.Limit, n.Mend)
	case n.Coming:
		return fmt.Sprintf("the next pod waits for %s; next limit: %s; mend: %s", n.Waits, n.Limit, n.Mend)
	}
	return fmt.Sprintf("limit: %s; mend: %s; the next pod waits for %s", n.Limit, n.Mend, n.Waits)
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
	case SetSecurityGroups:
		return fmt.Sprintf("SetSecurityGroups %s: %s", a.Interface, strings.Join(a.SecurityGroups, " "))
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
