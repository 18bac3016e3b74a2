package agent

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/service"
	"github.com/zonewise/zonewise/internal/version"
)

type metrics struct {
	registry    *prometheus.Registry
	programming prometheus.Histogram
	passes      *prometheus.HistogramVec // by kind
	synced      prometheus.Gauge
	errors      prometheus.Counter
	repairs     *prometheus.CounterVec // by path
	probes      *prometheus.CounterVec // by probe and code
	faults      *prometheus.GaugeVec   // by kind of object
	lonesome    *prometheus.GaugeVec   // by policy
}

// newMetrics returns the agent's metrics. What is a number of now is asked when somebody reads it.
func newMetrics(p *programmer) *metrics {
	seconds := prometheus.ExponentialBuckets(0.00025, 2, 18) // 0.25 ms to 33 s
	m := &metrics{
		registry: prometheus.NewRegistry(),
		programming: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "zonewise_network_programming_duration_seconds",
			Help:    "From the moment a change of a Service or its endpoints reached the agent to the kernel updated.",
			Buckets: seconds,
		}),
		passes: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "zonewise_sync_duration_seconds",
			Help:    "Time of a programming pass: whole, or of changes alone.",
			Buckets: seconds,
		}, []string{"kind"}),
		synced: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "zonewise_last_sync_timestamp_seconds",
			Help: "When the kernel was last brought to what the API server says.",
		}),
		errors: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "zonewise_programming_errors_total",
			Help: "Programming passes that failed and were retried.",
		}),
		repairs: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "zonewise_repairs_total",
			Help: "Times that somebody else's change of what we programmed was undone, by path.",
		}, []string{"path"}),
		probes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "zonewise_health_requests_total",
			Help: "Answers of the health endpoint, by probe (healthz, livez) and status code.",
		}, []string{"probe", "code"}),
		faults: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "zonewise_faults",
			Help: "Things wrong with objects, as this node sees it, by the object's kind. /v1/faults names them.",
		}, []string{"kind"}),
		lonesome: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "zonewise_services_without_local_endpoints",
			Help: "Services whose policy (internal, external) is Local, and that have no endpoint on this node.",
		}, []string{"policy"}),
	}
	for _, path := range []string{pathNFT, pathSocket} {
		m.repairs.WithLabelValues(path)
	}
	m.withoutLocal(nil)
	m.countFaults(nil)
	m.registry.MustRegister(m.programming, m.passes, m.synced, m.errors, m.repairs, m.probes, m.faults, m.lonesome,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.registry.MustRegister(asked(p)...)
	return m
}

// asked are the metrics that are worked out when somebody reads them.
func asked(p *programmer) []prometheus.Collector {
	gauge := func(o prometheus.GaugeOpts, of func() int) prometheus.Collector {
		return prometheus.NewGaugeFunc(o, func() float64 { return float64(of()) })
	}
	inUse := func(path string, of func() int) prometheus.Collector {
		return gauge(prometheus.GaugeOpts{Name: "zonewise_path_in_use", Help: "1 where the node's Services go by this path.",
			ConstLabels: prometheus.Labels{"path": path}}, of)
	}
	return []prometheus.Collector{
		gauge(prometheus.GaugeOpts{Name: "zonewise_services", Help: "Services that this node serves."}, p.services),
		gauge(prometheus.GaugeOpts{Name: "zonewise_pending_services",
			Help: "Services that have changed and are not programmed yet."}, p.pending),
		inUse(pathNFT, func() int { return 1 }),
		inUse(pathSocket, func() int {
			if socket, _ := p.paths.inUse(); socket != nil {
				return 1
			}
			return 0
		}),
		gauge(prometheus.GaugeOpts{Name: "zonewise_build_info", Help: "Always 1; the labels tell the build.",
			ConstLabels: prometheus.Labels{"version": version.Version, "go": version.Get().Go}}, func() int { return 1 }),
	}
}

func (m *metrics) countCut(cut func() uint64) {
	m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "zonewise_conntrack_flows_cut_total",
		Help: "UDP flows that were cut because their endpoint is gone.",
	}, func() float64 { return float64(cut()) }))
}

func (m *metrics) countFaults(list []service.Fault) {
	counts := map[string]int{"Service": 0, "EndpointSlice": 0, "Node": 0}
	for _, f := range list {
		counts[f.Kind]++
	}
	for kind, n := range counts {
		m.faults.WithLabelValues(kind).Set(float64(n))
	}
}

// withoutLocal counts Services by the policy that finds no endpoint, internal and external.
func (m *metrics) withoutLocal(of map[model.Name][2]bool) {
	var n [2]float64
	for _, policies := range of {
		for i, yes := range policies {
			if yes {
				n[i]++
			}
		}
	}
	m.lonesome.WithLabelValues("internal").Set(n[0])
	m.lonesome.WithLabelValues("external").Set(n[1])
}
