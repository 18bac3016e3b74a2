package agent

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/zonewise/zonewise/internal/version"
)

type metrics struct {
	registry    *prometheus.Registry
	programming prometheus.Histogram
	synced      prometheus.Gauge
	errors      prometheus.Counter
	repairs     prometheus.Counter
}

// newMetrics returns the agent's metrics. Services is asked when somebody reads them.
func newMetrics(services func() int) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		programming: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "zonewise_network_programming_duration_seconds",
			Help:    "From the moment a change of a Service or its endpoints reached the agent to the kernel updated.",
			Buckets: prometheus.ExponentialBuckets(0.00025, 2, 18), // 0.25 ms to 33 s
		}),
		synced: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "zonewise_last_sync_timestamp_seconds",
			Help: "When the kernel was last brought to what the API server says.",
		}),
		errors: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "zonewise_programming_errors_total",
			Help: "Programming passes that failed and were retried.",
		}),
		repairs: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "zonewise_repairs_total",
			Help: "Times that somebody else's change of the service table was undone.",
		}),
	}
	served := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "zonewise_services",
		Help: "Services that this node serves.",
	}, func() float64 { return float64(services()) })
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name:        "zonewise_build_info",
		Help:        "Always 1; the labels tell the build.",
		ConstLabels: prometheus.Labels{"version": version.Version, "go": version.Get().Go},
	})
	build.Set(1)
	m.registry.MustRegister(m.programming, m.synced, served, m.errors, m.repairs, build,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}
