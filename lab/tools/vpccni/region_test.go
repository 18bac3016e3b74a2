package vpccni_test

import (
	"fmt"
	"net/http/httptest"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/aws/amazon-vpc-cni-k8s/pkg/awsutils"
	"github.com/aws/amazon-vpc-cni-k8s/pkg/ipamd/datastore"

	"github.com/zonewise/zonewise/lab/region/ec2"
	"github.com/zonewise/zonewise/lab/region/ec2/wire"
	"github.com/zonewise/zonewise/lab/region/imds"
)

// calls of a life of an interface, as upstream makes them.
var calls = []string{
	"DescribeNetworkInterfaces", "DescribeSubnets", "CreateNetworkInterface", "DescribeInstances", "AttachNetworkInterface",
	"ModifyNetworkInterfaceAttribute", "AssignPrivateIpAddresses", "UnassignPrivateIpAddresses",
	"DescribeNetworkInterfaces", "DescribeNetworkInterfaces", "DetachNetworkInterface", "DeleteNetworkInterface",
}

// Upstream's own code for the cloud, unchanged, on an instance of the lab's region: it finds out where it
// runs, gets an interface with addresses, more of them, fewer, and gives it back; every call is answered
// as it expects, though attachments take time and metadata lag behind.
func TestUpstreamOnTheRegion(t *testing.T) {
	for _, prefixes := range []bool{false, true} {
		t.Run(fmt.Sprint("prefixes=", prefixes), func(t *testing.T) {
			cloud, instance, seen := newRegion(t)
			up, err := awsutils.New(t.Context(), true, false, true, true, false)
			if err != nil {
				t.Fatal(err)
			}
			up.InitCachedPrefixDelegation(prefixes)
			if err := up.RefreshSGIDs(t.Context(), up.GetPrimaryENImac(), &datastore.DataStoreAccess{}); err != nil {
				t.Fatal(err)
			}
			if up.GetInstanceID() != instance || up.GetRegion() != "ap-northeast-2" || up.GetLocalIPv4().String() != "192.168.1.10" {
				t.Errorf("it is on %s in %s with %s", up.GetInstanceID(), up.GetRegion(), up.GetLocalIPv4())
			}
			if ranges, err := up.GetVPCIPv4CIDRs(); err != nil || !slices.Equal(ranges, []string{"192.168.0.0/16"}) {
				t.Errorf("ranges of the VPC: %v, %v", ranges, err)
			}
			if all, err := up.DescribeAllENIs(t.Context()); err != nil || len(all.ENIMetadata) != 1 {
				t.Fatalf("interfaces at first: %v, %v", all.ENIMetadata, err)
			}
			id, err := up.AllocENI(t.Context(), nil, "", 2, 0)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := up.WaitForENIAndIPsAttached(id, 2); err != nil {
				t.Fatal(err)
			}
			more, err := up.AllocIPAddresses(t.Context(), id, 1)
			if err != nil {
				t.Fatal(err)
			}
			has, err := up.WaitForENIAndIPsAttached(id, 3)
			if err != nil {
				t.Fatal(err)
			}
			if n := cloud.Records().Interfaces[id]; len(has.IPv4Addresses) != len(n.Addresses) || len(has.IPv4Prefixes) != len(n.Prefixes) || !n.Attachment.DeleteOnTermination {
				t.Errorf("it sees %d addresses and %d prefixes of %+v", len(has.IPv4Addresses), len(has.IPv4Prefixes), n)
			}
			if prefixes {
				err = up.DeallocPrefixAddresses(t.Context(), id, []string{*more.AssignedIpv4Prefixes[0].Ipv4Prefix})
			} else {
				err = up.DeallocIPAddresses(t.Context(), id, []string{*more.AssignedPrivateIpAddresses[0].PrivateIpAddress})
			}
			if err != nil {
				t.Fatal(err)
			}
			all, err := up.DescribeAllENIs(t.Context())
			if err != nil || len(all.ENIMetadata) != 2 || all.TagMap[id]["node.k8s.amazonaws.com/instance_id"] != instance {
				t.Errorf("interfaces: %v, %v, %v", all.ENIMetadata, all.TagMap, err)
			}
			if err := up.FreeENI(t.Context(), id); err != nil {
				t.Fatal(err)
			}
			if left := len(cloud.Records().Interfaces); left != 1 {
				t.Errorf("%d interfaces are left", left)
			}
			if got := seen(); !slices.Equal(got, calls) {
				t.Errorf("calls: %q", got)
			}
		})
	}
}

// newRegion is a region with one instance, on which this process believes to run. It returns the calls
// that were answered as asked.
func newRegion(t *testing.T) (cloud *ec2.Cloud, instance string, seen func() []string) {
	t.Helper()
	subnet := netip.MustParsePrefix("192.168.1.0/24")
	cloud, err := ec2.Open(ec2.Blueprint{
		Name: "lab", Region: "ap-northeast-2", VPC: netip.MustParsePrefix("192.168.0.0/16"),
		Subnets: []ec2.NewSubnet{{Zone: "ap-northeast-2a", CIDR: subnet}},
	}, ec2.Options{AttachTime: 100 * time.Millisecond, DetachTime: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	i, err := cloud.Launch(ec2.Launch{
		Node: "a1", Type: "t3.medium", Subnet: subnet, Address: netip.MustParseAddr("192.168.1.10"),
		DNSName: "ip-192-168-1-10.ap-northeast-2.compute.internal",
	})
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var answered []string
	api := httptest.NewServer(wire.New(cloud, wire.Options{Called: func(c wire.Call) {
		mu.Lock()
		defer mu.Unlock()
		if c.Code == "" {
			answered = append(answered, c.Action)
		}
	}}))
	t.Cleanup(api.Close)
	metadata := httptest.NewServer(imds.New(cloud, i.ID, 50*time.Millisecond))
	t.Cleanup(metadata.Close)
	for name, value := range map[string]string{
		"AWS_EC2_ENDPOINT": api.URL, "AWS_EC2_METADATA_SERVICE_ENDPOINT": metadata.URL, "AWS_REGION": "ap-northeast-2", "CLUSTER_NAME": "lab",
		"AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null", "AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "",
	} {
		t.Setenv(name, value)
	}
	return cloud, i.ID, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(answered)
	}
}
