package addresses

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/zonewise/zonewise/internal/agent/view"
	"github.com/zonewise/zonewise/internal/version"
	"github.com/zonewise/zonewise/internal/vpc"
	"github.com/zonewise/zonewise/internal/vpc/ec2"
)

type metrics struct {
	registry   *prometheus.Registry
	calls      *prometheus.HistogramVec // by action of the API and kind of failure
	actions    *prometheus.CounterVec   // by verb and kind of failure
	errors     prometheus.Counter
	addresses  *prometheus.GaugeVec // by state
	interfaces *prometheus.GaugeVec // by state
	maxPods    prometheus.Gauge
	waiting    prometheus.Gauge
	room       prometheus.Gauge
	subnet     *prometheus.GaugeVec // by subnet
}

// newMetrics returns the daemon's metrics.
func newMetrics() *metrics {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	gauges := func(name, help, label string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, []string{label})
	}
	m := &metrics{
		registry: prometheus.NewRegistry(),
		calls: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "zonewise_vpc_api_call_duration_seconds",
			Help:    "Calls of the cloud's API, with the SDK's retries, by call and kind of failure.",
			Buckets: prometheus.ExponentialBuckets(0.01, 2, 12), // to 20 s
		}, []string{"call", "failure"}),
		actions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "zonewise_vpc_actions_total",
			Help: "What was asked of the cloud, by verb and kind of failure.",
		}, []string{"verb", "failure"}),
		errors: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "zonewise_vpc_errors_total",
			Help: "What failed and was tried again.",
		}),
		addresses:  gauges("zonewise_vpc_addresses", "Addresses for pods that the node has, by state: used, warm, cooling.", "state"),
		interfaces: gauges("zonewise_vpc_interfaces", "Elastic interfaces of the node, by state: ready, attaching, draining, foreign.", "state"),
		maxPods:    gauge("zonewise_vpc_max_pods", "Most pods that kubelet takes."),
		waiting:    gauge("zonewise_vpc_waiting_pods", "Pods that wait for an address."),
		room:       gauge("zonewise_vpc_room", "Addresses more that the instance has room for."),
		subnet:     gauges("zonewise_vpc_subnet_free_addresses", "Free addresses of a subnet that the node may use, as the cloud said last.", "subnet"),
	}
	m.registry.MustRegister(m.calls, m.actions, m.errors, m.addresses, m.interfaces, m.maxPods, m.waiting, m.room, m.subnet,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "zonewise_build_info", Help: "Always 1; the labels tell the build.",
			ConstLabels: prometheus.Labels{"version": version.Version, "go": version.Get().Go}}, func() float64 { return 1 }))
	return m
}

func (m *metrics) called(call string, took time.Duration, err error) {
	m.calls.WithLabelValues(call, string(ec2.Classify(err))).Observe(took.Seconds())
}

func (m *metrics) acted(a vpc.Action, o vpc.Outcome) {
	m.actions.WithLabelValues(string(a.Verb), string(o.Failure)).Inc()
}

func (m *metrics) decided(v view.Addresses) {
	addresses := map[string]int{}
	interfaces := map[string]int{"ready": 0, stateAttaching: 0, stateDraining: 0, stateForeign: 0}
	for _, i := range v.Interfaces {
		addresses["used"] += i.Used
		addresses["warm"] += i.Warm
		addresses["cooling"] += i.Cooling
		state := i.State
		if state == "" {
			state = "ready"
		}
		interfaces[state]++
	}
	for _, state := range []string{"used", "warm", "cooling"} {
		m.addresses.WithLabelValues(state).Set(float64(addresses[state]))
	}
	for state, n := range interfaces {
		m.interfaces.WithLabelValues(state).Set(float64(n))
	}
	m.maxPods.Set(float64(v.MaxPods))
	m.waiting.Set(float64(v.Next.Waiting))
	m.room.Set(float64(v.Next.Room))
	m.subnet.Reset()
	for _, s := range v.Subnets {
		m.subnet.WithLabelValues(s.ID).Set(float64(s.Free))
	}
}
