package reflect

import (
	"encoding/binary"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Objects come in protobuf. Kubernetes' own decoders make all of an object, each time anew, and most of a
// first sync went into that. Those here fill in what conversion reads, into an object that is used again for the
// next one. They may give up on anything: Kubernetes' decoders then have a try.

// Wire types, the low three bits of a field's tag. Kubernetes' messages have no others.
const (
	varint = 0
	length = 2
)

const maxField = 1<<29 - 1 // the greatest number that a field may have

// field is one field of a message.
type field struct {
	tag   uint64 // as it is on the wire: number<<3 | wire type
	value uint64 // of a varint
	bytes []byte // of text and messages: a part of the message that the field is in
}

// cut splits a message after its first field.
func cut(message []byte) (f field, rest []byte, ok bool) {
	if f.tag, rest, ok = cutVarint(message); !ok || f.tag>>3 < 1 || f.tag>>3 > maxField {
		return f, nil, false
	}
	if f.value, rest, ok = cutVarint(rest); !ok {
		return f, nil, false
	}
	switch f.tag & 7 {
	case varint:
		return f, rest, true
	case length:
		if f.value > uint64(len(rest)) {
			return f, nil, false
		}
		f.bytes = rest[:f.value]
		return f, rest[f.value:], true
	}
	return f, nil, false
}

func cutVarint(message []byte) (v uint64, rest []byte, ok bool) {
	if len(message) > 0 && message[0] < 0x80 { // most are short
		return uint64(message[0]), message[1:], true
	}
	v, n := binary.Uvarint(message)
	if n <= 0 {
		return 0, nil, false
	}
	return v, message[n:], true
}

// each calls use with every field of a message, until one is refused.
func each(message []byte, use func(field) bool) bool {
	for len(message) > 0 {
		f, rest, ok := cut(message)
		if !ok || !use(f) {
			return false
		}
		message = rest
	}
	return true
}

// metadata decodes what conversion reads of ObjectMeta.
type metadata struct {
	known // of texts that few values exist of
	// keys are those of labels and annotations that anybody reads.
	keys map[string]string
}

func newMetadata(keys ...string) metadata {
	m := metadata{newKnown(), make(map[string]string, len(keys))}
	for _, k := range keys {
		m.keys[k] = k
	}
	return m
}

// reset empties all that decode fills.
func (m *metadata) reset(o *metav1.ObjectMeta) {
	o.Name, o.Namespace, o.ResourceVersion = "", "", ""
	clear(o.Labels)
	clear(o.Annotations)
}

func (m *metadata) decode(o *metav1.ObjectMeta, message []byte) bool {
	return each(message, func(f field) bool {
		switch f.tag {
		case 1<<3 | length:
			o.Name = string(f.bytes)
		case 3<<3 | length:
			o.Namespace = m.text(f.bytes)
		case 6<<3 | length:
			o.ResourceVersion = string(f.bytes)
		case 11<<3 | length:
			return m.pair(&o.Labels, f.bytes)
		case 12<<3 | length:
			return m.pair(&o.Annotations, f.bytes)
		}
		return true
	})
}

// pair decodes an entry of a map, if anybody reads it.
func (m *metadata) pair(into *map[string]string, message []byte) bool {
	var key, value []byte
	ok := each(message, func(f field) bool {
		switch f.tag {
		case 1<<3 | length:
			key = f.bytes
		case 2<<3 | length:
			value = f.bytes
		}
		return true
	})
	if k, read := m.keys[string(key)]; ok && read {
		if *into == nil {
			*into = map[string]string{}
		}
		(*into)[k] = string(value)
	}
	return ok
}

// serviceDecoder decodes Services. One goroutine uses it.
type serviceDecoder struct {
	metadata
	object       corev1.Service
	policy       corev1.ServiceInternalTrafficPolicy
	distribution string
}

func newServiceDecoder() decoder[*corev1.Service] {
	return &serviceDecoder{metadata: newMetadata(labelProxyName, corev1.AnnotationLoadBalancerSourceRangesKey,
		corev1.DeprecatedAnnotationTopologyAwareHints, corev1.AnnotationTopologyMode, metav1.InitialEventsAnnotationKey)}
}

func (*serviceDecoder) kind() (apiVersion, kind string) { return "v1", "Service" }

// decode returns a Service that holds until the next call.
func (d *serviceDecoder) decode(message []byte) (*corev1.Service, bool) {
	s := &d.object
	d.reset(&s.ObjectMeta)
	s.Spec = corev1.ServiceSpec{Ports: s.Spec.Ports[:0], ClusterIPs: s.Spec.ClusterIPs[:0], ExternalIPs: s.Spec.ExternalIPs[:0],
		LoadBalancerSourceRanges: s.Spec.LoadBalancerSourceRanges[:0]}
	s.Status = corev1.ServiceStatus{}
	return s, each(message, func(f field) bool {
		switch f.tag {
		case 1<<3 | length:
			return d.metadata.decode(&s.ObjectMeta, f.bytes)
		case 2<<3 | length:
			return each(f.bytes, d.spec)
		case 3<<3 | length:
			return s.Status.Unmarshal(f.bytes) == nil
		}
		return true
	})
}

func (d *serviceDecoder) spec(f field) bool {
	s := &d.object.Spec
	switch f.tag {
	case 1<<3 | length:
		p, ok := d.port(f.bytes)
		s.Ports = append(s.Ports, p)
		return ok
	case 3<<3 | length:
		s.ClusterIP = string(f.bytes)
	case 4<<3 | length:
		s.Type = corev1.ServiceType(d.text(f.bytes))
	case 5<<3 | length:
		s.ExternalIPs = append(s.ExternalIPs, string(f.bytes))
	case 7<<3 | length:
		s.SessionAffinity = corev1.ServiceAffinity(d.text(f.bytes))
	case 9<<3 | length:
		s.LoadBalancerSourceRanges = append(s.LoadBalancerSourceRanges, string(f.bytes))
	case 11<<3 | length:
		s.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicy(d.text(f.bytes))
	case 12<<3 | varint:
		s.HealthCheckNodePort = int32(f.value)
	case 14<<3 | length:
		if s.SessionAffinityConfig == nil {
			s.SessionAffinityConfig = &corev1.SessionAffinityConfig{}
		}
		return s.SessionAffinityConfig.Unmarshal(f.bytes) == nil
	case 18<<3 | length:
		s.ClusterIPs = append(s.ClusterIPs, string(f.bytes))
	case 22<<3 | length:
		d.policy = corev1.ServiceInternalTrafficPolicy(d.text(f.bytes))
		s.InternalTrafficPolicy = &d.policy
	case 23<<3 | length:
		d.distribution = d.text(f.bytes)
		s.TrafficDistribution = &d.distribution
	}
	return true
}

func (d *serviceDecoder) port(message []byte) (p corev1.ServicePort, ok bool) {
	ok = each(message, func(f field) bool {
		switch f.tag {
		case 1<<3 | length:
			p.Name = d.text(f.bytes)
		case 2<<3 | length:
			p.Protocol = corev1.Protocol(d.text(f.bytes))
		case 3<<3 | varint:
			p.Port = int32(f.value)
		case 5<<3 | varint:
			p.NodePort = int32(f.value)
		}
		return true
	})
	return p, ok
}

// sliceDecoder decodes EndpointSlices. One goroutine uses it.
type sliceDecoder struct {
	metadata
	object    discoveryv1.EndpointSlice
	endpoints []endpointParts
	ports     []portParts
}

// endpointParts is what the pointers of an endpoint point to.
type endpointParts struct {
	addresses                   []string
	ready, serving, terminating bool
	target                      corev1.ObjectReference
	node, zone                  string
}

// portParts is what the pointers of a port point to.
type portParts struct {
	name     string
	protocol corev1.Protocol
	port     int32
}

func newSliceDecoder() decoder[*discoveryv1.EndpointSlice] {
	return &sliceDecoder{metadata: newMetadata(labelProxyName, corev1.IsHeadlessService, discoveryv1.LabelServiceName, annotationHints,
		metav1.InitialEventsAnnotationKey)}
}

func (*sliceDecoder) kind() (apiVersion, kind string) {
	return "discovery.k8s.io/v1", "EndpointSlice"
}

// decode returns a slice that holds until the next call.
func (d *sliceDecoder) decode(message []byte) (*discoveryv1.EndpointSlice, bool) {
	s := &d.object
	d.reset(&s.ObjectMeta)
	s.AddressType, s.Endpoints, s.Ports = "", s.Endpoints[:0], s.Ports[:0]
	return s, each(message, func(f field) bool {
		switch f.tag {
		case 1<<3 | length:
			return d.metadata.decode(&s.ObjectMeta, f.bytes)
		case 2<<3 | length:
			return d.endpoint(f.bytes)
		case 3<<3 | length:
			return d.port(f.bytes)
		case 4<<3 | length:
			s.AddressType = discoveryv1.AddressType(d.text(f.bytes))
		}
		return true
	})
}

func (d *sliceDecoder) endpoint(message []byte) bool {
	i := len(d.object.Endpoints)
	if i == len(d.endpoints) {
		d.endpoints = append(d.endpoints, endpointParts{}) // if it moves, the endpoints before keep what they point to
	}
	parts := &d.endpoints[i]
	*parts = endpointParts{addresses: parts.addresses[:0]}
	d.object.Endpoints = append(d.object.Endpoints, discoveryv1.Endpoint{})
	e := &d.object.Endpoints[i]
	ok := each(message, func(f field) bool {
		switch f.tag {
		case 1<<3 | length:
			parts.addresses = append(parts.addresses, string(f.bytes))
		case 2<<3 | length:
			return each(f.bytes, func(f field) bool { parts.condition(&e.Conditions, f); return true })
		case 4<<3 | length:
			e.TargetRef = &parts.target
			return each(f.bytes, func(f field) bool { d.reference(&parts.target, f); return true })
		case 6<<3 | length:
			parts.node = d.text(f.bytes)
			e.NodeName = &parts.node
		case 7<<3 | length:
			parts.zone = d.text(f.bytes)
			e.Zone = &parts.zone
		case 8<<3 | length:
			if e.Hints == nil {
				e.Hints = &discoveryv1.EndpointHints{}
			}
			return e.Hints.Unmarshal(f.bytes) == nil
		}
		return true
	})
	e.Addresses = parts.addresses
	return ok
}

func (p *endpointParts) condition(c *discoveryv1.EndpointConditions, f field) {
	switch f.tag {
	case 1<<3 | varint:
		p.ready = f.value != 0
		c.Ready = &p.ready
	case 2<<3 | varint:
		p.serving = f.value != 0
		c.Serving = &p.serving
	case 3<<3 | varint:
		p.terminating = f.value != 0
		c.Terminating = &p.terminating
	}
}

func (d *sliceDecoder) reference(r *corev1.ObjectReference, f field) {
	switch f.tag {
	case 1<<3 | length:
		r.Kind = d.text(f.bytes)
	case 3<<3 | length:
		r.Name = string(f.bytes)
	}
}

func (d *sliceDecoder) port(message []byte) bool {
	i := len(d.object.Ports)
	if i == len(d.ports) {
		d.ports = append(d.ports, portParts{})
	}
	parts := &d.ports[i]
	var p discoveryv1.EndpointPort
	ok := each(message, func(f field) bool {
		switch f.tag {
		case 1<<3 | length:
			parts.name = d.text(f.bytes)
			p.Name = &parts.name
		case 2<<3 | length:
			parts.protocol = corev1.Protocol(d.text(f.bytes))
			p.Protocol = &parts.protocol
		case 3<<3 | varint:
			parts.port = int32(f.value)
			p.Port = &parts.port
		}
		return true
	})
	d.object.Ports = append(d.object.Ports, p)
	return ok
}
