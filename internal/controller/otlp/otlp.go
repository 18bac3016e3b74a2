// Package otlp sends metrics to a collector by OTLP, for who has no Prometheus.
package otlp

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	bridge "go.opentelemetry.io/contrib/bridges/prometheus"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetricgrpc"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/resource"

	"github.com/zonewise/zonewise/internal/version"
)

// Config is what an Exporter needs. What else the library reads from OTEL_… in the environment holds, too: headers,
// certificates, the interval.
type Config struct {
	Endpoint  string // URL: http://collector:4317, or https for TLS
	Metrics   prometheus.Gatherer
	Namespace string
	Instance  string // this replica's name
	Log       *slog.Logger
}

// lastWords is how long the last metrics may take when a controller ends.
const lastWords = 5 * time.Second

// Exporter sends metrics. A collector that is away costs those of that time: they are not kept.
type Exporter struct {
	metric.Exporter
	config Config

	mu      sync.Mutex
	failing bool
}

// New returns an Exporter. The collector need not be there yet.
func New(c Config) (*Exporter, error) {
	u, err := url.Parse(c.Endpoint)
	if err != nil {
		return nil, fmt.Errorf("otlp: %w", err)
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Port() == "" || u.Path != "" && u.Path != "/" {
		return nil, fmt.Errorf("otlp %q: must be a URL such as http://collector:4317, or https for TLS", c.Endpoint)
	}
	to, err := otlpmetricgrpc.New(context.Background(), otlpmetricgrpc.WithEndpointURL(c.Endpoint), otlpmetricgrpc.WithCompressor("gzip"))
	if err != nil {
		return nil, fmt.Errorf("otlp %s: %w", c.Endpoint, err)
	}
	return &Exporter{Exporter: to, config: c}, nil
}

// Run sends all metrics each minute, and once more when ctx ends.
func (e *Exporter) Run(ctx context.Context) {
	who := resource.NewSchemaless(attribute.String("service.name", "zonewise-controller"), attribute.String("service.version", version.Version),
		attribute.String("service.instance.id", e.config.Instance), attribute.String("k8s.pod.name", e.config.Instance),
		attribute.String("k8s.namespace.name", e.config.Namespace))
	provider := metric.NewMeterProvider(metric.WithResource(who),
		metric.WithReader(metric.NewPeriodicReader(e, metric.WithProducer(bridge.NewMetricProducer(bridge.WithGatherer(e.config.Metrics))))))
	<-ctx.Done()
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWords)
	defer cancel()
	if err := provider.Shutdown(last); err != nil {
		e.config.Log.Warn("otlp", "endpoint", e.config.Endpoint, "err", err)
	}
}

// Export is part of metric.Exporter: what fails is logged here, once until it works again.
func (e *Exporter) Export(ctx context.Context, m *metricdata.ResourceMetrics) error {
	err := e.Exporter.Export(ctx, m)
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case err != nil && !e.failing:
		e.config.Log.Warn("otlp: metrics are not taken", "endpoint", e.config.Endpoint, "err", err)
	case err == nil && e.failing:
		e.config.Log.Info("otlp: metrics are taken again", "endpoint", e.config.Endpoint)
	}
	e.failing = err != nil
	return nil
}
