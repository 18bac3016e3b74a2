//go:build bench

package cluster

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"

	"github.com/zonewise/zonewise/lab/cluster"
	"github.com/zonewise/zonewise/lab/region"
)

// changes of one EndpointSlice each, one after the other, for each number of Services.
const changes = 200

// BenchmarkProgramming measures, at an agent in a lab, the time from an EndpointSlice event at the
// agent until the kernel is updated, with a number of Services of 2 endpoints each. The figures are
// the agent's own (zonewise_network_programming_duration_seconds): mean, and the upper bounds of
// the histogram's buckets that hold the median and the 99th percentile.
func BenchmarkProgramming(b *testing.B) {
	client, ctx := up(b), context.Background()
	have, version := 0, 0
	for _, services := range []int{10, 1000, 10000} {
		b.Run("services="+strconv.Itoa(services), func(b *testing.B) {
			begin := time.Now()
			create(b, client, have, services)
			have = services
			await(b, "the agent knows every Service", func() (bool, error) {
				m, err := scrape()
				return err == nil && m["zonewise_services"].GetMetric()[0].GetGauge().GetValue() >= float64(services), err
			})
			b.Logf("%d Services made and programmed after %.1f s", services, time.Since(begin).Seconds())
			before := histogram(b)
			for b.Loop() {
				for i := range changes {
					version++ // never what the slice holds already: that would be no event
					change(ctx, b, client, i%services, version)
				}
			}
			want := before.GetSampleCount() + uint64(changes*b.N)
			await(b, "every change is programmed", func() (bool, error) { return histogram(b).GetSampleCount() >= want, nil })
			report(b, before, histogram(b))
		})
	}
}

func name(i int) string { return fmt.Sprintf("service-%05d", i) }

// create makes Services from..to-1, each with a slice of its own of two endpoints.
func create(b *testing.B, client kubernetes.Interface, from, to int) {
	b.Helper()
	var group errgroup.Group
	group.SetLimit(16)
	for i := from; i < to; i++ {
		group.Go(func() error {
			_, err := client.CoreV1().Services("default").Create(context.Background(), &corev1.Service{
				ObjectMeta: metav1.ObjectMeta{Name: name(i)},
				Spec:       corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "http", Port: 80}}},
			}, metav1.CreateOptions{})
			if err != nil {
				return err
			}
			_, err = client.DiscoveryV1().EndpointSlices("default").Create(context.Background(), slice(i, 0), metav1.CreateOptions{})
			return err
		})
	}
	if err := group.Wait(); err != nil {
		b.Fatal(err)
	}
}

// slice is a Service's only one; its endpoints differ from version to version.
func slice(i, version int) *discoveryv1.EndpointSlice {
	address := func(k int) string { return fmt.Sprintf("192.168.%d.%d", 200+k, 1+(i+version)%250) }
	return &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Name: name(i), Labels: map[string]string{discoveryv1.LabelServiceName: name(i)}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: ptr.To("http"), Port: ptr.To(int32(8080))}},
		Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{address(0)}}, {Addresses: []string{address(1)}}},
	}
}

// change gives a Service other endpoints and waits until the API server has taken them.
func change(ctx context.Context, b *testing.B, client kubernetes.Interface, service, version int) {
	b.Helper()
	if _, err := client.DiscoveryV1().EndpointSlices("default").Update(ctx, slice(service, version), metav1.UpdateOptions{}); err != nil {
		b.Fatal(err)
	}
}

// scrape reads the metrics of the agent of the first node, on that node's loopback.
func scrape() (map[string]*dto.MetricFamily, error) {
	s, err := cluster.GetStatus(context.Background(), *labName)
	if err != nil {
		return nil, err
	}
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", s.Zones[0].Nodes[0].PID))
	if err != nil {
		return nil, err
	}
	defer func() { _ = ns.Close() }()
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, address string) (conn net.Conn, err error) {
			err = region.In(ns, func() error {
				conn, err = (&net.Dialer{}).DialContext(ctx, network, address)
				return err
			})
			return conn, err
		},
	}}
	response, err := client.Get("http://127.0.0.1:9470/metrics")
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	return parser.TextToMetricFamilies(response.Body)
}

func histogram(b *testing.B) *dto.Histogram {
	b.Helper()
	m, err := scrape()
	if err != nil {
		b.Fatal(err)
	}
	return m["zonewise_network_programming_duration_seconds"].GetMetric()[0].GetHistogram()
}

// report tells what came between two readings.
func report(b *testing.B, before, after *dto.Histogram) {
	b.Helper()
	count := after.GetSampleCount() - before.GetSampleCount()
	b.ReportMetric((after.GetSampleSum()-before.GetSampleSum())/float64(count)*1e3, "mean-ms")
	for _, q := range []float64{0.50, 0.99} {
		for i, bucket := range after.GetBucket() {
			if float64(bucket.GetCumulativeCount()-before.GetBucket()[i].GetCumulativeCount()) >= q*float64(count) {
				b.ReportMetric(bucket.GetUpperBound()*1e3, fmt.Sprintf("p%.0f-ms", q*100))
				break
			}
		}
	}
}
