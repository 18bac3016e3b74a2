package routes

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/zonewise/zonewise/internal/model"
)

var (
	descServices = prometheus.NewDesc("zonewise_route_services", "Services by the mode that is in force.", []string{"mode"}, nil)
	descInZone   = prometheus.NewDesc("zonewise_route_planned_in_zone_ratio",
		"Share of connections that stay in their zone by the plans, as the mean of all Services that are planned.", nil, nil)
	descWaiting = prometheus.NewDesc("zonewise_route_waiting", "Services that wait to be planned or written.", nil, nil)
)

type metrics struct {
	writes  *prometheus.CounterVec
	planned prometheus.Histogram

	mu      sync.Mutex
	leads   bool
	modes   map[model.Mode]int
	inZone  float64
	planner int // how many Services inZone is the mean of
	waiting int
}

func newMetrics() *metrics {
	return &metrics{
		writes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "zonewise_route_status_writes_total", Help: "Writes of ZoneRoutes, by kind (create, delete, status) and result (ok, error).",
		}, []string{"kind", "result"}),
		planned: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "zonewise_route_plan_duration_seconds", Help: "Time to plan one Service.",
			Buckets: prometheus.ExponentialBuckets(20e-6, 4, 8), // 20 µs to 0.3 s
		}),
	}
}

// show takes the figures of a pass.
func (m *metrics) show(verdicts map[model.Name]verdict, waiting int) {
	modes := map[model.Mode]int{model.Optimal: 0, model.Observe: 0, model.Off: 0}
	sum, n := 0.0, 0
	for _, v := range verdicts {
		modes[v.Mode]++
		if v.Mode != model.Off && v.reason == "" && endpoints(v.Service) > 0 {
			sum += v.Families[0].InZone.Planned
			n++
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.leads, m.modes, m.inZone, m.planner, m.waiting = true, modes, sum/float64(max(n, 1)), n, waiting
}

// rest tells nothing any more: another replica leads.
func (m *metrics) rest() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.leads = false
}

// Describe is part of prometheus.Collector.
func (k *Keeper) Describe(out chan<- *prometheus.Desc) {
	k.metrics.writes.Describe(out)
	k.metrics.planned.Describe(out)
	out <- descServices
	out <- descInZone
	out <- descWaiting
}

// Collect is part of prometheus.Collector.
func (k *Keeper) Collect(out chan<- prometheus.Metric) {
	m := k.metrics
	m.writes.Collect(out)
	m.planned.Collect(out)
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.leads {
		return
	}
	for mode, n := range m.modes {
		out <- prometheus.MustNewConstMetric(descServices, prometheus.GaugeValue, float64(n), string(mode))
	}
	out <- prometheus.MustNewConstMetric(descWaiting, prometheus.GaugeValue, float64(m.waiting))
	if m.planner > 0 {
		out <- prometheus.MustNewConstMetric(descInZone, prometheus.GaugeValue, m.inZone)
	}
}
