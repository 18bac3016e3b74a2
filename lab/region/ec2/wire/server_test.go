package wire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	sdk "github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"

	"github.com/zonewise/zonewise/lab/region/ec2"
)

const regionName = "ap-northeast-2"

var (
	subnetA = netip.MustParsePrefix("192.168.1.0/24")
	subnetB = netip.MustParsePrefix("192.168.2.0/24")
)

// service is a region with two instances, its API, and AWS's own client for it.
type service struct {
	*sdk.Client
	server *Server
	cloud  *ec2.Cloud
	url    string
	nodes  map[string]string // instances by node

	mu    sync.Mutex
	calls []Call
}

func newService(t testing.TB, o ec2.Options) *service {
	t.Helper()
	cloud, err := ec2.Open(ec2.Blueprint{
		Name: "lab", Region: regionName,
		VPC: netip.MustParsePrefix("192.168.0.0/16"), IPv6: netip.MustParsePrefix("fd00:192:168::/56"),
		Subnets: []ec2.NewSubnet{
			{Zone: regionName + "a", CIDR: subnetA, IPv6: netip.MustParsePrefix("fd00:192:168:1::/64")},
			{Zone: regionName + "b", CIDR: subnetB},
		},
	}, o)
	if err != nil {
		t.Fatal(err)
	}
	s := &service{cloud: cloud, nodes: map[string]string{}}
	for node, subnet := range map[string]netip.Prefix{"a1": subnetA, "b1": subnetB} {
		address := subnet.Addr().As4()
		address[3] = 10
		a := netip.AddrFrom4(address)
		i, err := cloud.Launch(ec2.Launch{
			Node: node, Type: "t3.medium", Subnet: subnet, Address: a,
			DNSName: "ip-" + strings.ReplaceAll(a.String(), ".", "-") + "." + regionName + ".compute.internal",
			Tags:    ec2.Tags{"Name": "lab-ng1-Node"},
		})
		if err != nil {
			t.Fatal(err)
		}
		s.nodes[node] = i.ID
	}
	s.server = New(cloud, Options{Called: func(c Call) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.calls = append(s.calls, c)
	}})
	web := httptest.NewServer(s.server)
	t.Cleanup(web.Close)
	s.url = web.URL
	s.Client = s.client(cloud.Records().Credentials)
	return s
}

// client is AWS's own, which gives up at the first error.
func (s *service) client(keys ec2.Credentials) *sdk.Client {
	return sdk.New(sdk.Options{
		Region: regionName, BaseEndpoint: aws.String(s.url), Retryer: aws.NopRetryer{},
		Credentials: credentials.NewStaticCredentialsProvider(keys.AccessKeyID, keys.SecretAccessKey, keys.Token),
	})
}

func (s *service) subnet(t testing.TB, cidr netip.Prefix) string {
	t.Helper()
	out, err := s.DescribeSubnets(t.Context(), &sdk.DescribeSubnetsInput{Filters: []types.Filter{filter("cidr-block", cidr.String())}})
	if err != nil || len(out.Subnets) != 1 {
		t.Fatalf("subnet %s: %v, %v", cidr, out, err)
	}
	return *out.Subnets[0].SubnetId
}

func filter(name string, values ...string) types.Filter {
	return types.Filter{Name: aws.String(name), Values: values}
}

// code and status of an answer as AWS's client reads it.
func code(err error) string {
	if api := smithy.APIError(nil); errors.As(err, &api) {
		return api.ErrorCode()
	} else if err != nil {
		return err.Error()
	}
	return ""
}

func status(err error) int {
	if answer := (interface{ HTTPStatusCode() int })(nil); errors.As(err, &answer) {
		return answer.HTTPStatusCode()
	}
	return 0
}

// The life of an interface, by the calls that a CNI plugin makes.
func TestLifeOfAnInterface(t *testing.T) {
	s, ctx := newService(t, ec2.Options{}), t.Context()
	created, err := s.CreateNetworkInterface(ctx, &sdk.CreateNetworkInterfaceInput{
		SubnetId: aws.String(s.subnet(t, subnetA)), Description: aws.String("aws-K8S-" + s.nodes["a1"]),
		SecondaryPrivateIpAddressCount: aws.Int32(2), ClientToken: aws.String("token"),
		TagSpecifications: []types.TagSpecification{{ResourceType: types.ResourceTypeNetworkInterface, Tags: []types.Tag{
			{Key: aws.String("node.k8s.amazonaws.com/instance_id"), Value: aws.String(s.nodes["a1"])},
		}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	n := created.NetworkInterface
	id := *n.NetworkInterfaceId
	if len(n.PrivateIpAddresses) != 3 || !*n.PrivateIpAddresses[0].Primary || *n.PrivateIpAddress != *n.PrivateIpAddresses[0].PrivateIpAddress ||
		len(n.Groups) != 1 || *n.AvailabilityZone != regionName+"a" || n.Status != "pending" {
		t.Errorf("created %+v", n)
	}
	attached, err := s.AttachNetworkInterface(ctx, &sdk.AttachNetworkInterfaceInput{
		DeviceIndex: aws.Int32(1), InstanceId: aws.String(s.nodes["a1"]), NetworkInterfaceId: &id,
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.ModifyNetworkInterfaceAttribute(ctx, &sdk.ModifyNetworkInterfaceAttributeInput{
		NetworkInterfaceId: &id, Attachment: &types.NetworkInterfaceAttachmentChanges{AttachmentId: attached.AttachmentId, DeleteOnTermination: aws.Bool(true)},
	}); err != nil {
		t.Fatal(err)
	}
	more, err := s.AssignPrivateIpAddresses(ctx, &sdk.AssignPrivateIpAddressesInput{NetworkInterfaceId: &id, Ipv4PrefixCount: aws.Int32(1), SecondaryPrivateIpAddressCount: aws.Int32(1)})
	if err != nil || len(more.AssignedIpv4Prefixes) != 1 || len(more.AssignedPrivateIpAddresses) != 1 {
		t.Fatalf("assigned %+v, %v", more, err)
	}
	six, err := s.AssignIpv6Addresses(ctx, &sdk.AssignIpv6AddressesInput{NetworkInterfaceId: &id, Ipv6PrefixCount: aws.Int32(1), Ipv6AddressCount: aws.Int32(1)})
	if err != nil || len(six.AssignedIpv6Prefixes) != 1 || len(six.AssignedIpv6Addresses) != 1 {
		t.Fatalf("assigned %+v, %v", six, err)
	}
	found, err := s.DescribeNetworkInterfaces(ctx, &sdk.DescribeNetworkInterfacesInput{Filters: []types.Filter{
		filter("attachment.instance-id", s.nodes["a1"]), filter("tag:node.k8s.amazonaws.com/instance_id", "i-*"), filter("status", "in-use"),
	}})
	if err != nil || len(found.NetworkInterfaces) != 1 {
		t.Fatalf("found %+v, %v", found, err)
	}
	got := found.NetworkInterfaces[0]
	if a := got.Attachment; a == nil || *a.InstanceId != s.nodes["a1"] || *a.DeviceIndex != 1 || !*a.DeleteOnTermination || a.Status != types.AttachmentStatusAttached || a.AttachTime == nil {
		t.Errorf("attachment %+v", a)
	}
	if len(got.PrivateIpAddresses) != 4 || len(got.Ipv4Prefixes) != 1 || len(got.Ipv6Addresses) != 1 || len(got.Ipv6Prefixes) != 1 || len(got.TagSet) != 1 || !*got.SourceDestCheck {
		t.Errorf("described %+v", got)
	}
	if _, err := s.UnassignPrivateIpAddresses(ctx, &sdk.UnassignPrivateIpAddressesInput{
		NetworkInterfaceId: &id, PrivateIpAddresses: []string{*more.AssignedPrivateIpAddresses[0].PrivateIpAddress},
		Ipv4Prefixes: []string{*more.AssignedIpv4Prefixes[0].Ipv4Prefix},
	}); err != nil {
		t.Error(err)
	}
	if out, err := s.UnassignIpv6Addresses(ctx, &sdk.UnassignIpv6AddressesInput{NetworkInterfaceId: &id, Ipv6Prefixes: six.AssignedIpv6Prefixes}); err != nil || len(out.UnassignedIpv6Prefixes) != 1 {
		t.Errorf("unassigned %+v, %v", out, err)
	}
	if _, err := s.DeleteNetworkInterface(ctx, &sdk.DeleteNetworkInterfaceInput{NetworkInterfaceId: &id}); code(err) != "InvalidParameterValue" {
		t.Errorf("delete while attached: %v", err)
	}
	if _, err := s.DetachNetworkInterface(ctx, &sdk.DetachNetworkInterfaceInput{AttachmentId: attached.AttachmentId, Force: aws.Bool(true)}); err != nil {
		t.Error(err)
	}
	if _, err := s.DeleteNetworkInterface(ctx, &sdk.DeleteNetworkInterfaceInput{NetworkInterfaceId: &id}); err != nil {
		t.Error(err)
	}
	_, err = s.DescribeNetworkInterfaces(ctx, &sdk.DescribeNetworkInterfacesInput{NetworkInterfaceIds: []string{id}})
	if code(err) != "InvalidNetworkInterfaceID.NotFound" || !strings.Contains(err.Error(), id) {
		t.Errorf("describe what is deleted: %v", err)
	}
}

func TestInstancesAsClientsSeeThem(t *testing.T) {
	s := newService(t, ec2.Options{})
	out, err := s.DescribeInstances(t.Context(), &sdk.DescribeInstancesInput{Filters: []types.Filter{
		filter("instance-state-name", "running"), filter("private-ip-address", "192.168.1.10"), filter("tag:Name", "lab-*"),
	}})
	if err != nil || len(out.Reservations) != 1 {
		t.Fatalf("found %+v, %v", out, err)
	}
	i := out.Reservations[0].Instances[0]
	if *i.InstanceId != s.nodes["a1"] || i.InstanceType != types.InstanceTypeT3Medium || i.State.Name != types.InstanceStateNameRunning ||
		*i.PrivateDnsName != "ip-192-168-1-10.ap-northeast-2.compute.internal" || *i.Placement.AvailabilityZone != regionName+"a" ||
		len(i.NetworkInterfaces) != 1 || *i.NetworkInterfaces[0].Attachment.DeviceIndex != 0 || *i.Tags[0].Value != "lab-ng1-Node" {
		t.Errorf("described %+v", i)
	}
	state := func(want string, got types.InstanceStateName, err error) {
		t.Helper()
		if err != nil || string(got) != want {
			t.Errorf("got %s, want %s, %v", got, want, err)
		}
	}
	ids := []string{s.nodes["a1"]}
	for range 2 { // the second time nothing changes
		stopped, err := s.StopInstances(t.Context(), &sdk.StopInstancesInput{InstanceIds: ids})
		if err != nil {
			t.Fatal(err)
		}
		if c := stopped.StoppingInstances[0]; c.PreviousState.Name == types.InstanceStateNameRunning {
			state("stopping", c.CurrentState.Name, nil)
		}
		described, err := s.DescribeInstances(t.Context(), &sdk.DescribeInstancesInput{InstanceIds: ids})
		state("stopped", described.Reservations[0].Instances[0].State.Name, err)
	}
	if _, err := s.RebootInstances(t.Context(), &sdk.RebootInstancesInput{InstanceIds: ids}); code(err) != "IncorrectInstanceState" {
		t.Errorf("reboot of what is stopped: %v", err)
	}
	started, err := s.StartInstances(t.Context(), &sdk.StartInstancesInput{InstanceIds: ids})
	if err != nil {
		t.Fatal(err)
	}
	state("pending", started.StartingInstances[0].CurrentState.Name, nil)
	if _, err := s.RebootInstances(t.Context(), &sdk.RebootInstancesInput{InstanceIds: ids}); err != nil {
		t.Error(err)
	}
	if _, err := s.StopInstances(t.Context(), &sdk.StopInstancesInput{InstanceIds: append(ids, "i-0123456789abcdef0")}); code(err) != "InvalidInstanceID.NotFound" {
		t.Errorf("stop of one that is not there: %v", err)
	}
	if _, err := s.TerminateInstances(t.Context(), &sdk.TerminateInstancesInput{InstanceIds: ids}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.StartInstances(t.Context(), &sdk.StartInstancesInput{InstanceIds: ids}); code(err) != "IncorrectInstanceState" {
		t.Errorf("start of what is terminated: %v", err)
	}
	all, err := s.DescribeInstances(t.Context(), &sdk.DescribeInstancesInput{InstanceIds: []string{s.nodes["a1"]}})
	if err != nil || all.Reservations[0].Instances[0].State.Name != types.InstanceStateNameTerminated {
		t.Errorf("terminated: %+v, %v", all, err)
	}
}

func TestOtherDescriptions(t *testing.T) {
	s, ctx := newService(t, ec2.Options{}), t.Context()
	vpcs, err := s.DescribeVpcs(ctx, &sdk.DescribeVpcsInput{Filters: []types.Filter{filter("tag:Name", "lab-VPC")}})
	if err != nil || len(vpcs.Vpcs) != 1 || *vpcs.Vpcs[0].CidrBlock != "192.168.0.0/16" || len(vpcs.Vpcs[0].Ipv6CidrBlockAssociationSet) != 1 {
		t.Fatalf("VPCs: %+v, %v", vpcs, err)
	}
	vpc := vpcs.Vpcs[0].VpcId
	zones, err := s.DescribeAvailabilityZones(ctx, &sdk.DescribeAvailabilityZonesInput{})
	if err != nil || len(zones.AvailabilityZones) != 2 || *zones.AvailabilityZones[1].ZoneId != "apne2-az2" {
		t.Errorf("zones: %+v, %v", zones, err)
	}
	types1, err := s.DescribeInstanceTypes(ctx, &sdk.DescribeInstanceTypesInput{InstanceTypes: []types.InstanceType{"t3.medium"}})
	if err != nil || *types1.InstanceTypes[0].NetworkInfo.MaximumNetworkInterfaces != 3 || *types1.InstanceTypes[0].NetworkInfo.Ipv4AddressesPerInterface != 6 ||
		*types1.InstanceTypes[0].NetworkInfo.NetworkCards[0].MaximumNetworkInterfaces != 3 {
		t.Errorf("types: %+v, %v", types1, err)
	}
	if _, err := s.DescribeInstanceTypes(ctx, &sdk.DescribeInstanceTypesInput{InstanceTypes: []types.InstanceType{"t9.medium"}}); code(err) != "InvalidInstanceType" {
		t.Errorf("a type that does not exist: %v", err)
	}
	tables, err := s.DescribeRouteTables(ctx, &sdk.DescribeRouteTablesInput{Filters: []types.Filter{filter("vpc-id", *vpc)}})
	if err != nil || len(tables.RouteTables) != 1 || !*tables.RouteTables[0].Associations[0].Main || len(tables.RouteTables[0].Routes) != 3 {
		t.Errorf("route tables: %+v, %v", tables, err)
	}
	made, err := s.AssociateVpcCidrBlock(ctx, &sdk.AssociateVpcCidrBlockInput{VpcId: vpc, CidrBlock: aws.String("100.64.0.0/16")})
	if err != nil || *made.CidrBlockAssociation.CidrBlock != "100.64.0.0/16" {
		t.Fatalf("associated %+v, %v", made, err)
	}
	subnet, err := s.CreateSubnet(ctx, &sdk.CreateSubnetInput{VpcId: vpc, CidrBlock: aws.String("100.64.1.0/24"), AvailabilityZoneId: aws.String("apne2-az2")})
	if err != nil || *subnet.Subnet.AvailabilityZone != regionName+"b" || *subnet.Subnet.AvailableIpAddressCount != 251 {
		t.Fatalf("subnet %+v, %v", subnet, err)
	}
	id := subnet.Subnet.SubnetId
	kept, err := s.CreateSubnetCidrReservation(ctx, &sdk.CreateSubnetCidrReservationInput{SubnetId: id, Cidr: aws.String("100.64.1.128/25"), ReservationType: types.SubnetCidrReservationTypePrefix})
	if err != nil {
		t.Fatal(err)
	}
	list, err := s.GetSubnetCidrReservations(ctx, &sdk.GetSubnetCidrReservationsInput{SubnetId: id})
	if err != nil || len(list.SubnetIpv4CidrReservations) != 1 || *list.SubnetIpv4CidrReservations[0].Cidr != "100.64.1.128/25" {
		t.Errorf("reservations %+v, %v", list, err)
	}
	if _, err := s.DeleteSubnetCidrReservation(ctx, &sdk.DeleteSubnetCidrReservationInput{SubnetCidrReservationId: kept.SubnetCidrReservation.SubnetCidrReservationId}); err != nil {
		t.Error(err)
	}
	if _, err := s.CreateTags(ctx, &sdk.CreateTagsInput{Resources: []string{*id}, Tags: []types.Tag{{Key: aws.String("kubernetes.io/role/cni"), Value: aws.String("1")}}}); err != nil {
		t.Error(err)
	}
	tags, err := s.DescribeTags(ctx, &sdk.DescribeTagsInput{Filters: []types.Filter{filter("resource-id", *id), filter("resource-type", "subnet")}})
	if err != nil || len(tags.Tags) != 1 || *tags.Tags[0].Key != "kubernetes.io/role/cni" {
		t.Errorf("tags %+v, %v", tags, err)
	}
	if _, err := s.DeleteTags(ctx, &sdk.DeleteTagsInput{Resources: []string{*id}, Tags: []types.Tag{{Key: aws.String("kubernetes.io/role/cni")}}}); err != nil {
		t.Error(err)
	}
	if _, err := s.DeleteSubnet(ctx, &sdk.DeleteSubnetInput{SubnetId: id}); err != nil {
		t.Error(err)
	}
}

func TestGroups(t *testing.T) {
	s, ctx := newService(t, ec2.Options{}), t.Context()
	find := func() types.SecurityGroup {
		t.Helper()
		out, err := s.DescribeSecurityGroups(ctx, &sdk.DescribeSecurityGroupsInput{Filters: []types.Filter{filter("group-name", "*ng1*")}})
		if err != nil || len(out.SecurityGroups) != 1 {
			t.Fatalf("groups %+v, %v", out, err)
		}
		return out.SecurityGroups[0]
	}
	id := find().GroupId
	allow := &sdk.AuthorizeSecurityGroupIngressInput{GroupId: id, IpPermissions: []types.IpPermission{{
		IpProtocol: aws.String("tcp"), FromPort: aws.Int32(80), ToPort: aws.Int32(81),
		IpRanges: []types.IpRange{{CidrIp: aws.String("10.0.0.0/8")}}, UserIdGroupPairs: []types.UserIdGroupPair{{GroupId: id}},
	}}}
	if out, err := s.AuthorizeSecurityGroupIngress(ctx, allow); err != nil || !*out.Return || len(out.SecurityGroupRules) != 2 {
		t.Fatalf("authorized %+v, %v", out, err)
	}
	p := find().IpPermissions
	if len(p) != 1 || *p[0].FromPort != 80 || *p[0].ToPort != 81 || len(p[0].IpRanges) != 1 || len(p[0].UserIdGroupPairs) != 1 {
		t.Errorf("permissions %+v", p)
	}
	if _, err := s.AuthorizeSecurityGroupIngress(ctx, allow); code(err) != "InvalidPermission.Duplicate" {
		t.Errorf("authorized again: %v", err)
	}
	if _, err := s.RevokeSecurityGroupIngress(ctx, &sdk.RevokeSecurityGroupIngressInput{GroupId: id, IpPermissions: allow.IpPermissions}); err != nil {
		t.Error(err)
	}
	made, err := s.CreateSecurityGroup(ctx, &sdk.CreateSecurityGroupInput{GroupName: aws.String("pods"), Description: aws.String("pods")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.DeleteSecurityGroup(ctx, &sdk.DeleteSecurityGroupInput{GroupId: made.GroupId}); err != nil {
		t.Error(err)
	}
}

func TestPages(t *testing.T) {
	s, ctx := newService(t, ec2.Options{}), t.Context()
	subnet := s.subnet(t, subnetA)
	for range 10 {
		if _, err := s.CreateNetworkInterface(ctx, &sdk.CreateNetworkInterfaceInput{SubnetId: &subnet}); err != nil {
			t.Fatal(err)
		}
	}
	pages := sdk.NewDescribeNetworkInterfacesPaginator(s, &sdk.DescribeNetworkInterfacesInput{MaxResults: aws.Int32(5)})
	seen, total, count := map[string]bool{}, 0, 0
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			t.Fatal(err)
		}
		count++
		for _, n := range page.NetworkInterfaces {
			seen[*n.NetworkInterfaceId] = true
			total++
		}
	}
	if len(seen) != 12 || total != 12 || count != 3 {
		t.Errorf("%d interfaces, %d times, on %d pages", len(seen), total, count)
	}
	id := s.nodes["a1"]
	for _, c := range []struct {
		input sdk.DescribeInstancesInput
		want  string
	}{
		{sdk.DescribeInstancesInput{MaxResults: aws.Int32(1)}, "InvalidParameterValue"},
		{sdk.DescribeInstancesInput{MaxResults: aws.Int32(10), InstanceIds: []string{id}}, "InvalidParameterCombination"},
		{sdk.DescribeInstancesInput{NextToken: aws.String("!")}, "InvalidNextToken"},
		{sdk.DescribeInstancesInput{Filters: []types.Filter{filter("no-such-filter", "x")}}, "InvalidParameterValue"},
		{sdk.DescribeInstancesInput{InstanceIds: []string{"i-1"}}, "InvalidInstanceID.NotFound"},
		{sdk.DescribeInstancesInput{DryRun: aws.Bool(true)}, "DryRunOperation"},
	} {
		if _, err := s.DescribeInstances(ctx, &c.input); code(err) != c.want {
			t.Errorf("%+v: %v, not %s", c.input, err, c.want)
		}
	}
}

func TestWhoMayAsk(t *testing.T) {
	s, ctx := newService(t, ec2.Options{}), t.Context()
	good, role := s.cloud.Records().Credentials, s.cloud.Records().Role
	ask := func(keys ec2.Credentials) error {
		_, err := s.client(keys).DescribeInstances(ctx, &sdk.DescribeInstancesInput{})
		return err
	}
	for name, c := range map[string]struct {
		keys ec2.Credentials
		want string
	}{
		"user":          {good, ""},
		"role":          {role, ""},
		"unknown key":   {ec2.Credentials{AccessKeyID: "AKIAEXAMPLE", SecretAccessKey: "x"}, "AuthFailure"},
		"wrong secret":  {ec2.Credentials{AccessKeyID: good.AccessKeyID, SecretAccessKey: "x"}, "AuthFailure"},
		"no token":      {ec2.Credentials{AccessKeyID: role.AccessKeyID, SecretAccessKey: role.SecretAccessKey}, "AuthFailure"},
		"another token": {ec2.Credentials{AccessKeyID: role.AccessKeyID, SecretAccessKey: role.SecretAccessKey, Token: "x"}, "AuthFailure"},
	} {
		err := ask(c.keys)
		if code(err) != c.want {
			t.Errorf("%s: %v, not %q", name, err, c.want)
		}
		if c.want != "" && status(err) != http.StatusUnauthorized {
			t.Errorf("%s: status %d", name, status(err))
		}
	}
	identity := func(keys ec2.Credentials) (*sts.GetCallerIdentityOutput, error) {
		return sts.New(sts.Options{
			Region: regionName, BaseEndpoint: aws.String(s.url), Retryer: aws.NopRetryer{},
			Credentials: credentials.NewStaticCredentialsProvider(keys.AccessKeyID, keys.SecretAccessKey, keys.Token),
		}).GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	}
	if who, err := identity(good); err != nil || *who.Account != ec2.Account || !strings.HasSuffix(*who.Arn, ":user/admin") {
		t.Errorf("user is %+v, %v", who, err)
	}
	if who, err := identity(role); err != nil || !strings.Contains(*who.Arn, ":assumed-role/node/") {
		t.Errorf("role is %+v, %v", who, err)
	}
	role.Token = "x"
	if _, err := identity(role); code(err) != "InvalidClientTokenId" {
		t.Errorf("wrong token for STS: %v", err)
	}
	if _, err := identity(ec2.Credentials{AccessKeyID: good.AccessKeyID, SecretAccessKey: "x"}); code(err) != "SignatureDoesNotMatch" {
		t.Errorf("wrong secret for STS: %v", err)
	}
}

// What was signed cannot be changed on the way, nor be sent again the day after.
func TestSignatureCoversTheRequest(t *testing.T) {
	s := newService(t, ec2.Options{})
	var sent *http.Request
	var body []byte
	client := sdk.New(s.Options(), func(o *sdk.Options) {
		o.HTTPClient = roundTrip(func(r *http.Request) (*http.Response, error) {
			sent = r
			body, _ = io.ReadAll(r.Body)
			return nil, errors.New("not sent")
		})
	})
	_, _ = client.DescribeInstances(t.Context(), &sdk.DescribeInstancesInput{})
	records, now := s.cloud.Records(), s.cloud.Now()
	check := func(change func(*http.Request), body []byte, now time.Time) string {
		r := sent.Clone(t.Context())
		r.Host, r.URL.Path = sent.URL.Host, "/" // as a server sees it
		change(r)
		_, err := verify(r, body, records, now)
		if refused := (*ec2.Error)(nil); errors.As(err, &refused) {
			return refused.Code
		}
		return ""
	}
	as := func(*http.Request) {}
	if got := check(as, body, now); got != "" {
		t.Errorf("as it was sent: %s", got)
	}
	for name, c := range map[string]struct {
		got, want string
	}{
		"body":       {check(as, append(slices.Clone(body), "&A=b"...), now), "AuthFailure"},
		"host":       {check(func(r *http.Request) { r.Host = "elsewhere" }, body, now), "AuthFailure"},
		"path":       {check(func(r *http.Request) { r.URL.Path = "/x" }, body, now), "AuthFailure"},
		"query":      {check(func(r *http.Request) { r.URL.RawQuery = "Action=X" }, body, now), "AuthFailure"},
		"invocation": {check(func(r *http.Request) { r.Header.Set("Amz-Sdk-Invocation-Id", "x") }, body, now), "AuthFailure"},
		"tomorrow":   {check(as, body, now.Add(24*time.Hour)), "RequestExpired"},
		"yesterday":  {check(as, body, now.Add(-24*time.Hour)), "SignatureDoesNotMatch"},
		"unsigned":   {check(func(r *http.Request) { r.Header.Del("Authorization") }, body, now), "MissingAuthenticationToken"},
		"half":       {check(func(r *http.Request) { r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=x") }, body, now), "IncompleteSignature"},
	} {
		if c.got != c.want {
			t.Errorf("another %s: %q, not %q", name, c.got, c.want)
		}
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) Do(r *http.Request) (*http.Response, error) { return f(r) }

// raw asks for what AWS's client would not, signed by it.
func (s *service) raw(t testing.TB, form url.Values) error {
	t.Helper()
	client := sdk.New(s.Options(), func(o *sdk.Options) {
		o.APIOptions = append(o.APIOptions, rewrite(form.Encode()))
	})
	_, err := client.DescribeInstances(context.Background(), &sdk.DescribeInstancesInput{})
	return err
}

func TestWhatNobodyCanAsk(t *testing.T) {
	s := newService(t, ec2.Options{})
	for _, c := range []struct {
		form url.Values
		want string
	}{
		{url.Values{"Action": {"RunInstances"}, "Version": {versionEC2}}, "InvalidAction"},
		{url.Values{"Version": {versionEC2}}, "MissingAction"},
		{url.Values{"Action": {"DescribeInstances"}, "Version": {"1999-01-01"}}, "NoSuchVersion"},
		{url.Values{"Action": {"DescribeInstances"}, "Version": {versionEC2}, "Unknown.1": {"x"}}, ""},
		{url.Values{"Action": {"AttachNetworkInterface"}, "Version": {versionEC2}}, "MissingParameter"},
		{url.Values{"Action": {"AttachNetworkInterface"}, "Version": {versionEC2}, "InstanceId": {"i-1"}, "NetworkInterfaceId": {"eni-1"}, "DeviceIndex": {"one"}}, "InvalidParameterValue"},
		{url.Values{"Action": {"AssignPrivateIpAddresses"}, "Version": {versionEC2}, "NetworkInterfaceId": {"eni-1"}, "SecondaryPrivateIpAddressCount": {"-1"}}, "InvalidParameterValue"},
		{url.Values{"Action": {"AssignPrivateIpAddresses"}, "Version": {versionEC2}, "NetworkInterfaceId": {"eni-1"}, "PrivateIpAddress.1": {"192.168.1"}}, "InvalidParameterValue"},
		{url.Values{"Action": {"AssignPrivateIpAddresses"}, "Version": {versionEC2}, "NetworkInterfaceId": {"eni-1"}}, "InvalidNetworkInterfaceID.NotFound"},
		{url.Values{"Action": {"CreateTags"}, "Version": {versionEC2}}, "MissingParameter"},
		{url.Values{"Action": {"TerminateInstances"}, "Version": {versionEC2}}, "MissingParameter"},
	} {
		if err := s.raw(t, c.form); code(err) != c.want {
			t.Errorf("%v: %v, not %q", c.form, err, c.want)
		}
	}
}

func TestFaults(t *testing.T) {
	s, ctx := newService(t, ec2.Options{}), t.Context()
	ask := func() error {
		_, err := s.DescribeInstances(ctx, &sdk.DescribeInstancesInput{})
		return err
	}
	s.server.Set(Faults{Describe: Rate{Burst: 2}})
	for i, want := range []string{"", "", "RequestLimitExceeded", "RequestLimitExceeded"} {
		err := ask()
		if code(err) != want || want != "" && status(err) != http.StatusServiceUnavailable {
			t.Errorf("call %d: %v, not %q", i, err, want)
		}
	}
	if _, err := s.CreateTags(ctx, &sdk.CreateTagsInput{Resources: []string{s.nodes["a1"]}, Tags: []types.Tag{{Key: aws.String("k"), Value: aws.String("v")}}}); err != nil {
		t.Errorf("calls that change something have a bucket of their own: %v", err)
	}
	s.server.Set(Faults{Unavailable: true})
	if err := ask(); code(err) != "Unavailable" || status(err) != http.StatusServiceUnavailable {
		t.Errorf("unavailable: %v", err)
	}
	s.server.Set(Faults{Away: true})
	if err := ask(); err == nil || status(err) != 0 {
		t.Errorf("away: %v", err)
	}
	s.server.Set(Faults{Truncated: true})
	if err := ask(); err == nil {
		t.Error("half an answer is no error to the client")
	}
	s.server.Set(Faults{})
	if err := ask(); err != nil {
		t.Errorf("back again: %v", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var seen []string
	for _, c := range s.calls {
		seen = append(seen, fmt.Sprint(c.Action, " ", c.Code))
		if c.Code == "" && (!c.From.IsLoopback() || c.Key != s.cloud.Records().Credentials.AccessKeyID) {
			t.Errorf("call %+v: who was that?", c)
		}
	}
	want := []string{
		"DescribeInstances ", "DescribeInstances ", "DescribeInstances RequestLimitExceeded", "DescribeInstances RequestLimitExceeded",
		"CreateTags ", " Unavailable", " Away", "DescribeInstances ", "DescribeInstances ",
	}
	if !slices.Equal(seen, want) {
		t.Errorf("calls: %q", seen)
	}
}

// What is taken from the instances' role is not taken from who looks at it with keys of his own.
func TestRoleIsDenied(t *testing.T) {
	s, ctx := newService(t, ec2.Options{}), t.Context()
	role, admin := s.client(s.cloud.Records().Role), s.Client
	s.server.Set(Faults{Denied: []string{"DescribeSubnets"}})
	_, err := role.DescribeSubnets(ctx, &sdk.DescribeSubnetsInput{})
	if code(err) != "UnauthorizedOperation" || status(err) != http.StatusForbidden || !strings.Contains(err.Error(), "is not authorized to perform: ec2:DescribeSubnets ") {
		t.Errorf("denied: %v", err)
	}
	if _, err := role.DescribeVpcs(ctx, &sdk.DescribeVpcsInput{}); err != nil {
		t.Errorf("another action: %v", err)
	}
	if _, err := admin.DescribeSubnets(ctx, &sdk.DescribeSubnetsInput{}); err != nil {
		t.Errorf("other keys: %v", err)
	}
	s.server.Set(Faults{Revoked: true})
	if _, err := role.DescribeVpcs(ctx, &sdk.DescribeVpcsInput{}); code(err) != "AuthFailure" || status(err) != http.StatusUnauthorized {
		t.Errorf("revoked: %v", err)
	}
	if _, err := admin.DescribeVpcs(ctx, &sdk.DescribeVpcsInput{}); err != nil {
		t.Errorf("other keys: %v", err)
	}
	if Knows("DescribeEverything") || !Knows("DescribeVpcs") {
		t.Error("which actions there are")
	}
}

func TestBucketsFillAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(nil, Options{})
		s.cloud = bareCloud(t)
		s.Set(Faults{Mutate: Rate{PerSecond: 1, Burst: 2}, Latency: time.Second})
		for i, want := range []bool{true, true, false} {
			if got := s.throttle(true) == nil; got != want {
				t.Errorf("call %d: %v", i, got)
			}
		}
		began := time.Now()
		s.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/", nil))
		if took := time.Since(began); took != time.Second {
			t.Errorf("an answer took %s", took)
		}
		if s.throttle(true) != nil || s.throttle(true) == nil {
			t.Error("in a second one call more")
		}
	})
}

func bareCloud(t *testing.T) *ec2.Cloud {
	t.Helper()
	cloud, err := ec2.Open(ec2.Blueprint{Name: "lab", Region: regionName, VPC: netip.MustParsePrefix("192.168.0.0/16")}, ec2.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return cloud
}

// Clients that ask at the same time are given different addresses.
func TestManyAtOnce(t *testing.T) {
	s := newService(t, ec2.Options{})
	subnet := s.subnet(t, subnetA)
	owners, mu := map[string]string{}, sync.Mutex{}
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 4 {
				made, err := s.CreateNetworkInterface(t.Context(), &sdk.CreateNetworkInterfaceInput{SubnetId: &subnet, SecondaryPrivateIpAddressCount: aws.Int32(2)})
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				for _, a := range made.NetworkInterface.PrivateIpAddresses {
					if other, ok := owners[*a.PrivateIpAddress]; ok {
						t.Errorf("%s: given to %s and %s", *a.PrivateIpAddress, other, *made.NetworkInterface.NetworkInterfaceId)
					}
					owners[*a.PrivateIpAddress] = *made.NetworkInterface.NetworkInterfaceId
				}
				mu.Unlock()
				s.cloud.Delivery()
			}
		})
	}
	all.Wait()
	if len(owners) != 8*4*3 {
		t.Errorf("%d addresses were given", len(owners))
	}
}

// No head of a request breaks the server, and none that AWS's signer did not make gets in.
func FuzzAuthorization(f *testing.F) {
	f.Add("AWS4-HMAC-SHA256 Credential=AKIA/20260101/ap-northeast-2/ec2/aws4_request, SignedHeaders=host;x-amz-date, Signature=00", "20260101T000000Z", "")
	f.Add("AWS4-HMAC-SHA256 Credential=/////,SignedHeaders=;;,Signature", "x", "token")
	s := newService(f, ec2.Options{})
	records := s.cloud.Records()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, authorization, date, token string) {
		r := httptest.NewRequest(http.MethodPost, "/", nil)
		// With a key that is known the rest of the head counts.
		r.Header.Set("Authorization", strings.Replace(authorization, "AKIA", records.Credentials.AccessKeyID, 1))
		r.Header.Set("X-Amz-Date", date)
		r.Header.Set("X-Amz-Security-Token", token)
		if who, err := verify(r, nil, records, now); err == nil {
			t.Errorf("%q got in as %v", authorization, who)
		}
	})
}
