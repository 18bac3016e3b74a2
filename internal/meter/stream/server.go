package stream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/zonewise/zonewise/internal/meter"
	"github.com/zonewise/zonewise/internal/meter/store"
)

// Store is where reports go. When Append returns nil they are safe, each once.
type Store interface {
	Append([]store.Report) error
	Applied(node string, epoch uint64) uint64
}

// ServerOptions shape the controller's side.
type ServerOptions struct {
	// Gather is how long reports are gathered for one commit: 1 s.
	Gather time.Duration
	// MaxFlows is how many flows a commit has at most, but for its last report: 100,000.
	MaxFlows int
	// Interval is how often agents shall report: 1 min. Less than a second is at once.
	Interval time.Duration
	// Metered tells which nodes have a meter: of a flow between two such, the server's node is not believed.
	// Unless set, all have. Whether a flow is believed depends on no other, so one batch after another
	// makes the same truth as all at once.
	Metered func() meter.Metered
	// Authorize tells whether who calls may report for a node. Unless set, that is VerifyNode.
	Authorize func(ctx context.Context, node string) error
	// Notice, if set, hears of commits that failed and batches that were refused.
	Notice func(error)
}

// ServerStats is what came in.
type ServerStats struct {
	Streams int    // open
	Waiting int    // batches that have come and are not yet in a commit
	Batches uint64 // confirmed
	Refused uint64 // of which this many made no sense
	Failed  uint64 // were not confirmed, for the store failed; they come again

	Twice, Passing, Doubtful uint64 // bytes in those confirmed, as in meter.Merged
}

// maxAge is as old as a batch may say that it is: minutes are not kept for longer.
const maxAge = 24 * time.Hour

// Server is the controller's side.
type Server struct {
	UnimplementedMeterServer
	store    Store
	opts     ServerOptions
	items    chan item
	interval atomic.Int64 // seconds

	mu       sync.Mutex
	sessions map[*session]bool
	stats    ServerStats
}

// item is a batch on its way to the store.
type item struct {
	from    *session
	report  store.Report
	batch   *Batch // its flows, until there is room for them: as a message they are a third of the size
	refused bool
	merged  meter.Merged // of it; the flows are in the report
}

// session is one agent's stream.
type session struct {
	node string
	wake chan struct{}

	mu      sync.Mutex
	applied uint64
	refused uint64
	err     error // once set, nothing more of this stream is taken: it would leave a gap
}

// NewServer makes a server over a store. It takes nothing before Run.
func NewServer(to Store, opts ServerOptions) *Server {
	opts.Gather, opts.MaxFlows = cmp.Or(opts.Gather, time.Second), cmp.Or(opts.MaxFlows, 100_000)
	if opts.Authorize == nil {
		opts.Authorize = VerifyNode
	}
	if opts.Metered == nil {
		opts.Metered = func() meter.Metered { return meter.Metered{All: true} }
	}
	if opts.Notice == nil {
		opts.Notice = func(error) {}
	}
	s := &Server{store: to, opts: opts, items: make(chan item, 64), sessions: map[*session]bool{}}
	s.SetInterval(cmp.Or(opts.Interval, time.Minute))
	return s
}

// GRPCOptions are for the gRPC server that a Server is registered with: 5,000 agents that say little need small
// buffers.
func GRPCOptions(creds credentials.TransportCredentials) []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.Creds(creds), grpc.MaxRecvMsgSize(16 << 20), grpc.MaxConcurrentStreams(4),
		grpc.SharedWriteBuffer(true), grpc.ReadBufferSize(4 << 10), grpc.WriteBufferSize(4 << 10),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: time.Minute, Timeout: 20 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
	}
}

// SetInterval tells all agents how often to report.
func (s *Server) SetInterval(d time.Duration) {
	s.interval.Store(int64(d / time.Second))
	s.mu.Lock()
	defer s.mu.Unlock()
	for one := range s.sessions {
		one.poke()
	}
}

// Stats tells what came in.
func (s *Server) Stats() ServerStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	stats := s.stats
	stats.Streams, stats.Waiting = len(s.sessions), len(s.items)
	return stats
}

// Nodes returns the nodes whose agents have a stream open.
func (s *Server) Nodes() map[string]bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[string]bool, len(s.sessions))
	for one := range s.sessions {
		out[one.node] = true
	}
	return out
}

// Report serves one agent.
func (s *Server) Report(stream grpc.BidiStreamingServer[FromAgent, FromController]) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	hello := first.GetHello()
	if hello.GetNode() == "" {
		return status.Error(codes.InvalidArgument, "a stream begins with hello")
	}
	if err := s.opts.Authorize(stream.Context(), hello.Node); err != nil {
		return status.Error(codes.PermissionDenied, err.Error())
	}
	one := &session{node: hello.Node, wake: make(chan struct{}, 1), applied: s.store.Applied(hello.Node, hello.Epoch)}
	s.mu.Lock()
	s.sessions[one] = true
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.sessions, one)
	}()
	ended := make(chan error, 1)
	go func() { ended <- s.receive(stream, hello, one) }()
	return s.answer(stream, one, ended)
}

// answer says what is applied and how often to report, whenever one of these changes.
func (s *Server) answer(stream grpc.BidiStreamingServer[FromAgent, FromController], one *session, ended <-chan error) error {
	var last FromController
	for begun := false; ; begun = true {
		one.mu.Lock()
		applied, refused, err := one.applied, one.refused, one.err
		one.refused = 0
		one.mu.Unlock()
		interval := uint32(s.interval.Load())
		if !begun || applied != last.Applied || interval != last.IntervalSeconds || refused > 0 {
			last.Applied, last.IntervalSeconds = applied, interval
			if err := stream.Send(&FromController{Applied: applied, IntervalSeconds: interval, Refused: refused}); err != nil {
				return err
			}
		}
		if err != nil {
			return status.Error(codes.Unavailable, err.Error())
		}
		select {
		case <-one.wake:
		case err := <-ended:
			return err
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

// receive hands batches on. While the store is busy it takes no more, so that agents wait.
func (s *Server) receive(stream grpc.BidiStreamingServer[FromAgent, FromController], hello *Hello, one *session) error {
	last := uint64(0)
	for {
		m, err := stream.Recv()
		if err != nil {
			return err
		}
		b := m.GetBatch()
		if b.GetSequence() == 0 || last > 0 && b.Sequence != last+1 {
			return status.Errorf(codes.InvalidArgument, "batch %d follows %d", b.GetSequence(), last)
		}
		last = b.Sequence
		age := min(time.Duration(min(b.AgeMilliseconds, uint64(maxAge.Milliseconds())))*time.Millisecond, maxAge)
		i := item{from: one, report: store.Report{Node: hello.Node, Epoch: hello.Epoch, Sequence: b.Sequence, At: time.Now().Add(-age)}, batch: b}
		select {
		case s.items <- i:
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

// Run commits what comes in, until ctx ends.
func (s *Server) Run(ctx context.Context) {
	for {
		select {
		case i := <-s.items:
			s.commit(s.gather(ctx, i))
		case <-ctx.Done():
			return
		}
	}
}

// gather waits for more to commit with a first batch.
func (s *Server) gather(ctx context.Context, first item) (items []item) {
	due := time.NewTimer(s.opts.Gather)
	defer due.Stop()
	flows := 0
	take := func(i item) {
		i = s.unwrap(i)
		items, flows = append(items, i), flows+len(i.report.Flows)
	}
	for take(first); flows < s.opts.MaxFlows; {
		select {
		case i := <-s.items:
			take(i)
		case <-due.C:
			return items
		case <-ctx.Done():
			return items
		}
	}
	return items
}

// unwrap reads a batch's flows, and leaves those that another node tells of. One that makes no sense is taken as empty, so that it does not stand in the way.
func (s *Server) unwrap(i item) item {
	flows, err := decode(i.batch)
	if err != nil {
		i.refused = true
		s.opts.Notice(fmt.Errorf("batch %d of %s refused: %w", i.report.Sequence, i.report.Node, err))
	}
	i.merged = meter.Merge([]meter.Report{{Node: i.report.Node, Flows: flows}}, s.opts.Metered())
	i.report.Flows, i.merged.Flows, i.batch = i.merged.Flows, nil, nil
	return i
}

// commit puts batches into the store and tells their agents. If that fails it breaks their streams: what was sent
// after them must not be taken before they are.
func (s *Server) commit(items []item) {
	var reports []store.Report
	taken := items[:0]
	for _, i := range items {
		if i.from.alive() {
			taken, reports = append(taken, i), append(reports, i.report)
		}
	}
	if len(taken) == 0 {
		return
	}
	err := s.store.Append(reports)
	refused, left := uint64(0), meter.Merged{}
	for _, i := range taken {
		if i.refused {
			refused++
		}
		left.Twice += i.merged.Twice
		left.Passing += i.merged.Passing
		left.Doubtful += i.merged.Doubtful
		i.from.done(i.report.Sequence, i.refused, err)
	}
	s.mu.Lock()
	if err != nil {
		s.stats.Failed += uint64(len(taken))
	} else {
		s.stats.Batches += uint64(len(taken))
		s.stats.Refused += refused
		s.stats.Twice += left.Twice
		s.stats.Passing += left.Passing
		s.stats.Doubtful += left.Doubtful
	}
	s.mu.Unlock()
	if err != nil {
		s.opts.Notice(err)
	}
}

func (o *session) alive() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err == nil
}

func (o *session) done(sequence uint64, refused bool, err error) {
	o.mu.Lock()
	if err != nil {
		o.err = errors.Join(errors.New("not stored"), err)
	} else {
		o.applied = max(o.applied, sequence)
		if refused {
			o.refused = sequence
		}
	}
	o.mu.Unlock()
	o.poke()
}

func (o *session) poke() {
	select {
	case o.wake <- struct{}{}:
	default: // it will look anyway
	}
}

// VerifyNode holds a node's name against the certificate of who calls: it has to be the common name, as it is or as kubelets
// have it ("system:node:NAME"), or one of the DNS names.
func VerifyNode(ctx context.Context, node string) error {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return errors.New("nobody calls")
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || len(info.State.VerifiedChains) == 0 {
		return errors.New("no certificate that we trust")
	}
	leaf := info.State.VerifiedChains[0][0]
	for _, name := range append([]string{leaf.Subject.CommonName}, leaf.DNSNames...) {
		if name == node || name == "system:node:"+node {
			return nil
		}
	}
	return fmt.Errorf("a certificate of %q, not of node %q", leaf.Subject.CommonName, node)
}
