package metering

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	grpccredentials "google.golang.org/grpc/credentials"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	k8stesting "k8s.io/client-go/testing"

	"github.com/zonewise/zonewise/internal/meter/bpf"
	"github.com/zonewise/zonewise/internal/meter/store"
	"github.com/zonewise/zonewise/internal/meter/stream"
	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/reflect/apitest"
	"github.com/zonewise/zonewise/internal/state"
)

// authorityOf signs what agents ask for.
type authorityOf struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte

	mu       sync.Mutex
	requests []certificatesv1.CertificateSigningRequestSpec
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func newAuthority(t *testing.T) *authorityOf {
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der := must(x509.CreateCertificate(rand.Reader, template, template, key.Public(), key))
	return &authorityOf{t: t, cert: must(x509.ParseCertificate(der)), key: key, pem: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
}

func (a *authorityOf) sign(public any, subject pkix.Name, use x509.ExtKeyUsage, names ...string) []byte {
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: subject, NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(30 * time.Minute),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{use}, DNSNames: names}
	return must(x509.CreateCertificate(rand.Reader, template, a.cert, public, a.key))
}

// serve signs requests as they are made.
func (a *authorityOf) serve(api *apitest.API) {
	api.PrependReactor("create", "certificatesigningrequests", func(action k8stesting.Action) (bool, runtime.Object, error) {
		request := action.(k8stesting.CreateAction).GetObject().(*certificatesv1.CertificateSigningRequest).DeepCopy()
		a.mu.Lock()
		defer a.mu.Unlock()
		a.requests = append(a.requests, request.Spec)
		request.Name, request.UID = "csr", "uid"
		block, _ := pem.Decode(request.Spec.Request)
		asked := must(x509.ParseCertificateRequest(block.Bytes))
		der := a.sign(asked.PublicKey, asked.Subject, x509.ExtKeyUsageClientAuth)
		request.Status = certificatesv1.CertificateSigningRequestStatus{
			Conditions:  []certificatesv1.CertificateSigningRequestCondition{{Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue}},
			Certificate: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
		// who waits for one is shown all: this API server looks at no field selectors
		if err := api.Tracker().Delete(certificatesv1.SchemeGroupVersion.WithResource("certificatesigningrequests"), "", request.Name); err != nil && !apierrors.IsNotFound(err) {
			return true, nil, err
		}
		return true, request, api.Tracker().Add(request)
	})
}

func (a *authorityOf) configMap() *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "zonewise-meter-ca"}, Data: map[string]string{"ca.crt": string(a.pem)}}
}

// taken is a store that remembers what came in.
type taken struct {
	mu      sync.Mutex
	applied map[string]uint64
	bytes   map[string]uint64 // by the client's workload
	news    chan struct{}
}

func (s *taken) Append(reports []store.Report) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range reports {
		if r.Sequence > s.applied[r.Node] {
			s.applied[r.Node] = r.Sequence
			for _, f := range r.Flows {
				s.bytes[f.Client.Workload] += f.Bytes()
			}
		}
	}
	select {
	case s.news <- struct{}{}:
	default:
	}
	return nil
}

func (s *taken) Applied(node string, _ uint64) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.applied[node]
}

// leads is a controller at an address of its own.
func leads(t *testing.T, a *authorityOf, s *taken) netip.AddrPort {
	return leadsUnless(t, a, s, func(*x509.Certificate) bool { return false })
}

// leadsUnless is one that refuses some certificates, though the authority has signed them.
func leadsUnless(t *testing.T, a *authorityOf, s *taken, refuses func(*x509.Certificate) bool) netip.AddrPort {
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	der := a.sign(key.Public(), pkix.Name{CommonName: "controller"}, x509.ExtKeyUsageServerAuth, "zonewise-meter")
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	config := &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert,
		VerifyConnection: func(s tls.ConnectionState) error {
			if refuses(s.PeerCertificates[0]) {
				return errors.New("refused")
			}
			return nil
		}}
	server := stream.NewServer(s, stream.ServerOptions{Gather: time.Millisecond, Interval: time.Second})
	g := grpc.NewServer(stream.GRPCOptions(grpccredentials.NewTLS(config))...)
	stream.RegisterMeterServer(g, server)
	listener := must(net.Listen("tcp", "127.0.0.1:0"))
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { server.Run(ctx) })
	wg.Go(func() { _ = g.Serve(listener) })
	t.Cleanup(func() { cancel(); g.Stop(); wg.Wait() })
	return netip.MustParseAddrPort(listener.Addr().String())
}

func (w *site) lead(at netip.AddrPort) {
	w.tables.Update(time.Now(), func(tx *state.Tx) {
		tx.PutSlice(model.Slice{Name: model.Name{Namespace: "kube-system", Name: "zonewise-meter"}, Service: "zonewise-meter",
			Ports: []model.EndpointPort{{Name: "meter", Protocol: model.TCP, Port: at.Port()}}, Endpoints: []model.Endpoint{{Addr: at.Addr(), Ready: true}}})
	})
}

// site is a cluster with one metering node, and everything real save the kernel and the API server.
type site struct {
	*testing.T
	api    *apitest.API
	kernel *kernel
	tables *state.Tables
	dir    string
	log    bytes.Buffer
	meter  *Meter
	stop   func()
}

func newSite(t *testing.T) *site {
	w := &site{T: t, api: apitest.New(
		&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "a1", Labels: map[string]string{corev1.LabelTopologyZone: "a"}}},
		&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "p"}, Spec: corev1.PodSpec{NodeName: "a1"}, Status: corev1.PodStatus{PodIPs: []corev1.PodIP{{IP: "10.0.1.7"}}}}),
		kernel: newKernel(), tables: state.New(), dir: filepath.Join(t.TempDir(), "state")}
	w.kernel.clock = time.Since(noon) // the pod is old
	return w
}

func (w *site) run(open func() (Counter, error)) {
	w.meter = New(Options{Namespace: "kube-system", StateDir: w.dir, Every: 20 * time.Millisecond, Open: open},
		Site{Node: "a1", Client: w.api, Tables: w.tables, Served: w.tables.Snapshot, Log: slog.New(slog.NewTextHandler(&w.log, nil))})
	ctx, cancel := context.WithCancel(w.Context())
	done := make(chan struct{})
	go func() { defer close(done); w.meter.Run(ctx) }()
	w.stop = func() { cancel(); <-done }
	w.Cleanup(w.stop)
}

func (w *site) open() (Counter, error) { return &handle{kernel: w.kernel}, nil }

// until waits for something that happens by itself.
func (w *site) until(what string, yes func() bool) {
	w.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	end := time.After(30 * time.Second)
	for !yes() {
		select {
		case <-tick.C:
		case <-end:
			w.Fatalf("never: %s; status %+v, trouble %q", what, w.meter.Status(), w.meter.trouble)
		}
	}
}

func (s *taken) has(workload string, n uint64) func() bool {
	return func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.bytes[workload] == n
	}
}

// From the kernel to the controller: a certificate is asked for and signed, the leader is found, reports
// arrive; also those from before there was one, and after another authority and another leader came.
func TestReportsArrive(t *testing.T) {
	t.Parallel()
	w := newSite(t)
	w.run(w.open)
	k := key("10.0.1.7", "10.0.2.1:80")
	w.until("the kernel counts", func() bool { return w.meter.Status().On })
	w.kernel.send(k, 5)
	w.until("it is read", func() bool { return w.meter.Status().Waiting > 0 })

	first, s := newAuthority(t), &taken{applied: map[string]uint64{}, bytes: map[string]uint64{}, news: make(chan struct{}, 1)}
	first.serve(w.api)
	if err := w.api.Tracker().Add(first.configMap()); err != nil {
		t.Fatal(err)
	}
	w.lead(leads(t, first, s))
	w.until("what was counted before there was a controller", s.has("pod/p", 5))
	w.kernel.send(k, 7)
	w.until("what came after", s.has("pod/p", 12))
	asked := first.requests[0]
	request, _ := pem.Decode(asked.Request)
	subject := must(x509.ParseCertificateRequest(request.Bytes)).Subject
	if subject.CommonName != "a1" || !slices.Equal(subject.Organization, []string{"zonewise:agents"}) || asked.SignerName != "zonewise.io/agent" || *asked.ExpirationSeconds != 24*3600 ||
		!slices.Equal(asked.Usages, []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageClientAuth}) {
		t.Errorf("asked for %v: %+v", subject, asked)
	}
	if info := must(os.Stat(filepath.Join(w.dir, "meter.pem"))); info.Mode().Perm() != 0o600 {
		t.Errorf("the key may be read: %v", info.Mode())
	}

	// The next agent has certificate and journal already.
	w.stop()
	w.run(w.open)
	w.kernel.send(k, 1)
	w.until("the next agent's", s.has("pod/p", 13))
	if first.count() != 1 {
		t.Errorf("%d certificates were asked for", first.count())
	}

	// The authority's Secret was deleted: another one leads.
	second := newAuthority(t)
	second.serve(w.api)
	if err := w.api.Tracker().Update(corev1.SchemeGroupVersion.WithResource("configmaps"), second.configMap(), "kube-system"); err != nil {
		t.Fatal(err)
	}
	w.stop()
	w.lead(leads(t, second, s))
	w.run(w.open)
	w.kernel.send(k, 1)
	w.until("under another authority", s.has("pod/p", 14))
	if second.count() != 1 {
		t.Errorf("%d certificates were asked for of the second authority", second.count())
	}
	w.until("confirmed", func() bool { s := w.meter.stats(); return s.Waiting+s.Flying == 0 })
	if got := w.metric("zonewise_meter_reports_confirmed"); got < 3 {
		t.Errorf("confirmed: %v", got)
	}
	if w.metric("zonewise_meter_on") != 1 || w.metric("zonewise_meter_keys") != 1 || w.metric("zonewise_meter_keys_capacity") != 1000 {
		t.Error("metrics do not say what is")
	}
}

// metric reads one without labels.
func (w *site) metric(name string) float64 {
	w.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(w.meter.Collectors()...)
	for _, f := range must(registry.Gather()) {
		if f.GetName() == name {
			m := f.GetMetric()[0]
			return m.GetGauge().GetValue() + m.GetCounter().GetValue() // one of the two is there
		}
	}
	w.Fatalf("no metric %s", name)
	return 0
}

// While the agent lives the authority may change: who is refused looks for another.
func TestAnotherAuthorityWhileTheAgentLives(t *testing.T) {
	t.Parallel()
	w := newSite(t)
	first, second := newAuthority(t), newAuthority(t)
	first.serve(w.api)
	if err := w.api.Tracker().Add(first.configMap()); err != nil {
		t.Fatal(err)
	}
	w.run(w.open)
	s := &taken{applied: map[string]uint64{}, bytes: map[string]uint64{}, news: make(chan struct{}, 1)}
	w.until("a certificate", func() bool { _, err := w.meter.papers.show(); return err == nil })
	second.serve(w.api)
	if err := w.api.Tracker().Update(corev1.SchemeGroupVersion.WithResource("configmaps"), second.configMap(), "kube-system"); err != nil {
		t.Fatal(err)
	}
	w.lead(leads(t, second, s))
	w.until("the kernel counts", func() bool { return w.meter.Status().On })
	w.kernel.send(key("10.0.1.7", "10.0.2.1:80"), 3)
	w.until("under another authority", s.has("pod/p", 3))
}

// count tells how many certificates were asked for.
func (a *authorityOf) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.requests)
}

// Who is refused by the authority that he trusts asks for another certificate: at once, but not again and again.
func TestARefusedCertificateIsGivenUp(t *testing.T) {
	t.Parallel()
	for refused, name := range []string{"", "the first one", "each"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newSite(t)
			ours, s := newAuthority(t), &taken{applied: map[string]uint64{}, bytes: map[string]uint64{}, news: make(chan struct{}, 1)}
			ours.serve(w.api)
			if err := w.api.Tracker().Add(ours.configMap()); err != nil {
				t.Fatal(err)
			}
			var mu sync.Mutex
			known := map[string]bool{} // serial numbers
			w.lead(leadsUnless(t, ours, s, func(c *x509.Certificate) bool {
				mu.Lock()
				defer mu.Unlock()
				known[c.SerialNumber.String()] = true
				return refused == 2 || refused == 1 && len(known) == 1
			}))
			w.run(w.open)
			w.until("the kernel counts", func() bool { return w.meter.Status().On })
			w.kernel.send(key("10.0.1.7", "10.0.2.1:80"), 3)
			if refused < 2 {
				w.until("it arrives", s.has("pod/p", 3))
			} else {
				w.until("it says so", func() bool {
					w.meter.mu.Lock()
					defer w.meter.mu.Unlock()
					return strings.Contains(w.meter.trouble, "the controller refuses this node's certificate; another is asked for at ")
				})
			}
			if got, want := ours.count(), 1+min(refused, 1); got != want {
				t.Errorf("asked for %d certificates, want %d", got, want)
			}
		})
	}
}

// The longer certificates are refused the less often another is asked for.
func TestRefusedAgainAndAgain(t *testing.T) {
	c := &credentials{file: filepath.Join(t.TempDir(), "meter.pem"), log: slog.New(slog.DiscardHandler)}
	var at []time.Duration
	for d := time.Duration(0); d < 4*time.Hour; d += 10 * time.Second {
		if c.giveUp(noon.Add(d)) == nil {
			at = append(at, d)
		}
	}
	m := time.Minute
	if want := []time.Duration{0, m, 3 * m, 7 * m, 15 * m, 31 * m, 63 * m, 123 * m, 183 * m}; !slices.Equal(at, want) {
		t.Errorf("given up at %v, want %v", at, want)
	}
}

// What another authority has signed than the one that we knew makes us look for another one.
func TestSignedByAnotherAuthority(t *testing.T) {
	t.Parallel()
	w := newSite(t)
	first, second := newAuthority(t), newAuthority(t)
	second.serve(w.api)
	if err := w.api.Tracker().Add(first.configMap()); err != nil {
		t.Fatal(err)
	}
	w.run(w.open)
	w.until("a certificate is asked for", func() bool { return second.count() > 0 })
	if err := w.api.Tracker().Update(corev1.SchemeGroupVersion.WithResource("configmaps"), second.configMap(), "kube-system"); err != nil {
		t.Fatal(err)
	}
	w.until("a certificate", func() bool { _, err := w.meter.papers.show(); return err == nil })
}

// Whoever answers at the leader's address without the authority's certificate hears nothing.
func TestAStrangerIsToldNothing(t *testing.T) {
	t.Parallel()
	w := newSite(t)
	ours := newAuthority(t)
	ours.serve(w.api)
	if err := w.api.Tracker().Add(ours.configMap()); err != nil {
		t.Fatal(err)
	}
	s := &taken{applied: map[string]uint64{}, bytes: map[string]uint64{}, news: make(chan struct{}, 1)}
	stranger := newAuthority(t)
	w.lead(leads(t, stranger, s))
	w.run(w.open)
	w.until("it is turned away", func() bool {
		w.meter.mu.Lock()
		defer w.meter.mu.Unlock()
		return strings.Contains(w.meter.trouble, "x509: ")
	})
	if len(s.bytes) > 0 {
		t.Errorf("told a stranger %v", s.bytes)
	}
}

// A machine that cannot count says so once, and nothing else runs.
func TestAMachineThatCannot(t *testing.T) {
	t.Parallel()
	w := newSite(t)
	w.run(func() (Counter, error) {
		return nil, errors.Join(errors.New("meter"), &bpf.Unsupported{Missing: "no Linux 6.4"})
	})
	w.until("it says so", func() bool { return w.meter.Status().Why == "no Linux 6.4" })
	w.stop()
	if s := w.meter.Status(); s.On || strings.Count(w.log.String(), "no Linux 6.4") != 1 {
		t.Errorf("status %+v, log %s", s, &w.log)
	}
	if actions := w.api.Actions(); len(actions) > 0 {
		t.Errorf("asked the API server for %v", actions)
	}
}

// An agent that comes before the last one has gone waits for it.
func TestAnEarlierAgentIsStillThere(t *testing.T) {
	t.Parallel()
	w := newSite(t)
	var mu sync.Mutex
	tries := 0
	w.run(func() (Counter, error) {
		mu.Lock()
		defer mu.Unlock()
		if tries++; tries == 1 {
			return nil, errors.New("lock: another process has it")
		}
		return w.open()
	})
	w.until("it counts", func() bool { return w.meter.Status().On })
}

func TestClean(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"meter.journal", "meter.pem", "meter.owners", "other"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(Clean(dir), Clean(dir), Clean(filepath.Join(dir, "none"))); err != nil {
		t.Fatal(err)
	}
	left := must(os.ReadDir(dir))
	if len(left) != 1 || left[0].Name() != "other" {
		t.Errorf("left: %v", left)
	}
}

// Nodes read and report at moments of their own.
func TestPhase(t *testing.T) {
	counts := [4]int{}
	for i := range 4000 {
		p := phase("ip-192-168-"+string(rune('a'+i%26))+strings.Repeat("x", i/26), time.Minute)
		if p < 0 || p >= time.Minute {
			t.Fatal(p)
		}
		counts[p/(15*time.Second)]++
	}
	if slices.Min(counts[:]) < 800 {
		t.Errorf("by quarters of a minute: %v", counts)
	}
}
