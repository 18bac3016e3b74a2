package stream_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/zonewise/zonewise/internal/meter"
	"github.com/zonewise/zonewise/internal/meter/store"
	"github.com/zonewise/zonewise/internal/meter/stream"
	"github.com/zonewise/zonewise/internal/model"
)

// memory is a store that may refuse to commit, or commit and say that it did not.
type memory struct {
	mu      sync.Mutex
	random  *rand.Rand
	trouble bool
	applied map[string]uint64
	missing uint64
	taken   map[model.FlowKey]model.FlowCount
}

func (m *memory) Append(reports []store.Report) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.trouble { // a disk takes its time, while more comes in
		<-time.After(time.Duration(m.random.IntN(4)) * time.Millisecond)
	}
	if m.trouble && m.random.IntN(8) == 0 {
		return errors.New("disk full")
	}
	for _, r := range reports {
		id := fmt.Sprint(r.Node, "/", r.Epoch)
		if r.Sequence <= m.applied[id] {
			continue
		}
		m.missing += r.Sequence - m.applied[id] - 1
		m.applied[id] = r.Sequence
		for _, f := range r.Flows {
			c := m.taken[f.FlowKey]
			c.Add(f.FlowCount)
			m.taken[f.FlowKey] = c
		}
	}
	if m.trouble && m.random.IntN(8) == 0 {
		return errors.New("written, but who knows")
	}
	return nil
}

func (m *memory) Applied(node string, epoch uint64) uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.applied[fmt.Sprint(node, "/", epoch)]
}

// line is a connection that breaks after so many bytes.
type line struct {
	net.Conn
	left atomic.Int64
}

func (l *line) Write(b []byte) (int, error) {
	if l.left.Add(-int64(len(b))) < 0 {
		return 0, errors.Join(net.ErrClosed, l.Close())
	}
	return l.Conn.Write(b)
}

func (l *line) Read(b []byte) (int, error) {
	n, err := l.Conn.Read(b)
	if l.left.Add(-int64(n)) < 0 {
		return 0, errors.Join(net.ErrClosed, l.Close())
	}
	return n, err
}

// site is a controller that can be restarted, and the lines to it.
type site struct {
	t       *testing.T
	store   *memory
	mu      sync.Mutex
	random  *rand.Rand
	trouble bool
	door    *bufconn.Listener
	stop    func()
}

func (s *site) start() {
	server := stream.NewServer(s.store, stream.ServerOptions{Gather: time.Millisecond, Interval: time.Millisecond,
		Authorize: func(context.Context, string) error { return nil }})
	g := grpc.NewServer()
	stream.RegisterMeterServer(g, server)
	door := bufconn.Listen(1 << 16)
	ctx, cancel := context.WithCancel(context.Background())
	var wait sync.WaitGroup
	wait.Go(func() { server.Run(ctx) })
	wait.Go(func() {
		if err := g.Serve(door); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			s.t.Errorf("serve: %v", err)
		}
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.door = door
	s.stop = func() { cancel(); g.Stop(); wait.Wait() }
}

func (s *site) dial(ctx context.Context, _ string) (net.Conn, error) {
	s.mu.Lock()
	door := s.door
	left := int64(1 << 50)
	if s.trouble {
		left = 500 + s.random.Int64N(20_000)
	}
	s.mu.Unlock()
	conn, err := door.DialContext(ctx)
	if err != nil {
		return nil, err
	}
	l := &line{Conn: conn}
	l.left.Store(left)
	return l, nil
}

// kernel is a node's counters: they only grow, and outlive the agent.
type kernel [6]uint64

// key is what a node's i-th counter counts.
func key(node, i int) model.FlowKey {
	return model.FlowKey{Client: model.Party{Kind: model.PodParty, Zone: "a", Node: fmt.Sprint("n", node), Workload: fmt.Sprint("deployment/w", i)},
		Server: model.Party{Kind: model.Outside, Block: "internet"}, Port: uint16(i), Protocol: model.UDP, Via: model.ViaDirect}
}

func observed(by meter.Observer, k model.FlowKey, bytes uint64) meter.Observed {
	return meter.Observed{Flow: model.Flow{FlowKey: k, FlowCount: model.FlowCount{RequestBytes: bytes, RequestPackets: 1}}, Observer: by}
}

// report puts in what the counters grew by since the mark.
func (k kernel) report(t *testing.T, node int, c *stream.Client, at time.Time) {
	var had kernel
	if mark := c.Mark(); mark != nil {
		if err := json.Unmarshal(mark, &had); err != nil {
			t.Error(err)
		}
	}
	var flows []meter.Observed
	for i := range k {
		if more := k[i] - had[i]; more > 0 {
			flows = append(flows, observed(meter.AtClient, key(node, i), more))
		}
	}
	mark, err := json.Marshal(k)
	if err != nil {
		t.Error(err)
	}
	if err := c.Put(at, flows, mark); err != nil {
		t.Error(err)
	}
}

// agentLife runs an agent until it is killed after so many reports, and tells its totals. With settle it ends when all
// is confirmed.
func (s *site) agentLife(node int, journal string, k *kernel, random *rand.Rand, reports int, settle bool) {
	conn, err := grpc.NewClient("passthrough:///controller", grpc.WithContextDialer(s.dial), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: time.Second}))
	if err != nil {
		s.t.Error(err)
		return
	}
	defer conn.Close()
	c, err := stream.NewClient(conn, stream.ClientOptions{Node: fmt.Sprint("n", node), Journal: journal, Retry: time.Millisecond})
	if err != nil {
		s.t.Error(err)
		return
	}
	ctx, kill := context.WithCancel(context.Background())
	var wait sync.WaitGroup
	wait.Go(func() { c.Run(ctx) })
	defer wait.Wait()
	defer kill()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for n := range reports {
		if random.IntN(3) == 0 { // the others come in a row
			<-tick.C
		}
		for i := range k {
			k[i] += random.Uint64N(1000)
		}
		k.report(s.t, node, c, start.Add(time.Duration(n)*time.Minute))
	}
	for range random.IntN(6) {
		<-tick.C
	}
	for settle {
		<-tick.C
		st := c.Stats()
		settle = st.Waiting+st.Flying > 0
	}
}

var start = time.Date(2026, 3, 1, 22, 30, 0, 0, time.UTC)

// TestNothingLostNothingDoubled breaks lines, loses confirmations, refuses commits, and restarts agents and the controller, all
// at random; then lets them be, and compares what arrived with what the kernels counted.
func TestNothingLostNothingDoubled(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			const agents, lives = 5, 12
			m := &memory{random: rand.New(rand.NewPCG(seed, 1)), trouble: true, applied: map[string]uint64{}, taken: map[model.FlowKey]model.FlowCount{}}
			s := &site{t: t, store: m, random: rand.New(rand.NewPCG(seed, 2)), trouble: true}
			s.start()
			dir := t.TempDir()
			var kernels [agents]kernel
			var wait, restarts sync.WaitGroup
			quiet := make(chan struct{})
			restarts.Go(func() { s.restart(quiet) })
			each := func(life func(node int, random *rand.Rand)) {
				for node := range agents {
					wait.Go(func() { life(node, rand.New(rand.NewPCG(seed, uint64(node)+10))) })
				}
				wait.Wait()
			}
			journal := func(node int) string { return filepath.Join(dir, fmt.Sprint(node)) }
			each(func(node int, random *rand.Rand) {
				for range lives {
					s.agentLife(node, journal(node), &kernels[node], random, random.IntN(80), false)
				}
			})
			close(quiet)
			restarts.Wait()
			m.mu.Lock()
			m.trouble = false
			m.mu.Unlock()
			s.mu.Lock()
			s.trouble = false
			s.mu.Unlock()
			each(func(node int, random *rand.Rand) { s.agentLife(node, journal(node), &kernels[node], random, 1, true) })
			s.stop()
			for node := range kernels {
				for i, want := range kernels[node] {
					if got := m.taken[key(node, i)].RequestBytes; got != want || want == 0 {
						t.Errorf("node %d, counter %d: %d bytes arrived of %d", node, i, got, want)
					}
				}
			}
			if m.missing > 0 || len(m.applied) != agents {
				t.Errorf("%d batches were skipped, and %d lives known, want none and %d", m.missing, len(m.applied), agents)
			}
		})
	}
}

// restart ends the controller and starts another, again and again.
func (s *site) restart(quiet <-chan struct{}) {
	tick := time.NewTicker(30 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-quiet:
			return
		case <-tick.C:
			s.stop()
			s.start()
		}
	}
}
