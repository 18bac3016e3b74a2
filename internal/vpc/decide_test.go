package vpc

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zonewise/zonewise/internal/golden"
)

func with(change func(*Targets)) Targets {
	t := DefaultTargets()
	change(&t)
	return t
}

func byIP(warm, minimum int) Targets {
	return with(func(t *Targets) { t.WarmIP, t.MinimumIP = warm, minimum })
}

func byPrefix(warmPrefix, warm, minimum int) Targets {
	return with(func(t *Targets) { t.Prefixes, t.WarmPrefix, t.WarmIP, t.MinimumIP = true, warmPrefix, warm, minimum })
}

// How many interfaces and addresses so many pods make: what upstream documents, where upstream's code
// does what is documented, and what its code does elsewhere.
func TestShapes(t *testing.T) {
	custom := with(func(t *Targets) { t.CustomNetworking = true })
	for _, c := range []struct {
		instance string
		targets  Targets
		maxPods  int // 0: by the formula
		pods     int
		want     string
	}{
		{"t3.medium", DefaultTargets(), 0, 0, "1/5"},
		{"t3.medium", DefaultTargets(), 0, 1, "2/10"},
		{"t3.medium", DefaultTargets(), 0, 5, "2/10"},
		{"t3.medium", DefaultTargets(), 0, 6, "3/15"},
		{"t3.medium", DefaultTargets(), 0, 15, "3/15"},
		{"t3.small", DefaultTargets(), 0, 0, "1/3"},
		{"t3.small", DefaultTargets(), 0, 5, "3/9"},
		{"t3.small", DefaultTargets(), 0, 9, "3/9"},
		{"t3.small", byIP(1, 1), 0, 0, "1/1"},
		{"t3.small", byIP(1, 1), 0, 5, "2/6"},
		{"t3.small", byIP(1, 1), 0, 9, "3/9"},
		{"t3.small", byIP(2, 5), 0, 0, "2/5"},
		{"t3.small", byIP(2, 5), 0, 5, "3/7"},
		{"t3.small", byIP(2, 5), 0, 9, "3/9"},
		{"p3dn.24xlarge", DefaultTargets(), 0, 0, "1/49"},
		{"p3dn.24xlarge", DefaultTargets(), 0, 3, "2/98"},
		{"p3dn.24xlarge", DefaultTargets(), 0, 95, "3/147"},
		{"p3dn.24xlarge", byIP(5, 10), 0, 0, "1/10"},
		{"p3dn.24xlarge", byIP(5, 10), 0, 7, "1/12"},
		{"p3dn.24xlarge", byIP(5, 10), 0, 15, "1/20"},
		{"p3dn.24xlarge", byIP(5, 10), 0, 45, "2/50"},
		// Prefixes. Of p3dn's documented rows, the interfaces are not what the code makes.
		{"t3.small", byPrefix(1, 0, 0), 0, 0, "1/1"},
		{"t3.small", byPrefix(1, 0, 0), 0, 5, "1/2"},
		{"t3.small", byPrefix(1, 0, 0), 0, 16, "1/2"},
		{"t3.small", byPrefix(1, 0, 0), 0, 17, "1/3"},
		{"t3.small", byPrefix(1, 0, 0), 0, 58, "2/5"},
		{"t3.small", byPrefix(1, 1, 1), 0, 0, "1/1"},
		{"t3.small", byPrefix(1, 1, 1), 0, 5, "1/1"},
		{"t3.small", byPrefix(1, 1, 1), 0, 17, "1/2"},
		{"t3.small", byPrefix(1, 1, 1), 0, 58, "2/4"},
		{"t3.small", byPrefix(1, 7, 20), 0, 0, "1/2"},
		{"t3.small", byPrefix(1, 7, 20), 0, 5, "1/2"},
		{"t3.small", byPrefix(1, 7, 20), 0, 17, "1/2"},
		{"t3.small", byPrefix(1, 7, 20), 0, 58, "2/5"},
		{"p3dn.24xlarge", byPrefix(1, 0, 0), 0, 0, "1/1"},
		{"p3dn.24xlarge", byPrefix(1, 0, 0), 0, 3, "1/2"},
		{"p3dn.24xlarge", byPrefix(1, 0, 0), 0, 95, "1/7"},
		{"p3dn.24xlarge", byPrefix(1, 5, 10), 0, 7, "1/1"},
		{"p3dn.24xlarge", byPrefix(1, 5, 10), 0, 15, "1/2"},
		{"p3dn.24xlarge", byPrefix(1, 5, 10), 0, 45, "1/4"},
		// The primary gives nothing.
		{"t3.medium", custom, 0, 0, "2/5"},
		{"t3.medium", custom, 0, 1, "3/10"},
		{"t3.medium", custom, 0, 10, "3/10"},
		// Better than upstream: the pods that the node may have are the most that it needs.
		{"m5.large", DefaultTargets(), 12, 0, "1/9"},
		{"m5.large", DefaultTargets(), 12, 4, "2/12"},
		{"m5.large", DefaultTargets(), 12, 12, "2/12"},
		{"t3.medium", byPrefix(3, 0, 0), 20, 0, "1/2"},
		// And a target of nothing is nothing, until a pod waits.
		{"t3.medium", byIP(0, 4), 0, 0, "1/4"},
		{"t3.medium", byIP(0, 4), 0, 4, "1/4"},
		{"t3.medium", byIP(0, 4), 0, 5, "1/5"},
		{"t3.medium", with(func(t *Targets) { t.WarmENI = 0 }), 0, 0, "1/5"},
		{"t3.medium", with(func(t *Targets) { t.WarmENI = 0 }), 0, 4, "1/5"},
		{"t3.medium", with(func(t *Targets) { t.WarmENI = 0 }), 0, 5, "2/10"},
		{"t3.medium", with(func(t *Targets) { t.WarmENI = 2 }), 0, 1, "3/15"},
		{"t3.medium", with(func(t *Targets) { t.MaxENI = 2 }), 0, 6, "2/10"},
	} {
		t.Run(fmt.Sprintf("%s %s max %d: %d pods", c.instance, c.targets.text(Limits{Prefixes: true}), c.maxPods, c.pods), func(t *testing.T) {
			n := newNode(t, c.instance, c.targets)
			if c.maxPods > 0 {
				n.in.Node.MaxPods = c.maxPods
			}
			if c.pods > n.in.Node.MaxPods {
				n.in.Node.MaxPods = 110 // the row is of a node of more CPUs
			}
			n.settle()
			idle := n.shape()
			n.start(c.pods)
			n.settle()
			if got := n.shape(); got != c.want || len(n.leases.Waiting) > 0 {
				t.Errorf("%s with %d waiting, want %s\n%s", got, len(n.leases.Waiting), c.want, n.last)
			}
			if calls := n.settle(); calls > 0 {
				t.Errorf("%d calls though nothing has changed: %v", calls, n.cloud.Calls)
			}
			n.stopAll()
			n.settle()
			if got := n.shape(); got != idle {
				t.Errorf("%s when the pods have gone, %s before they came\n%s", got, idle, n.last)
			}
		})
	}
}

// One call does as much as one call can.
func TestFewCalls(t *testing.T) {
	n := newNode(t, "t3.medium", DefaultTargets())
	n.start(15)
	if calls := n.settle(); calls != 3 {
		t.Errorf("%d calls for 15 pods: %v", calls, n.cloud.Calls)
	}
	n = newNode(t, "p3dn.24xlarge", byIP(5, 0))
	n.settle()
	n.start(30)
	if calls := n.settle(); calls != 1 {
		t.Errorf("%d calls for a pool of 5 and then 30 pods: %v", calls, n.cloud.Calls)
	}
	// A few pods one after the other are not worth a call each, as long as there is enough for more.
	n = newNode(t, "p3dn.24xlarge", byIP(10, 0))
	n.settle()
	before := len(n.cloud.Calls)
	for range 4 {
		n.start(1)
		n.decide()
		n.now = n.now.Add(time.Second)
	}
	if n.settle(); len(n.cloud.Calls) != before+1 || n.shape() != "1/14" {
		t.Errorf("%s by %v", n.shape(), n.cloud.Calls[before:])
	}
}

// Pods that come and go faster than the pool is patient change nothing at the cloud.
func TestNoFlapping(t *testing.T) {
	for _, targets := range []Targets{DefaultTargets(), byIP(2, 0), byPrefix(1, 0, 0)} {
		n := newNode(t, "t3.medium", targets)
		n.start(5)
		n.settle()
		job := func() {
			n.start(1)
			for range 40 {
				n.decide()
				n.now = n.now.Add(time.Second)
			}
			n.stop(len(n.pods) - 1)
			for range 20 {
				n.decide()
				n.now = n.now.Add(time.Second)
			}
		}
		for range 3 {
			job() // the pool finds its size
		}
		before := len(n.cloud.Calls)
		for range 10 {
			job()
		}
		if len(n.cloud.Calls) != before {
			t.Errorf("%s: a job every minute makes calls: %v", targets.text(n.in.Limits), n.cloud.Calls[before:])
		}
	}
}

// A pod never waits for an address that cools while another can be had, and otherwise waits until
// one has rested.
func TestCooling(t *testing.T) {
	n := newNode(t, "t3.medium", byIP(1, 0))
	n.start(4)
	n.settle()
	n.start(1)
	n.settle()
	for range 5 {
		n.stop(0)
	}
	n.start(2) // one is free, five cool
	if len(n.leases.Waiting) != 1 {
		t.Fatalf("waiting: %v", n.leases.Waiting)
	}
	if d := n.decide(); d.Action.Verb != AssignAddresses || len(n.leases.Waiting) != 0 {
		t.Errorf("%s, waiting: %v", d, n.leases.Waiting)
	}
	// When the node has all that it can have, waiting is all that is left.
	n = newNode(t, "t3.medium", DefaultTargets())
	n.start(15)
	n.settle()
	n.now = n.now.Add(time.Hour)
	n.stop(3)
	n.now = n.now.Add(10 * time.Second)
	n.stop(7)
	n.now = n.now.Add(time.Second)
	n.decide()
	_, _, err := Assign(n.supply.Pool(), n.leases, key(99), Owner{}, n.now)
	var waiting *Waiting
	if !asWaiting(err, &waiting) || waiting.Until.Sub(n.now) != 19*time.Second {
		t.Fatalf("%v", err)
	}
	if want := "no free address yet: the next pod waits for one of 2 addresses that cool, for 30s at most; " +
		"next limit: t3.medium: 3 interfaces with 5 addresses each; mend: a larger instance type, another node, or ENABLE_PREFIX_DELEGATION=true"; err.Error() != want {
		t.Errorf("got  %s\nwant %s", err, want)
	}
	n.now = waiting.Until
	if n.start(1); len(n.leases.Waiting) != 0 {
		t.Error("an address that has rested is not given")
	}
}

func asWaiting(err error, w **Waiting) bool {
	var ok bool
	*w, ok = err.(*Waiting)
	return ok
}

// Pods gather, so that what they leave can be given back.
func TestPodsGather(t *testing.T) {
	n := newNode(t, "t3.medium", DefaultTargets())
	n.start(15)
	n.settle()
	for _, i := range []int{12, 8, 6, 4, 2, 1} { // of all three interfaces
		n.stop(i)
	}
	n.now = n.now.Add(time.Minute)
	n.decide()
	n.start(4)
	held := map[string]int{}
	for _, h := range n.leases.Held {
		i, _ := n.supply.Find(h.Address)
		held[i.Device]++
	}
	if fmt.Sprint(held) != "map[eth0:5 eth1:3 eth2:5]" {
		t.Errorf("the primary is to be full, and then the fullest: %v", held)
	}
}

func TestPodsGatherInPrefixes(t *testing.T) {
	n := newNode(t, "t3.medium", byPrefix(1, 0, 0))
	n.start(48)
	n.settle()
	for range 12 {
		n.stop(0)
	}
	for range 4 {
		n.stop(4)
	}
	n.now = n.now.Add(time.Minute)
	n.decide()
	n.start(6)
	held := map[netip.Prefix]int{}
	for _, h := range n.leases.Held {
		held[prefixOf(h.Address)]++
	}
	if fmt.Sprint(held) != "map[10.0.0.16/28:6 10.0.0.32/28:16 10.0.0.48/28:16]" {
		t.Errorf("the fullest prefix is to be filled first: %v", held)
	}
}

func TestRefusals(t *testing.T) {
	calls := func(n *node) int { return len(n.cloud.Calls) }
	t.Run("subnet full", func(t *testing.T) {
		n := newNode(t, "t3.medium", DefaultTargets(), "10.0.0.0/28") // 16, of which 5 are the cloud's and one the node's
		n.in.Subnets = nil
		n.settle()
		n.start(7)
		full := n.now
		n.decide()
		for n.now.Sub(full) < refused-time.Second {
			n.decide()
			n.now = n.now.Add(time.Second)
		}
		// The cloud says how many there are, so nobody asks for more.
		if n.shape() != "2/9" || len(n.leases.Waiting) > 0 {
			t.Errorf("%s, %d wait\n%s\n%v", n.shape(), len(n.leases.Waiting), n.last, n.cloud.Calls)
		}
	})
	t.Run("subnet full, unknown", func(t *testing.T) {
		n := newNode(t, "t3.medium", DefaultTargets(), "10.0.0.0/28")
		n.cloud.Take(plus(netip.MustParseAddr("10.0.0.0"), 10), plus(netip.MustParseAddr("10.0.0.0"), 11))
		n.blind = true
		n.decide() // five for the primary
		n.start(7)
		n.decide() // an interface with five
		if d := n.decide(); d.Action.String() != "CreateInterface eth1 in subnet-1 with 2 addresses" || len(n.leases.Waiting) != 0 {
			t.Errorf("%s, waiting %v", d, n.leases.Waiting)
		}
		n.decide()
		before := calls(n)
		n.start(1)
		n.decide()
		for range 100 {
			n.decide()
			n.now = n.now.Add(time.Second)
		}
		if calls(n) != before+1 {
			t.Errorf("calls of a full subnet: %v", n.cloud.Calls[before:])
		}
		if text := n.last.Next.String(); !strings.Contains(text, "limit: subnet subnet-1 (10.0.0.0/28 in a) has few free addresses and gave none when it was asked for 1; mend: ") || !strings.Contains(text, "give pods another subnet") {
			t.Error(text)
		}
	})
	t.Run("fragmented", func(t *testing.T) {
		n := newNode(t, "t3.medium", byPrefix(1, 0, 0), "10.0.0.0/24")
		var every []netip.Addr
		for i := range uint32(16) {
			every = append(every, plus(netip.MustParseAddr("10.0.0.7"), 16*i))
		}
		n.cloud.Take(every...)
		n.decide()
		n.decide()
		if n.shape() != "1/5" {
			t.Errorf("single addresses where there is no block: %s\n%s\n%v", n.shape(), n.last, n.cloud.Calls)
		}
		n.start(7)
		n.decide()
		if len(n.leases.Waiting) != 0 || n.shape() != "2/10" {
			t.Errorf("%d wait, %s\n%s", len(n.leases.Waiting), n.shape(), n.last)
		}
		if text := n.last.Next.String(); !strings.Contains(text, "subnet subnet-1 (10.0.0.0/24 in a) has 2") || !strings.Contains(text, " free addresses, and no block of 16; mend: ") || !strings.Contains(text, "create-subnet-cidr-reservation") {
			t.Error(text)
		}
		for range 300 {
			n.decide()
			n.now = n.now.Add(time.Second)
		}
		if n := calls(n); n > 8 {
			t.Errorf("%d calls in five minutes", n)
		}
		n.cloud.Give(every...)
		n.now = n.now.Add(time.Hour)
		n.settle()
		n.stopAll()
		n.settle()
		if n.shape() != "2/1" { // on the second interface, since the first was full
			t.Errorf("merged: %s\n%s", n.shape(), n.last)
		}
	})
	t.Run("slots full of single addresses", func(t *testing.T) {
		n := newNode(t, "t3.medium", byPrefix(1, 0, 0))
		n.in.Targets.MaxENI = 1
		broken := true
		n.cloud.Fail = func(a Action) Failure {
			if broken && a.Verb == AssignPrefixes {
				return Fragmented
			}
			return OK
		}
		n.decide()
		n.decide()
		n.start(2)
		broken = false
		n.settle()
		if got := n.cloud.Interfaces()[0]; len(got.Prefixes) != 1 || len(got.Addresses) != 2 {
			t.Errorf("%v %v", got.Prefixes, got.Addresses)
		}
	})
}

// A subnet that was full is asked again as soon as the cloud says that it has addresses, if pods wait.
func TestRoomComes(t *testing.T) {
	n := newNode(t, "t3.medium", DefaultTargets(), "10.0.0.0/28")
	others := []netip.Addr{netip.MustParseAddr("10.0.0.13"), netip.MustParseAddr("10.0.0.14")}
	n.decide()
	n.cloud.Take(others...)
	n.start(5)
	n.settle()
	n.start(2)
	n.asked, n.free = n.now, map[string]int{"subnet-1": 3} // which is not so any more
	n.cloud.Fail = func(a Action) Failure { return SubnetFull }
	n.start(1)
	n.decide()
	n.decide()
	if len(n.leases.Waiting) != 1 || len(n.supply.Memory.Refusals) != 1 {
		t.Fatalf("%s", n.last)
	}
	before := len(n.cloud.Calls)
	n.decide()
	if n.decide(); len(n.cloud.Calls) != before {
		t.Errorf("asked again, though the cloud has said nothing since: %v", n.cloud.Calls[before:])
	}
	n.now = n.now.Add(10 * time.Second)
	n.asked, n.free = n.now, map[string]int{"subnet-1": 0}
	if n.decide(); len(n.cloud.Calls) != before {
		t.Errorf("asked although there is nothing: %s", n.last)
	}
	const want = "limit: subnet subnet-1 (10.0.0.0/28 in a) has 0 free addresses"
	if text := n.last.Next.String(); !strings.HasPrefix(text, want) {
		t.Error(text)
	}
	n.cloud.Fail = nil
	n.cloud.Give(others...)
	n.now = n.now.Add(10 * time.Second)
	n.asked, n.free = n.now, nil
	n.decide()
	n.decide()
	if len(n.leases.Waiting) != 0 {
		t.Errorf("there is room again, and it waits: %s\n%+v", n.last, n.supply.Memory)
	}
}

// The last address of a subnet is one for a pod as long as an interface has room for it.
func TestLastAddressOfSubnet(t *testing.T) {
	for _, c := range []struct {
		targets Targets
		taken   int // by others
		pods    int
		want    string
	}{
		{DefaultTargets(), 4, 6, "limit: subnet subnet-1 (10.0.0.0/28 in a) has 1 free address, which the next interface would need for itself; "},
		{byIP(1, 0), 8, 0, "next limit: subnet subnet-1 (10.0.0.0/28 in a) has 1 free address; "},
	} {
		n := newNode(t, "t3.medium", c.targets, "10.0.0.0/28")
		n.decide()
		for i := range uint32(c.taken) {
			n.cloud.Take(plus(netip.MustParseAddr("10.0.0.14"), -i))
		}
		n.start(c.pods)
		n.decide()
		if text := n.last.Next.String(); !strings.HasPrefix(text, c.want) {
			t.Errorf("got %q, want %q", text, c.want)
		}
	}
}

func TestFailures(t *testing.T) {
	calls := func(n *node) int { return len(n.cloud.Calls) }
	for failure, waits := range map[Failure]time.Duration{Throttled: 15 * time.Second, Denied: 15 * time.Second, Credentials: 15 * time.Second,
		Away: 5 * time.Second, Invalid: time.Minute, Gone: time.Minute} {
		for pods, most := range map[int]time.Duration{0: time.Minute, 1: waits} {
			t.Run(fmt.Sprintf("%s, %d pods", failure, pods), func(t *testing.T) {
				n := newNode(t, "t3.medium", DefaultTargets())
				n.cloud.Fail = func(Action) Failure { return failure }
				n.start(pods)
				for range 600 {
					n.decide()
					n.now = n.now.Add(time.Second)
				}
				least := int(10 * time.Minute / most)
				if c := calls(n); c < least || c > least+10 {
					t.Errorf("%d calls in ten minutes", c)
				}
				if text := n.last.Next.String(); !strings.Contains(text, "limit: the cloud's API: "+string(failure)) {
					t.Error(text)
				}
				n.cloud.Fail = nil
				back := n.now
				for n.decide().Action.Verb == None {
					n.now = n.now.Add(time.Second)
				}
				if late := n.now.Sub(back); late > most {
					t.Errorf("asked again after %s", late)
				}
				n.settle()
				if want := map[int]string{0: "1/5", 1: "2/10"}[pods]; len(n.leases.Waiting) > 0 || n.shape() != want {
					t.Errorf("%s\n%s", n.shape(), n.last)
				}
			})
		}
	}
	t.Run("the permission is named", func(t *testing.T) {
		n := newNode(t, "t3.medium", DefaultTargets())
		n.start(1)
		n.supply.Memory = n.supply.Memory.After(Action{}, Outcome{Failure: Denied, Call: "CreateTags"}, n.now)
		n.decide()
		const want = "limit: the cloud's API: denied (CreateTags); mend: let the role of zonewise-cni do ec2:CreateTags, as the policy AmazonEKS_CNI_Policy does; "
		if text := n.last.Next.String(); !strings.HasPrefix(text, want) {
			t.Error(text)
		}
		n.decide()
		if again := n.last.Next.String(); !strings.HasPrefix(again, want) || n.last.Next.Coming {
			t.Errorf("%+v", n.last.Next)
		}
		n.cloud.Fail = func(Action) Failure { return Denied }
		told := n.supply.Why
		n.now = n.now.Add(time.Minute)
		if n.mark(); n.last.Action.Verb == None || n.supply.Why != told {
			t.Errorf("a call that is made once more is told as if all were well: %s", n.last)
		}
		before := n.supply.Why
		n.now = n.now.Add(500 * time.Millisecond)
		if n.decide(); n.supply.Why != before {
			t.Errorf("what pods are told changes with the time: %q, then %q", before, n.supply.Why)
		}
	})
	t.Run("no interface more", func(t *testing.T) {
		n := newNode(t, "t3.medium", DefaultTargets())
		n.cloud.Fail = func(a Action) Failure {
			if a.Verb == CreateInterface {
				return Limit
			}
			return OK
		}
		n.start(6)
		for range 600 {
			n.decide()
			n.now = n.now.Add(time.Second)
		}
		if c := calls(n); c > 5 {
			t.Errorf("%d calls in ten minutes", c)
		}
		if text := n.last.Next.String(); !strings.Contains(text, "limit: the cloud attaches no interface more to the instance; mend: ") {
			t.Error(text)
		}
	})
}

// What was taken away stays away, whatever the cloud's old answers say, until it is given anew.
func TestEcho(t *testing.T) {
	n := newNode(t, "t3.medium", byIP(1, 0))
	n.start(4)
	n.settle()
	n.stopAll()
	for n.mark().Action.Verb != UnassignAddresses {
		n.now = n.now.Add(time.Second)
	}
	old := n.cloud.Interfaces()
	gone := n.last.Action.Addresses
	n.carryOut(n.last)
	in := n.input()
	in.Interfaces = old
	d := Decide(in)
	if slices.ContainsFunc(gone, d.Interfaces[0].Has) || d.Action.Verb != None {
		t.Errorf("gives %v of %v again: %s", gone, d.Interfaces[0].Addresses, d)
	}
	// The cloud gives one of them anew: it is there at once.
	n.start(2)
	n.decide()
	if len(n.leases.Waiting) != 0 {
		t.Errorf("%s", n.last)
	}
	// Nobody knows whether it was done.
	n = newNode(t, "t3.medium", byIP(1, 0))
	n.start(4)
	n.settle()
	n.stopAll()
	n.cloud.Lose = func(a Action) bool { return a.Verb == UnassignAddresses }
	for n.mark().Action.Verb != UnassignAddresses {
		n.now = n.last.Again
	}
	gone, old = n.last.Action.Addresses, n.cloud.Interfaces()
	n.carryOut(n.last)
	in = n.input()
	in.Interfaces = old
	if d := Decide(in); slices.ContainsFunc(gone, d.Interfaces[0].Has) {
		t.Errorf("gives %v of %v, which may be gone: %s", d.Interfaces[0].Addresses, gone, d)
	}
	n.settle()
	if n.shape() != "1/1" {
		t.Errorf("%s\n%s", n.shape(), n.last)
	}
}

// What is being taken away is marked first, under the lock. A pod that comes then gets something else,
// or waits.
func TestTwoSteps(t *testing.T) {
	n := newNode(t, "t3.medium", DefaultTargets())
	n.start(6)
	n.settle()
	n.stopAll()
	for n.mark().Action.Verb != DeleteInterface {
		n.now = n.last.Again
	}
	gone := n.last.Action.Interface
	n.start(12) // ten addresses are left
	for _, h := range n.leases.Held {
		if i, _ := n.supply.Find(h.Address); i.ID == gone {
			t.Errorf("%s is of an interface that is on its way out", h)
		}
	}
	if len(n.leases.Held) != 10 || len(n.leases.Waiting) != 2 {
		t.Errorf("%d have addresses, %d wait", len(n.leases.Held), len(n.leases.Waiting))
	}
	n.carryOut(n.last)
	n.settle()
	if n.shape() != "3/15" || len(n.leases.Waiting) != 0 {
		t.Errorf("%s\n%s", n.shape(), n.last)
	}
}

// An interface stays until what it had has rested, however long that is.
func TestInterfaceWithCoolingAddressStays(t *testing.T) {
	targets := byIP(0, 5)
	targets.Cooldown = 5 * time.Minute
	n := newNode(t, "t3.medium", targets)
	n.start(6)
	n.settle()
	for range 3 {
		n.stop(0)
	}
	n.settle()
	n.stop(2) // the one on the second interface
	for range 120 {
		n.decide()
		n.now = n.now.Add(time.Second)
	}
	if n.shape() != "2/5" {
		t.Errorf("%s: %v", n.shape(), n.cloud.Calls)
	}
}

// That a node is to have few pods is a reason to keep few addresses, but not to let a pod wait that is
// there.
func TestPodsGoBeforeMaxPods(t *testing.T) {
	n := newNode(t, "t3.medium", byIP(1, 0))
	n.in.Node.MaxPods = 2
	n.start(4)
	n.settle()
	if n.shape() != "1/4" || len(n.leases.Waiting) != 0 {
		t.Errorf("%s\n%s", n.shape(), n.last)
	}
}

func TestDeletedByHand(t *testing.T) {
	n := newNode(t, "t3.medium", DefaultTargets())
	n.start(7)
	n.settle()
	n.cloud.Remove("eni-2")
	n.settle()
	want := "2 pods have addresses of an interface that the node no longer has, such as default/c6: restart default/c6; somebody has deleted it by hand"
	if n.shape() != "2/10" || len(n.last.Warnings) != 1 || n.last.Warnings[0] != want {
		t.Errorf("%s: %q\n%v", n.shape(), n.last.Warnings, n.leases.Held)
	}
}

// A kubelet that takes more pods than there can be addresses for is told of, with the reason.
func TestMorePodsThanAddresses(t *testing.T) {
	for _, c := range []struct {
		targets       Targets
		pods, foreign int
		want          string
	}{
		{DefaultTargets(), 17, 0, ""},
		{DefaultTargets(), 18, 0, "kubelet takes 18 pods, but a t3.medium has addresses for 17: set its maxPods to that, or ENABLE_PREFIX_DELEGATION=true"},
		{DefaultTargets(), 17, 1, "kubelet takes 17 pods, but a t3.medium has addresses for 12 while 1 interface is somebody else's: set"},
		{with(func(t *Targets) { t.MaxENI = 2 }), 17, 0, "kubelet takes 17 pods, but a t3.medium has addresses for 12 with MAX_ENI=2: set"},
		{with(func(t *Targets) { t.CustomNetworking = true }), 17, 0, "kubelet takes 17 pods, but a t3.medium has addresses for 12 with AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG: set"},
		{byPrefix(1, 0, 0), 110, 0, ""},
		{byPrefix(1, 0, 0), 243, 0, "kubelet takes 243 pods, but a t3.medium has addresses for 242: set"},
	} {
		n := newNode(t, "t3.medium", c.targets)
		in := n.input()
		in.Node.MaxPods = c.pods
		for range c.foreign {
			in.Interfaces = append(in.Interfaces, Interface{ID: "eni-x", Index: 2, Unmanaged: true})
		}
		d := Decide(in)
		if got := strings.Join(d.Warnings, "; "); !strings.HasPrefix(got, c.want) || c.want == "" && got != "" {
			t.Errorf("%d pods: %q, want %q", c.pods, got, c.want)
		}
		if c.foreign > 0 && !strings.HasSuffix(d.Next.Limit, ", 1 of them somebody else's") {
			t.Error(d.Next)
		}
		in.Memory.Leaving = []Leaving{{Interface: "eni-x", Whole: true, Since: in.Now}} // our own, on its way out
		if got := Decide(in).Warnings; c.foreign > 0 && len(got) > 0 {
			t.Errorf("of an interface that is being detached: %q", got)
		}
	}
}

func TestCordoned(t *testing.T) {
	n := newNode(t, "t3.medium", DefaultTargets())
	n.start(4)
	n.settle()
	n.in.Cordoned = true
	n.start(4)
	if calls := n.settle(); calls != 0 {
		t.Errorf("kept warm: %v", n.cloud.Calls)
	}
	n.start(3)
	n.settle()
	if len(n.leases.Waiting) != 0 {
		t.Errorf("who waits gets nothing: %s", n.last)
	}
	n.stopAll()
	if calls := n.settle(); calls != 0 {
		t.Errorf("given back: %v", n.cloud.Calls)
	}
}

func TestIPv6(t *testing.T) {
	n := newNode(t, "t3.medium", with(func(t *Targets) { t.Family = IPv6 }))
	n.start(20)
	if calls := n.settle(); calls != 1 || len(n.leases.Waiting) != 0 || n.shape() != "1/0" {
		t.Fatalf("%d calls, %s, %s", calls, n.shape(), n.last)
	}
	if a := n.leases.Held[0].Address; a.String() != "fd00:0:0:1::1" {
		t.Error(a)
	}
	n.stop(0)
	n.start(1)
	if a := n.leases.Held[19].Address; a.String() != "fd00:0:0:1::15" {
		t.Errorf("%s, though the first one cools", a)
	}
	if n.decide(); n.last.Next.Free != 90 {
		t.Errorf("%+v", n.last.Next)
	}

	n = newNode(t, "t3.medium", with(func(t *Targets) { t.Family = Dual }))
	n.start(7)
	if calls := n.settle(); calls != 6 || n.shape() != "3/15" || len(n.leases.Waiting) > 0 {
		t.Fatalf("%d calls, %s, %s", calls, n.shape(), n.last)
	}
	for _, h := range n.leases.Held {
		if i, _ := n.supply.Find(h.Address); !i.IPv6Prefix.Contains(h.IPv6) {
			t.Errorf("%s of %s", h, i.IPv6Prefix)
		}
	}
}

// An interface takes its time to appear. What it brings is counted on, and nothing is asked twice.
func TestAttaching(t *testing.T) {
	n := newNode(t, "t3.medium", DefaultTargets())
	n.cloud.Attach = 10 * time.Second
	n.settle()
	n.start(6)
	for range 10 {
		n.decide()
		n.now = n.now.Add(time.Second)
	}
	if len(n.cloud.Calls) != 3 || len(n.leases.Waiting) != 1 || !strings.Contains(n.last.Next.Waits, "being attached") {
		t.Errorf("six pods make three interfaces: %v\n%s", n.cloud.Calls, n.last)
	}
	n.start(9)
	if n.exhausted > 0 {
		t.Error("a pod is sent away though an interface is on its way")
	}
	if n.settle(); len(n.leases.Waiting) != 0 {
		t.Errorf("%v\n%s", n.leases.Waiting, n.last)
	}
}

func TestDecisionsPrint(t *testing.T) {
	var b strings.Builder
	say := func(what string, n *node) { fmt.Fprintf(&b, "# %s\n%s\n", what, n.last) }
	n := newNode(t, "t3.medium", DefaultTargets())
	n.decide()
	say("a new node", n)
	n.settle()
	say("and at rest", n)
	n.start(6)
	n.decide()
	say("six pods", n)
	n.settle()
	n.start(9)
	n.settle()
	say("full", n)
	n.start(1)
	n.settle()
	say("one more than that", n)
	n.stopAll()
	n.decide()
	say("all have gone", n)
	n.now = n.now.Add(31 * time.Second)
	n.decide()
	say("and cooled", n)
	n.now = n.last.Again
	n.decide()
	say("for a minute", n)
	n = newNode(t, "t3.medium", byPrefix(1, 0, 0))
	n.start(20)
	n.decide()
	say("prefixes", n)
	n = newNode(t, "m4.large", byPrefix(1, 0, 0))
	n.in.Node.MaxPods = 110
	n.decide()
	say("prefixes where there are none, and too many pods", n)
	golden.Check(t, "decisions.txt", b.String())
}
