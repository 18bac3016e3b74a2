package imds

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials/ec2rolecreds"
	sdk "github.com/aws/aws-sdk-go-v2/feature/ec2/imds"

	"github.com/zonewise/zonewise/lab/region/ec2"
)

var subnet = netip.MustParsePrefix("192.168.1.0/24")

// newNode is a region with one instance, and AWS's own client on it.
func newNode(t *testing.T, lag time.Duration, o ec2.Options) (*ec2.Cloud, *ec2.Instance, *sdk.Client, string) {
	t.Helper()
	cloud, err := ec2.Open(ec2.Blueprint{
		Name: "lab", Region: "ap-northeast-2", VPC: netip.MustParsePrefix("192.168.0.0/16"), IPv6: netip.MustParsePrefix("fd00:192:168::/56"),
		Subnets: []ec2.NewSubnet{{Zone: "ap-northeast-2a", CIDR: subnet, IPv6: netip.MustParsePrefix("fd00:192:168:1::/64")}},
	}, o)
	if err != nil {
		t.Fatal(err)
	}
	i, err := cloud.Launch(ec2.Launch{
		Node: "a1", Type: "t3.medium", Subnet: subnet, Address: netip.MustParseAddr("192.168.1.10"), DNSName: "ip-192-168-1-10.ap-northeast-2.compute.internal",
		IPv6: []netip.Addr{netip.MustParseAddr("fd00:192:168:1::10")},
	})
	if err != nil {
		t.Fatal(err)
	}
	web := httptest.NewServer(New(cloud, i.ID, lag))
	t.Cleanup(web.Close)
	return cloud, i, sdk.New(sdk.Options{Endpoint: web.URL, Retryer: aws.NopRetryer{}, EnableFallback: aws.FalseTernary}), web.URL
}

func get(t *testing.T, c *sdk.Client, path string) string {
	t.Helper()
	out, err := c.GetMetadata(t.Context(), &sdk.GetMetadataInput{Path: path})
	if err != nil {
		return "error: " + err.Error()
	}
	defer func() { _ = out.Content.Close() }()
	data, err := io.ReadAll(out.Content)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestMetadata(t *testing.T) {
	cloud, i, c, _ := newNode(t, 0, ec2.Options{})
	n, err := cloud.CreateInterface(ec2.NewInterface{Subnet: i.Subnet, IPv4: ec2.Ask{Count: 1, PrefixCount: 1}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cloud.Attach(i.ID, n.ID, 1, 0); err != nil {
		t.Fatal(err)
	}
	records := cloud.Records()
	primary := records.Attached(i.ID)[0]
	macs := []string{primary.MAC + "/", n.MAC + "/"}
	slices.Sort(macs)
	in := "network/interfaces/macs/" + n.MAC + "/"
	for path, want := range map[string]string{
		"instance-id": i.ID, "instance-type": "t3.medium", "local-ipv4": "192.168.1.10", "mac": primary.MAC, "ipv6": "fd00:192:168:1::10",
		"hostname":                    "ip-192-168-1-10.ap-northeast-2.compute.internal",
		"placement/availability-zone": "ap-northeast-2a", "placement/region": "ap-northeast-2",
		"placement":                    "availability-zone\navailability-zone-id\nregion",
		"network/interfaces/macs":      strings.Join(macs, "\n"),
		"network/interfaces/macs/":     strings.Join(macs, "\n"),
		in + "device-number":           "1",
		in + "interface-id":            n.ID,
		in + "local-ipv4s":             "192.168.1.4\n192.168.1.5",
		in + "ipv4-prefix":             "192.168.1.16/28",
		in + "ipv6-prefix":             "error",
		in + "subnet-id":               i.Subnet,
		in + "subnet-ipv4-cidr-block":  "192.168.1.0/24",
		in + "subnet-ipv6-cidr-blocks": "fd00:192:168:1::/64",
		in + "vpc-id":                  records.VPC.ID,
		in + "vpc-ipv4-cidr-block":     "192.168.0.0/16",
		in + "vpc-ipv4-cidr-blocks":    "192.168.0.0/16",
		in + "security-group-ids":      n.Groups[0],
		in + "owner-id":                ec2.Account,
		"network/interfaces/macs/" + primary.MAC + "/ipv6s": "fd00:192:168:1::10",
		"no/such/path": "error",
	} {
		if got := get(t, c, path); got != want && (want != "error" || !strings.Contains(got, "404")) {
			t.Errorf("%s is %q, not %q", path, got, want)
		}
	}
	if got := get(t, c, strings.TrimSuffix(in, "/")); !strings.HasPrefix(got, "device-number\ninterface-id\n") {
		t.Errorf("below an interface is %q", got)
	}
	region, err := c.GetRegion(t.Context(), nil)
	if err != nil || region.Region != "ap-northeast-2" {
		t.Errorf("region: %v, %v", region, err)
	}
	document, err := c.GetInstanceIdentityDocument(t.Context(), nil)
	if err != nil || document.InstanceID != i.ID || document.AvailabilityZone != "ap-northeast-2a" || document.PrivateIP != "192.168.1.10" {
		t.Errorf("identity: %+v, %v", document, err)
	}
	keys, err := ec2rolecreds.New(func(o *ec2rolecreds.Options) { o.Client = c }).Retrieve(t.Context())
	if want := records.Role; err != nil || keys.AccessKeyID != want.AccessKeyID || keys.SecretAccessKey != want.SecretAccessKey || keys.SessionToken != want.Token || !keys.CanExpire {
		t.Errorf("role: %v, %v", keys.AccessKeyID, err)
	}
	if err := cloud.Terminate(i.ID); err != nil {
		t.Fatal(err)
	}
	if got := get(t, c, "instance-id"); !strings.Contains(got, "404") {
		t.Errorf("a terminated instance is %q", got)
	}
}

func TestTokens(t *testing.T) {
	now := time.Now()
	cloud, i, _, url := newNode(t, 0, ec2.Options{Now: func() time.Time { return now }})
	ask := func(method, path string, header ...string) (int, string) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), method, url+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		for k := 0; k < len(header); k += 2 {
			r.Header.Set(header[k], header[k+1])
		}
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = answer.Body.Close() }()
		data, _ := io.ReadAll(answer.Body)
		return answer.StatusCode, string(data)
	}
	status, token := ask("PUT", "/latest/api/token", ttlHeader, "60")
	if status != 200 {
		t.Fatalf("token: %d %s", status, token)
	}
	other := New(cloud, "i-other", 0).token(now.Add(time.Minute))
	for name, c := range map[string]struct {
		method, path string
		header       []string
		want         int
	}{
		"with token":        {"GET", "/latest/meta-data/mac", []string{tokenHeader, token}, 200},
		"without token":     {"GET", "/latest/meta-data/mac", nil, 401},
		"token cut off":     {"GET", "/latest/meta-data/mac", []string{tokenHeader, token[:20]}, 401},
		"another's token":   {"GET", "/latest/meta-data/mac", []string{tokenHeader, other}, 401},
		"other version":     {"GET", "/1.0/meta-data/mac", []string{tokenHeader, token}, 404},
		"root":              {"GET", "/", []string{tokenHeader, token}, 200},
		"post":              {"POST", "/latest/meta-data/mac", []string{tokenHeader, token}, 405},
		"get a token":       {"GET", "/latest/api/token", []string{ttlHeader, "60"}, 405},
		"no time to live":   {"PUT", "/latest/api/token", nil, 400},
		"too long a life":   {"PUT", "/latest/api/token", []string{ttlHeader, "21601"}, 400},
		"by way of a proxy": {"PUT", "/latest/api/token", []string{ttlHeader, "60", "X-Forwarded-For", "1.2.3.4"}, 403},
	} {
		if got, body := ask(c.method, c.path, c.header...); got != c.want {
			t.Errorf("%s: %d %s, not %d", name, got, body, c.want)
		}
	}
	now = now.Add(61 * time.Second)
	if got, _ := ask("GET", "/latest/meta-data/instance-id", tokenHeader, token); got != 401 {
		t.Errorf("a token that has run out: %d, on %s", got, i.ID)
	}
}

func TestLag(t *testing.T) {
	now := time.Now()
	cloud, i, c, _ := newNode(t, 3*time.Second, ec2.Options{Now: func() time.Time { return now }})
	mac := cloud.Records().Attached(i.ID)[0].MAC
	path := "network/interfaces/macs/" + mac + "/local-ipv4s"
	before := get(t, c, path)
	if _, err := cloud.Assign(cloud.Records().Attached(i.ID)[0].ID, ec2.Ask{Count: 1}, false); err != nil {
		t.Fatal(err)
	}
	if got := get(t, c, path); got != before {
		t.Errorf("%q is known at once", got)
	}
	now = now.Add(3 * time.Second)
	if got := get(t, c, path); got == before {
		t.Errorf("%q is not known after the lag", got)
	}
}

func TestAttachingIsNotSeen(t *testing.T) {
	now := time.Now()
	cloud, i, c, _ := newNode(t, 0, ec2.Options{Now: func() time.Time { return now }, AttachTime: time.Minute})
	n, err := cloud.CreateInterface(ec2.NewInterface{Subnet: i.Subnet})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cloud.Attach(i.ID, n.ID, 1, 0); err != nil {
		t.Fatal(err)
	}
	path := "network/interfaces/macs/" + n.MAC + "/interface-id"
	if got := get(t, c, path); !strings.Contains(got, "404") {
		t.Errorf("while it is being attached: %q", got)
	}
	now = now.Add(time.Minute)
	if got := get(t, c, path); got != n.ID {
		t.Errorf("when it is attached: %q", got)
	}
}

// No text but one that the server made is a token.
func FuzzToken(f *testing.F) {
	now := time.Now()
	cloud, err := ec2.Open(ec2.Blueprint{Name: "lab", Region: "ap-northeast-2", VPC: netip.MustParsePrefix("192.168.0.0/16")}, ec2.Options{Now: func() time.Time { return now }})
	if err != nil {
		f.Fatal(err)
	}
	s := New(cloud, "i-1", 0)
	good := s.token(now.Add(time.Minute))
	f.Add(good)
	f.Add("")
	f.Fuzz(func(t *testing.T, token string) {
		if s.valid(token) != (token == good) {
			t.Errorf("%q is valid: %v", token, s.valid(token))
		}
	})
}
