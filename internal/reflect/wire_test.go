package reflect

import (
	"math/rand/v2"
	"net/netip"
	"reflect"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	netutils "k8s.io/utils/net"

	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/reflect/apitest"
	"github.com/zonewise/zonewise/internal/state"
)

// message is an object that encodes and decodes itself by Kubernetes' own code.
type message interface {
	metav1.Object
	Marshal() ([]byte, error)
	Unmarshal([]byte) error
}

func manyServices(t testing.TB) []message {
	var out []message
	for _, text := range []string{
		`{metadata: {name: bare}}`,
		`{metadata: {name: none, namespace: a}, spec: {clusterIP: None, clusterIPs: [None]}}`,
		`{metadata: {name: out}, spec: {type: ExternalName, externalName: example.com}}`,
		`{metadata: {name: old}, spec: {clusterIP: 10.0.0.1, ports: [{port: 80}]}}`,
		`{metadata: {name: other, labels: {service.kubernetes.io/service-proxy-name: x, app: y}}, spec: {clusterIP: 10.0.0.1}}`,
		`{metadata: {name: all, namespace: b, resourceVersion: "77", generation: 3, finalizers: [x],
  annotations: {service.kubernetes.io/topology-mode: Auto, service.kubernetes.io/topology-aware-hints: disabled,
    service.beta.kubernetes.io/load-balancer-source-ranges: "10.0.0.0/8, 192.168.0.0/16", k8s.io/initial-events-end: "true", other: x}},
 spec: {type: LoadBalancer, clusterIP: 10.0.0.2, clusterIPs: [10.0.0.2, "fd00::2"], externalIPs: [1.2.3.4, "2001:db8::1", nonsense],
  ports: [{name: a, port: 80, nodePort: 30080, protocol: TCP, targetPort: web, appProtocol: http}, {name: b, port: 81, protocol: UDP}, {name: c, port: 70000}],
  sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 60}}, loadBalancerSourceRanges: [10.0.0.0/33],
  externalTrafficPolicy: Local, internalTrafficPolicy: Local, healthCheckNodePort: 30999, trafficDistribution: PreferSameZone, selector: {a: b},
  ipFamilies: [IPv4, IPv6], loadBalancerClass: x, publishNotReadyAddresses: true},
 status: {loadBalancer: {ingress: [{ip: 5.6.7.8, ipMode: VIP}, {ip: 5.6.7.9, ipMode: Proxy}, {hostname: h}]}}}`,
	} {
		out = append(out, parse[corev1.Service](t, text))
	}
	for i := range apitest.Cluster(3, 2)["services"].(*corev1.ServiceList).Items {
		out = append(out, &apitest.Cluster(3, 2)["services"].(*corev1.ServiceList).Items[i])
	}
	return out
}

func manySlices(t testing.TB) []message {
	var out []message
	for _, text := range []string{
		`{metadata: {name: bare}}`,
		`{metadata: {name: headless, labels: {kubernetes.io/service-name: x, service.kubernetes.io/headless: ""}}, addressType: IPv4}`,
		`{metadata: {name: other, labels: {kubernetes.io/service-name: x, service.kubernetes.io/service-proxy-name: y}}, addressType: IPv4}`,
		`{metadata: {name: fqdn, labels: {kubernetes.io/service-name: x}}, addressType: FQDN, endpoints: [{addresses: [example.com]}]}`,
		`{metadata: {name: all, namespace: a, resourceVersion: "5", labels: {kubernetes.io/service-name: x}, annotations: {zonewise.io/hints: d1}}, addressType: IPv4,
 ports: [{name: a, port: 80, protocol: TCP}, {name: b, port: 81, protocol: UDP, appProtocol: x}, {name: c}, {port: 82}, {protocol: XYZ, port: 1}],
 endpoints: [
  {addresses: [10.0.0.1, 10.0.0.2], conditions: {ready: true, serving: true, terminating: false}, nodeName: n1, zone: z1, hostname: h,
   targetRef: {kind: Pod, name: p1, namespace: a, uid: u}, hints: {forZones: [{name: z1}, {name: z2}], forNodes: [{name: n1}]}},
  {addresses: [10.0.0.3], conditions: {ready: false, terminating: true}, targetRef: {kind: VM, name: v}, deprecatedTopology: {a: b}},
  {addresses: []}, {addresses: ["fd00::1"]}, {addresses: [nonsense]}, {addresses: [010.000.000.004]}, {addresses: ["::ffff:10.0.0.5"]}, {addresses: [127.0.0.1]}]}`,
		`{metadata: {name: six, labels: {kubernetes.io/service-name: x}}, addressType: IPv6, endpoints: [{addresses: ["fd00::1"]}, {addresses: [10.0.0.1]}, {addresses: ["fe80::1%eth0"]}]}`,
	} {
		out = append(out, parse[discoveryv1.EndpointSlice](t, text))
	}
	list := apitest.Cluster(3, 7)["endpointslices"].(*discoveryv1.EndpointSliceList)
	for i := range list.Items {
		out = append(out, &list.Items[i])
	}
	return out
}

// agreement holds what our decoder makes of a message against what Kubernetes' own does.
type agreement[K message, T any] struct {
	store   *store[K, T]
	decoder decoder[K] // one for all, so that nothing may be left of the message before
	empty   func() K
}

func serviceAgreement() agreement[*corev1.Service, servedOrNot] {
	return agreement[*corev1.Service, servedOrNot]{serviceStore(state.New(), time.Now), newServiceDecoder(), func() *corev1.Service { return &corev1.Service{} }}
}

func sliceAgreement() agreement[*discoveryv1.EndpointSlice, any] {
	s := sliceStore(state.New(), time.Now)
	return agreement[*discoveryv1.EndpointSlice, any]{&store[*discoveryv1.EndpointSlice, any]{
		convert: func(e *discoveryv1.EndpointSlice) (any, bool) { return s.convert(e) }}, newSliceDecoder(),
		func() *discoveryv1.EndpointSlice { return &discoveryv1.EndpointSlice{} }}
}

// hold tells whether our decoder knew what to do.
func (a agreement[K, T]) hold(t testing.TB, raw []byte) bool {
	got, ok := a.decoder.decode(raw)
	want := a.empty()
	if err := want.Unmarshal(raw); !ok || err != nil {
		return ok
	}
	mark := metav1.InitialEventsAnnotationKey
	if g, w := a.store.arrived(got), a.store.arrived(want); !reflect.DeepEqual(g, w) {
		t.Errorf("of %x\n got %+v\nwant %+v", raw, g, w)
	}
	if g, w := got.GetResourceVersion(), want.GetResourceVersion(); g != w {
		t.Errorf("of %x: version %q, want %q", raw, g, w)
	}
	if g, w := got.GetAnnotations()[mark], want.GetAnnotations()[mark]; g != w {
		t.Errorf("of %x: mark %q, want %q", raw, g, w)
	}
	return true
}

// sound tries each message as it is, and thousands that are like it.
func sound[K message, T any](t *testing.T, a agreement[K, T], all []message) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, m := range all {
		raw, err := m.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if !a.hold(t, raw) {
			t.Errorf("%s: not decoded", m.GetName())
		}
		understood := 0
		for range 3000 {
			if a.hold(t, mutate(random, raw)) {
				understood++
			}
		}
		if understood < 100 {
			t.Errorf("%s: of 3000 mutations only %d were decoded", m.GetName(), understood)
		}
		if t.Failed() {
			return
		}
	}
}

// mutate returns a message with a few bytes changed, taken out or said twice.
func mutate(random *rand.Rand, raw []byte) []byte {
	out := append([]byte{}, raw...)
	for range 1 + random.IntN(3) {
		at := random.IntN(len(out) + 1)
		switch random.IntN(4) {
		case 0:
			out = append(out[:at:at], out[min(len(out), at+random.IntN(4)):]...)
		case 1:
			from := random.IntN(at + 1)
			out = append(append(append([]byte{}, out[:at]...), out[from:at]...), out[at:]...)
		default:
			if at < len(out) {
				out[at] = byte(random.IntN(256))
			}
		}
		if len(out) == 0 {
			return raw
		}
	}
	return out
}

func TestServicesAreDecodedAsByKubernetes(t *testing.T) {
	sound(t, serviceAgreement(), manyServices(t))
}

func TestSlicesAreDecodedAsByKubernetes(t *testing.T) {
	sound(t, sliceAgreement(), manySlices(t))
}

// A message that says the same field twice means both, or the later: whatever Kubernetes' decoder says.
func TestMessagesOneAfterTheOther(t *testing.T) {
	services, slices, pods := serviceAgreement(), sliceAgreement(), podAgreement()
	together := func(all []message, hold func(testing.TB, []byte) bool) {
		for _, a := range all {
			for _, b := range all {
				first, err := a.Marshal()
				if err != nil {
					t.Fatal(err)
				}
				second, err := b.Marshal()
				if err != nil {
					t.Fatal(err)
				}
				if !hold(t, append(first, second...)) {
					t.Errorf("%s and %s: not decoded", a.GetName(), b.GetName())
				}
			}
		}
	}
	together(manyServices(t), services.hold)
	together(manySlices(t), slices.hold)
	together(manyPods(t), pods.hold)
}

func FuzzService(f *testing.F) {
	for _, m := range manyServices(f) {
		raw, err := m.Marshal()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) { serviceAgreement().hold(t, raw) })
}

func FuzzSlice(f *testing.F) {
	for _, m := range manySlices(f) {
		raw, err := m.Marshal()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) { sliceAgreement().hold(t, raw) })
}

// Addresses are read as Kubernetes reads them, however they are written.
func TestAddressesAreReadAsByKubernetes(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for _, text := range []string{"", "10.0.0.1", "010.1.2.03", "1.2.3", "1.2.3.256", "::ffff:1.2.3.4", "::", "fd00::1", "FD00::0001",
		"fe80::1%eth0", "::1.2.3.4", "1:2:3:4:5:6:7:8", " 10.0.0.1", "::ffff:01.2.3.4", "0:0:0:0:0:ffff:a00:1"} {
		for range 500 {
			got, ok := addr(text)
			want, wantOK := netip.AddrFromSlice(netutils.ParseIPSloppy(text))
			if ok != wantOK || got != want.Unmap() {
				t.Fatalf("%q: %v %v, want %v %v", text, got, ok, want.Unmap(), wantOK)
			}
			if b := []byte(text); len(b) > 0 {
				b[random.IntN(len(b))] = "0123456789abcdef:.%"[random.IntN(19)]
				text = string(b)
			}
		}
	}
}

func manyPods(t testing.TB) []message {
	var out []message
	for _, text := range []string{
		`{metadata: {name: bare}}`,
		`{metadata: {name: web-5d9-x, namespace: a, resourceVersion: "9", creationTimestamp: "2026-01-02T03:04:05Z", labels: {pod-template-hash: 5d9, app: web},
  annotations: {k8s.io/initial-events-end: "true"},
  ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: web-5d9, uid: u, controller: true, blockOwnerDeletion: true}]},
 spec: {nodeName: n1, containers: [{name: c, image: i}], restartPolicy: Always},
 status: {phase: Running, podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}, {ip: "fd00::1"}], hostIP: 192.168.0.1, startTime: "2026-01-02T03:04:06Z",
  containerStatuses: [{name: c, containerID: "containerd://abc", ready: true, image: i, imageID: j, state: {running: {}}}]}}`,
		`{metadata: {name: proxy, namespace: b, ownerReferences: [{kind: Config, name: x, uid: v}, {kind: DaemonSet, name: proxy, uid: w, controller: true}]},
 spec: {nodeName: ours, hostNetwork: true}, status: {podIPs: [{ip: 192.168.0.1}],
  containerStatuses: [{name: a, containerID: "containerd://abc"}, {name: b}, {name: c, containerID: "cri-o://def"}]}}`,
		`{metadata: {name: api-ours, ownerReferences: [{kind: Node, name: ours, uid: w, controller: true}]}, spec: {nodeName: ours, hostNetwork: true}, status: {phase: Failed}}`,
	} {
		out = append(out, parse[corev1.Pod](t, text))
	}
	return out
}

func podAgreement() agreement[*corev1.Pod, model.Pod] {
	return agreement[*corev1.Pod, model.Pod]{residentStore(state.New(), time.Now, "ours"), newPodDecoder(), func() *corev1.Pod { return &corev1.Pod{} }}
}

func TestPodsAreDecodedAsByKubernetes(t *testing.T) { sound(t, podAgreement(), manyPods(t)) }

func FuzzPod(f *testing.F) {
	for _, m := range manyPods(f) {
		raw, err := m.Marshal()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) { podAgreement().hold(t, raw) })
}
