package cni

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/zonewise/zonewise/internal/kernel/netns"
	"github.com/zonewise/zonewise/internal/vpc"
	"github.com/zonewise/zonewise/internal/vpc/files"
	"github.com/zonewise/zonewise/internal/vpc/link"
)

// errUnready says that an ADD would fail now, whoever asks for it. A full pool is not that: it
// would make the whole node unready, with all the pods that are well.
var errUnready = errors.New("plugin not ready")

// grace is how long an ADD may take from its lease to its wire. Older leases without a wire are
// those of pods that are gone, and are taken back when the pool is full.
const grace = time.Minute

// plugin answers the verbs of CNI.
type plugin struct {
	out     io.Writer
	now     func() time.Time
	machine machine
}

// call is one call of the plugin: what it was told, and the network of the node.
type call struct {
	config
	key     vpc.Key
	owner   vpc.Owner
	sandbox string // path of the pod's namespace
	host    network
	// deadline is when an ADD that waits gives up.
	deadline time.Time
}

// verb reads what every verb needs, and gives errors their codes.
func (p plugin) verb(do func(call) error) func(*skel.CmdArgs) error {
	return func(args *skel.CmdArgs) error {
		conf, err := parseConfig(args.StdinData)
		if err != nil {
			return coded(err)
		}
		host, err := p.machine.Here()
		if err != nil {
			return coded(err)
		}
		defer host.Close()
		key, owner := parseArgs(args)
		return coded(do(call{conf, key, owner, args.Netns, host, p.now().Add(conf.wait)}))
	}
}

// inPod opens the pod's namespace for as long as do takes.
func (p plugin) inPod(c call, do func(ns *netns.NS, pod network) error) error {
	ns, err := p.machine.Open(c.sandbox)
	if err != nil {
		return err
	}
	defer ns.Close()
	pod, err := p.machine.At(ns)
	if err != nil {
		return err
	}
	defer pod.Close()
	return do(ns, pod)
}

func (p plugin) add(c call) error {
	return p.inPod(c, func(ns *netns.NS, pod network) error {
		if c.mtu == 0 {
			var err error
			if c.mtu, err = link.UplinkMTU(c.host); err != nil {
				return err
			}
		}
		g, err := p.lease(c)
		if err != nil {
			return err
		}
		w := g.wiring(c.mtu)
		if err := link.Setup(c.host, pod, ns, w); err != nil {
			if g.fresh {
				err = errors.Join(err, p.release(c))
			}
			return err
		}
		return p.print(result(w, g.Lease, c.sandbox), c.version)
	})
}

func (p plugin) del(c call) error {
	if err := link.Teardown(c.host, c.key); err != nil {
		return err
	}
	return p.release(c)
}

// release strikes the lease out after the rules of its address are gone, both with nobody else at them:
// the daemon, which makes the rules of every lease, would make them again in between.
func (p plugin) release(c call) error {
	return p.update(c, func(_ *files.Dir, l vpc.Leases) (vpc.Leases, error) {
		next := vpc.Release(l, c.key, p.now())
		return next, pruneRules(c, next)
	})
}

// pruneRules deletes the rules of addresses that nobody holds.
func pruneRules(c call, l vpc.Leases) error {
	held := make(map[netip.Addr]bool, len(l.Held))
	for _, h := range l.Held {
		held[h.Address], held[h.IPv6] = true, true
	}
	return link.PruneRules(c.host, func(a netip.Addr) bool { return held[a] })
}

func (p plugin) check(c call) error {
	var g grant
	err := p.update(c, func(dir *files.Dir, l vpc.Leases) (vpc.Leases, error) {
		var held bool
		if g.Lease, held = l.Find(c.key); !held {
			return l, fmt.Errorf("%s: no lease", c.key)
		}
		s, err := c.supply(dir)
		g.rules = c.rules(s, g.Lease)
		return l, err
	})
	if err != nil {
		return err
	}
	if err := checkPrevious(c.previous, g.Lease); err != nil {
		return err
	}
	return p.inPod(c, func(_ *netns.NS, pod network) error {
		return link.Check(c.host, pod, g.wiring(c.mtu))
	})
}

func checkPrevious(r *types100.Result, l vpc.Lease) error {
	if r == nil {
		return nil
	}
	for _, a := range []netip.Addr{l.Address, l.IPv6} {
		told := func(ip *types100.IPConfig) bool { return ip.Address.IP.String() == a.String() }
		if a.IsValid() && !slices.ContainsFunc(r.IPs, told) {
			return fmt.Errorf("%s: leases %s, which prevResult does not have", l.Key, a)
		}
	}
	return nil
}

// gc takes back what belongs to no attachment that the runtime still knows: wires first, then
// leases, so that a lease is never given again while packets for its address still find a pod.
func (p plugin) gc(c call) error {
	valid := map[vpc.Key]bool{}
	for _, a := range c.valid {
		valid[vpc.Key{Container: a.ContainerID, Interface: a.IfName}] = true
	}
	return p.update(c, func(_ *files.Dir, l vpc.Leases) (vpc.Leases, error) {
		wired, err := link.Wired(c.host)
		if err != nil {
			return l, err
		}
		for _, lease := range slices.Concat(l.Held, wired) {
			if !valid[lease.Key] {
				if err := link.Teardown(c.host, lease.Key); err != nil {
					return l, err
				}
			}
		}
		next, _ := vpc.Collect(l, func(lease vpc.Lease) bool { return valid[lease.Key] }, p.now())
		for _, t := range l.Waiting { // an ADD that was killed waits no more
			if !valid[t.Key] {
				next = vpc.GiveUp(next, t.Key)
			}
		}
		return next, pruneRules(c, next)
	})
}

// status says whether an ADD could succeed. That the pool is full is no reason against it: see errUnready.
func (p plugin) status(c call) error {
	err := p.update(c, func(dir *files.Dir, l vpc.Leases) (vpc.Leases, error) {
		_, err := c.supply(dir)
		return l, err
	})
	if err != nil {
		return fmt.Errorf("%w: %w", errUnready, err)
	}
	return nil
}

// update changes the leases, with nobody else at them. Nothing is written when change fails.
func (p plugin) update(c call, change func(*files.Dir, vpc.Leases) (vpc.Leases, error)) (err error) {
	dir, err := files.Open(c.stateDir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	before, err := dir.ReadLeases(func() (vpc.Leases, error) {
		held, err := link.Wired(c.host)
		return vpc.Leases{Held: held}, err
	})
	if err != nil {
		return err
	}
	after, err := change(dir, before)
	if err != nil {
		return err
	}
	return dir.WriteLeases(after)
}
