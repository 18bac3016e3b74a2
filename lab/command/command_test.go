package command

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zonewise/zonewise/lab/cluster"
	"github.com/zonewise/zonewise/lab/region"
	"github.com/zonewise/zonewise/lab/topology"
)

// up's configuration from command lines, without starting anything.
func configOf(t *testing.T, args ...string) (c topology.Config, err error) {
	t.Helper()
	cmd := newUp()
	var f upFlags
	cmd.Flags().String("name", topology.DefaultName, "")
	if err := cmd.ParseFlags(args); err != nil {
		return c, usageError{err}
	}
	flags := cmd.Flags()
	f.file, _ = flags.GetString("file")
	f.zones, _ = flags.GetInt("zones")
	f.perZone, _ = flags.GetInt("nodes-per-zone")
	f.instanceType, _ = flags.GetString("instance-type")
	f.ipFamily, _ = flags.GetString("ip-family")
	f.cni, _ = flags.GetString("cni")
	f.proxy, _ = flags.GetString("proxy")
	f.set, _ = flags.GetStringArray("set")
	f.wait, _ = flags.GetDuration("wait")
	f.offline, _ = flags.GetBool("offline")
	return f.config(cmd)
}

func TestFlagsToConfig(t *testing.T) {
	t.Setenv("ZONEWISE_LAB_HOME", t.TempDir())
	file := filepath.Join(t.TempDir(), "lab.yaml")
	if err := os.WriteFile(file, []byte("name: small\ninstanceType: c5.large\nzones: [{nodes: 1}]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	dual := filepath.Join(t.TempDir(), "dual.yaml")
	if err := os.WriteFile(dual, []byte("ipFamily: dual\nvpcIPv6: 2001:db8::/56\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cloud := filepath.Join(t.TempDir(), "cloud.yaml")
	if err := os.WriteFile(cloud, []byte("cni: zonewise\ncloud: {attachTime: 2s}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		want topology.Config
	}{
		{nil, topology.Config{}},
		{[]string{"--name", "big", "--zones", "4", "--nodes-per-zone", "3"}, topology.Config{Name: "big", Zones: topology.Spread(4, 3)}},
		{[]string{"--zones", "1"}, topology.Config{Zones: topology.Spread(1, 2)}},
		{[]string{"--instance-type", "m5.large", "--proxy", "kube-proxy", "--offline"},
			topology.Config{InstanceType: "m5.large", Proxy: "kube-proxy", Offline: true}},
		{[]string{"--ip-family", "dual"}, topology.Config{IPFamily: "dual", VPCIPv6: "fd00:192:168::/56", ServiceCIDRIPv6: "fd00:10:100::/108"}},
		{[]string{"--cni", "static"}, topology.Config{CNI: "static"}},
		{[]string{"-f", cloud}, topology.Config{CNI: "zonewise", Cloud: topology.CloudConfig{AttachTime: "2s"}}},
		{[]string{"-f", cloud, "--cni", "static"}, topology.Config{CNI: "static"}},
		{[]string{"-f", cloud, "--cni", "none"}, topology.Config{CNI: "none", Cloud: topology.CloudConfig{AttachTime: "2s"}}},
		{[]string{"-f", dual}, topology.Config{IPFamily: "dual", VPCIPv6: "2001:db8::/56"}},
		{[]string{"-f", dual, "--ip-family", "ipv4"}, topology.Config{}},
		{[]string{"-f", dual, "--ip-family", "ipv6", "--cni", "zonewise"}, topology.Config{IPFamily: "ipv6", VPCIPv6: "2001:db8::/56", CNI: "zonewise"}},
		{[]string{"--set", "agent.honour=hints", "--set", "controller.replicas=2"},
			topology.Config{Values: map[string]any{"agent": map[string]any{"honour": "hints"}, "controller": map[string]any{"replicas": 2.0}}}},
		{[]string{"-f", file}, topology.Config{Name: "small", InstanceType: "c5.large", Zones: topology.Spread(1, 1)}},
		{[]string{"-f", file, "--name", "other", "--instance-type", "t3.small"},
			topology.Config{Name: "other", InstanceType: "t3.small", Zones: topology.Spread(1, 1)}},
	} {
		got, err := configOf(t, c.args...)
		if err != nil || !cluster.Same(got, c.want.WithDefaults()) || got.Offline != c.want.Offline {
			t.Errorf("up %v: %+v, %v, want %+v", c.args, got, err, c.want.WithDefaults())
		}
	}
}

// A lab that exists is gone on with as it is, unless flags say otherwise.
func TestConfigOfAnExistingLab(t *testing.T) {
	home := t.TempDir()
	t.Setenv("ZONEWISE_LAB_HOME", home)
	have := topology.Config{Name: "small", Zones: topology.Spread(1, 1), Offline: true}.WithDefaults()
	claim, err := cluster.Take(have)
	if err != nil {
		t.Fatal(err)
	}
	if err := claim.Release(); err != nil {
		t.Fatal(err)
	}
	got, err := configOf(t, "--name", "small")
	if err != nil || !cluster.Same(got, have) || !got.Offline {
		t.Errorf("up: %+v, %v, want %+v", got, err, have)
	}
	if got, err = configOf(t, "--name", "small", "--zones", "2"); err != nil || cluster.Same(got, have) {
		t.Errorf("up with other zones: %+v, %v", got, err)
	}
}

func TestWrongUse(t *testing.T) {
	t.Setenv("ZONEWISE_LAB_HOME", t.TempDir())
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--zones", "0"}, "--zones and --nodes-per-zone: a lab needs at least one of each"},
		{[]string{"--wait", "0s"}, "--wait 0s: give it some time"},
		{[]string{"--wait", "soon"}, "--wait"},
		{[]string{"--instance-type", "t9"}, `instance type "t9" is not known here`},
		{[]string{"--ip-family", "ipv5"}, `ipFamily "ipv5": use ipv4, dual or ipv6`},
		{[]string{"--ip-family", "ipv6", "--cni", "static"}, "ipFamily ipv6: needs cni: zonewise"},
		{[]string{"--cni", "cilium"}, `cni "cilium": use static, zonewise or none`},
		{[]string{"--proxy", "ipvs"}, `proxy "ipvs": use zonewise or kube-proxy`},
		{[]string{"--set", "agent"}, "--set agent: "},
		{[]string{"--colour"}, "unknown flag: --colour"},
	} {
		_, err := configOf(t, c.args...)
		var usage usageError
		if !errors.As(err, &usage) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("up %v: %v, want wrong use: %s", c.args, err, c.want)
		}
	}
	complete, ok := newUp().GetFlagCompletionFunc("cni")
	if !ok {
		t.Fatal("--cni is not completed")
	}
	if values, _ := complete(nil, nil, ""); !slices.Equal(values, []string{"static", "zonewise", "none"}) {
		t.Errorf("--cni is completed by %v", values)
	}
	if _, err := configOf(t, "-f", "/no/such.yaml"); err == nil || err.Error() != "lab file: open /no/such.yaml: no such file or directory" {
		t.Errorf("missing file: %v", err)
	}
}

func TestProgressWithoutTerminal(t *testing.T) {
	var out bytes.Buffer
	p := newProgress(&out)
	p.say("Starting lab %s.", "x")
	p.start("Network fabric")
	p.done(1234 * time.Millisecond)
	p.start("Control plane")
	p.fail()
	p.fail() // of nothing
	want := "Starting lab x.\n ✓ Network fabric  1.2s\n ✗ Control plane  0.0s\n"
	if out.String() != want {
		t.Errorf("progress:\n%q\nwant:\n%q", out.String(), want)
	}
}

func TestFollow(t *testing.T) {
	for _, c := range []struct {
		events string
		want   outcome
		err    string
	}{
		{`{"state":"claimed","fresh":true}
{"state":"started","step":"Control plane"}
{"state":"done","step":"Control plane","took":1000}
{"state":"ready"}`, outcome{claimed: true, fresh: true}, ""},
		{`{"state":"failed","error":"lab x: in use by another process"}`, outcome{}, "lab x: in use by another process"},
		{`{"state":"claimed"}
panic: out of luck`, outcome{claimed: true}, "the lab's process ended early"},
	} {
		got := follow(strings.NewReader(c.events), newProgress(&bytes.Buffer{}))
		text := ""
		if got.err != nil {
			text = got.err.Error()
		}
		if got.claimed != c.want.claimed || got.fresh != c.want.fresh || text != c.err {
			t.Errorf("%s: %+v, want %+v %q", c.events, got, c.want, c.err)
		}
	}
}

func TestStatusTable(t *testing.T) {
	var out bytes.Buffer
	err := printStatus(&out, cluster.Status{
		Name: "x", Version: "v1", Proxy: "zonewise", API: "https://127.0.0.1:4", Kubeconfig: "/k", MemoryBytes: 2_000_000, Latency: "none",
		Boot: cluster.BootStatus{API: 1, Nodes: 2.25, DNS: 3},
		Zones: []cluster.ZoneStatus{{Name: "z-a", Subnet: "192.168.1.0/24", Nodes: []cluster.NodeStatus{
			{Name: "ip-1", Alias: "a1", InstanceType: "t3.medium", MaxPods: 17, PID: 7},
			{Name: "ip-2", Alias: "a2", InstanceType: "t3.medium", MaxPods: 17},
		}}},
		CrossZone: []region.Crossing{{From: "z-a", To: "z-b", Bytes: 84, Packets: 1}},
		Dropped:   []region.Dropped{{Node: "a1", Interface: "eth0", Source: "192.168.1.99", Bytes: 120, Packets: 2}},
		NodePorts: []cluster.NodePort{{Namespace: "default", Service: "web", Protocol: "TCP", Port: 30080, Node: "a1", Listen: "127.0.0.1:30080"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	const want = `Lab x (v1), proxy zonewise
API         https://127.0.0.1:4  (export KUBECONFIG=/k)
Started     API 1.0 s, nodes 2.2 s, DNS 3.0 s; 2 MB of memory
Latency between zones: none

ZONE  SUBNET          NODE  ALIAS  TYPE       MAX-PODS
z-a   192.168.1.0/24  ip-1  a1     t3.medium  17
z-a   192.168.1.0/24  ip-2  a2     t3.medium  17  down

FROM  TO   BYTES  PACKETS
z-a   z-b  84     1

WRONG-SOURCE  NODE  INTERFACE  PACKETS
192.168.1.99  a1    eth0       2

SERVICE      NODE-PORT  NODE  ON THIS HOST
default/web  30080/TCP  a1    127.0.0.1:30080
`
	if out.String() != want {
		t.Errorf("status:\n%s\nwant:\n%s", out.String(), want)
	}
}

// A lab without a CNI plugin says what it waits for, and nothing of cluster DNS, which nobody waited for.
func TestHintsWithoutCNI(t *testing.T) {
	var out bytes.Buffer
	s := cluster.Status{
		CNI: topology.CNINone, Kubeconfig: "/k", MemoryBytes: 2_000_000, Boot: cluster.BootStatus{API: 1, Nodes: 2},
		Cloud: &cluster.CloudStatus{VPCEndpoint: "http://192.168.0.12"},
	}
	hints(s, newProgress(&out))
	for _, part := range []string{"nodes after 2.0 s; 2 MB", "nodes become Ready, and pods start, when you install one", "http://192.168.0.12"} {
		if !strings.Contains(out.String(), part) {
			t.Errorf("no %q in:\n%s", part, out.String())
		}
	}
	if err := printStatus(&out, s); err != nil || strings.Contains(out.String(), "DNS") {
		t.Errorf("%v:\n%s", err, out.String())
	}
}

func TestStatusOfBothFamilies(t *testing.T) {
	var out bytes.Buffer
	if err := printStatus(&out, cluster.Status{
		IPFamilies: []string{"IPv4", "IPv6"},
		Zones:      []cluster.ZoneStatus{{Name: "z-a", Subnet: "192.168.1.0/24", IPv6: "fd00::/64", Nodes: []cluster.NodeStatus{{Name: "ip-1", PID: 7}}}},
	}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"\nAddresses   IPv4 and IPv6\n", "z-a   192.168.1.0/24,fd00::/64  ip-1"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in:\n%s", want, &out)
		}
	}
}

// The client sees the lab's cloud, and nothing of what its user has elsewhere.
func TestAWSAlone(t *testing.T) {
	got := withoutAWS([]string{"PATH=/bin", "AWS_PROFILE=work", "AWS_SESSION_TOKEN=x", "AWS_PAGER=", "AWS_DEFAULT_OUTPUT=text", "AWS_ENDPOINT_URL_EC2=http://x"})
	want := []string{"PATH=/bin", "AWS_PAGER=", "AWS_DEFAULT_OUTPUT=text", "AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null", "AWS_EC2_METADATA_DISABLED=true"}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// A shell that has evaluated it has nothing of another cloud, and an aws that asks the lab's.
func TestAWSInAShell(t *testing.T) {
	script := shellAWS([]string{"AWS_ENDPOINT_URL=http://127.0.0.1:4", "AWS_ACCESS_KEY_ID=it's"}) + `
command() { echo "$@"; }; aws ec2 describe-vpcs --query 'a b'; env | grep ^AWS_ | sort`
	run := exec.CommandContext(t.Context(), "sh", "-c", script)
	run.Env = []string{"PATH=" + os.Getenv("PATH"), "AWS_PROFILE=work", "AWS_SESSION_TOKEN=x", "AWS_REGION=mars-1", "AWS_CONFIG_FILE=/root/config"}
	out, err := run.CombinedOutput()
	const want = `aws --endpoint-url http://127.0.0.1:4 ec2 describe-vpcs --query a b
AWS_ACCESS_KEY_ID=it's
AWS_CONFIG_FILE=/dev/null
AWS_EC2_METADATA_DISABLED=true
AWS_ENDPOINT_URL=http://127.0.0.1:4
AWS_SHARED_CREDENTIALS_FILE=/dev/null
`
	if err != nil || string(out) != want {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestCloudTable(t *testing.T) {
	var out bytes.Buffer
	if err := printCloud(&out, cluster.CloudStatus{
		Endpoint: "http://127.0.0.1:4", VPCEndpoint: "http://192.168.0.12", Instances: map[string]string{"a1": "i-1", "b1": "i-2"},
		Faults: cluster.Faults{Latency: "1s", Throttle: true},
		Calls:  []cluster.CallCount{{Action: "AttachNetworkInterface", Calls: 3, Refused: map[string]int{"RequestLimitExceeded": 2}}, {Action: "DescribeSubnets", Calls: 1}},
	}); err != nil {
		t.Fatal(err)
	}
	const want = `Cloud API   http://127.0.0.1:4, in the VPC http://192.168.0.12  (zonewise lab aws …)
Faults      latency 1s, throttled

NODE  INSTANCE
a1    i-1
b1    i-2

ACTION                  CALLS  REFUSED
AttachNetworkInterface  3      2 RequestLimitExceeded
DescribeSubnets         1
`
	if out.String() != want {
		t.Errorf("cloud:\n%s\nwant:\n%s", out.String(), want)
	}
}

func TestLogFile(t *testing.T) {
	dir := t.TempDir()
	p := cluster.Paths{Dir: dir}
	c := topology.Config{Name: "x"}
	for _, file := range []string{p.Log("etcd"), p.NodeLog("b2", "kubelet"), filepath.Join(dir, "lab.log"), filepath.Join(p.Node("a1"), "machine.log")} {
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{
		"etcd": p.Log("etcd"), "lab": filepath.Join(dir, "lab.log"), "b2/kubelet": p.NodeLog("b2", "kubelet"),
		"ip-192-168-2-28.ap-northeast-2.compute.internal/kubelet": p.NodeLog("b2", "kubelet"), "a1/machine": filepath.Join(p.Node("a1"), "machine.log"),
	} {
		if got, err := logFile(p, c, name); err != nil || got != want {
			t.Errorf("%s: %s, %v, want %s", name, got, err, want)
		}
	}
	for name, want := range map[string]string{
		"../../etc/passwd": `no component "../../etc/passwd"`, "kubelet": "or NODE/kubelet, NODE/containerd", "z9/kubelet": "lab x has no node z9",
		"kube-scheduler": "kube-scheduler has no log: it was never started in lab x", "a1/etcd": `no component "a1/etcd"`,
	} {
		if got, err := logFile(p, c, name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %q, error %v, want %s", name, got, err, want)
		}
	}
}

// A process whose starter was killed right after it had spoken makes nothing: it would come after
// the `lab down` that cleans up.
func TestStarterGone(t *testing.T) {
	t.Setenv("ZONEWISE_LAB_HOME", t.TempDir())
	config := topology.Config{Name: "orphan", Zones: topology.Spread(1, 1)}.WithDefaults()
	words, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	end, starter, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = end.Close() }()
	if _, err := starter.Write(append(words, '\n')); err != nil {
		t.Fatal(err)
	}
	if closed(end) {
		t.Error("closed, with a starter")
	}
	if err := starter.Close(); err != nil {
		t.Fatal(err)
	}
	err = runClaimed(t.Context(), end, "test", func(e cluster.Event) { t.Errorf("event %+v", e) })
	if err == nil || !strings.Contains(err.Error(), "gone") {
		t.Errorf("error %v", err)
	}
	if left, err := os.ReadDir(cluster.Home()); err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}
}
