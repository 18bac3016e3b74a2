//go:build kernel

package agent

import (
	"context"
	"log/slog"
	"runtime"
	"testing"
	"time"

	"github.com/zonewise/zonewise/internal/kernel/conntrack"
	"github.com/zonewise/zonewise/internal/kernel/netns"
	kernelnft "github.com/zonewise/zonewise/internal/kernel/nft"
	"github.com/zonewise/zonewise/internal/service/nft"
)

// BenchmarkColdStartNFT is BenchmarkColdStart until a kernel obeys. What it holds by Service is the
// tables and what the applier knows of the kernel.
func BenchmarkColdStartNFT(b *testing.B) {
	const services = 100_000
	client := stored(b, services, 2)
	var took, cpu time.Duration
	var kept uint64
	for b.Loop() {
		b.StopTimer()
		ns, err := netns.New()
		if err != nil {
			b.Fatal(err)
		}
		before, cpuBefore := inUse(), cpuTime(b)
		kernel := kernelnft.Dial(ns.FD())
		agent, err := New(Config{Node: "n1", Client: client, Log: slog.New(slog.DiscardHandler),
			Applier: nft.New(kernel, &conntrack.Fake{}, nft.Options{})})
		if err != nil {
			b.Fatal(err)
		}
		ctx, stop := context.WithCancel(b.Context())
		done := make(chan struct{})
		b.StartTimer()

		begin := time.Now()
		go func() { defer close(done); agent.Run(ctx) }()
		<-agent.program.first

		b.StopTimer()
		took, cpu = took+time.Since(begin), cpu+cpuTime(b)-cpuBefore
		stop()
		<-done
		kept += inUse() - before
		runtime.KeepAlive(agent)
		kernel.Close()
		if err := ns.Close(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	n := float64(b.N)
	b.ReportMetric(float64(took.Milliseconds())/n, "sync-ms")
	b.ReportMetric(float64(cpu.Milliseconds())/n, "cpu-ms")
	b.ReportMetric(float64(kept)/n/services, "B/service")
}
