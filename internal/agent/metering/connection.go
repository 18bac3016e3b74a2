package metering

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	grpccredentials "google.golang.org/grpc/credentials"

	"github.com/zonewise/zonewise/internal/meter/stream"
	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/state"
	"github.com/zonewise/zonewise/internal/version"
)

const (
	// controller is the Service, its EndpointSlice, and the name in the certificate of who leads.
	controller = "zonewise-meter"
	// controllerPort is the name of its port.
	controllerPort = "meter"
)

// connection is a client's, to be closed.
type connection interface {
	grpc.ClientConnInterface
	Close() error
}

// connect returns a connection to whichever controller leads. It is made when it is used.
func (m *Meter) connect() (connection, error) {
	slow := backoff.DefaultConfig
	slow.MaxDelay = 15 * time.Second
	conn, err := grpc.NewClient("passthrough:///"+controller, append(stream.ClientDialOptions(),
		grpc.WithTransportCredentials(grpccredentials.NewTLS(m.papers.tls(controller))),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: slow, MinConnectTimeout: 5 * time.Second}),
		grpc.WithContextDialer(m.dial))...)
	if err != nil {
		return nil, fmt.Errorf("controller: %w", err)
	}
	return conn, nil
}

// dial looks each time who leads.
func (m *Meter) dial(ctx context.Context, _ string) (net.Conn, error) {
	at, err := leader(m.site.Tables.Snapshot(), m.opts.Namespace)
	if err != nil {
		return nil, err
	}
	var d net.Dialer
	return d.DialContext(ctx, "tcp", at.String())
}

// leader is where the leading controller takes reports.
func leader(s *state.Snapshot, namespace string) (netip.AddrPort, error) {
	name := model.Name{Namespace: namespace, Name: controller}
	for _, slice := range s.Slices(name) {
		for _, p := range slice.Ports {
			for _, e := range slice.Endpoints {
				if e.Ready && p.Name == controllerPort {
					return netip.AddrPortFrom(e.Addr, p.Port), nil
				}
			}
		}
	}
	return netip.AddrPort{}, errors.New("no controller takes reports: Service " + name.String() + " has no endpoint (does a controller lead, with --meter-dir?)")
}

func (m *Meter) file(name string) string { return filepath.Join(m.opts.StateDir, name) }

// Journal is the name of the file in which reports wait.
const Journal = "meter.journal"

func (m *Meter) journal(conn connection) (*stream.Client, error) {
	if err := os.MkdirAll(m.opts.StateDir, 0o700); err != nil {
		return nil, fmt.Errorf("state: %w", err)
	}
	return stream.NewClient(conn, stream.ClientOptions{Node: m.site.Node, Version: version.Version, Journal: m.file(Journal), Notice: m.troubled})
}

// Clean takes away what an agent kept on the node.
func Clean(stateDir string) error {
	var errs []error
	for _, name := range []string{Journal, Journal + ".tmp", Journal + ".bad", "meter.pem", "meter.pem.tmp", Owners, Owners + ".tmp"} {
		if err := os.Remove(filepath.Join(stateDir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// troubled hears why reports do not arrive. A certificate that is refused, on either side, may be another
// authority's.
func (m *Meter) troubled(err error) {
	text := err.Error()
	if strings.Contains(text, "remote error: tls: ") && strings.Contains(text, "certificate") {
		m.papers.refuse()
	}
	if strings.Contains(text, "tls: ") || strings.Contains(text, "x509: ") {
		m.renew.Wake()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.trouble != text {
		m.site.Log.Debug("meter: reports", "err", err)
	}
	m.trouble = text
}
