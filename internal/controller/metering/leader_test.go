package metering

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/zonewise/zonewise/internal/controller/metering/trust"
	"github.com/zonewise/zonewise/internal/meter"
	"github.com/zonewise/zonewise/internal/meter/store"
	"github.com/zonewise/zonewise/internal/meter/stream"
)

// A replica that begins to lead goes on with the demand that the last one knew.
func TestDemandSurvives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, t.TempDir())
		report := func() {
			for i, n := range nodes {
				w.report(n, calls(n, "b1", uint64(100*(i+1))))
			}
			w.wait(10 * time.Second)
		}
		for range 30 {
			report()
		}
		before := w.shares(web)
		w.end()
		if got := w.shares(web); got != "none" {
			t.Errorf("a replica that does not lead knows %s", got)
		}
		w.begin()
		if got := w.shares(web); got != before || got == "none" {
			t.Errorf("%s, want %s", got, before)
		}
		if c, ok := w.meter.Counted(web, false, time.Now().Add(-4*time.Minute)); !ok || len(c) != 3 {
			t.Errorf("%s", counted(c))
		}
		for range 6 {
			report()
			if got := w.shares(web); got != before {
				t.Errorf("%s, want %s", got, before)
			}
		}
		w.end()
	})
}

// A store that another process has is tried again until it is given back.
func TestStoreOfAnother(t *testing.T) {
	dir := t.TempDir()
	other, err := store.Open(dir, store.Options{})
	must(t, err)
	s := newSite(t, dir)
	stop := s.lead(s.world.meter)
	s.until("log", func() bool {
		return strings.Contains(s.text(), "another process") || strings.Contains(s.text(), "retry=")
	})
	must(t, other.Close())
	s.until("it leads", func() bool { return s.world.meter.term() != nil })
	stop()
}

// site is a leader as it is, on the loopback.
type site struct {
	*testing.T
	world *world
	ctx   context.Context
	log   *lockedLog
}

type lockedLog struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lockedLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (s *site) text() string {
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	return s.log.text.String()
}

func newSite(t *testing.T, dir string) *site {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	w := newWorld(t, dir+"/unused")
	w.end()
	s := &site{T: t, world: w, ctx: ctx, log: &lockedLog{}}
	w.meter.Dir, w.meter.Listen, w.meter.Log = dir, freePort(t), logger(s.log)
	return s
}

func freePort(t testing.TB) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	return l.Addr().String()
}

// lead has a replica lead until stop.
func (s *site) lead(m *Meter) (stop func()) {
	ctx, cancel := context.WithCancel(s.ctx)
	done := make(chan struct{})
	go func() { defer close(done); m.Run(ctx) }()
	return func() { cancel(); <-done }
}

func (s *site) until(what string, is func() bool) {
	s.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-tick.C:
		case <-s.ctx.Done():
			s.Fatalf("never: %s\n%s", what, s.text())
		}
	}
}

// certificate is an agent's, got as agents get it.
func (s *site) certificate(node string) *tls.Certificate {
	s.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(s, err)
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: node, Organization: []string{trust.Organization}}}, key)
	must(s, err)
	all := s.world.meter.Client.CertificatesV1().CertificateSigningRequests()
	name := fmt.Sprintf("%s-%d", node, time.Now().UnixNano())
	_, err = all.Create(s.ctx, &certificatesv1.CertificateSigningRequest{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: certificatesv1.CertificateSigningRequestSpec{
		Request: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), SignerName: trust.Signer,
		Username: "system:serviceaccount:kube-system:zonewise-agent",
		Extra:    map[string]certificatesv1.ExtraValue{"authentication.kubernetes.io/node-name": {node}},
		Usages:   []certificatesv1.KeyUsage{certificatesv1.UsageClientAuth, certificatesv1.UsageDigitalSignature},
	}}, metav1.CreateOptions{})
	must(s, err)
	var signed []byte
	s.until("a certificate", func() bool {
		r, err := all.Get(s.ctx, name, metav1.GetOptions{})
		must(s, err)
		signed = r.Status.Certificate
		return len(signed) > 0
	})
	block, _ := pem.Decode(signed)
	return &tls.Certificate{Certificate: [][]byte{block.Bytes}, PrivateKey: key}
}

// agent is an agent's end of the stream.
func (s *site) agent(node, as, address string) (*stream.Client, func()) {
	s.Helper()
	c := s.certificate(as)
	var authorities *corev1.ConfigMap
	s.until("the authority", func() bool {
		var err error
		authorities, err = s.world.meter.Client.CoreV1().ConfigMaps("kube-system").Get(s.ctx, trust.ConfigMap, metav1.GetOptions{})
		return err == nil
	})
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(authorities.Data["ca.crt"]))
	conn, err := grpc.NewClient(address, append(stream.ClientDialOptions(), grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{
		MinVersion: tls.VersionTLS13, RootCAs: pool, ServerName: trust.Name,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return c, nil },
	})))...)
	must(s, err)
	client, err := stream.NewClient(conn, stream.ClientOptions{Node: node, Retry: 10 * time.Millisecond, Journal: filepath.Join(s.TempDir(), "meter.journal"),
		Notice: func(err error) { fmt.Fprintf(s.log, "agent %s: %v\n", node, err) }})
	must(s, err)
	ctx, cancel := context.WithCancel(s.ctx)
	done := make(chan struct{})
	go func() { defer close(done); client.Run(ctx) }()
	return client, func() { cancel(); <-done; must(s, conn.Close()) }
}

// From an agent's request for a certificate to the answer on the pod's loopback, over a change of leaders.
func TestLeadersChange(t *testing.T) {
	s := newSite(t, t.TempDir())
	m := s.world.meter
	if r := s.world.get("/v1/traffic"); r.Code != http.StatusServiceUnavailable || !strings.Contains(r.Body.String(), "zonewise-controller-2 leads") {
		t.Errorf("%d %s", r.Code, r.Body)
	}
	stop := s.lead(m)
	put := func(agent *stream.Client, n uint64) {
		must(t, agent.Put(time.Now(), []meter.Observed{{Flow: calls("a1", "b1", n), Observer: meter.AtClient}}, nil))
	}
	first, leave := s.agent("a1", "a1", m.Listen)
	put(first, 3)
	s.until("it is told", func() bool { return strings.Contains(s.world.get("/v1/traffic").Body.String(), `"connections":3,`) })
	if n := m.Nodes(); n != 1 {
		t.Errorf("%d nodes report", n)
	}
	impostor, away := s.agent("b2", "b1", m.Listen)
	must(t, impostor.Put(time.Now(), []meter.Observed{{Flow: calls("b2", "b1", 1000), Observer: meter.AtClient}}, nil))
	s.until("it is turned away", func() bool { return strings.Contains(s.text(), `a certificate of "b1", not of node "b2"`) })
	away()
	stop()
	if r := s.world.get("/v1/flows"); r.Code != http.StatusServiceUnavailable || m.Nodes() != 0 {
		t.Errorf("%d %s", r.Code, r.Body)
	}
	leave()
	stop = s.lead(m)
	second, leave := s.agent("a1", "a1", m.Listen)
	put(second, 4)
	s.until("the next one knows all", func() bool {
		return strings.Contains(s.world.get("/v1/traffic?since=5m").Body.String(), `"connections":7,`)
	})
	leave()
	stop()
	s.until("it is given back", func() bool {
		again, err := store.Open(m.Dir, store.Options{})
		if err == nil {
			must(t, again.Close())
		}
		return err == nil
	})
}
