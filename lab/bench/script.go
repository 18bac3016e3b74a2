package bench

import (
	"fmt"
	"net/netip"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/ptr"

	"github.com/zonewise/zonewise/lab/bench/driver"
	"github.com/zonewise/zonewise/lab/rig"
)

// The cluster that is talked of. Its node has a few pods, as real ones do; whatever endpoint is
// connected to, on this node or said to be elsewhere, is in one of the world's server pods.
const (
	nodeName  = "bench-node"
	otherNode = "other-node"
	namespace = "default"
	// serviceRange is where ClusterIPs are; the first 256 are of the Services that are changed.
	serviceRange = "10.100.0.0/14"
	servicePort  = 80
	nodePorts    = 100 // so many Services have one, from firstNodePort on
	firstPort    = 30000
	localOnes    = 100 // so many Services have an endpoint on this node
	perSlice     = 100 // endpoints, as the EndpointSlice controller does it
)

// servers is how many pods endpoints are in. Each has a /16 of them, from 10.200 on; deadRange is
// that of a pod where nobody listens: who connects there is refused.
const (
	servers    = 4
	firstRange = 200
	deadRange  = firstRange + servers
)

// endpoint is the address of the k-th of all endpoints.
func endpoint(k int) netip.Addr {
	at := k/servers + 1
	return netip.AddrFrom4([4]byte{10, byte(firstRange + k%servers), byte(at >> 8), byte(at)})
}

// dead is an address where nobody listens.
func dead(k int) netip.Addr { return netip.AddrFrom4([4]byte{10, deadRange, byte(k >> 8), byte(k)}) }

// clusterIP is the i-th Service's.
func clusterIP(i int) netip.Addr {
	i += 256
	return netip.AddrFrom4([4]byte{10, byte(100 + i>>16), byte(i >> 8), byte(i)})
}

// specialIP is the i-th of those that are changed.
func specialIP(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 100, 0, byte(1 + i)}) }

// load is how many Services of how many endpoints each.
type load struct {
	Services, Endpoints int
	Affinity            bool // sessionAffinity: ClientIP
}

func (l load) String() string {
	out := fmt.Sprintf("%d Services of %d endpoints", l.Services, l.Endpoints)
	if l.Affinity {
		out += ", ClientIP affinity"
	}
	return out
}

func (l load) name(i int) string { return fmt.Sprintf("service-%06d", i) }

// objects are the cluster's, for a load.
func (l load) objects() []runtime.Object {
	out := []runtime.Object{
		&corev1.Node{
			ObjectMeta: metav1.ObjectMeta{Name: nodeName, Labels: map[string]string{corev1.LabelTopologyZone: "a", corev1.LabelHostname: nodeName}},
			Status:     corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: rig.NodeV4}}},
		},
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}},
		&networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: "kubernetes"}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{serviceRange}}},
	}
	for i := range l.Services {
		out = append(out, l.service(i))
		for _, s := range l.slices(i, 0) {
			out = append(out, s)
		}
	}
	for _, s := range specials() {
		out = append(out, s.service(), s.slice())
	}
	return out
}

func (l load) service(i int) *corev1.Service {
	s := service(l.name(i), clusterIP(i), corev1.ProtocolTCP)
	if i < nodePorts {
		s.Spec.Type, s.Spec.Ports[0].NodePort = corev1.ServiceTypeNodePort, int32(firstPort+i)
		s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyCluster
	}
	if l.Affinity {
		s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
		s.Spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: ptr.To(int32(10800))}}
	}
	return s
}

// slices are a Service's. Each version has another first endpoint.
func (l load) slices(i, version int) (out []*discoveryv1.EndpointSlice) {
	var addrs []netip.Addr
	for j := range l.Endpoints {
		addrs = append(addrs, endpoint(i*l.Endpoints+j))
	}
	if version%2 == 1 {
		addrs[0] = endpoint(l.Services*l.Endpoints + i)
	}
	for from := 0; from < len(addrs); from += perSlice {
		s := slice(l.name(i), from/perSlice, driver.AnswerPort, corev1.ProtocolTCP, addrs[from:min(from+perSlice, len(addrs))])
		if i < localOnes && from == 0 {
			s.Endpoints[0].NodeName = ptr.To(nodeName)
		}
		out = append(out, s)
	}
	return out
}

func service(name string, ip netip.Addr, protocol corev1.Protocol) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeClusterIP, ClusterIP: ip.String(), ClusterIPs: []string{ip.String()},
			IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol}, SessionAffinity: corev1.ServiceAffinityNone,
			Selector: map[string]string{"app": name},
			Ports:    []corev1.ServicePort{{Name: "p", Port: servicePort, Protocol: protocol}},
		},
	}
}

func slice(of string, number, port int, protocol corev1.Protocol, addrs []netip.Addr) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Name: of + "-" + strconv.Itoa(number), Labels: map[string]string{discoveryv1.LabelServiceName: of}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: ptr.To("p"), Port: ptr.To(int32(port)), Protocol: ptr.To(protocol)}},
	}
	for _, a := range addrs {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{
			Addresses: []string{a.String()}, NodeName: ptr.To(otherNode), Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(true)}})
	}
	return s
}

// triggered says when a change came about, which proxies subtract from when they are done.
func triggered(s *discoveryv1.EndpointSlice, at time.Time) *discoveryv1.EndpointSlice {
	s.Annotations = map[string]string{corev1.EndpointsLastChangeTriggerTime: at.UTC().Format(time.RFC3339Nano)}
	return s
}

// special is a Service of its own purpose, there at every size.
type special struct {
	name     string
	ip       netip.Addr
	port     int
	protocol corev1.Protocol
	addrs    []netip.Addr
}

func (s special) service() *corev1.Service { return service(s.name, s.ip, s.protocol) }

func (s special) slice() *discoveryv1.EndpointSlice {
	return slice(s.name, 0, s.port, s.protocol, s.addrs)
}

func (s special) target() netip.AddrPort { return netip.AddrPortFrom(s.ip, servicePort) }

// at is the same Service with other endpoints.
func (s special) at(addrs ...netip.Addr) special {
	s.addrs = addrs
	return s
}

// sink takes streams and drain datagrams; probe has its endpoint moved, and removal one taken away.
func sink() special {
	return special{"sink", specialIP(0), driver.SinkPort, corev1.ProtocolTCP, live(0)}
}
func drain() special {
	return special{"drain", specialIP(1), driver.BlastPort, corev1.ProtocolUDP, live(1)}
}
func probe() special {
	return special{"probe", specialIP(2), driver.AnswerPort, corev1.ProtocolTCP, []netip.Addr{dead(1)}}
}
func removal() special {
	return special{"removal", specialIP(3), driver.AnswerPort, corev1.ProtocolTCP, append(live(3), dead(2))}
}

func specials() []special { return []special{sink(), drain(), probe(), removal()} }

// live is an address in a server's range beyond those of endpoints(): the last of its /16.
func live(i int) []netip.Addr {
	return []netip.Addr{netip.AddrFrom4([4]byte{10, byte(firstRange + i%servers), 255, byte(200 + i)})}
}
