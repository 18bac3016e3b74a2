package bench

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/zonewise/zonewise/lab/rig/apiserver"
	"github.com/zonewise/zonewise/lab/rig/peer"
)

// stage is one load, with a node for each peer that can do it. All of them are paused, save the one
// whose turn it is.
type stage struct {
	load      load
	snapshot  *apiserver.Snapshot
	benchmark benchmark // that is running
	nodes     []*node
}

// key is that of a row of the benchmark that is running.
func (s *stage) key(k peer.Kind, metric string) key {
	return key{s.benchmark.name, s.load.Services, metric, k}
}

// open starts every peer that one of the benchmarks wants, one after the other.
func (r *run) open(l load, snapshot *apiserver.Snapshot, wanting []benchmark) (*stage, error) {
	s := &stage{load: l, snapshot: snapshot}
	for _, k := range r.Peers {
		if err := r.ctx.Err(); err != nil {
			return s, err
		}
		wanted := false
		for _, b := range wanting {
			wanted = wanted || b.peers(k) && !r.done(b, l, k)
		}
		if !wanted {
			continue
		}
		fmt.Fprintf(r.Log, "  start: %s, %v\n", k, l)
		n, why, err := r.begin(k, l, snapshot)
		if err != nil {
			return s, err
		}
		if n != nil {
			s.nodes = append(s.nodes, n)
			continue
		}
		for _, b := range wanting {
			s.benchmark = b
			r.without(s, k, why)
		}
	}
	return s, nil
}

// without notes that a peer has no figures for the benchmark, and why.
func (r *run) without(s *stage, k peer.Kind, why string) {
	if !s.benchmark.peers(k) {
		return
	}
	fmt.Fprintf(r.Log, "  %s: no more of %s: %s\n", s.benchmark.name, k, why)
	for _, m := range s.benchmark.metrics(r.effort, s.load) {
		r.record.note(s.key(k, m.name), m.unit, why)
	}
}

// begin makes a node with a peer that does all Services, and pauses it; or tells why there is none.
func (r *run) begin(k peer.Kind, l load, snapshot *apiserver.Snapshot) (n *node, why string, err error) {
	if why := r.tooSlow(k, l); why != "" {
		return nil, why, nil
	}
	if n, err = newNode(k, l, snapshot, r.cpus); err != nil {
		return nil, "", err
	}
	if _, err = n.start(r.Bin, -1); err == nil {
		_, err = n.ready(r.ctx, r.random, r.Limit)
	}
	if ended := r.ctx.Err(); ended != nil {
		return nil, "", errors.Join(ended, n.close())
	}
	if errors.Is(err, errNotReady) {
		r.slow[k] = slowness{l, err.Error()}
		return nil, err.Error(), n.close()
	}
	if err == nil {
		err = n.settle(r.cpus.rest)
	}
	if err != nil {
		r.fail("", l, k, err)
		return nil, err.Error(), n.close()
	}
	return n, "", nil
}

// out ends a peer's part in a stage, while the others go on. Too slow it may be, but not wrong.
func (r *run) out(s *stage, n *node, err error) {
	n.out = err.Error()
	r.without(s, n.kind, n.out)
	if !errors.Is(err, errTooSlow) {
		r.fail(s.benchmark.name, s.load, n.kind, err)
	}
}

// settle keeps what was started with all CPUs on one, and pauses it.
func (n *node) settle(cpu int) error {
	if cpu >= 0 {
		if err := n.peer.Pin(cpu); err != nil {
			return err
		}
	}
	return n.peer.Pause()
}

// rounds gives every peer that the benchmark wants its turns, in another order each time.
func (r *run) rounds(s *stage, turn func(n *node) error) error {
	return r.eachRound(s, func(nodes []*node) error {
		for _, n := range nodes {
			if err := r.turn(s, n, func() error { return turn(n) }); err != nil {
				return err
			}
		}
		return nil
	})
}

// eachRound gives the nodes that take part, in another order each time.
func (r *run) eachRound(s *stage, round func(nodes []*node) error) error {
	if err := r.pinAll(true); err != nil {
		return err
	}
	for range s.benchmark.roundsOf(r.Rounds) {
		var nodes []*node
		for _, i := range r.random.Perm(len(s.nodes)) {
			n := s.nodes[i]
			if n.out != "" {
				r.without(s, n.kind, n.out)
			} else if s.benchmark.peers(n.kind) {
				nodes = append(nodes, n)
			}
		}
		if err := round(nodes); err != nil {
			return err
		}
	}
	return r.pinAll(false)
}

// turn lets a peer run, and nobody else, while something is done. Its failure is its own; an error is
// one that ends the run.
func (r *run) turn(s *stage, n *node, do func() error) error {
	if err := r.ctx.Err(); err != nil {
		return err
	}
	r.tidy()
	if err := n.peer.Resume(); err != nil {
		return err
	}
	err := do()
	if ended := r.ctx.Err(); ended != nil { // and may have ended others
		return ended
	}
	if ended := n.peer.Err(); ended != nil {
		err = ended
	}
	if err = errors.Join(err, n.peer.Pause()); err != nil {
		r.out(s, n, err)
	}
	return nil
}

func (s *stage) close() error {
	var errs []error
	for _, n := range s.nodes {
		errs = append(errs, n.close())
	}
	return errors.Join(errs...)
}

// busy is how long all CPUs together have worked since the machine started: proc_stat(5).
func busy() (seconds float64, err error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	var user, nice, system, idle, iowait, irq, softirq float64
	_, err = fmt.Fscanf(strings.NewReader(string(text)), "cpu %f %f %f %f %f %f %f", &user, &nice, &system, &idle, &iowait, &irq, &softirq)
	const hertz = 100 // USER_HZ, on every architecture that we build for
	return (user + nice + system + irq + softirq) / hertz, err
}
