package agent

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/zonewise/zonewise/internal/loop"
	"github.com/zonewise/zonewise/internal/service/affinity"
)

// clientsEvery is how often both paths' memories of clients are made one. The shortest that is remembered
// at the socket leaves time for two.
const clientsEvery = affinity.Least / 5

// countClients tells how much room is left for what the socket path remembers.
func (m *metrics) countClients(of func() int) {
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "zonewise_clients_at_socket",
		Help: "Clients of this node that the socket path knows, by Service address. Those beyond 65,536 are left to nft.",
	}, func() float64 { return float64(of()) }))
}

// followClients has both paths remember the same of clients, as long as both are in use.
func (a *Agent) followClients(ctx context.Context, wg *sync.WaitGroup) {
	k := affinity.NewKeeper(a.config.Notes, a.config.Socket)
	a.program.metrics.countClients(k.Size)
	l := loop.New(func(context.Context) error {
		if socket, _ := a.program.paths.inUse(); socket == nil || a.program.programmed.Load() == nil {
			return nil
		}
		if err := k.Pass(); err != nil {
			return fmt.Errorf("session affinity: %w", err)
		}
		return nil
	}, loop.Options{Resync: clientsEvery, RetryMin: clientsEvery / 4, RetryMax: clientsEvery, Failed: func(err error, retry time.Duration) {
		a.program.log.Warn("clients are left to nft", "err", err, "retry", retry)
	}})
	wg.Go(func() { l.Run(ctx) })
}
