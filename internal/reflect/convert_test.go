package reflect

import (
	"encoding/json"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"sigs.k8s.io/yaml"

	"github.com/zonewise/zonewise/internal/model"
)

var byValue = cmp.Options{cmpopts.EquateComparable(netip.Addr{}), cmpopts.EquateEmpty()}

func parse[T any](t *testing.T, text string) *T {
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
	}
	if diff := cmp.Diff(want, got, byValue); diff != "" || !ok {
		t.Error(ok, diff)
	}
}

func TestConditions(t *testing.T) {
	type conditions struct{ Ready, Serving, Terminating bool }
	for _, c := range []struct {
		text string
		want conditions
	}{
		{`{}`, conditions{true, true, false}},
		{`{ready: false}`, conditions{false, false, false}},
		{`{ready: true}`, conditions{true, true, false}},
		{`{ready: false, serving: true}`, conditions{false, true, false}},
		{`{ready: false, serving: true, terminating: true}`, conditions{false, true, true}},
		{`{ready: false, terminating: true}`, conditions{false, false, true}},
		{`{serving: false}`, conditions{true, false, false}},
	} {
		e := parse[discoveryv1.Endpoint](t, `{addresses: [10.0.0.1], conditions: `+c.text+`}`)
		got, _ := endpoint(e, false)
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
	for _, a := range s.ClusterIPs {
		checkAddr(t, a)
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
