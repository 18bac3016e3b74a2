//go:build kernel

package agent

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/zonewise/zonewise/internal/kernel/conntrack"
	"github.com/zonewise/zonewise/internal/kernel/netns"
	kernelnft "github.com/zonewise/zonewise/internal/kernel/nft"
	"github.com/zonewise/zonewise/internal/reflect/apitest"
	"github.com/zonewise/zonewise/internal/service/nft"
)

// stopwatch is a log handler that takes the times out of the agent's lines.
type stopwatch struct {
	slog.Handler
	synced chan time.Duration
	change chan time.Duration
}

func (s stopwatch) Enabled(context.Context, slog.Level) bool { return true }

func (s stopwatch) Handle(_ context.Context, r slog.Record) error {
	var sum time.Duration
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "took" || a.Key == "waited" {
			sum += a.Value.Duration()
		}
		return true
	})
	switch r.Message {
	case "synced":
		s.synced <- sum
	case "programmed":
		s.change <- sum
	}
	return nil
}

func benchService(i, round int) (*corev1.Service, *discoveryv1.EndpointSlice) {
	s, e := svc(1), slice(1, "a", "b")
	ip := netip.AddrFrom4([4]byte{10, 100, byte(i >> 8), byte(i)}).String()
	s.Name, s.Spec.ClusterIP, s.Spec.ClusterIPs = fmt.Sprintf("s%d", i), ip, []string{ip}
	e.Name, e.Labels[discoveryv1.LabelServiceName] = s.Name+"-x", s.Name
	e.Endpoints[0].Addresses[0] = netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}).String()
	e.Endpoints[1].Addresses[0] = netip.AddrFrom4([4]byte{10, 50 + byte(round%2), byte(i >> 8), byte(i)}).String()
	e.Endpoints[0].Hints, e.Endpoints[1].Hints = nil, nil
	return s, e
}

// BenchmarkProgram measures from an EndpointSlice event at the agent to the kernel that obeys it:
// one of a Service's two endpoints is replaced.
func BenchmarkProgram(b *testing.B) {
	for _, n := range []int{10, 1_000, 10_000} {
		b.Run(fmt.Sprintf("services=%d", n), func(b *testing.B) { benchProgram(b, n) })
	}
}

func benchProgram(b *testing.B, n int) {
	ns, err := netns.New()
	if err != nil {
		b.Fatal(err)
	}
	defer ns.Close()
	objects := []runtime.Object{node("a")}
	for i := range n {
		s, e := benchService(i, 0)
		objects = append(objects, s, e)
	}
	api := apitest.New(objects...)
	watch := stopwatch{Handler: slog.DiscardHandler, synced: make(chan time.Duration, 1), change: make(chan time.Duration, 1)}
	kernel := kernelnft.Dial(ns.FD())
	defer kernel.Close()
	agent, err := New(Config{Node: "n1", Client: api, Log: slog.New(watch),
		Applier: nft.New(kernel, &conntrack.Fake{}, nft.Options{})})
	if err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(b.Context())
	done := make(chan struct{})
	go func() { defer close(done); agent.Run(ctx) }()
	defer func() { stop(); <-done }()
	sync := <-watch.synced
	api.Watched(b)

	var took []time.Duration
	for i := 0; b.Loop(); i++ {
		_, e := benchService(i%n, 1+i/n)
		if _, err := api.DiscoveryV1().EndpointSlices("default").Update(ctx, e, metav1.UpdateOptions{}); err != nil {
			b.Fatal(err)
		}
		took = append(took, <-watch.change)
	}
	slices.Sort(took)
	b.ReportMetric(float64(sync.Microseconds())/1000, "first-sync-ms")
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
}
