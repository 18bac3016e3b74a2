package vpc

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// groupsAt are the security groups of the interfaces, in their order.
func (n *node) groupsAt() string {
	var out []string
	for _, i := range n.cloud.Interfaces() {
		out = append(out, strings.Join(i.SecurityGroups, "+"))
	}
	return strings.Join(out, " ")
}

// Interfaces have the security groups of the primary, also when those change: with one call for each interface that has
// others, and none for what is not ours, or has them in another order.
func TestSecurityGroupsFollowThePrimary(t *testing.T) {
	n := newNode(t, "t3.medium", DefaultTargets())
	n.start(5)
	n.settle()
	n.expectGroups(t, "sg-1 sg-1", 0)
	n.cloud.SetGroups("eni-1", "sg-2", "sg-1")
	n.expectGroups(t, "sg-2+sg-1 sg-1+sg-2", 1)
	n.cloud.SetGroups("eni-2", "sg-2", "sg-1")
	n.expectGroups(t, "sg-2+sg-1 sg-2+sg-1", 0)
	n.cloud.interfaces[1].Unmanaged = true
	n.cloud.SetGroups("eni-2", "sg-3")
	n.settle()
	if got := n.groupsAt(); !strings.HasPrefix(got, "sg-2+sg-1 sg-3") {
		t.Error("what is not ours: ", got)
	}
}

func (n *node) expectGroups(t *testing.T, want string, calls int) {
	t.Helper()
	if got := n.settle(); got != calls || n.groupsAt() != want {
		t.Errorf("%s after %d calls, want %s after %d\n%s", n.groupsAt(), got, want, calls, n.last)
	}
}

// A pod that waits goes before them, and they before what is only kept warm.
func TestSecurityGroupsWaitForPods(t *testing.T) {
	n := newNode(t, "t3.medium", DefaultTargets())
	n.start(1)
	n.settle()
	n.cloud.SetGroups("eni-1", "sg-2")
	n.start(10)
	var verbs []string
	for d := n.decide(); d.Action.Verb != None; d = n.decide() {
		verbs = append(verbs, string(d.Action.Verb))
	}
	if got := fmt.Sprint(verbs); got != "[CreateInterface SetSecurityGroups]" {
		t.Error(got)
	}
	n.cloud.SetGroups("eni-1", "sg-3")
	n.start(5) // one more than there are addresses for
	if d := n.decide(); d.Action.Verb != SetSecurityGroups {
		t.Errorf("on a full node: %s", d)
	}
}

// In custom networking they are those of the ENIConfig, where it names any; and where its subnet is another one by now,
// nobody knows them.
func TestSecurityGroupsOfConfig(t *testing.T) {
	n := newNode(t, "t3.medium", with(func(t *Targets) { t.CustomNetworking = true }))
	n.settle()
	in := n.input()
	in.Subnets[0].SecurityGroups = []string{"sg-9"}
	if d := Decide(in); d.Action.String() != "SetSecurityGroups eni-2: sg-9" {
		t.Error(d)
	}
	in.Subnets[0].ID = "subnet-other"
	if d := Decide(in); d.Action.Verb != None {
		t.Error(d)
	}
	n.cloud.SetGroups("eni-1", "sg-2")
	n.expectGroups(t, "sg-2 sg-2", 1)
}

// Who may not change them still gets addresses, and is told.
func TestSecurityGroupsRefused(t *testing.T) {
	n := newNode(t, "t3.medium", DefaultTargets())
	n.start(1)
	n.settle()
	n.cloud.Fail = func(a Action) Failure {
		if a.Verb == SetSecurityGroups {
			return Denied
		}
		return OK
	}
	n.cloud.SetGroups("eni-1", "sg-2")
	before := len(n.cloud.Calls)
	for range 600 {
		n.decide()
		n.now = n.now.Add(time.Second)
	}
	if calls := len(n.cloud.Calls) - before; calls < 2 || calls > 4 {
		t.Errorf("%d calls in ten minutes", calls)
	}
	if got := n.last.String(); !strings.Contains(got, "warning: security groups of eni-2 are not those that it is to have: denied; let") ||
		!strings.Contains(got, "ec2:ModifyNetworkInterfaceAttribute") || strings.Contains(n.last.Next.Limit, "security groups") {
		t.Error(got)
	}
	n.start(5)
	n.settle()
	if n.shape() != "3/15" || len(n.leases.Waiting) > 0 {
		t.Errorf("%s\n%s", n.shape(), n.last)
	}
	n.cloud.Fail = nil
	n.settle()
	if got := n.groupsAt(); got != "sg-2 sg-2 sg-2" {
		t.Error(got)
	}
}
