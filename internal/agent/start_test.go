package agent

import (
	"context"
	"log/slog"
	"net/netip"
	"runtime/debug"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"k8s.io/client-go/kubernetes"

	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/reflect/apitest"
	"github.com/zonewise/zonewise/internal/service"
)

// stored returns a client of an API that holds so many Services.
func stored(t testing.TB, services, endpoints int) kubernetes.Interface {
	api, err := apitest.NewStored(t.TempDir(), apitest.Cluster(services, endpoints))
	if err != nil {
		t.Fatal(err)
	}
	client, err := api.Client()
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// However many cores plan, every Service has its own plan.
func TestEveryServiceIsPlanned(t *testing.T) {
	kernel := newFakeApplier()
	agent, err := New(Config{Node: "n1", Client: stored(t, 1000, 3), Applier: kernel, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(t.Context(), 30*time.Second)
	done := make(chan struct{})
	go func() { defer close(done); agent.Run(ctx) }()
	select {
	case <-agent.program.first:
	case <-ctx.Done():
		t.Fatal("never synced")
	}
	stop()
	<-done
	now := agent.program.programmed.Load()
	want := map[model.Name][]service.Frontend{}
	for svc := range now.snapshot.Services() {
		want[svc.Name] = service.Plan(now.node, svc, now.snapshot.Slices(svc.Name), nil)
	}
	if len(want) != 1000 {
		t.Fatalf("%d services", len(want))
	}
	if diff := cmp.Diff(want, kernel.kernel, cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{}, netip.Prefix{})); diff != "" {
		t.Error(diff)
	}
	if got := debug.SetGCPercent(usualGC); got != usualGC {
		t.Errorf("the garbage collector is left at %d %%", got)
	}
}

// Who has set GOGC knows better.
func TestNoHurryAgainstTheUser(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(70))
	p := &programmer{first: make(chan struct{})}
	p.hurry(t.Context()) // does not wait for anything
	if got := debug.SetGCPercent(70); got != 70 {
		t.Errorf("%d %%, want 70", got)
	}
}
