package cluster

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/zonewise/zonewise/lab/region/ec2"
	"github.com/zonewise/zonewise/lab/region/ec2/wire"
	"github.com/zonewise/zonewise/lab/topology"
)

func cloudTopology(t *testing.T, c topology.Config) topology.Topology {
	t.Helper()
	c.Name, c.CNI = "x", topology.CNIZonewise
	topo, err := topology.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return topo
}

// The records of a lab's cloud begin with an instance for each node, in its zone and at its address, and
// are the same when the lab is resumed.
func TestCloudHasTheNodes(t *testing.T) {
	for _, family := range []string{topology.IPFamilyIPv4, topology.IPFamilyDual} {
		topo := cloudTopology(t, topology.Config{IPFamily: family})
		file := filepath.Join(t.TempDir(), "cloud.json")
		var first ec2.Delivery
		for range 2 {
			cloud, err := ec2.Open(blueprint(topo), ec2.Options{File: file})
			if err != nil {
				t.Fatal(err)
			}
			for _, z := range topo.Zones {
				for _, n := range z.Nodes {
					i, err := cloud.Launch(launch(topo, z, n))
					if err != nil || i.Zone != n.Zone || i.DNSName != n.Name {
						t.Fatalf("%+v, %v", i, err)
					}
				}
			}
			d := cloud.Delivery()
			if len(first.Instances) == 0 {
				first = d
			}
			if !reflect.DeepEqual(d, first) {
				t.Errorf("resumed: %+v, before %+v", d, first)
			}
		}
		for i, n := range topo.Nodes() {
			v := first.Instances[i]
			if v.Node != n.Alias || len(v.Interfaces) != 1 || !slices.Equal(v.Interfaces[0].Addresses, []netip.Addr{n.Address}) ||
				topo.IPv6 != nil && !slices.Equal(v.Interfaces[0].IPv6, []netip.Addr{n.AddressIPv6}) {
				t.Errorf("node %+v is %+v", n, v)
			}
		}
	}
}

// With custom networking the VPC has a second range, with a subnet for the pods of each zone, and the product is told by
// an ENIConfig of the zone's name.
func TestSubnetsForPods(t *testing.T) {
	topo := cloudTopology(t, topology.Config{Zones: topology.Spread(2, 1), Values: map[string]any{
		"cni": map[string]any{"env": map[string]any{"AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG": true}}}})
	file := filepath.Join(t.TempDir(), "cloud.json")
	cloud, err := ec2.Open(blueprint(topo), ec2.Options{File: file})
	if err != nil {
		t.Fatal(err)
	}
	r := cloud.Records()
	if want := []netip.Prefix{topo.VPC, topo.PodCIDR}; !slices.Equal(r.VPC.CIDRs, want) {
		t.Errorf("ranges %s, want %s", r.VPC.CIDRs, want)
	}
	for i, o := range eniConfigs(topo, r) {
		z := topo.Zones[i]
		subnet, _, _ := unstructured.NestedString(o.Object, "spec", "subnet")
		if s := r.Subnets[subnet]; o.GetName() != z.Name || s == nil || s.CIDR != z.PodSubnet || s.Zone != z.Name || s.Tags["Name"] != fmt.Sprint("x-PodSubnet", i+1) {
			t.Errorf("%v is of %+v", o, s)
		}
	}
	if label, _, err := unstructured.NestedString(chartValues(topo, "1"), "cni", "env", "ENI_CONFIG_LABEL_DEF"); label != "topology.kubernetes.io/zone" || err != nil {
		t.Errorf("label %q, %v", label, err)
	}
	without := topo
	without.PodCIDR = netip.Prefix{}
	if _, err := ec2.Open(blueprint(without), ec2.Options{File: file}); err != nil {
		t.Errorf("what is there besides: %v", err)
	}
	other := blueprint(topo)
	other.More = []netip.Prefix{netip.MustParsePrefix("100.65.0.0/16")}
	if _, err := ec2.Open(other, ec2.Options{File: file}); err == nil || !strings.Contains(err.Error(), "has no range 100.65.0.0/16: take the lab down before its network changes") {
		t.Error(err)
	}
}

func TestCloudCountsCalls(t *testing.T) {
	l := &Lab{topo: cloudTopology(t, topology.Config{})}
	if _, err := l.cloudStatus(); !errors.Is(err, ErrNoCloud) {
		t.Errorf("without a cloud: %v", err)
	}
	if _, err := l.setFaults(strings.NewReader("{}")); !errors.Is(err, ErrNoCloud) {
		t.Errorf("without a cloud: %v", err)
	}
	records, err := ec2.Open(blueprint(l.topo), ec2.Options{})
	if err != nil {
		t.Fatal(err)
	}
	l.cloud = &cloud{records: records, api: wire.New(records, wire.Options{}), endpoint: "http://127.0.0.1:1", calls: map[string]*CallCount{}}
	for _, c := range []wire.Call{{Action: "B"}, {Action: "A", Code: "RequestLimitExceeded"}, {Action: "A"}, {Action: "A", Code: "RequestLimitExceeded"}} {
		l.cloud.count(c)
	}
	want := []CallCount{{"A", 3, map[string]int{"RequestLimitExceeded": 2}}, {"B", 1, map[string]int{}}}
	s, err := l.cloudStatus()
	if err != nil || !reflect.DeepEqual(s.Calls, want) || s.VPCEndpoint != "http://192.168.0.12" || !reflect.DeepEqual(s.Faults, Faults{}) {
		t.Errorf("status %+v, %v", s, err)
	}
	for text, want := range map[string]Faults{
		`{"latency":"1.5s","away":true,"unavailable":true,"truncated":true,"throttle":true}`: {Latency: "1.5s", Away: true, Unavailable: true, Truncated: true, Throttle: true},
		`{"callsPerSecond":0.5,"denied":["CreateNetworkInterface"],"revoked":true,"noMetadata":true}`: {
			CallsPerSecond: 0.5, Denied: []string{"CreateNetworkInterface"}, Revoked: true, NoMetadata: true},
		"{}": {},
	} {
		if s, err = l.setFaults(strings.NewReader(text)); err != nil || !reflect.DeepEqual(s.Faults, want) {
			t.Errorf("faults %+v, %v", s.Faults, err)
		}
	}
	for text, want := range map[string]string{
		`{"latency":"soon"}`:                     `latency "soon": use a duration`,
		`{"callsPerSecond":-1}`:                  "calls per second: use a number above 0",
		`{"throttle":true,"callsPerSecond":0.5}`: "or the limits that AWS has",
		`{"denied":["ec2:Create*"]}`:             `action "ec2:Create*" is not one that this cloud knows`,
	} {
		if _, err = l.setFaults(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v", text, err)
		}
	}
}

// A metadata service that is away gives no answer at all.
func TestMetadataAway(t *testing.T) {
	c := &cloud{}
	server := httptest.NewServer(c.unlessAway(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("i-1")) })))
	defer server.Close()
	for _, away := range []bool{false, true, false} {
		c.noMetadata.Store(away)
		answer, err := http.Get(server.URL)
		if (err != nil) != away {
			t.Errorf("away %v: %v", away, err)
		}
		if err == nil {
			_ = answer.Body.Close()
		}
	}
}

// What a client needs is in a file of the lab, for its user alone; a lab without it says why.
func TestAWSEnvironment(t *testing.T) {
	t.Setenv("ZONEWISE_LAB_HOME", t.TempDir())
	if _, _, err := AWS("x"); !errors.Is(err, ErrNotFound) {
		t.Errorf("no lab: %v", err)
	}
	for cni, want := range map[string]error{topology.CNIStatic: ErrNoCloud, topology.CNIZonewise: nil, topology.CNINone: nil} {
		claim, err := Take(topology.Config{Name: "lab" + cni, CNI: cni})
		if err != nil {
			t.Fatal(err)
		}
		p := PathsOf("lab" + cni)
		if _, _, err := AWS("lab" + cni); err == nil {
			t.Errorf("cni %q: an environment before there is one", cni)
		}
		if err := writePrivate(p.AWS(), awsEnvironment("http://127.0.0.1:4711", "moon-1", ec2.Credentials{AccessKeyID: "A", SecretAccessKey: "B"})); err != nil {
			t.Fatal(err)
		}
		environment, endpoint, err := AWS("lab" + cni)
		if !errors.Is(err, want) || err == nil && (endpoint != "http://127.0.0.1:4711" || !slices.Contains(environment, "AWS_DEFAULT_REGION=moon-1") ||
			!slices.Contains(environment, "AWS_ACCESS_KEY_ID=A") || !slices.Contains(environment, "AWS_SECRET_ACCESS_KEY=B")) {
			t.Errorf("cni %q: %v %s, %v", cni, environment, endpoint, err)
		}
		info, err := os.Stat(p.AWS())
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("mode %v, %v", info, err)
		}
		if err := claim.Release(); err != nil {
			t.Fatal(err)
		}
		if _, _, err := AWS("lab" + cni); cni != topology.CNIStatic && !errors.Is(err, ErrNotRunning) {
			t.Errorf("a lab that does not run: %v", err)
		}
	}
}
