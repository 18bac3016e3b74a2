package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/service"
)

// balancers answers load balancers that ask, at the health check node port of a Service, whether
// this node has endpoints of it.
type balancers struct {
	healthy func() bool // what was programmed is what should be
	listen  func(ctx context.Context, at netip.AddrPort) (net.Listener, error)
	log     *slog.Logger

	mu     sync.Mutex
	open   map[model.Name]*answerer
	faults []service.Fault
}

// wanted is a Service that load balancers ask about.
type wanted struct {
	port  uint16
	local int // ready endpoints on this node
}

// answerer is what listens for one Service.
type answerer struct {
	name      model.Name
	port      uint16
	addresses []netip.Addr
	local     atomic.Int64
	servers   []*http.Server
}

func newBalancers(healthy func() bool, log *slog.Logger) *balancers {
	return &balancers{healthy: healthy, log: log, open: map[model.Name]*answerer{},
		listen: func(ctx context.Context, at netip.AddrPort) (net.Listener, error) {
			var c net.ListenConfig
			return c.Listen(ctx, "tcp", at.String())
		}}
}

// sync makes want the whole of what is answered, at these addresses. What is in the way becomes a
// fault, and is tried again at the next call.
func (b *balancers) sync(ctx context.Context, want map[model.Name]wanted, addresses []netip.Addr) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for name, a := range b.open { // before others open: ports can change hands
		if w, ok := want[name]; !ok || w.port != a.port || !slices.Equal(a.addresses, addresses) {
			a.close()
			delete(b.open, name)
		}
	}
	b.faults = nil
	for name, w := range want {
		a := b.open[name]
		if a == nil {
			a = &answerer{name: name, port: w.port, addresses: addresses}
			if err := b.start(ctx, a); err != nil {
				a.close()
				b.faults = append(b.faults, service.Fault{Kind: "Service", Object: name,
					Problem: fmt.Sprintf("health check node port %d is not answered on this node: %v", w.port, err)})
				continue
			}
			b.open[name] = a
		}
		a.local.Store(int64(w.local))
	}
}

// problems returns what keeps ports from being answered.
func (b *balancers) problems() []service.Fault {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.faults
}

func (b *balancers) start(ctx context.Context, a *answerer) error {
	for _, address := range a.addresses {
		l, err := b.listen(ctx, netip.AddrPortFrom(address, a.port))
		if err != nil {
			return err
		}
		s := &http.Server{Handler: b.answer(a), ReadHeaderTimeout: 5 * time.Second}
		a.servers = append(a.servers, s)
		go func() {
			if err := s.Serve(l); err != http.ErrServerClosed {
				b.log.Error("health check node port", "service", a.name, "port", a.port, "err", err)
			}
		}()
	}
	return nil
}

func (a *answerer) close() {
	for _, s := range a.servers {
		_ = s.Close()
	}
}

// local is the answer to a load balancer, in kube-proxy's form.
type local struct {
	Service struct {
		Namespace string `json:"namespace"`
		Name      string `json:"name"`
	} `json:"service"`
	LocalEndpoints      int64 `json:"localEndpoints"`
	ServiceProxyHealthy bool  `json:"serviceProxyHealthy"`
}

func (b *balancers) answer(a *answerer) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		var body local
		body.Service.Namespace, body.Service.Name = a.name.Namespace, a.name.Name
		body.LocalEndpoints, body.ServiceProxyHealthy = a.local.Load(), b.healthy()
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("X-Load-Balancing-Endpoint-Weight", strconv.FormatInt(body.LocalEndpoints, 10))
		if body.LocalEndpoints == 0 || !body.ServiceProxyHealthy {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_ = json.NewEncoder(w).Encode(body)
	})
}
