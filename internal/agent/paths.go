package agent

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/zonewise/zonewise/internal/kernel/bpf"
	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/service"
	"github.com/zonewise/zonewise/internal/service/affinity"
)

// Names of the paths, for people and metrics.
const (
	pathNFT    = "nft"
	pathSocket = "socket"
)

// giveUp is how long the socket path may fail before it is taken away. What it holds grows stale
// meanwhile, and the nft path behind it does all that it does.
const giveUp = 10 * time.Second

// Socket is the path that translates where a connection starts, instead of packet by packet.
type Socket interface {
	Applier
	// OptOut makes the sockets of the pods with these addresses, and of no others, be left alone.
	OptOut(pods []netip.Addr) error
	affinity.Copies
}

// paths programs both paths at the same time. Neither waits for the other, nor is kept from its
// work by the other's errors.
type paths struct {
	complete Applier
	log      *slog.Logger

	mu      sync.Mutex
	socket  Socket    // nil when it is not in use
	why     string    // why not
	failing time.Time // since when the socket path does not do as it is told; zero when it does
}

// inUse returns the socket path, or nil and why there is none.
func (p *paths) inUse() (Socket, string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.socket, p.why
}

func (p *paths) apply(want map[model.Name][]service.Frontend) error {
	return p.both(func(a Applier) error { return a.Apply(want, true) })
}

func (p *paths) update(changed map[model.Name][]service.Frontend) error {
	return p.both(func(a Applier) error { return a.Update(changed) })
}

// audit returns the paths that had to be repaired.
func (p *paths) audit() (repaired []string, err error) {
	var mu sync.Mutex
	socket, _ := p.inUse()
	err = p.both(func(a Applier) error {
		was, err := a.Audit()
		if was {
			mu.Lock()
			defer mu.Unlock()
			repaired = append(repaired, nameOf(a, socket))
		}
		return err
	})
	slices.Sort(repaired)
	return repaired, err
}

func nameOf(a Applier, socket Socket) string {
	if socket != nil && a == Applier(socket) {
		return pathSocket
	}
	return pathNFT
}

func (p *paths) both(do func(Applier) error) error {
	var atSocket error
	var wg sync.WaitGroup
	socket, _ := p.inUse()
	if socket != nil {
		wg.Go(func() { atSocket = do(socket) })
	}
	err := do(p.complete)
	wg.Wait()
	if err != nil {
		err = fmt.Errorf("%s: %w", pathNFT, err)
	}
	if socket != nil {
		err = errors.Join(err, p.judge(socket, atSocket, time.Now()))
	}
	return err
}

// judge is told how the socket path did, and takes it away once it has failed for long.
func (p *paths) judge(socket Socket, err error, now time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.socket == nil: // taken away meanwhile
		return nil
	case err == nil:
		p.failing = time.Time{}
		return nil
	case p.failing.IsZero():
		p.failing = now
	}
	err = fmt.Errorf("%s: %w", pathSocket, err)
	// What another agent looks after is not ours to take away: that one is stopping, or should be.
	if now.Sub(p.failing) < giveUp || errors.Is(err, bpf.ErrTaken) {
		return err
	}
	if gone := socket.Remove(); gone != nil {
		return errors.Join(err, fmt.Errorf("%s: remove: %w", pathSocket, gone))
	}
	p.socket, p.why = nil, "failed for "+giveUp.String()+": "+err.Error()
	p.log.Error("the socket path is taken away until the agent starts anew; nft does all", "err", err)
	return nil
}

// counters returns what each path counted.
func (p *paths) counters() (map[string]map[service.Pair]service.Traffic, error) {
	out := map[string]map[service.Pair]service.Traffic{}
	counted, err := p.complete.Counters()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", pathNFT, err)
	}
	out[pathNFT] = counted
	if socket, _ := p.inUse(); socket != nil {
		if out[pathSocket], err = socket.Counters(); err != nil {
			return nil, fmt.Errorf("%s: %w", pathSocket, err)
		}
	}
	return out, nil
}

// faults returns what could not be programmed, in order, each once.
func (p *paths) faults() []service.Fault {
	out := slices.Clone(p.complete.Faults())
	if socket, _ := p.inUse(); socket != nil {
		out = append(out, socket.Faults()...)
	}
	slices.SortFunc(out, service.Fault.Compare)
	return slices.Compact(out)
}
