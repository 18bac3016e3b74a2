package wire

import (
	"fmt"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zonewise/zonewise/internal/vpc"
	door "github.com/zonewise/zonewise/internal/vpc/ec2"
	"github.com/zonewise/zonewise/lab/region/ec2"
	"github.com/zonewise/zonewise/lab/region/imds"
)

// openDoor opens the product's own door to the cloud on an instance of the region, with nothing but its metadata
// service, which gives it the credentials of its role, and the address of the API.
func openDoor(t *testing.T, s *service, node string) *door.Cloud {
	t.Helper()
	meta := httptest.NewServer(imds.New(s.cloud, s.nodes[node], 0))
	t.Cleanup(meta.Close)
	t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", meta.URL)
	t.Setenv("AWS_CONFIG_FILE", "/nonexistent")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
	c, err := door.Open(t.Context(), door.Options{Endpoint: s.url, Cluster: "lab"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Observe(t.Context()); err != nil {
		t.Fatal(err)
	}
	return c
}

// have is what the records say of an instance, and what the door does; the two must be one.
func have(t *testing.T, s *service, c *door.Cloud) string {
	t.Helper()
	var records, known []string
	for _, n := range s.cloud.Records().Attached(c.Self().ID) {
		records = append(records, fmt.Sprintf("%d: %d addresses, %d prefixes", n.Attachment.Device, len(n.Addresses)-1, len(n.Prefixes)))
	}
	slices.Sort(records)
	observed, err := c.Observe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range observed {
		known = append(known, fmt.Sprintf("%d: %d addresses, %d prefixes", i.Index, len(i.Addresses), len(i.Prefixes)))
	}
	if !slices.Equal(records, known) {
		t.Errorf("the records have %q, the door %q", records, known)
	}
	return strings.Join(known, "; ")
}

// The daemon's door and decisions against the region: what is decided is done, and the documented numbers come out.
func TestDoorAndDecisions(t *testing.T) {
	s := newService(t, ec2.Options{})
	c := openDoor(t, s, "a1")
	limits, err := vpc.LimitsOf(c.Self().Type)
	if err != nil {
		t.Fatal(err)
	}
	subnets, err := c.SubnetsHere(t.Context())
	if err != nil || len(subnets) != 1 || subnets[0].CIDR != subnetA {
		t.Fatalf("subnets: %v, %v", subnets, err)
	}
	if ranges, err := c.Ranges(t.Context()); err != nil || !slices.Contains(ranges, netip.MustParsePrefix("192.168.0.0/16")) {
		t.Errorf("ranges of the VPC: %v, %v", ranges, err)
	}
	in := vpc.Input{Limits: limits, Targets: vpc.DefaultTargets(), Node: vpc.Instance{ID: c.Self().ID, Type: limits.Type, MaxPods: 17},
		Subnets: []vpc.Subnet{{ID: subnets[0].ID, CIDR: subnets[0].CIDR, Free: subnets[0].Free}}}
	now := time.Now()
	converge := func(within time.Duration) {
		t.Helper()
		for range 20 {
			in.Now, in.Interfaces = now, c.Known()
			for n := range in.Interfaces {
				in.Interfaces[n].Device = fmt.Sprint("eth", in.Interfaces[n].Index)
			}
			d := vpc.Decide(in)
			in.Memory = d.Memory
			if d.Action.Verb == vpc.None {
				if d.Again.IsZero() || d.Again.Sub(now) > within {
					return
				}
				now = d.Again
				continue
			}
			outcome, err := c.Do(t.Context(), d.Action)
			if err != nil {
				t.Fatal(err)
			}
			in.Memory = in.Memory.After(d.Action, outcome, now)
		}
		t.Fatal("it does not come to rest")
	}
	for _, step := range []struct {
		pods int
		want string
	}{
		{0, "0: 5 addresses, 0 prefixes"},
		{1, "0: 5 addresses, 0 prefixes; 1: 5 addresses, 0 prefixes"},
		{6, "0: 5 addresses, 0 prefixes; 1: 5 addresses, 0 prefixes; 2: 5 addresses, 0 prefixes"},
	} {
		in.Leases = vpc.Leases{}
		for _, i := range c.Known() {
			for _, a := range i.Addresses {
				if len(in.Leases.Held) < step.pods {
					in.Leases.Held = append(in.Leases.Held, vpc.Lease{Key: vpc.Key{Container: a.String(), Interface: "eth0"}, Address: a, Since: now})
				}
			}
		}
		converge(10 * time.Second)
		if got := have(t, s, c); got != step.want {
			t.Errorf("%d pods: %s, want %s", step.pods, got, step.want)
		}
	}
	// The pods go: what is not needed is given back, and deleted.
	in.Leases = vpc.Leases{}
	now = now.Add(10 * time.Minute)
	converge(5 * time.Minute)
	if busy, err := c.Tidy(t.Context()); busy != 0 || err != nil {
		t.Errorf("%d busy, %v", busy, err)
	}
	if got := have(t, s, c); strings.Count(got, ":") > 2 {
		t.Errorf("without pods: %s", got)
	}
	for _, n := range s.cloud.Records().Interfaces {
		if n.Attachment == nil {
			t.Errorf("%s is attached to nothing", n.ID)
		} else if !n.Attachment.DeleteOnTermination {
			t.Errorf("%s would outlive its instance", n.ID)
		}
	}
}

// What the region refuses is told by its kind.
func TestDoorIsRefused(t *testing.T) {
	s := newService(t, ec2.Options{})
	c := openDoor(t, s, "a1")
	primary := c.Known()[0].ID
	refused := func(a vpc.Action, want vpc.Failure, text string) {
		t.Helper()
		o, err := c.Do(t.Context(), a)
		if o.Failure != want || err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %q, %v; want %q with %q", a, o.Failure, err, want, text)
		}
	}
	six := vpc.Action{Verb: vpc.AssignAddresses, Interface: primary, Count: 6}
	refused(six, vpc.Limit, "PrivateIpAddressLimitExceeded")
	refused(vpc.Action{Verb: vpc.CreateInterface, Subnet: "subnet-00000000000000000", Index: 1}, vpc.Gone, "InvalidSubnetID.NotFound")
	refused(vpc.Action{Verb: vpc.AssignAddresses, Interface: "eni-00000000000000000", Count: 1}, vpc.Gone, "InvalidNetworkInterfaceID.NotFound")
	// Every block of sixteen has an address that is taken: there are free addresses, and no prefix.
	subnet := c.Known()[0].SubnetID
	for k := 16; k < 256; k += 16 {
		a := netip.AddrFrom4([4]byte{192, 168, 1, byte(k)})
		if _, err := s.cloud.CreateInterface(ec2.NewInterface{Subnet: subnet, IPv4: ec2.Ask{Addresses: []netip.Addr{a}}}); err != nil {
			t.Fatal(err)
		}
	}
	refused(vpc.Action{Verb: vpc.AssignPrefixes, Interface: primary, Count: 1}, vpc.Fragmented, "InsufficientCidrBlocks")
	s.server.Set(Faults{Mutate: Rate{PerSecond: 0.001, Burst: 1}})
	one := vpc.Action{Verb: vpc.AssignAddresses, Interface: primary, Count: 1}
	if _, err := c.Do(t.Context(), one); err != nil {
		t.Fatal(err)
	}
	refused(one, vpc.Throttled, "RequestLimitExceeded")
	if got := have(t, s, c); got != "0: 1 addresses, 0 prefixes" {
		t.Errorf("after all that: %s", got)
	}
}
