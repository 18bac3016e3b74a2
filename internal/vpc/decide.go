package vpc

import (
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// Input is all that Decide looks at.
type Input struct {
	Now        time.Time
	Node       Instance
	Limits     Limits
	Targets    Targets
	Interfaces []Interface // as the cloud says, those too that are still being attached, or are not ours
	Leases     Leases
	Subnets    []Subnet // where a new interface may lie, in the zone of the node; of custom networking, the ENIConfig's
	Memory     Memory
	Cordoned   bool // the node takes no new pods: nothing is kept warm, but who waits gets an address
}

// Subnet is where interfaces may lie.
type Subnet struct {
	ID             string
	CIDR           netip.Prefix
	Free           int       // addresses, as the cloud says; less than 0: not known
	Asked          time.Time // when it said so
	SecurityGroups []string  // of interfaces that are made there; none: those of the primary
}

// Decision is what is to be done next, if anything, and what can be said of the pool.
//
// What the Action takes away is already marked in Interfaces, and no lease holds it. So whoever
// carries a Decision out makes it under the lock of the leases, writes the Supply, and only then
// goes to the cloud. Then Memory.After is told how that went, what the cloud has is looked up again,
// and the next Decision is made.
type Decision struct {
	Action     Action      // one at a time
	Reason     string      // for the Action, or for having none
	Interfaces []Interface // what pods may have addresses from, marked
	Next       Next
	Memory     Memory
	Again      time.Time // decide again at the latest then; zero: when something has changed
	Warnings   []string  // what somebody should look at
}

// Next is what the next pod waits for, if it does, and what ends the pool's growth.
type Next struct {
	Free    int    `json:"free"`            // pods that can start at once
	Waiting int    `json:"waiting"`         // pods that wait for an address now
	Waits   string `json:"waits,omitempty"` // for what; empty: the next pod starts at once
	Coming  bool   `json:"coming"`          // what it waits for comes by itself: nobody need do anything
	Grows   bool   `json:"grows"`           // more can be had from the cloud
	Room    int    `json:"room"`            // so many addresses more, before the limit
	Limit   string `json:"limit"`           // which bites, or is the next
	Mend    string `json:"mend"`
}

// Verb is what can be asked of the cloud.
type Verb string

// The verbs. None is to do nothing.
const (
	None              Verb = ""
	CreateInterface   Verb = "CreateInterface"   // in Subnet with SecurityGroups, at Index, with Count addresses or prefixes; attach it
	AssignAddresses   Verb = "AssignAddresses"   // Count more to Interface
	AssignPrefixes    Verb = "AssignPrefixes"    // Count more to Interface
	AssignIPv6Prefix  Verb = "AssignIPv6Prefix"  // one to Interface
	UnassignAddresses Verb = "UnassignAddresses" // Addresses from Interface
	UnassignPrefixes  Verb = "UnassignPrefixes"  // Prefixes from Interface
	DeleteInterface   Verb = "DeleteInterface"   // detach and delete Interface
	SetSecurityGroups Verb = "SetSecurityGroups" // of Interface to SecurityGroups
)

// Action is one thing that is asked of the cloud.
type Action struct {
	Verb           Verb           `json:"verb"`
	Interface      string         `json:"interface,omitempty"` // its id
	Subnet         string         `json:"subnet,omitempty"`    // the one of Interface, or of the new one
	SecurityGroups []string       `json:"securityGroups,omitempty"`
	Index          int            `json:"index,omitempty"`      // device index
	Count          int            `json:"count,omitempty"`      // how many more
	OfPrefixes     bool           `json:"ofPrefixes,omitempty"` // CreateInterface: Count is of prefixes, not of addresses
	Addresses      []netip.Addr   `json:"addresses,omitempty"`
	Prefixes       []netip.Prefix `json:"prefixes,omitempty"`
}

// Failure is why the cloud did not do what it was asked, in the kinds that make a difference.
type Failure string

// The kinds of failure.
const (
	OK          Failure = ""
	Throttled   Failure = "throttled"           // RequestLimitExceeded and the like
	Limit       Failure = "limit"               // PrivateIpAddressLimitExceeded, AttachmentLimitExceeded, NetworkInterfaceLimitExceeded
	SubnetFull  Failure = "subnet full"         // InsufficientFreeAddressesInSubnet
	Fragmented  Failure = "fragmented"          // InsufficientCidrBlocks: no free block of 16 addresses
	Credentials Failure = "credentials refused" // or there are none
	Denied      Failure = "denied"              // permissions
	Away        Failure = "away"                // no answer, or one of a server that is unwell
	Gone        Failure = "gone"                // what it was about is not there any more
	Invalid     Failure = "not accepted"        // anything else
)

// Decide says what is to be done next to have as many addresses ready as the targets ask, and not
// more. It is upstream's rule, with these differences: an address that cools is not ready; waiting pods
// count; the pool is never larger than the pods that the node may have; what is given back is given back
// only if it would not be asked for again, after a while; and where no /28 is to be had, single
// addresses are.
func Decide(in Input) Decision {
	s := look(in)
	d := Decision{Warnings: s.warnings()}
	d.Action, d.Reason, d.Again = s.act()
	if l, ok := d.Action.leaves(in.Now); ok {
		s.Memory.Leaving = append(s.Memory.Leaving, l)
	}
	d.Next = s.next(d)
	d.Interfaces = s.publish()
	d.Memory = s.Memory
	return d
}

// leaves is what an Action takes away.
func (a Action) leaves(now time.Time) (Leaving, bool) {
	l := Leaving{Interface: a.Interface, Whole: a.Verb == DeleteInterface, Addresses: a.Addresses, Prefixes: a.Prefixes, Since: now}
	return l, l.Whole || len(l.Addresses)+len(l.Prefixes) > 0
}

// act chooses the action, and says when to look again if there is none. A pod that waits goes before security groups;
// these go before what is only kept warm.
func (s *survey) act() (a Action, reason string, again time.Time) {
	a, reason, again = s.fit()
	if s.retry().After(s.Now) || a.Verb != None && s.urgent() > 0 {
		return a, reason, again
	}
	f, later := s.follow()
	if f.Verb != None {
		return f, "an interface that is made now has these", time.Time{}
	}
	if a.Verb == None && !later.IsZero() && (again.IsZero() || later.Before(again)) {
		again = later
	}
	return a, reason, again
}

// fit chooses what makes the pool as large as it is to be.
func (s *survey) fit() (a Action, reason string, again time.Time) {
	if retry := s.retry(); retry.After(s.Now) {
		return Action{}, fmt.Sprintf("%s, %d times; asked again in %s", s.Memory.failing(), s.Memory.Failures,
			retry.Sub(s.Now).Round(time.Second)), retry
	}
	if a, ok := s.prefix(); ok {
		return a, "pods need addresses behind an IPv6 prefix of the interface", time.Time{}
	}
	if s.Targets.Family == IPv6 {
		return Action{}, "one IPv6 prefix is enough for every pod", time.Time{}
	}
	if short := s.shortage(0); short > 0 {
		return s.fillUp(short)
	}
	s.Memory.Short = time.Time{}
	return s.giveBack()
}

func (s *survey) retry() time.Time { return s.Memory.RetryAt(s.waiting > 0) }

// prefix asks for the IPv6 prefix that an interface lacks.
func (s *survey) prefix() (Action, bool) {
	for _, p := range s.ports {
		wants := s.Targets.Family == IPv6 && p.Primary || s.Targets.Family == Dual && !(p.Primary && s.Targets.CustomNetworking)
		if wants && p.Device != "" && !p.Draining && !p.IPv6Prefix.IsValid() {
			return Action{Verb: AssignIPv6Prefix, Interface: p.ID, Subnet: p.SubnetID, Count: 1}, true
		}
	}
	return Action{}, false
}

func (s *survey) fillUp(short int) (a Action, reason string, again time.Time) {
	s.Memory.Calm = time.Time{}
	reason = fmt.Sprintf("%d short of %s: %s", short, s.Targets.text(s.Limits), s.counts())
	urgent := s.urgent() > 0
	if s.Cordoned && !urgent {
		return Action{}, reason + "; the node is cordoned, and nobody waits", time.Time{}
	}
	if s.Memory.Short.IsZero() || s.Memory.Short.After(s.Now) {
		s.Memory.Short = s.Now
	}
	if due := s.Memory.Short.Add(batching); !urgent && due.After(s.Now) && s.free+s.coming-s.waiting > short {
		return Action{}, reason + "; more may be asked for at once", s.by(due)
	}
	a, blocked := s.grow(short)
	if a.Verb == None {
		for _, r := range s.Memory.Refusals {
			s.wake(r.Until)
		}
		return a, reason + "; " + blocked, s.later
	}
	return a, reason, time.Time{}
}

// by is the time, or an earlier one at which something changes by itself.
func (s *survey) by(t time.Time) time.Time {
	s.wake(t)
	return s.later
}

func (s *survey) giveBack() (a Action, reason string, again time.Time) {
	reason = fmt.Sprintf("%s is met: %s", s.Targets.text(s.Limits), s.counts())
	a = s.shrink()
	switch {
	case a.Verb == None || s.Cordoned:
		s.Memory.Calm = time.Time{}
		return Action{}, reason, s.later
	case s.Memory.Calm.IsZero() || s.Memory.Calm.After(s.Now):
		s.Memory.Calm = s.Now
	}
	if due := s.Memory.Calm.Add(patience); due.After(s.Now) {
		return Action{}, reason + "; what is more goes back if it stays so", s.by(due)
	}
	return a, reason + "; nobody has needed more for " + patience.String(), time.Time{}
}

func (s *survey) counts() string {
	text := fmt.Sprintf("%d held, %d cooling, %d free", s.held, s.cooling, s.free)
	if s.coming > 0 {
		text += fmt.Sprintf(", %d coming", s.coming)
	}
	if s.waiting > 0 {
		text += fmt.Sprintf(", %s", count(s.waiting, "pod waits", "pods wait"))
	}
	return text
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprint(n, " ", many)
}

// warnings names what somebody should look at.
func (s *survey) warnings() (w []string) {
	if len(s.lost) > 0 {
		w = append(w, fmt.Sprintf("%s of an interface that the node no longer has, such as %s: restart %s; somebody has deleted it by hand",
			count(len(s.lost), "pod has an address", "pods have addresses"), s.lost[0].Owner, s.lost[0].Owner))
	}
	w = append(w, s.lag()...)
	if s.Targets.Prefixes && !s.Limits.Prefixes {
		w = append(w, fmt.Sprintf("ENABLE_PREFIX_DELEGATION has no effect: instance type %s has no prefixes, only those of the Nitro system do", s.Limits.Type))
	}
	return append(w, s.tooMany()...)
}

// tooMany tells of a kubelet that takes more pods than there can be addresses for: those that are too many wait for ever.
func (s *survey) tooMany() (w []string) {
	l, t, foreign := s.Limits, s.Targets, s.foreign()
	l.Interfaces, t.MaxENI = t.interfaces(l)-foreign, 0
	can := MaxPods(l, t, smallCPUs+1)
	if s.Node.MaxPods <= can {
		return nil
	}
	text := fmt.Sprintf("kubelet takes %d pods, but a %s has addresses for %d", s.Node.MaxPods, l.Type, can)
	switch {
	case foreign > 0:
		text += fmt.Sprintf(" while %s", count(foreign, "interface is somebody else's", "interfaces are somebody else's"))
	case t.CustomNetworking:
		text += " with AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG"
	case s.Targets.MaxENI > 0 && s.Targets.MaxENI < s.Limits.Interfaces:
		text += fmt.Sprintf(" with MAX_ENI=%d", s.Targets.MaxENI)
	}
	text += ": set its maxPods to that"
	if l.Prefixes && !t.Prefixes {
		text += ", or ENABLE_PREFIX_DELEGATION=true"
	}
	return []string{text}
}

// foreign is how many interfaces are not ours; one that we have just given back is not among them.
func (s *survey) foreign() (n int) {
	for _, i := range s.Interfaces {
		leaving := slices.ContainsFunc(s.Memory.Leaving, func(l Leaving) bool { return l.Whole && l.Interface == i.ID })
		if i.Unmanaged && !leaving {
			n++
		}
	}
	return n
}
