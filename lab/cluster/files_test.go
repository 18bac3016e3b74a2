package cluster

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/zonewise/zonewise/lab/component"
	"github.com/zonewise/zonewise/lab/topology"
)

func defaultLab(t *testing.T) (topology.Topology, Paths, *credentials) {
	t.Helper()
	t.Setenv("ZONEWISE_LAB_HOME", t.TempDir())
	topo, err := topology.New(topology.Config{Name: "x", CNI: topology.CNIStatic})
	if err != nil {
		t.Fatal(err)
	}
	c, err := makeCredentials(PathsOf("x").PKI(), topo, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return topo, PathsOf("x"), c
}

func TestMachineSpec(t *testing.T) {
	topo, p, c := defaultLab(t)
	n, _ := topo.Node("b2")
	spec, err := machineSpec(p, topo, n, "/bin/dir", "/template", instanceID(topo, n), c, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if spec.Hostname != "ip-192-168-2-28.ap-northeast-2.compute.internal" || spec.Address != "192.168.2.28" || spec.Resolver != "192.168.0.2" {
		t.Errorf("spec %+v", spec)
	}
	var kubelet component.KubeletSpec
	if err := json.Unmarshal([]byte(spec.Files["etc/zonewise/kubelet.json"]), &kubelet); err != nil {
		t.Fatal(err)
	}
	if kubelet.MaxPods != 17 || kubelet.CPUs != 2 || kubelet.MemoryMiB != 4096 || kubelet.ClusterDNS != "10.100.0.10" {
		t.Errorf("kubelet %+v", kubelet)
	}
	if !strings.HasPrefix(kubelet.ProviderID, "aws:///ap-northeast-2b/i-0") || len(kubelet.ProviderID) != len("aws:///ap-northeast-2b/i-0123456789abcdef0") {
		t.Errorf("provider ID %s", kubelet.ProviderID)
	}
	for label, want := range map[string]string{
		"topology.kubernetes.io/zone": "ap-northeast-2b", "topology.kubernetes.io/region": "ap-northeast-2", "node.kubernetes.io/instance-type": "t3.medium",
	} {
		if kubelet.Labels[label] != want {
			t.Errorf("label %s is %q", label, kubelet.Labels[label])
		}
	}
	cni := spec.Files["etc/cni/net.d/10-zonewise.conflist"]
	for _, part := range []string{`"type": "zonewise-cni"`, `"192.168.2.29-192.168.2.45"`, `"stateDir": "/run/zonewise/cni"`, `"mtu": 9001`} {
		if !strings.Contains(cni, part) {
			t.Errorf("CNI configuration without %s:\n%s", part, cni)
		}
	}
	config, err := clientcmd.Load([]byte(spec.Files["etc/kubernetes/kubelet.conf"]))
	if err != nil || config.Clusters["x"].Server != "https://192.168.0.10:6443" || config.AuthInfos["system:node:"+n.Name] == nil {
		t.Errorf("kubelet's kubeconfig: %+v, %v", config, err)
	}
	if _, there := spec.Files["etc/kubernetes/kube-proxy.yaml"]; there {
		t.Error("kube-proxy, without being asked for")
	}
	topo.Proxy = topology.ProxyKubeProxy
	if spec, err = machineSpec(p, topo, n, "/bin/dir", "/template", "i-0", c, time.Now()); err != nil || !strings.Contains(spec.Files["etc/kubernetes/kube-proxy.yaml"], "mode: nftables") {
		t.Errorf("no kube-proxy, %v", err)
	}
}

// What a second family changes in a node and at the API server.
func TestDual(t *testing.T) {
	t.Setenv("ZONEWISE_LAB_HOME", t.TempDir())
	topo, err := topology.New(topology.Config{Name: "x", CNI: topology.CNIStatic, IPFamily: topology.IPFamilyDual, Proxy: topology.ProxyKubeProxy})
	if err != nil {
		t.Fatal(err)
	}
	c, err := makeCredentials(PathsOf("x").PKI(), topo, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	n, _ := topo.Node("b2")
	spec, err := machineSpec(PathsOf("x"), topo, n, "/bin/dir", "/template", "i-0", c, time.Now())
	if err != nil || spec.Address != "192.168.2.28" || spec.IPv6 != "fd00:192:168:2::28" {
		t.Errorf("spec %+v, %v", spec, err)
	}
	for file, part := range map[string]string{
		"etc/zonewise/kubelet.json":          `"Addresses":["192.168.2.28","fd00:192:168:2::28"]`,
		"etc/cni/net.d/10-zonewise.conflist": `"ipv6": "fd00:192:168:2:2::/80"`,
		"etc/kubernetes/kube-proxy.yaml":     "clusterCIDR: 192.168.0.0/16,fd00:192:168::/56\n",
	} {
		if !strings.Contains(spec.Files[file], part) {
			t.Errorf("no %s in %s:\n%s", part, file, spec.Files[file])
		}
	}
	block, _ := pem.Decode([]byte(spec.Files["etc/kubernetes/pki/kubelet.crt"]))
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil || cert.VerifyHostname("fd00:192:168:2::28") != nil || cert.VerifyHostname("192.168.2.28") != nil {
		t.Errorf("the kubelet's certificate is for %v, %v", cert.IPAddresses, err)
	}
	if want := "--service-cluster-ip-range=10.100.0.0/16,fd00:10:100::/108"; !slices.Contains(apiServerArgs(topo, c), want) {
		t.Errorf("no %s", want)
	}
	if _, hosts := resolverFiles(topo, "/lab/resolver"); !strings.Contains(hosts, "\nfd00:192:168:2::28 "+n.Name+"\n") {
		t.Errorf("hosts:\n%s", hosts)
	}
	zones := zoneStatus(topo, nil)
	if z := zones[1]; z.IPv6 != "fd00:192:168:2::/64" || z.Nodes[1].IPv6 != "fd00:192:168:2::28" {
		t.Errorf("status %+v", z)
	}
}

// Where pods have IPv6 alone, so has the API server for them, and the node for Kubernetes.
func TestIPv6Alone(t *testing.T) {
	t.Setenv("ZONEWISE_LAB_HOME", t.TempDir())
	topo, err := topology.New(topology.Config{Name: "x", IPFamily: topology.IPFamilyIPv6, CNI: topology.CNIZonewise})
	if err != nil {
		t.Fatal(err)
	}
	c, err := makeCredentials(PathsOf("x").PKI(), topo, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	n, _ := topo.Node("b2")
	spec, err := machineSpec(PathsOf("x"), topo, n, "/bin/dir", "/template", "i-0", c, time.Now())
	if err != nil || spec.Resolver != "fd00:192:168::2" || !strings.Contains(spec.Files["etc/zonewise/kubelet.json"], `"Addresses":["fd00:192:168:2::28"]`) ||
		!strings.Contains(spec.Files["etc/kubernetes/kubelet.conf"], "server: https://[fd00:192:168::10]:6443\n") {
		t.Errorf("spec %+v, %v", spec, err)
	}
	args := apiServerArgs(topo, c)
	for _, want := range []string{"--service-cluster-ip-range=fd00:10:100::/108", "--advertise-address=fd00:192:168::10", "--bind-address=::"} {
		if !slices.Contains(args, want) {
			t.Errorf("no %s", want)
		}
	}
	text, err := os.ReadFile(c.apiServer.CertFile)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil || cert.VerifyHostname("fd00:192:168::10") != nil || cert.VerifyHostname("fd00:10:100::1") != nil || cert.VerifyHostname("192.168.0.10") != nil {
		t.Errorf("the API server's certificate is for %v, %v", cert.IPAddresses, err)
	}
	cni, _ := chartValues(topo, "v0")["cni"].(map[string]any)
	if env, _ := cni["env"].(map[string]any); env["ENABLE_IPv4"] != "false" || env["ENABLE_IPv6"] != "true" {
		t.Errorf("cni %+v", cni)
	}
}

func TestControlPlaneArguments(t *testing.T) {
	topo, p, c := defaultLab(t)
	for name, args := range map[string][]string{
		"kube-apiserver": apiServerArgs(topo, c), "kube-controller-manager": controllerManagerArgs(p, c), "kube-scheduler": schedulerArgs(p),
	} {
		for _, a := range args {
			flag, value, ok := strings.Cut(a, "=")
			if !ok || !strings.HasPrefix(flag, "--") || value == "" {
				t.Errorf("%s: %q", name, a)
			}
			if (strings.HasSuffix(flag, "-file") || strings.HasSuffix(flag, "-key")) && !filepath.IsAbs(value) {
				t.Errorf("%s: %s is not absolute", name, a)
			}
		}
	}
	for _, want := range []string{"--authorization-mode=Node,RBAC", "--service-cluster-ip-range=10.100.0.0/16", "--advertise-address=192.168.0.10", "--anonymous-auth=false"} {
		if !slices.Contains(apiServerArgs(topo, c), want) {
			t.Errorf("no %s", want)
		}
	}
}

// The admin's kubeconfig is for its user alone, and tells where the API server was.
func TestKubeconfigFile(t *testing.T) {
	_, p, c := defaultLab(t)
	text, err := c.kubeconfig("https://127.0.0.1:4711", "zonewise-x", "admin", c.users["admin"])
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := lastServer(p.Kubeconfig()); ok {
		t.Error("an address from no file")
	}
	if err := os.WriteFile(p.Kubeconfig(), nil, 0o644); err != nil { // as someone may have left it
		t.Fatal(err)
	}
	if err := writePrivate(p.Kubeconfig(), text); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(p.Kubeconfig())
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %s, %v", info.Mode(), err)
	}
	if address, ok := lastServer(p.Kubeconfig()); !ok || address != "127.0.0.1:4711" {
		t.Errorf("address %q, %t", address, ok)
	}
}

func TestResolverKnowsTheNodes(t *testing.T) {
	topo, _, _ := defaultLab(t)
	corefile, hosts := resolverFiles(topo, "/lab/resolver")
	if !strings.Contains(hosts, "192.168.3.10 ip-192-168-3-10.ap-northeast-2.compute.internal\n") || strings.Count(hosts, "\n") != 7 ||
		!strings.Contains(hosts, "203.0.113.10 outside.lab ipinfo.io\n") {
		t.Errorf("hosts:\n%s", hosts)
	}
	for _, part := range []string{"bind 192.168.0.2", "hosts /lab/resolver/hosts", "fallthrough", "file /lab/resolver/nothing . {"} {
		if !strings.Contains(corefile, part) {
			t.Errorf("no %s in:\n%s", part, corefile)
		}
	}
}

func TestNodePorts(t *testing.T) {
	topo, _, _ := defaultLab(t)
	service := &corev1.Service{}
	service.Name, service.Namespace = "web", "default"
	service.Spec.Ports = []corev1.ServicePort{{Port: 80, Protocol: "TCP", NodePort: 30080}, {Port: 53, Protocol: "UDP"}}
	six := service.DeepCopy()
	six.Name, six.Spec.IPFamilies = "six", []corev1.IPFamily{corev1.IPv6Protocol}
	both := service.DeepCopy()
	both.Name, both.Spec.IPFamilies = "both", []corev1.IPFamily{corev1.IPv6Protocol, corev1.IPv4Protocol}
	got := nodePorts([]any{service, "not a Service"}, topo.Nodes()[:2])
	got = append(got, nodePorts([]any{six, both}, topo.Nodes()[:1])...)
	want := []NodePort{
		{Namespace: "default", Service: "web", Protocol: "TCP", Port: 30080, Node: "a1"},
		{Namespace: "default", Service: "web", Protocol: "TCP", Port: 30080, Node: "a2"},
		{Namespace: "default", Service: "six", Protocol: "TCP", Port: 30080, Node: "a1", IPv6: true},
		{Namespace: "default", Service: "both", Protocol: "TCP", Port: 30080, Node: "a1"},
	}
	if !slices.Equal(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestUnready(t *testing.T) {
	nodes := []topology.Node{{Name: "n1", Alias: "a1"}, {Name: "n2", Alias: "b1"}}
	for want, ready := range map[string]map[string]bool{
		"0 of 2 nodes are Ready, b1 is not: see `zonewise lab logs b1/kubelet`": {}, // none has registered
		"1 of 2 nodes are Ready, a1 is not: see `zonewise lab logs a1/kubelet`": {"n1": false, "n2": true},
	} {
		if err := unready(nodes, ready); err == nil || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
	if err := unready(nodes, map[string]bool{"n1": true, "n2": true}); err != nil {
		t.Error(err)
	}
}

func TestPoll(t *testing.T) {
	never := func(context.Context) (bool, error) { return false, errors.New("5 of 6") }
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := poll(ctx, nil, "all is well", func(context.Context) (bool, error) { return true, nil }); err != nil {
		t.Error(err)
	}
	ended := make(chan error, 1)
	ended <- errors.New("etcd ended")
	if err := poll(t.Context(), ended, "all is well", never); err == nil || err.Error() != "etcd ended" {
		t.Errorf("error %v", err)
	}
	short, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := poll(short, nil, "all is well", never); err == nil || err.Error() != "waiting until all is well: 5 of 6" {
		t.Errorf("error %v", err)
	}
}

func TestLastLine(t *testing.T) {
	file := filepath.Join(t.TempDir(), "log")
	for content, want := range map[string]string{"": "", "one\ntwo\n\n": "two", strings.Repeat("x", 10000) + "\nend": "end"} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := lastLine(file); got != want {
			t.Errorf("%.20q: %q", content, got)
		}
	}
	if got := lastLine("/no/such/file"); got != "" {
		t.Errorf("no file: %q", got)
	}
}
