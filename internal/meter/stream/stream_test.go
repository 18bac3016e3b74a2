package stream_test

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"maps"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/zonewise/zonewise/internal/meter"
	"github.com/zonewise/zonewise/internal/meter/store"
	"github.com/zonewise/zonewise/internal/meter/stream"
	"github.com/zonewise/zonewise/internal/model"
)

// authority signs certificates into a directory.
type authority struct {
	dir         string
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	serial      int64
}

func newAuthority(tb testing.TB) *authority {
	a := &authority{dir: tb.TempDir()}
	a.certificate, a.key = a.sign(tb, "ca", nil)
	return a
}

// sign makes the files NAME.crt and NAME.key.
func (a *authority) sign(tb testing.TB, name string, dns []string) (*x509.Certificate, *ecdsa.PrivateKey) {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(tb, err)
	a.serial++
	template := &x509.Certificate{SerialNumber: big.NewInt(a.serial), Subject: pkix.Name{CommonName: name}, DNSNames: dns,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}}
	parent, signer := a.certificate, a.key
	if parent == nil {
		template.IsCA, template.BasicConstraintsValid, template.KeyUsage = true, true, x509.KeyUsageCertSign
		template.ExtKeyUsage = nil
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	must(tb, err)
	private, err := x509.MarshalECPrivateKey(key)
	must(tb, err)
	f := a.files(name)
	must(tb, os.WriteFile(f.Certificate, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	must(tb, os.WriteFile(f.Key, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: private}), 0o600))
	certificate, err := x509.ParseCertificate(der)
	must(tb, err)
	return certificate, key
}

func (a *authority) files(name string) stream.Files {
	path := filepath.Join(a.dir, name)
	return stream.Files{CA: filepath.Join(a.dir, "ca.crt"), Certificate: path + ".crt", Key: path + ".key"}
}

// serve runs a controller's side on a port of the loopback.
func serve(tb testing.TB, files stream.Files, to stream.Store, opts stream.ServerOptions) (*stream.Server, string) {
	tb.Helper()
	config, err := stream.ServerTLS(files.Read)
	must(tb, err)
	opts.Interval = cmp.Or(opts.Interval, time.Nanosecond)
	server := stream.NewServer(to, opts)
	g := grpc.NewServer(stream.GRPCOptions(credentials.NewTLS(config))...)
	stream.RegisterMeterServer(g, server)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(tb, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { server.Run(ctx); close(ended) }()
	go func() {
		if err := g.Serve(listener); err != nil {
			tb.Errorf("serve: %v", err)
		}
	}()
	tb.Cleanup(func() { cancel(); g.Stop(); <-ended })
	return server, listener.Addr().String()
}

func dial(tb testing.TB, files stream.Files, address string) *grpc.ClientConn {
	tb.Helper()
	config, err := stream.ClientTLS(files, "controller.zonewise")
	must(tb, err)
	conn, err := grpc.NewClient(address, append(stream.ClientDialOptions(), grpc.WithTransportCredentials(credentials.NewTLS(config)))...)
	must(tb, err)
	tb.Cleanup(func() { must(tb, conn.Close()) })
	return conn
}

// TestAgentToStore goes the whole way, with certificates of files.
func TestAgentToStore(t *testing.T) {
	a := newAuthority(t)
	a.sign(t, "controller", []string{"controller.zonewise"})
	a.sign(t, "system:node:n1", nil)
	s, err := store.Open(t.TempDir(), store.Options{})
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	server, address := serve(t, a.files("controller"), s, stream.ServerOptions{Gather: time.Millisecond, Interval: 10 * time.Second})
	intervals := make(chan time.Duration, 100)
	c, err := stream.NewClient(dial(t, a.files("system:node:n1"), address), stream.ClientOptions{Node: "n1", Interval: func(d time.Duration) { intervals <- d }})
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { c.Run(ctx); close(ended) }()
	t.Cleanup(func() { cancel(); <-ended })

	hears := func(want time.Duration) {
		t.Helper()
		for {
			select {
			case got := <-intervals:
				if got == want {
					return
				}
			case <-time.After(time.Minute):
				t.Fatalf("nobody says that the interval is %v", want)
			}
		}
	}
	hears(10 * time.Second)
	counted := time.Now().Add(-10 * time.Minute)
	flow := model.Flow{FlowKey: key(1, 2), FlowCount: model.FlowCount{Connections: 1, RequestBytes: 2, ResponseBytes: 3, RequestPackets: 4, ResponsePackets: 5}}
	must(t, c.Put(counted, []meter.Observed{{Flow: flow, Observer: meter.AtClient}}, nil))
	until(t, func() bool { st := c.Stats(); return st.Waiting+st.Flying == 0 })
	server.SetInterval(20 * time.Second)
	hears(20 * time.Second)

	var got []model.Flow
	must(t, s.Scan(counted.Add(-2*time.Minute), counted.Add(2*time.Minute), store.Minute, func(_ time.Time, flows []model.Flow) error {
		got = append(got, flows...)
		return nil
	}))
	if len(got) != 1 || got[0] != flow {
		t.Errorf("the store has %+v, want %+v at the time when it was counted", got, flow)
	}
	if st := server.Stats(); st.Streams != 1 || st.Batches != 1 {
		t.Errorf("server's stats are %+v", st)
	}
}

// TestOneNodeTellsOfAFlow: of what both ends report only the client's counts; the server's does where nobody else would tell.
func TestOneNodeTellsOfAFlow(t *testing.T) {
	a := newAuthority(t)
	a.sign(t, "controller", []string{"controller.zonewise"})
	a.sign(t, "n1", nil)
	m := &memory{applied: map[string]uint64{}, taken: map[model.FlowKey]model.FlowCount{}}
	metered := meter.Metered{Nodes: map[string]bool{"n1": true, "n2": true}}
	server, address := serve(t, a.files("controller"), m, stream.ServerOptions{Gather: time.Millisecond, Metered: func() meter.Metered { return metered }})
	c, err := stream.NewClient(dial(t, a.files("n1"), address), stream.ClientOptions{Node: "n1"})
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { c.Run(ctx); close(ended) }()
	t.Cleanup(func() { cancel(); <-ended })

	own, twice, alone, passing, unclear := key(1, 1), key(2, 2), key(3, 3), key(4, 4), key(5, 5)
	unclear.Client = model.Party{Kind: model.Unknown}
	must(t, c.Put(time.Now(), []meter.Observed{observed(meter.AtClient, own, 1), observed(meter.AtServer, twice, 20), observed(meter.AtServer, alone, 300),
		observed(meter.Between, passing, 4000), observed(meter.AtServer, unclear, 50_000)}, nil))
	until(t, func() bool { return server.Stats().Batches == 1 })
	want := map[model.FlowKey]model.FlowCount{}
	for _, f := range []meter.Observed{observed("", own, 1), observed("", alone, 300), observed("", unclear, 50_000)} {
		want[f.FlowKey] = f.FlowCount
	}
	if !maps.Equal(m.taken, want) {
		t.Errorf("%v are taken, want %v", m.taken, want)
	}
	if st := server.Stats(); st.Twice != 20 || st.Passing != 4000 || st.Doubtful != 50_000 {
		t.Errorf("stats are %+v", st)
	}
}

// TestStrangersAreTurnedAway tries who may not report, and what makes no sense.
func TestStrangersAreTurnedAway(t *testing.T) {
	ours, theirs := newAuthority(t), newAuthority(t)
	ours.sign(t, "controller", []string{"controller.zonewise"})
	ours.sign(t, "system:node:n1", nil)
	theirs.sign(t, "system:node:n1", nil)
	stranger := theirs.files("system:node:n1")
	stranger.CA = ours.files("").CA
	_, address := serve(t, ours.files("controller"), &memory{applied: map[string]uint64{}, taken: map[model.FlowKey]model.FlowCount{}}, stream.ServerOptions{Gather: time.Millisecond})
	hello := func(node string) *stream.FromAgent {
		return &stream.FromAgent{What: &stream.FromAgent_Hello{Hello: &stream.Hello{Node: node, Epoch: 1}}}
	}
	batch := func(b *stream.Batch) *stream.FromAgent {
		return &stream.FromAgent{What: &stream.FromAgent_Batch{Batch: b}}
	}
	for name, c := range map[string]struct {
		files stream.Files
		says  []*stream.FromAgent
		want  codes.Code
	}{
		"another authority's":      {stranger, []*stream.FromAgent{hello("n1")}, codes.Unavailable},
		"another node's":           {ours.files("system:node:n1"), []*stream.FromAgent{hello("n2")}, codes.PermissionDenied},
		"no hello":                 {ours.files("system:node:n1"), []*stream.FromAgent{batch(&stream.Batch{Sequence: 1})}, codes.InvalidArgument},
		"a number is left out":     {ours.files("system:node:n1"), []*stream.FromAgent{hello("n1"), batch(&stream.Batch{Sequence: 1}), batch(&stream.Batch{Sequence: 3})}, codes.InvalidArgument},
		"no number":                {ours.files("system:node:n1"), []*stream.FromAgent{hello("n1"), batch(&stream.Batch{})}, codes.InvalidArgument},
		"hello in the wrong place": {ours.files("system:node:n1"), []*stream.FromAgent{hello("n1"), hello("n1")}, codes.InvalidArgument},
	} {
		t.Run(name, func(t *testing.T) {
			rpc, err := stream.NewMeterClient(dial(t, c.files, address)).Report(t.Context())
			for _, m := range c.says {
				if err == nil {
					err = rpc.Send(m)
				}
			}
			for rpc != nil && status.Code(err) != c.want {
				if _, err = rpc.Recv(); err != nil {
					break
				}
			}
			if status.Code(err) != c.want {
				t.Errorf("the answer is %v, want %v", err, c.want)
			}
		})
	}
}

// TestNonsenseIsRefusedAndPassed: a batch that names nothing must not stand in the way of those behind it.
func TestNonsenseIsRefusedAndPassed(t *testing.T) {
	a := newAuthority(t)
	a.sign(t, "controller", []string{"controller.zonewise"})
	a.sign(t, "n1", nil)
	m := &memory{applied: map[string]uint64{}, taken: map[model.FlowKey]model.FlowCount{}}
	server, address := serve(t, a.files("controller"), m, stream.ServerOptions{Gather: time.Millisecond})
	rpc, err := stream.NewMeterClient(dial(t, a.files("n1"), address)).Report(t.Context())
	must(t, err)
	must(t, rpc.Send(&stream.FromAgent{What: &stream.FromAgent_Hello{Hello: &stream.Hello{Node: "n1", Epoch: 1}}}))
	for sequence, flows := range [][]*stream.Flow{{{Client: 7}}, nil} {
		must(t, rpc.Send(&stream.FromAgent{What: &stream.FromAgent_Batch{Batch: &stream.Batch{Sequence: uint64(sequence + 1), Flows: flows}}}))
	}
	refused := uint64(0)
	for applied := uint64(0); applied < 2; {
		said, err := rpc.Recv()
		must(t, err)
		applied, refused = said.Applied, max(refused, said.Refused)
	}
	until(t, func() bool { return server.Stats().Batches == 2 })
	if st := server.Stats(); refused != 1 || st.Refused != 1 {
		t.Errorf("batch %d is refused, and %d are counted, want the first", refused, st.Refused)
	}
}

// gate is a store that holds its first commit until it is told to fail.
type gate struct {
	memory
	first sync.Once
	held  chan struct{}
	open  chan struct{}
}

func (g *gate) Append(reports []store.Report) (err error) {
	g.first.Do(func() {
		close(g.held)
		<-g.open
		err = errors.New("disk full")
	})
	if err != nil {
		return err
	}
	return g.memory.Append(reports)
}

// TestNothingOvertakesWhatFailed: were the second batch taken after the first was not, the first would count as
// taken, too.
func TestNothingOvertakesWhatFailed(t *testing.T) {
	a := newAuthority(t)
	a.sign(t, "controller", []string{"controller.zonewise"})
	a.sign(t, "n1", nil)
	g := &gate{memory: memory{applied: map[string]uint64{}, taken: map[model.FlowKey]model.FlowCount{}}, held: make(chan struct{}), open: make(chan struct{})}
	server, address := serve(t, a.files("controller"), g, stream.ServerOptions{Gather: time.Millisecond, MaxFlows: 1})
	client := stream.NewMeterClient(dial(t, a.files("n1"), address))
	begin := func() grpc.BidiStreamingClient[stream.FromAgent, stream.FromController] {
		rpc, err := client.Report(t.Context())
		must(t, err)
		must(t, rpc.Send(&stream.FromAgent{What: &stream.FromAgent_Hello{Hello: &stream.Hello{Node: "n1", Epoch: 1}}}))
		welcome, err := rpc.Recv()
		must(t, err)
		if welcome.Applied != 0 {
			t.Fatalf("batch %d is applied, and none was taken", welcome.Applied)
		}
		for sequence := range uint64(3) {
			must(t, rpc.Send(&stream.FromAgent{What: &stream.FromAgent_Batch{Batch: &stream.Batch{Sequence: sequence + 1,
				Names: []string{"", "client"}, Parties: []*stream.Party{{}}, Flows: []*stream.Flow{{RequestBytes: 1, Observer: 1}}}}}))
		}
		return rpc
	}
	rpc := begin()
	<-g.held
	until(t, func() bool { return server.Stats().Waiting == 2 })
	close(g.open)
	if m, err := rpc.Recv(); status.Code(err) != codes.Unavailable {
		t.Fatalf("the controller says %v, %v after a commit that failed", m, err)
	}
	until(t, func() bool { return server.Stats().Waiting == 0 })
	begin()
	until(t, func() bool { return g.Applied("n1", 1) == 3 })
	if got := g.taken[model.FlowKey{}].RequestBytes; got != 3 {
		t.Errorf("%d batches of 3 were taken", got)
	}
}

// full is a store that takes nothing.
type full struct{ memory }

func (*full) Append([]store.Report) error { return errors.New("disk full") }

// TestAgentsWaitLongerForAFullDisk: an agent must not send all that it has again and again without a pause.
func TestAgentsWaitLongerForAFullDisk(t *testing.T) {
	a := newAuthority(t)
	a.sign(t, "controller", []string{"controller.zonewise"})
	a.sign(t, "n1", nil)
	_, address := serve(t, a.files("controller"), &full{}, stream.ServerOptions{Gather: time.Microsecond})
	c, err := stream.NewClient(dial(t, a.files("n1"), address), stream.ClientOptions{Node: "n1", Retry: time.Millisecond})
	must(t, err)
	must(t, c.Put(time.Now(), []meter.Observed{observed(meter.AtClient, key(1, 2), 1)}, nil))
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	c.Run(ctx)
	// Delays double from 1 ms, less up to a half: 10 to 20 fit into a second.
	if st := c.Stats(); st.Streams < 2 || st.Streams > 25 || st.Flying != 1 {
		t.Errorf("stats after a second are %+v, want up to 20 streams and the batch still there", st)
	}
}

func until(tb testing.TB, done func() bool) {
	tb.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(time.Minute); !done(); <-tick.C {
		if time.Now().After(end) {
			tb.Fatal("it does not happen")
		}
	}
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}
