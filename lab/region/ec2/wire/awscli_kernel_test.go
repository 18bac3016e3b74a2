//go:build kernel

package wire

import (
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/zonewise/zonewise/lab/region/ec2"
)

// shell runs a command line as its user types it, against the region.
func (s *service) shell(t *testing.T, keys ec2.Credentials, line string) (stdout, stderr string) {
	t.Helper()
	c := exec.CommandContext(t.Context(), "bash", "-c", `aws() { command aws --endpoint-url "$URL" "$@"; }; `+line)
	c.Env = append(os.Environ(), "URL="+s.url, "AWS_DEFAULT_REGION="+regionName, "AWS_PAGER=", "AWS_MAX_ATTEMPTS=1",
		"AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null", "AWS_EC2_METADATA_DISABLED=true",
		"AWS_ACCESS_KEY_ID="+keys.AccessKeyID, "AWS_SECRET_ACCESS_KEY="+keys.SecretAccessKey)
	var out, errors strings.Builder
	c.Stdout, c.Stderr = &out, &errors
	if err := c.Run(); err != nil && errors.Len() == 0 {
		t.Fatalf("%s: %v", line, err)
	}
	return out.String(), errors.String()
}

// What people type, answered so that AWS's own command line, and the models in it, take it.
func TestCommandLine(t *testing.T) {
	s := newService(t, ec2.Options{})
	for _, c := range []struct{ line, want string }{
		// Notes on EKS networking begin with these.
		{`aws ec2 describe-instances --query "Reservations[*].Instances[*].{PublicIPAdd:PublicIpAddress,PrivateIPAdd:PrivateIpAddress,InstanceName:Tags[?Key=='Name']|[0].Value,Status:State.Name}" --filters Name=instance-state-name,Values=running --output table`,
			`(?s)InstanceName +\| +PrivateIPAdd +\| +PublicIPAdd +\| +Status .*lab-ng1-Node *\| +192\.168\.[12]\.10 +\| +None +\| +running .*lab-ng1-Node`},
		{`aws ec2 describe-security-groups --query 'SecurityGroups[*].[GroupId, GroupName]' --output text | sort -k 2`,
			`^sg-\w{17}\tdefault\nsg-\w{17}\teks-cluster-sg-lab\nsg-\w{17}\tlab-ng1-remoteAccess\n$`},
		{`aws ec2 describe-security-groups --filters Name=group-name,Values=*ng1* --query "SecurityGroups[*].[GroupId]" --output text`, `^sg-\w{17}\n$`},
		{`NGSGID=$(aws ec2 describe-security-groups --filters Name=group-name,Values=*ng1* --query "SecurityGroups[*].[GroupId]" --output text)
			aws ec2 authorize-security-group-ingress --group-id $NGSGID --protocol '-1' --cidr 192.168.1.100/32`,
			`(?s)"Return": true.*"IpProtocol": "-1".*"FromPort": -1.*"CidrIpv4": "192.168.1.100/32"`},
		// What else one looks at.
		{`aws sts get-caller-identity --query Account --output text`, `^111122223333\n$`},
		{`aws ec2 describe-vpcs --query 'Vpcs[].CidrBlock' --output text`, `^192.168.0.0/16\n$`},
		{`aws ec2 describe-availability-zones --query 'AvailabilityZones[].[ZoneName,ZoneId,State]' --output text`,
			"^ap-northeast-2a\tapne2-az1\tavailable\nap-northeast-2b\tapne2-az2\tavailable\n$"},
		{`aws ec2 describe-subnets --filters Name=cidr-block,Values=192.168.1.0/24 --query 'Subnets[].AvailableIpAddressCount' --output text`, `^250\n$`},
		{`aws ec2 describe-instance-types --filters Name=instance-type,Values=t3.* --query "InstanceTypes[].{Type: InstanceType, MaxENI: NetworkInfo.MaximumNetworkInterfaces, IPv4addr: NetworkInfo.Ipv4AddressesPerInterface}" --output table`,
			`\| +6 +\| +3 +\| +t3\.medium +\|`},
		{`aws ec2 describe-route-tables --query 'RouteTables[].Routes[].GatewayId' --output text`, "^local\tlocal\tigw-\\w{17}\n$"},
		{`aws ec2 describe-tags --filters Name=resource-type,Values=instance --query 'Tags[].Value' --output text`, "^lab-ng1-Node\tlab-ng1-Node\n$"},
		{`aws ec2 describe-instance-status --query 'InstanceStatuses[].[InstanceState.Name,InstanceStatus.Status,SystemStatus.Status]' --output text`,
			"^running\tok\tok\nrunning\tok\tok\n$"},
		{`aws ec2 describe-security-group-rules --filters Name=group-id,Values=$(aws ec2 describe-security-groups --group-names lab-ng1-remoteAccess --query 'SecurityGroups[].GroupId' --output text) \
			--query 'SecurityGroupRules[].[IsEgress,IpProtocol,CidrIpv4]' --output text | sort`, "(?m)^False\t-1\t192.168.1.100/32\nTrue\t-1\t0.0.0.0/0\n"},
		{`aws ec2 describe-regions --query 'Regions[].RegionName' --output text`, `^ap-northeast-2\n$`},
		// An interface, from its creation to its end.
		{`set -e
			subnet=$(aws ec2 describe-subnets --filters Name=cidr-block,Values=192.168.1.0/24 --query 'Subnets[0].SubnetId' --output text)
			node=$(aws ec2 describe-instances --filters Name=private-ip-address,Values=192.168.1.10 --query 'Reservations[0].Instances[0].InstanceId' --output text)
			eni=$(aws ec2 create-network-interface --subnet-id $subnet --description d --secondary-private-ip-address-count 1 \
				--tag-specifications 'ResourceType=network-interface,Tags=[{Key=k,Value=v}]' --query NetworkInterface.NetworkInterfaceId --output text)
			aws ec2 wait network-interface-available --network-interface-ids $eni
			attachment=$(aws ec2 attach-network-interface --network-interface-id $eni --instance-id $node --device-index 1 --query AttachmentId --output text)
			aws ec2 modify-network-interface-attribute --network-interface-id $eni --no-source-dest-check
			aws ec2 describe-network-interface-attribute --network-interface-id $eni --attribute sourceDestCheck --query SourceDestCheck.Value
			aws ec2 assign-private-ip-addresses --network-interface-id $eni --ipv4-prefix-count 1 --query 'AssignedIpv4Prefixes[].Ipv4Prefix' --output text
			aws ec2 assign-ipv6-addresses --network-interface-id $eni --ipv6-prefix-count 1 --query 'AssignedIpv6Prefixes' --output text
			aws ec2 describe-network-interfaces --filters Name=attachment.device-index,Values=1 --query 'NetworkInterfaces[].PrivateIpAddresses[].PrivateIpAddress' --output text
			aws ec2 unassign-private-ip-addresses --network-interface-id $eni --ipv4-prefixes 192.168.1.16/28
			aws ec2 create-tags --resources $eni --tags Key=a,Value=b
			aws ec2 delete-tags --resources $eni --tags Key=k
			aws ec2 describe-network-interfaces --network-interface-ids $eni --query 'NetworkInterfaces[0].TagSet[].Key' --output text
			aws ec2 detach-network-interface --attachment-id $attachment
			aws ec2 delete-network-interface --network-interface-id $eni
			aws ec2 describe-network-interfaces --query 'length(NetworkInterfaces)'`,
			"^false\n192.168.1.16/28\nfd00:192:168:1:1::/80\n192.168.1.4\t192.168.1.5\na\n2\n$"},
	} {
		out, err := s.shell(t, s.cloud.Records().Credentials, c.line)
		if err != "" || !regexp.MustCompile(c.want).MatchString(out) {
			t.Errorf("%s:\n%s%s", c.line, out, err)
		}
	}
}

func TestCommandLineErrors(t *testing.T) {
	s := newService(t, ec2.Options{})
	for range 4 { // more than a page
		if _, err := s.cloud.CreateInterface(ec2.NewInterface{Subnet: s.subnet(t, netip.MustParsePrefix("192.168.2.0/24"))}); err != nil {
			t.Fatal(err)
		}
	}
	good := s.cloud.Records().Credentials
	wrong := ec2.Credentials{AccessKeyID: good.AccessKeyID, SecretAccessKey: "wrong"}
	for _, c := range []struct {
		keys       ec2.Credentials
		line, want string
	}{
		{good, `aws ec2 describe-instances --dry-run`, `\(DryRunOperation\) when calling the DescribeInstances operation`},
		{good, `aws ec2 delete-subnet --subnet-id subnet-1`, `\(InvalidSubnetID.NotFound\) when calling the DeleteSubnet operation.*: The subnet ID 'subnet-1' does not exist`},
		{good, `aws ec2 run-instances --image-id ami-1`, `\(InvalidAction\) when calling the RunInstances operation`},
		{good, `aws ec2 describe-network-interfaces --page-size 5 --query 'length(NetworkInterfaces)' >&2`, `^6\n$`},
		{wrong, `aws ec2 describe-instances`, `\(AuthFailure\) when calling the DescribeInstances operation`},
		{wrong, `aws sts get-caller-identity`, `\(SignatureDoesNotMatch\) when calling the GetCallerIdentity operation`},
	} {
		if _, err := s.shell(t, c.keys, c.line); !regexp.MustCompile(c.want).MatchString(err) {
			t.Errorf("%s: %s, not %q", c.line, err, c.want)
		}
	}
}
