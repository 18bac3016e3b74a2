package otlp

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	collector "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	metrics "go.opentelemetry.io/proto/otlp/metrics/v1"
	"google.golang.org/grpc"
)

// receiver is a collector that remembers what it was sent last.
type receiver struct {
	collector.UnimplementedMetricsServiceServer

	mu   sync.Mutex
	last []*metrics.ResourceMetrics
}

func (r *receiver) Export(_ context.Context, request *collector.ExportMetricsServiceRequest) (*collector.ExportMetricsServiceResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last = request.ResourceMetrics
	return &collector.ExportMetricsServiceResponse{}, nil
}

// counter is the meter's, as it is told.
type counter struct{ began time.Time }

var desc = prometheus.NewDesc("zonewise_zone_traffic_bytes_total", "Bytes.", []string{"source_zone", "destination_zone"}, nil)

func (counter) Describe(out chan<- *prometheus.Desc) { out <- desc }

func (c counter) Collect(out chan<- prometheus.Metric) {
	out <- prometheus.MustNewConstMetricWithCreatedTimestamp(desc, prometheus.CounterValue, 12345, c.began, "a", "b")
}

// A collector gets what Prometheus would see: which replica says so, and since when it counts.
func TestACollectorIsSentMetrics(t *testing.T) {
	r := &receiver{}
	server := grpc.NewServer()
	collector.RegisterMetricsServiceServer(server, r)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go server.Serve(listener)
	defer server.Stop()
	began := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	registry := prometheus.NewRegistry()
	registry.MustRegister(counter{began})
	e, err := New(Config{Endpoint: "http://" + listener.Addr().String(), Metrics: registry, Namespace: "kube-system", Instance: "controller-1", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // the last words
	e.Run(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.last) != 1 || len(r.last[0].ScopeMetrics) != 1 || len(r.last[0].ScopeMetrics[0].Metrics) != 1 {
		t.Fatalf("it was sent %v", r.last)
	}
	m := r.last[0].ScopeMetrics[0].Metrics[0]
	sum := m.GetSum()
	if m.Name != "zonewise_zone_traffic_bytes_total" || !sum.GetIsMonotonic() || sum.GetAggregationTemporality() != metrics.AggregationTemporality_AGGREGATION_TEMPORALITY_CUMULATIVE {
		t.Error(m)
	}
	p := sum.DataPoints[0]
	labels := map[string]string{}
	for _, a := range append(p.Attributes, r.last[0].Resource.Attributes...) {
		labels[a.Key] = a.Value.GetStringValue()
	}
	if p.GetAsDouble() != 12345 || p.StartTimeUnixNano != uint64(began.UnixNano()) || labels["source_zone"] != "a" || labels["destination_zone"] != "b" ||
		labels["service.instance.id"] != "controller-1" || labels["service.name"] != "zonewise-controller" || labels["k8s.namespace.name"] != "kube-system" {
		t.Errorf("%v, %v", p, labels)
	}
}

// sender is the library's exporter, as it fares.
type sender struct {
	metric.Exporter
	err error
}

func (s *sender) Export(context.Context, *metricdata.ResourceMetrics) error { return s.err }

// A collector that is away is named once, and once when it is back.
func TestACollectorIsAway(t *testing.T) {
	var log bytes.Buffer
	s := &sender{err: errors.New("connection refused")}
	e := &Exporter{Exporter: s, config: Config{Endpoint: "http://collector:4317", Log: slog.New(slog.NewTextHandler(&log, nil))}}
	for _, err := range []error{s.err, s.err, nil, nil} {
		s.err = err
		if err := e.Export(t.Context(), nil); err != nil {
			t.Error(err)
		}
	}
	if strings.Count(log.String(), "\n") != 2 || strings.Count(log.String(), "metrics are not taken") != 1 || strings.Count(log.String(), "metrics are taken again") != 1 {
		t.Error(log.String())
	}
}

func TestEndpoint(t *testing.T) {
	for _, endpoint := range []string{"collector:4317", "http://collector", "http://collector:4317/v1/metrics", "ftp://collector:1", "http://a b:1"} {
		if _, err := New(Config{Endpoint: endpoint}); err == nil || !strings.HasPrefix(err.Error(), "otlp") {
			t.Errorf("%s: %v", endpoint, err)
		}
	}
	if _, err := New(Config{Endpoint: "https://collector.monitoring:4317"}); err != nil {
		t.Error(err)
	}
}
