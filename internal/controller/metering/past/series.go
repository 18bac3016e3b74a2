package past

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/prometheus/common/model"

	"github.com/zonewise/zonewise/internal/meter"
	nouns "github.com/zonewise/zonewise/internal/model"
)

// The metrics that are both told and read back.
const (
	Bytes       = "zonewise_service_zone_traffic_bytes_total"
	Connections = "zonewise_service_zone_connections_total"
	anything    = "zonewise_zone_traffic_bytes_total" // few series, there as long as a replica leads
)

// Labels of both metrics; Bytes has the direction, too. Connections go from the client to the server.
const (
	namespace       = "namespace" // of the Service, else of the server
	service         = "service"
	clientNamespace = "client_namespace"
	source          = "source_zone"
	destination     = "destination_zone"
	via             = "via"
	family          = "family"
	direction       = "direction"
)

// Labels are those of Connections, in the order of Key.Values.
var Labels = []string{namespace, service, clientNamespace, source, destination, via, family}

// BytesLabels are those of Bytes.
var BytesLabels = append(append([]string(nil), Labels...), direction)

// The directions: from the client, and from the server.
const (
	Request  = "request"
	Response = "response"
)

// viaNode says that a node was dialled, which then chose an endpoint: what follows is a flow of its own.
const viaNode = "Node"

// Key is what is kept of a flow's names: no more than answers about Services, namespaces and zones need.
type Key struct {
	Service         nouns.Name // with a namespace alone: no Service, and the server's
	ClientNamespace string
	Client, Server  string // as meter.Zone has them
	Via             string
	V6              bool
}

// KeyOf returns what is kept of a flow's names.
func KeyOf(k *nouns.FlowKey) Key {
	out := Key{Service: k.Service, ClientNamespace: k.Client.Namespace, Client: meter.Zone(k.Client), Server: meter.Zone(k.Server),
		Via: string(k.Via), V6: k.V6}
	if k.Service == (nouns.Name{}) {
		out.Service.Namespace = k.Server.Namespace
		return out
	}
	switch k.Via {
	case nouns.ViaNodePort, nouns.ViaLoadBalancer, nouns.ViaExternalIP:
		if !meter.Chosen(*k) {
			out.Via = viaNode
		}
	}
	return out
}

// Values are the key's, in the order of Labels; for a response the zones change places.
func (k Key) Values(way string) []string {
	from, to, family := k.Client, k.Server, "IPv4"
	if way == Response {
		from, to = to, from
	}
	if k.V6 {
		family = "IPv6"
	}
	out := []string{k.Service.Namespace, k.Service.Name, k.ClientNamespace, from, to, k.Via, family}
	if way != "" {
		out = append(out, way)
	}
	return out
}

// flow is the key as one of flows; it has what Key keeps.
func (k Key) flow() nouns.FlowKey {
	out := nouns.FlowKey{Client: party(k.Client, k.ClientNamespace), Server: party(k.Server, k.Service.Namespace), Via: nouns.Via(k.Via), V6: k.V6}
	if k.Service.Name != "" {
		out.Service = k.Service
	}
	if k.Via == viaNode {
		out.Via, out.Server.Kind = nouns.ViaNodePort, nouns.NodeParty
	}
	return out
}

func party(zone, namespace string) nouns.Party {
	switch zone {
	case meter.ZoneOutside:
		return nouns.Party{Kind: nouns.Outside, Namespace: namespace}
	case meter.ZoneUnknown:
		return nouns.Party{Kind: nouns.Unknown, Namespace: namespace}
	}
	return nouns.Party{Kind: nouns.PodParty, Zone: zone, Namespace: namespace}
}

// keyOf reads a series' labels; false if it is none of ours.
func keyOf(m model.Metric, way string) (Key, bool) {
	k := Key{Service: nouns.Name{Namespace: string(m[namespace]), Name: string(m[service])}, ClientNamespace: string(m[clientNamespace]),
		Client: string(m[source]), Server: string(m[destination]), Via: string(m[via]), V6: m[family] == "IPv6"}
	if way == Response {
		k.Client, k.Server = k.Server, k.Client
	}
	switch nouns.Via(k.Via) {
	case nouns.ViaClusterIP, nouns.ViaNodePort, nouns.ViaLoadBalancer, nouns.ViaExternalIP, nouns.ViaHeadless, nouns.ViaDirect, nouns.ViaUnknown, viaNode:
	default:
		return k, false
	}
	return k, k.Client != "" && k.Server != "" && (m[family] == "IPv4" || m[family] == "IPv6")
}

// most is more than a counter can count in a day.
const most = 1 << 60

// steps makes flows of two answers: for each step that ends at begin+step, begin+2*step, … those of its time. What
// makes no sense is counted.
func steps(bytes, connections model.Matrix, begin time.Time, step time.Duration, n int) (out [][]nouns.Flow, odd int) {
	at := make([]map[Key]int, n)
	out = make([][]nouns.Flow, n)
	add := func(matrix model.Matrix, field func(m model.Metric) (way string, of func(*nouns.FlowCount) *uint64)) {
		for _, series := range matrix {
			way, count := field(series.Metric)
			k, ok := keyOf(series.Metric, way)
			if !ok || count == nil {
				odd++
				continue
			}
			for _, s := range series.Values {
				i, ok := index(s.Timestamp.Time(), begin, step, n)
				v := math.Round(float64(s.Value))
				if !ok || !(v >= 0 && v < most) {
					odd++
					continue
				}
				if v == 0 {
					continue
				}
				f, ok := at[i][k]
				if !ok {
					f = len(out[i])
					if at[i] == nil {
						at[i] = map[Key]int{}
					}
					at[i][k] = f
					out[i] = append(out[i], nouns.Flow{FlowKey: k.flow()})
				}
				*count(&out[i][f].FlowCount) += uint64(v)
			}
		}
	}
	add(bytes, func(m model.Metric) (string, func(*nouns.FlowCount) *uint64) {
		switch m[direction] {
		case Request:
			return Request, func(c *nouns.FlowCount) *uint64 { return &c.RequestBytes }
		case Response:
			return Response, func(c *nouns.FlowCount) *uint64 { return &c.ResponseBytes }
		}
		return "", nil
	})
	add(connections, func(model.Metric) (string, func(*nouns.FlowCount) *uint64) {
		return "", func(c *nouns.FlowCount) *uint64 { return &c.Connections }
	})
	return out, odd
}

// index is the number of the step that ends at an instant.
func index(end, begin time.Time, step time.Duration, n int) (int, bool) {
	d := end.Sub(begin)
	i := int(d/step) - 1
	return i, d%step == 0 && i >= 0 && i < n
}

// selectors are of all series of a metric that may have what is asked for: one of them has each.
func selectors(metric string, own map[string]string, f Filter) []string {
	base := model.Metric{model.MetricNameLabel: model.LabelValue(metric)}
	for k, v := range own {
		base[model.LabelName(k)] = model.LabelValue(v)
	}
	all := []model.Metric{base}
	with := func(value string, labels ...model.LabelName) {
		if value == "" {
			return
		}
		var more []model.Metric
		for _, m := range all {
			for _, l := range labels {
				c := m.Clone()
				c[l] = model.LabelValue(value)
				more = append(more, c)
			}
		}
		all = more
	}
	with(f.Service, service)
	if f.Service != "" {
		with(f.Namespace, namespace)
	} else {
		with(f.Namespace, namespace, clientNamespace)
	}
	with(f.Zone, source, destination)
	out := make([]string, 0, len(all))
	for _, m := range all {
		out = append(out, m.String())
	}
	return out
}

// grew is the question what a metric's series grew by in each step. Where a series was there before the step and began
// nowhere in it anew, that is its value less the one before: nothing is estimated, and steps add up. One that begins in
// the step begins with 0. What is left, counters that began anew and series that end, increase() estimates.
const grew = `sum by (%[1]s) (
  ((%[2]s - %[2]s offset %[3]s) and (min_over_time(%[2]s[%[3]s]) >= %[2]s offset %[3]s))
  or ((%[2]s and (min_over_time(%[2]s[%[3]s]) == 0)) unless %[2]s offset %[3]s)
  or increase(%[2]s[%[3]s]))`

func growth(metric string, labels []string, own map[string]string, f Filter, step time.Duration) string {
	var parts []string
	for _, s := range selectors(metric, own, f) {
		parts = append(parts, fmt.Sprintf(grew, strings.Join(labels, ", "), s, model.Duration(step)))
	}
	return strings.Join(parts, " or ")
}
