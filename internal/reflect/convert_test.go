package reflect

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"sigs.k8s.io/yaml"

	"github.com/zonewise/zonewise/internal/model"
)

var byValue = cmp.Options{cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}), cmpopts.EquateEmpty()}

func parse[T any](t testing.TB, text string) *T {
	t.Helper()
	v := new(T)
	if err := yaml.UnmarshalStrict([]byte(text), v); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestNode(t *testing.T) {
	got, ok := Node(parse[corev1.Node](t, `
metadata:
  name: ip-192-168-1-10
  labels: {topology.kubernetes.io/zone: a, topology.kubernetes.io/region: r, node.kubernetes.io/instance-type: t3.medium}
status:
  addresses:
  - {type: Hostname, address: ip-192-168-1-10}
  - {type: InternalIP, address: 192.168.1.10}
  - {type: ExternalIP, address: 203.0.113.1}
  - {type: InternalIP, address: "fd00::1"}
  conditions: [{type: DiskPressure, status: "True"}, {type: Ready, status: "True"}]
  allocatable: {cpu: 1930m, memory: 3Gi}`))
	want := model.Node{Name: "ip-192-168-1-10", Zone: "a", Region: "r", InstanceType: "t3.medium", Ready: true, MilliCPU: 1930,
		Addresses: []netip.Addr{netip.MustParseAddr("192.168.1.10"), netip.MustParseAddr("fd00::1")}}
	if diff := cmp.Diff(want, got, byValue); diff != "" || !ok {
		t.Error(ok, diff)
	}
}

// A family without an internal address has the first external one.
func TestNodeAddresses(t *testing.T) {
	for _, c := range []struct {
		addresses string
		want      []netip.Addr
	}{
		{`[{type: ExternalIP, address: 203.0.113.1}, {type: InternalIP, address: 192.168.001.010}]`, addrs("192.168.1.10")},
		{`[{type: ExternalIP, address: 203.0.113.1}, {type: ExternalIP, address: 203.0.113.2}]`, addrs("203.0.113.1")},
		{`[{type: ExternalIP, address: "2001:db8::1"}, {type: InternalIP, address: 192.168.1.10}]`, addrs("192.168.1.10", "2001:db8::1")},
		{`[{type: InternalIP, address: x}, {type: Hostname, address: 192.168.1.1}, {type: ExternalIP, address: ""}]`, nil},
	} {
		got := nodeAddresses(*parse[[]corev1.NodeAddress](t, c.addresses))
		if diff := cmp.Diff(c.want, got, byValue); diff != "" {
			t.Errorf("%s: %s", c.addresses, diff)
		}
	}
}

func TestControlPlane(t *testing.T) {
	for _, c := range []struct {
		labels string
		want   bool
	}{
		{`{}`, false},
		{`{node-role.kubernetes.io/control-plane: ""}`, true},
		{`{node-role.kubernetes.io/master: ""}`, true},
		{`{node-role.kubernetes.io/worker: ""}`, false},
	} {
		if got, _ := Node(parse[corev1.Node](t, `metadata: {labels: `+c.labels+`}`)); got.ControlPlane != c.want {
			t.Errorf("%s: %v", c.labels, got.ControlPlane)
		}
	}
}

// Load balancers should send nothing more to a node that will be gone.
func TestLeavingNode(t *testing.T) {
	for _, c := range []struct {
		node string
		want bool
	}{
		{`{}`, false},
		{`spec: {taints: [{key: node.kubernetes.io/not-ready, effect: NoExecute}], unschedulable: true}`, false},
		{`spec: {taints: [{key: ToBeDeletedByClusterAutoscaler, effect: NoSchedule}]}`, true},
		{`metadata: {deletionTimestamp: "2026-01-01T00:00:00Z"}`, true},
	} {
		if got, _ := Node(parse[corev1.Node](t, c.node)); got.Leaving != c.want {
			t.Errorf("%s: leaving %v", c.node, got.Leaving)
		}
	}
}

func TestPod(t *testing.T) {
	got, ok := Pod(parse[corev1.Pod](t, `
metadata: {namespace: shop, name: web-0}
spec:
  nodeName: n1
  initContainers:
  - {name: once, resources: {requests: {cpu: "4"}}}
  - {name: sidecar, restartPolicy: Always, resources: {requests: {cpu: 50m}}}
  containers:
  - {name: a, resources: {requests: {cpu: 100m, memory: 1Gi}}}
  - {name: b, resources: {requests: {cpu: "0.25"}, limits: {cpu: "9"}}}
  - {name: c}
status: {phase: Running}`))
	want := model.Pod{Name: model.Name{Namespace: "shop", Name: "web-0"}, Node: "n1", MilliCPU: 400}
	if diff := cmp.Diff(want, got); diff != "" || !ok {
		t.Error(ok, diff)
	}
	for _, c := range []struct {
		text  string
		milli int64
		ours  bool
	}{
		{`{}`, 0, true},
		{`{status: {phase: Succeeded}}`, 0, false},
		{`{status: {phase: Failed}, spec: {containers: [{resources: {requests: {cpu: 1}}}]}}`, 1000, false},
		{`{spec: {resources: {requests: {cpu: 2}}, containers: [{resources: {requests: {cpu: 1}}}]}}`, 2000, true},
		{`{spec: {resources: {requests: {memory: 2Gi}}, containers: [{resources: {requests: {cpu: 1}}}]}}`, 1000, true},
		{`{spec: {containers: [{resources: {requests: {cpu: -1}}}]}}`, 0, true},
	} {
		if got, ours := Pod(parse[corev1.Pod](t, c.text)); got.MilliCPU != c.milli || ours != c.ours {
			t.Errorf("%s: %d, ours %v", c.text, got.MilliCPU, ours)
		}
	}
}

func TestService(t *testing.T) {
	got, ok := Service(parse[corev1.Service](t, `
metadata: {namespace: shop, name: web, annotations: {service.kubernetes.io/topology-mode: Auto}}
spec:
  type: NodePort
  clusterIP: 10.100.0.7
  clusterIPs: [10.100.0.7, "fd00::7"]
  internalTrafficPolicy: Local
  externalTrafficPolicy: Local
  trafficDistribution: PreferSameZone
  ports:
  - {name: http, protocol: TCP, port: 80, nodePort: 30080}
  - {name: dns, protocol: UDP, port: 53}`))
	want := model.Service{
		Name: model.Name{Namespace: "shop", Name: "web"}, Type: model.NodePort,
		ClusterIPs: []netip.Addr{netip.MustParseAddr("10.100.0.7"), netip.MustParseAddr("fd00::7")},
		Ports: []model.ServicePort{
			{Name: "http", Protocol: model.TCP, Port: 80, NodePort: 30080},
			{Name: "dns", Protocol: model.UDP, Port: 53},
		},
		InternalLocal: true, ExternalLocal: true, TopologyMode: "Auto", TrafficDistribution: "PreferSameZone",
	}
	if diff := cmp.Diff(want, got, byValue); diff != "" || !ok {
		t.Error(ok, diff)
	}
}

func addrs(texts ...string) []netip.Addr {
	var out []netip.Addr
	for _, s := range texts {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

// What a load balancer and others can add to a Service.
func TestServiceOutside(t *testing.T) {
	got, _ := Service(parse[corev1.Service](t, `
metadata: {namespace: shop, name: web}
spec:
  type: LoadBalancer
  clusterIPs: [10.100.0.7, "fd00::7"]
  externalIPs: [203.0.113.7, "2001:db8::7", 203.0.113.007]
  loadBalancerSourceRanges: [" 10.0.0.0/8", "192.168.1.77/16 ", "fd00::/8", 10.0.0.0/8]
  allocateLoadBalancerNodePorts: false
  externalTrafficPolicy: Local
  healthCheckNodePort: 32000
  sessionAffinity: ClientIP
  sessionAffinityConfig: {clientIP: {timeoutSeconds: 60}}
  ports: [{port: 80}]
status:
  loadBalancer:
    ingress:
    - {ip: 198.51.100.1}
    - {ip: 198.51.100.2, ipMode: VIP}
    - {ip: 198.51.100.3, ipMode: Proxy}
    - {hostname: lb.example.com}
    - {ip: "2001:db8::1"}`))
	want := model.Service{
		Name: model.Name{Namespace: "shop", Name: "web"}, Type: model.LoadBalancer,
		ClusterIPs:      addrs("10.100.0.7", "fd00::7"),
		ExternalIPs:     addrs("203.0.113.7", "2001:db8::7"),
		LoadBalancerIPs: addrs("198.51.100.1", "198.51.100.2", "2001:db8::1"),
		SourceRanges: []netip.Prefix{
			netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("192.168.0.0/16"), netip.MustParsePrefix("fd00::/8"),
		},
		Ports:         []model.ServicePort{{Protocol: model.TCP, Port: 80}},
		ExternalLocal: true, HealthCheckNodePort: 32000, Affinity: time.Minute,
	}
	if diff := cmp.Diff(want, got, byValue); diff != "" {
		t.Error(diff)
	}
}

func TestSourceRanges(t *testing.T) {
	const annotated = `{metadata: {annotations: {service.beta.kubernetes.io/load-balancer-source-ranges: "10.0.0.0/8, fd00::/8"}}`
	for _, c := range []struct{ service, want string }{
		{`{}`, ""},
		{annotated + `}`, "10.0.0.0/8 fd00::/8"},
		{annotated + `, spec: {loadBalancerSourceRanges: [192.0.2.0/24]}}`, "192.0.2.0/24"},
		{`{spec: {loadBalancerSourceRanges: ["::ffff:10.0.0.0/104", "010.1.0.0/16"]}}`, "10.0.0.0/8 10.1.0.0/16"},
		{`{spec: {loadBalancerSourceRanges: ["", 0.0.0.0/0]}}`, "0.0.0.0/0"},
	} {
		var wrong faults
		var got []string
		for _, p := range sourceRanges(parse[corev1.Service](t, c.service), &wrong) {
			got = append(got, p.String())
		}
		if strings.Join(got, " ") != c.want || len(wrong) != 0 {
			t.Errorf("%s: %v, want %s; faults %q", c.service, got, c.want, wrong)
		}
	}
}

func TestAffinity(t *testing.T) {
	for _, c := range []struct {
		spec string
		want time.Duration
	}{
		{`{}`, 0},
		{`{sessionAffinity: None, sessionAffinityConfig: {clientIP: {timeoutSeconds: 5}}}`, 0},
		{`{sessionAffinity: ClientIP}`, 3 * time.Hour},
		{`{sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {}}}`, 3 * time.Hour},
		{`{sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 86400}}}`, 24 * time.Hour},
	} {
		var wrong faults
		if got := affinity(parse[corev1.Service](t, `{spec: `+c.spec+`}`), &wrong); got != c.want || len(wrong) > 0 {
			t.Errorf("%s: %v, %q", c.spec, got, wrong)
		}
	}
}

// Only a load balancer that must know where endpoints are asks for them.
func TestHealthCheckNodePort(t *testing.T) {
	for _, c := range []struct {
		typ, policy string
		want        uint16
	}{
		{"LoadBalancer", "Local", 32000}, {"LoadBalancer", "Cluster", 0}, {"NodePort", "Local", 0}, {"ClusterIP", "Local", 0},
	} {
		got, _ := Service(parse[corev1.Service](t, fmt.Sprintf(
			`{spec: {clusterIP: 10.100.0.1, type: %s, externalTrafficPolicy: %s, healthCheckNodePort: 32000}}`, c.typ, c.policy)))
		if got.HealthCheckNodePort != c.want || len(got.Faults) > 0 {
			t.Errorf("%+v: %d, %q", c, got.HealthCheckNodePort, got.Faults)
		}
	}
}

// What a Service says wrongly is left out, by name; all else of it stays.
func TestServiceFaults(t *testing.T) {
	for _, c := range []struct {
		spec string
		want []string
	}{
		{`{externalIPs: [nonsense, "", 127.0.0.1, "::", 224.0.0.1, "ff02::1", 203.0.113.1]}`, []string{
			`external IP "nonsense" is not an address: left out`,
			`external IP 127.0.0.1 is a loopback address: left out`,
			`external IP :: is the unspecified address: left out`,
			`external IP 224.0.0.1 is a multicast address: left out`,
			`external IP ff02::1 is a multicast address: left out`,
		}},
		{`{clusterIPs: [10.100.0.1, 10.100.0.1.5]}`, []string{`cluster IP "10.100.0.1.5" is not an address: left out`}},
		{`{loadBalancerSourceRanges: [10.0.0.0, 10.0.0.0/33, 10.0.0.0/8]}`, []string{
			`source range "10.0.0.0" is not a range of addresses: left out`,
			`source range "10.0.0.0/33" is not a range of addresses: left out`,
		}},
		{`{sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 0}}}`, []string{
			`session affinity of 0 s is not between 1 and 86400: taken for 10800`}},
		{`{type: LoadBalancer, externalTrafficPolicy: Local}`, []string{
			`no healthCheckNodePort, though externalTrafficPolicy is Local: load balancers cannot ask where endpoints are`}},
	} {
		got, ok := Service(parse[corev1.Service](t, `spec: `+strings.Replace(c.spec, "{", "{clusterIP: 10.100.0.1, ", 1)))
		if diff := cmp.Diff(c.want, got.Faults); diff != "" || !ok {
			t.Errorf("%s: %s", c.spec, diff)
		}
	}
	in := `{clusterIP: 10.100.0.1}, status: {loadBalancer: {ingress: [{ip: 127.0.0.1}, {ip: x, ipMode: Proxy}, {ip: 198.51.100.1}]}}`
	got, _ := Service(parse[corev1.Service](t, `{spec: `+in+`}`))
	if diff := cmp.Diff([]string{"load balancer IP 127.0.0.1 is a loopback address: left out"}, got.Faults); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(addrs("198.51.100.1"), got.LoadBalancerIPs, byValue); diff != "" {
		t.Error(diff)
	}
}

// Of two ports that want the same, the first has it.
func TestServicePorts(t *testing.T) {
	var wrong faults
	got := servicePorts(*parse[[]corev1.ServicePort](t, `
- {name: a, port: 80, nodePort: 30080}
- {name: a, port: 81}
- {name: a, port: 80, protocol: UDP, nodePort: 30080}
- {name: a, port: 80, protocol: SCTP, nodePort: 30080}
- {name: b, port: 80}
- {name: c, port: 82, nodePort: 30080}
- {name: d, port: 0}
- {name: e, port: 83, protocol: ICMP}
- {name: f, port: 84, nodePort: 70000}
- {port: 85}
- {port: 86}`), &wrong)
	if diff := cmp.Diff([]model.ServicePort{
		{Name: "a", Protocol: model.TCP, Port: 80, NodePort: 30080},
		{Name: "a", Protocol: model.UDP, Port: 80, NodePort: 30080},
		{Name: "a", Protocol: model.SCTP, Port: 80, NodePort: 30080},
		{Name: "c", Protocol: model.TCP, Port: 82},
		{Name: "f", Protocol: model.TCP, Port: 84},
		{Protocol: model.TCP, Port: 85},
	}, got); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(faults{
		`port a: the name "a" occurs twice with TCP: only the first is used`,
		`port b: 80/TCP occurs twice: only the first is used`,
		`port c: node port 30080/TCP occurs twice: only the first is used`,
		`port d: 0 is not a port: left out`,
		`port e: protocol "ICMP" is not known: left out`,
		`port f: node port 70000 is not a port: left out`,
		`port 86: the name "" occurs twice with TCP: only the first is used`,
	}, wrong); diff != "" {
		t.Error(diff)
	}
}

func TestWhichServicesAreOurs(t *testing.T) {
	for _, c := range []struct {
		what, spec string
		want       bool
	}{
		{"cluster address", `spec: {clusterIP: 10.100.0.1, clusterIPs: [10.100.0.1]}`, true},
		{"only the older field", `spec: {clusterIP: 10.100.0.1}`, true},
		{"headless", `spec: {clusterIP: None, clusterIPs: [None]}`, false},
		{"no address yet", `spec: {type: ClusterIP}`, false},
		{"ExternalName", `spec: {type: ExternalName, externalName: example.com}`, false},
		{"ExternalName that kept its address", `spec: {type: ExternalName, clusterIP: 10.100.0.1}`, false},
		{"of another proxy", `{metadata: {labels: {service.kubernetes.io/service-proxy-name: x}}, spec: {clusterIP: 10.100.0.1}}`, false},
		{"of another proxy, no name", `{metadata: {labels: {service.kubernetes.io/service-proxy-name: ""}}, spec: {clusterIP: 10.100.0.1}}`, false},
	} {
		if _, got := Service(parse[corev1.Service](t, c.spec)); got != c.want {
			t.Errorf("%s: ours = %v", c.what, got)
		}
	}
}

func TestTopologyMode(t *testing.T) {
	for _, c := range []struct{ annotations, want string }{
		{`{}`, ""},
		{`{service.kubernetes.io/topology-mode: Auto}`, "Auto"},
		{`{service.kubernetes.io/topology-aware-hints: auto}`, "auto"},
		{`{service.kubernetes.io/topology-aware-hints: Disabled, service.kubernetes.io/topology-mode: Auto}`, "Disabled"},
	} {
		if got := topologyMode(*parse[map[string]string](t, c.annotations)); got != c.want {
			t.Errorf("%s: %q, want %q", c.annotations, got, c.want)
		}
	}
}

func TestSlice(t *testing.T) {
	got, ok := Slice(parse[discoveryv1.EndpointSlice](t, `
metadata: {namespace: shop, name: web-abc, labels: {kubernetes.io/service-name: web}, annotations: {zonewise.io/hints: 3f2a}}
addressType: IPv4
ports:
- {name: http, protocol: TCP, port: 8080}
- {port: 53, protocol: UDP}
- {name: all}
endpoints:
- addresses: [192.168.1.11, 192.168.1.99]
  nodeName: n1
  zone: a
  targetRef: {kind: Pod, namespace: shop, name: web-0}
  hints: {forZones: [{name: a}, {name: b}], forNodes: [{name: n1}]}
- addresses: [192.168.001.012]
- addresses: [nonsense]
- addresses: []`))
	want := model.Slice{
		Name: model.Name{Namespace: "shop", Name: "web-abc"}, Service: "web", HintMark: "3f2a",
		Ports: []model.EndpointPort{{Name: "http", Protocol: model.TCP, Port: 8080}, {Protocol: model.UDP, Port: 53}},
		Endpoints: []model.Endpoint{
			{Addr: netip.MustParseAddr("192.168.1.11"), Node: "n1", Zone: "a", Pod: "web-0", Ready: true, Serving: true,
				ZoneHints: []string{"a", "b"}, NodeHints: []string{"n1"}},
			{Addr: netip.MustParseAddr("192.168.1.12"), Ready: true, Serving: true},
		},
		Faults: []string{`port "all" has no number: left out`, `endpoint "nonsense" is not an address: left out, and 1 more`},
	}
	if diff := cmp.Diff(want, got, byValue); diff != "" || !ok {
		t.Error(ok, diff)
	}
}

// What a slice says wrongly is left out, by name and number; all else of it stays.
func TestSliceFaults(t *testing.T) {
	for _, c := range []struct {
		text string
		want []string
	}{
		{`{endpoints: [{addresses: ["fd00::1"]}, {addresses: [10.0.0.1]}]}`, []string{"endpoint fd00::1 is IPv6, and the slice IPv4: left out"}},
		{`{addressType: IPv6, endpoints: [{addresses: ["::ffff:10.0.0.1"]}]}`, []string{"endpoint 10.0.0.1 is IPv4, and the slice IPv6: left out"}},
		{`{endpoints: [{addresses: []}, {}, {addresses: [127.0.0.1]}]}`, []string{"an endpoint has no address: left out, and 2 more"}},
		{`{endpoints: [{addresses: [127.0.0.1]}]}`, []string{"endpoint 127.0.0.1 is a loopback address: left out"}},
		{`{ports: [{name: a, port: 0}, {name: b, port: 70000}, {name: c, port: 1, protocol: X}, {port: 80}]}`, []string{
			`port "a": 0 is not a port: left out`, `port "b": 70000 is not a port: left out`, `port "c": protocol "X" is not known: left out`}},
	} {
		text := strings.Replace(c.text, "{", "{metadata: {labels: {kubernetes.io/service-name: web}}, ", 1)
		got, ok := Slice(parse[discoveryv1.EndpointSlice](t, text))
		if diff := cmp.Diff(c.want, got.Faults); diff != "" || !ok {
			t.Errorf("%s: %s", c.text, diff)
		}
	}
}

func TestConditions(t *testing.T) {
	type conditions struct{ Ready, Serving, Terminating bool }
	for _, c := range []struct {
		text string
		want conditions
	}{
		{`{}`, conditions{true, true, false}},
		{`{ready: false}`, conditions{false, true, false}},
		{`{ready: true}`, conditions{true, true, false}},
		{`{ready: false, serving: true}`, conditions{false, true, false}},
		{`{ready: false, serving: true, terminating: true}`, conditions{false, true, true}},
		{`{ready: false, terminating: true}`, conditions{false, true, true}},
		{`{serving: false}`, conditions{true, false, false}},
	} {
		e := parse[discoveryv1.Endpoint](t, `{addresses: [10.0.0.1], conditions: `+c.text+`}`)
		got := endpoint(e, netip.Addr{})
		if (conditions{got.Ready, got.Serving, got.Terminating}) != c.want {
			t.Errorf("%s: %+v, want %+v", c.text, got, c.want)
		}
	}
}

func TestWhichSlicesAreOurs(t *testing.T) {
	for _, c := range []struct {
		what, text string
		want       bool
	}{
		{"IPv4", `{metadata: {labels: {kubernetes.io/service-name: a}}, addressType: IPv4}`, true},
		{"IPv6", `{metadata: {labels: {kubernetes.io/service-name: a}}, addressType: IPv6}`, true},
		{"names", `{metadata: {labels: {kubernetes.io/service-name: a}}, addressType: FQDN}`, false},
		{"of no service", `{addressType: IPv4}`, false},
		{"headless", `{metadata: {labels: {kubernetes.io/service-name: a, service.kubernetes.io/headless: ""}}, addressType: IPv4}`, false},
		{"of another proxy", `{metadata: {labels: {kubernetes.io/service-name: a, service.kubernetes.io/service-proxy-name: x}}, addressType: IPv4}`, false},
	} {
		if _, got := Slice(parse[discoveryv1.EndpointSlice](t, c.text)); got != c.want {
			t.Errorf("%s: ours = %v", c.what, got)
		}
	}
}

// Whatever an API server may send, conversion neither panics nor lets nonsense through.
func FuzzConvert(f *testing.F) {
	f.Add([]byte(`{"metadata":{"name":"a","labels":{"kubernetes.io/service-name":"a"}},"addressType":"IPv4",
		"ports":[{"port":80},{}],"endpoints":[{"addresses":["10.0.0.1"],"hints":{"forZones":[{"name":"a"}]}},{}]}`))
	f.Add([]byte(`{"spec":{"clusterIPs":["10.0.0.1","::ffff:10.0.0.2","None"],"ports":[{"port":-1},{"port":70000,"protocol":"X"}]}}`))
	f.Add([]byte(`{"spec":{"clusterIP":"10.0.0.1","externalIPs":["127.0.0.1","x"],"loadBalancerSourceRanges":["::ffff:1.2.3.4/100","1.2.3.4/5"],
		"sessionAffinity":"ClientIP"},"status":{"loadBalancer":{"ingress":[{"ip":"ff02::1"},{"ip":"1.2.3.4","ipMode":"Proxy"}]}}}`))
	f.Add([]byte(`{"status":{"addresses":[{"type":"InternalIP","address":"fe80::1%eth0"}]}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var n corev1.Node
		if json.Unmarshal(data, &n) == nil {
			got, _ := Node(&n)
			for _, a := range got.Addresses {
				checkAddr(t, a)
			}
		}
		var s corev1.Service
		if json.Unmarshal(data, &s) == nil {
			if got, ok := Service(&s); ok {
				checkService(t, got)
			}
		}
		var es discoveryv1.EndpointSlice
		if json.Unmarshal(data, &es) == nil {
			if got, ok := Slice(&es); ok {
				checkSlice(t, got)
			}
		}
	})
}

func checkAddr(t *testing.T, a netip.Addr) {
	t.Helper()
	if !a.IsValid() || a.Is4In6() {
		t.Errorf("address %v", a)
	}
}

func checkService(t *testing.T, s model.Service) {
	t.Helper()
	if len(s.ClusterIPs) == 0 {
		t.Error("a service of ours without an address")
	}
	for _, a := range slices.Concat(s.ClusterIPs, s.ExternalIPs, s.LoadBalancerIPs) {
		checkAddr(t, a)
		if special(a) != "" {
			t.Errorf("address %v", a)
		}
	}
	for _, p := range s.SourceRanges {
		if !p.IsValid() || p.Addr().Is4In6() || p.Masked() != p {
			t.Errorf("source range %v", p)
		}
	}
	if s.Affinity < 0 || s.Affinity > 24*time.Hour {
		t.Errorf("affinity %v", s.Affinity)
	}
	for _, p := range s.Ports {
		if p.Port == 0 || p.Protocol.String() == "unknown" {
			t.Errorf("port %+v", p)
		}
	}
}

func checkSlice(t *testing.T, s model.Slice) {
	t.Helper()
	for _, p := range s.Ports {
		if p.Port == 0 || p.Protocol.String() == "unknown" {
			t.Errorf("port %+v", p)
		}
	}
	for _, e := range s.Endpoints {
		checkAddr(t, e.Addr)
		if e.Addr.Is6() != s.V6 {
			t.Errorf("endpoint %v in a slice with v6=%v", e.Addr, s.V6)
		}
	}
}
