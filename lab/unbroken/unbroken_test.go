//go:build kernel

package unbroken

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/zonewise/zonewise/internal/kernel/nft"
	"github.com/zonewise/zonewise/lab/rig/peer"
)

// other is the folder of an agent whose tables and maps are laid out and named otherwise.
const other = "other"

// size is how much is done.
type size struct {
	flows, rate     int // flows by each protocol, and new connections in a second
	kills, upgrades int
	halves          int // agents that are killed before they are ready
	others          int // Services that nobody uses: with more of them an agent takes longer to take over
	stopped         time.Duration
}

func sizeOf() size {
	if *full {
		return size{flows: 1000, rate: 500, kills: 10, upgrades: 10, halves: 40, others: 2000, stopped: time.Minute}
	}
	return size{flows: 300, rate: 200, kills: 2, upgrades: 2, halves: 8, stopped: 5 * time.Second}
}

// TestAgentComesAndGoes: nothing that happens to the agent breaks a flow or fails a connect, and
// none lands on an endpoint that the kernel has been told to be gone.
func TestAgentComesAndGoes(t *testing.T) {
	for _, kind := range []peer.Kind{peer.Zonewise, peer.ZonewiseNFT} {
		t.Run(string(kind), func(t *testing.T) {
			size, s := sizeOf(), newStage(t)
			s.set(unused(size.others)...)
			agent := s.start(kind, "")
			agent.ready()
			c := s.begin(size.flows, size.flows, size.rate)
			churn := s.churn()
			for range size.kills {
				pause(500 * time.Millisecond)
				s.note("kill")
				agent.kill()
				pause(500 * time.Millisecond)
				agent = s.start(kind, "")
				agent.ready()
			}
			before := s.layouts()
			for range size.upgrades {
				for _, dir := range []string{other, ""} {
					pause(500 * time.Millisecond)
					s.note("another version")
					agent.stop()
					agent = s.start(kind, dir)
					agent.ready()
					if same := slices.Equal(s.layouts(), before); same != (dir == "") {
						t.Errorf("of the version in folder %q there is %v", dir, s.layouts())
					}
				}
			}
			// Versions that are killed while they take over, at whatever moment that is: from now until
			// longer than it took to be ready.
			agent.stop()
			for i := range size.halves {
				half := s.start(kind, []string{other, ""}[i%2])
				pause(time.Duration(i+1) * 300 * time.Millisecond / time.Duration(size.halves))
				s.note("kill in the middle, with %v there", s.layouts())
				half.kill()
			}
			agent = s.start(kind, "")
			agent.ready()
			pause(500 * time.Millisecond)
			if !slices.Equal(s.layouts(), before) {
				t.Errorf("in the end there is %v", s.layouts())
			}
			s.note("stop for %v", size.stopped)
			churn.unseen.Store(true)
			agent.signal(syscall.SIGSTOP)
			pause(size.stopped)
			s.note("continue")
			agent.signal(syscall.SIGCONT)
			churn.unseen.Store(false)
			pause(3 * time.Second)
			changes, slowest := churn.finish(t)
			r := c.finish()
			s.judge(r, false)
			stale := 0
			for _, ch := range changes {
				for _, a := range ch.server.addrs {
					for _, at := range r.Landed[netip.MustParseAddr(a)] {
						if at > ch.gone.UnixNano() && at < ch.back.UnixNano() {
							stale++
						}
					}
				}
			}
			t.Logf("%d times an endpoint went, and the kernel obeyed after at most %v; %d connects landed on one that had gone", len(changes), slowest.Round(time.Millisecond), stale)
			t.Logf("while it was stopped, endpoints changed %d times", churn.missed)
			if least := int(size.stopped / time.Second); churn.missed < least {
				t.Errorf("want at least %d", least)
			}
			if stale > 0 || len(changes) < size.kills+2*size.upgrades {
				t.Errorf("%d connects landed on endpoints that had gone; there were %d changes", stale, len(changes))
			}
		})
	}
}

// TestSocketPathComesAndGoes: an agent that is told to do without the socket path, and one that is
// told to have it again. What it led to by UDP is ended, as nobody would watch over it.
func TestSocketPathComesAndGoes(t *testing.T) {
	size, s := sizeOf(), newStage(t)
	agent := s.start(peer.Zonewise, "")
	agent.ready()
	c := s.begin(size.flows, size.flows, size.rate)
	for range 2 {
		pause(2 * time.Second)
		agent.stop()
		without := s.command(peer.Zonewise, "")
		without[slices.Index(without, "--socket=require")] = "--socket=off"
		agent = s.run(peer.Zonewise, without)
		agent.ready()
		if left := s.links(); len(left) > 0 {
			t.Errorf("without the socket path there is %v", left)
		}
		pause(2 * time.Second)
		agent.stop()
		agent = s.start(peer.Zonewise, "")
		agent.ready()
	}
	pause(2 * time.Second)
	s.judge(c.finish(), true)
}

// absence is the time in which the kernel led nobody to a server.
type absence struct {
	server     server
	gone, back time.Time
}

// churning takes endpoints away and brings them back, on and on: there is always one away.
type churning struct {
	stop   context.CancelFunc
	wg     sync.WaitGroup
	unseen atomic.Bool // the agent is stopped: the kernel hears of nothing

	err     error
	missed  int // changes while that was so
	all     []absence
	slowest time.Duration
}

func (s *stage) churn() *churning {
	ctx, stop := context.WithCancel(context.Background())
	c := &churning{stop: stop}
	s.Cleanup(stop)
	c.wg.Go(func() { c.err = s.turns(ctx, c) })
	return c
}

func (s *stage) turns(ctx context.Context, c *churning) error {
	door := nft.Dial(s.world.Node.FD())
	defer door.Close()
	_, all := serversOf(s.world)
	for i := 0; ; i++ {
		// One goes and the one before comes back in one change: so one goes at whatever moment.
		victim, next := all[i%len(all)], all[(i+1)%len(all)]
		begin := time.Now()
		if err := s.change(slices.DeleteFunc(slices.Clone(all), func(o server) bool { return o == victim })); err != nil {
			return err
		}
		obeyed, err := s.wait(ctx, c, door, victim, next)
		if err != nil || ctx.Err() != nil {
			return err
		}
		gone := time.Now()
		select {
		case <-ctx.Done():
		case <-time.After(300 * time.Millisecond):
		}
		if !obeyed {
			c.missed++
			continue
		}
		c.slowest = max(c.slowest, gone.Sub(begin))
		c.all = append(c.all, absence{victim, gone, time.Now()})
	}
}

func (s *stage) change(to []server) error {
	for _, o := range endpoints(changes, to...) {
		if _, err := s.api.Set(o); err != nil {
			return err
		}
	}
	return nil
}

// wait waits until the kernel leads to one server and no longer to another; or until all is done, or the
// agent is stopped.
func (s *stage) wait(ctx context.Context, c *churning, door *nft.Conn, not, to server) (obeyed bool, err error) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for begin := time.Now(); ; {
		if c.unseen.Load() {
			return false, nil
		}
		there, err := s.leadsTo(door, not)
		if err == nil && !there {
			if there, err = s.leadsTo(door, to); err == nil && there {
				return true, nil
			}
		}
		if time.Since(begin) > soon {
			return false, fmt.Errorf("%v in the place of %v: not within %v: %w", to, not, soon, err)
		}
		select {
		case <-ctx.Done():
			return false, nil
		case <-tick.C:
		}
	}
}

// finish ends it and returns what was taken away, and the longest that the kernel took to obey.
func (c *churning) finish(t *testing.T) ([]absence, time.Duration) {
	t.Helper()
	c.stop()
	c.wg.Wait()
	if c.err != nil {
		t.Error(c.err)
	}
	return c.all, c.slowest
}
