package controller

import (
	"maps"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/zonewise/zonewise/internal/version"
)

var (
	descInZone = prometheus.NewDesc("zonewise_service_in_zone_nodes",
		"Nodes that keep every connection to the Service in their zone. Only Services that ask for zone routing.",
		[]string{"namespace", "service"}, nil)
	descNodes = prometheus.NewDesc("zonewise_service_nodes",
		"Nodes with a zone. Only Services that ask for zone routing.",
		[]string{"namespace", "service"}, nil)
	descServices = prometheus.NewDesc("zonewise_zone_routing_services",
		"Services that ask for zone routing, by whether all, some or none of the nodes stay in zone.",
		[]string{"state"}, nil)
	descZoneless = prometheus.NewDesc("zonewise_nodes_without_zone", "Nodes without a zone label.", nil, nil)
)

type metrics struct {
	registry *prometheus.Registry
	leader   prometheus.Gauge
}

func newMetrics(more ...prometheus.Collector) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		leader:   prometheus.NewGauge(prometheus.GaugeOpts{Name: "zonewise_leader", Help: "1 on the replica that leads."}),
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name:        "zonewise_build_info",
		Help:        "Always 1; the labels tell the build.",
		ConstLabels: prometheus.Labels{"version": version.Version, "go": version.Get().Go},
	})
	build.Set(1)
	m.registry.MustRegister(m.leader, build,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.registry.MustRegister(more...)
	return m
}

// Describe is part of prometheus.Collector.
func (w *watcher) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descInZone, descNodes, descServices, descZoneless} {
		out <- d
	}
}

// Collect is part of prometheus.Collector. A replica that does not lead has nothing to tell.
func (w *watcher) Collect(out chan<- prometheus.Metric) {
	w.mu.Lock()
	verdicts, zoneless := maps.Clone(w.verdicts), len(w.zoneless)
	w.mu.Unlock()
	if verdicts == nil {
		return
	}
	gauge := func(d *prometheus.Desc, v int, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v), labels...)
	}
	states := map[string]int{"all": 0, "some": 0, "none": 0}
	for n, v := range verdicts {
		gauge(descInZone, v.InZone, n.Namespace, n.Name)
		gauge(descNodes, v.Nodes, n.Namespace, n.Name)
		switch {
		case v.Obeyed():
			states["all"]++
		case v.Refused():
			states["none"]++
		default:
			states["some"]++
		}
	}
	for state, n := range states {
		gauge(descServices, n, state)
	}
	gauge(descZoneless, zoneless)
}
