package cni

import (
	"errors"
	"fmt"
	"slices"
	"time"

	klink "github.com/zonewise/zonewise/internal/kernel/link"
	"github.com/zonewise/zonewise/internal/vpc"
	"github.com/zonewise/zonewise/internal/vpc/files"
	"github.com/zonewise/zonewise/internal/vpc/link"
)

// grant is a lease, with what its address needs of the host.
type grant struct {
	vpc.Lease
	rules []klink.Rule
	fresh bool // it was made by this call
}

func (g grant) wiring(mtu int) link.Wiring {
	w := link.Plan(g.Lease, mtu)
	w.Rules = g.rules
	return w
}

// supply is what the cloud has given to the node; nothing where addresses are those of the configuration.
func (c call) supply(dir *files.Dir) (vpc.Supply, error) {
	if !c.cloud {
		return vpc.Supply{}, nil
	}
	return dir.ReadPool()
}

func (c call) rules(s vpc.Supply, l vpc.Lease) []klink.Rule {
	if !c.cloud {
		return nil
	}
	return link.PodRules(s, l)
}

// lease finds the key's lease or makes one, and returns when it is on disk. Where there will be an
// address, it waits for it: the ticket that it leaves with the leases makes the daemon ask the cloud.
func (p plugin) lease(c call) (grant, error) {
	g, err := p.assign(c, true)
	if !errors.Is(err, vpc.ErrWait) {
		return g, err
	}
	if !c.deadline.After(p.now()) {
		return g, p.giveUp(c, err)
	}
	watch, err := files.Follow(c.stateDir, files.Leases, files.Pool)
	if err != nil {
		return g, err
	}
	defer watch.Close()
	deadline := time.NewTimer(c.deadline.Sub(p.now()))
	defer deadline.Stop()
	for {
		g, err = p.assign(c, false)
		waiting, ok := errors.AsType[*vpc.Waiting](err)
		if !ok {
			return g, err
		}
		select {
		case <-watch.Changed:
			<-time.After(gather)
		case <-p.rested(waiting.Until):
		case <-deadline.C:
			return g, p.giveUp(c, err)
		}
	}
}

// gather is for how long changes are let come together: each pod that waits beside us makes one when it comes and one
// when it goes, and would have all others look.
const gather = 20 * time.Millisecond

// rested is when an address has rested enough; never where it is not that which is waited for.
func (p plugin) rested(at time.Time) <-chan time.Time {
	if at.IsZero() {
		return nil
	}
	return time.After(at.Sub(p.now()))
}

// giveUp takes the ticket back, and says what was waited for.
func (p plugin) giveUp(c call, why error) error {
	err := p.update(c, func(_ *files.Dir, l vpc.Leases) (vpc.Leases, error) { return vpc.GiveUp(l, c.key), nil })
	return errors.Join(fmt.Errorf("pod %s: waited %s: %w", c.owner, c.wait, why), err)
}

// assign makes the lease, or says that and why there is none now. Who has to wait has a ticket when it
// returns.
func (p plugin) assign(c call, reclaim bool) (grant, error) {
	var g grant
	var waits error
	err := p.update(c, func(dir *files.Dir, l vpc.Leases) (next vpc.Leases, err error) {
		s, err := c.supply(dir)
		if err != nil {
			return l, err
		}
		pool := c.pool
		if c.cloud {
			pool = s.Pool()
		}
		_, held := l.Find(c.key)
		g.Lease, next, err = vpc.Assign(pool, l, c.key, c.owner, p.now())
		if reclaim && (errors.Is(err, vpc.ErrExhausted) || errors.Is(err, vpc.ErrWait)) {
			if l, err = p.reclaim(c, l); err != nil {
				return l, err
			}
			g.Lease, next, err = vpc.Assign(pool, l, c.key, c.owner, p.now())
		}
		if errors.Is(err, vpc.ErrWait) {
			waits = err
			return vpc.Wait(l, c.key, c.owner, p.now(), c.deadline), nil
		}
		g.fresh, g.rules = !held, c.rules(s, g.Lease)
		return next, err
	})
	return g, errors.Join(err, waits)
}

// reclaim ends leases whose wire is gone: the namespaces of their pods went without a DEL.
func (p plugin) reclaim(c call, l vpc.Leases) (vpc.Leases, error) {
	now := p.now()
	if !slices.ContainsFunc(l.Held, func(lease vpc.Lease) bool { return now.Sub(lease.Since) >= grace }) {
		return l, nil
	}
	wired, err := link.Wired(c.host)
	if err != nil {
		return l, err
	}
	l, gone := vpc.Collect(l, func(lease vpc.Lease) bool {
		has := slices.ContainsFunc(wired, func(w vpc.Lease) bool { return w.Key == lease.Key })
		return has || now.Sub(lease.Since) < grace
	}, now)
	if len(gone) == 0 {
		return l, nil
	}
	return l, pruneRules(c, l)
}
