package ec2

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Options of a region.
type Options struct {
	File       string        // holds the records; empty: nothing does
	AttachTime time.Duration // from the answer to an attachment until the interface is there
	DetachTime time.Duration // from the answer to a detachment until the interface is free
	// Now and After are the clock; nil means the machine's.
	Now   func() time.Time
	After func(time.Duration, func())
	// Seed of identifiers and keys; empty takes a random one.
	Seed string
}

// Cloud keeps the records of one region. Every change is whole: it is written down before anybody can
// see it, and one that is refused leaves nothing behind.
type Cloud struct {
	options Options

	mu      sync.Mutex
	records *Records
	feeds   []chan struct{}
}

// Open reads the records of a region from its file; where there is none yet, the region is made after
// the blueprint.
func Open(b Blueprint, o Options) (*Cloud, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.After == nil {
		o.After = func(d time.Duration, f func()) { time.AfterFunc(d, f) }
	}
	c := &Cloud{options: o}
	r, err := read(o.File)
	switch {
	case err == nil:
		if err := r.matches(b); err != nil {
			return nil, fmt.Errorf("region in %s: %w: take the lab down before its network changes", o.File, err)
		}
		c.records = r
	case errors.Is(err, fs.ErrNotExist):
		if o.Seed == "" {
			o.Seed = rand.Text()
		}
		if r, err = newRecords(b, o.Seed); err != nil {
			return nil, fmt.Errorf("region: %w", err)
		}
		if err := write(o.File, r); err != nil {
			return nil, err
		}
		c.records = r
	default:
		return nil, err
	}
	c.resume()
	return c, nil
}

// resume waits for what was under way when the region was closed.
func (c *Cloud) resume() {
	now := c.options.Now()
	for _, n := range c.records.Interfaces {
		if a := n.Attachment; a != nil {
			for _, at := range []time.Time{a.Ready, a.Gone} {
				if at.After(now) {
					c.options.After(at.Sub(now), c.tick)
				}
			}
		}
	}
}

// matches tells whether records are of the region that a blueprint describes.
func (r *Records) matches(b Blueprint) error {
	if r.Region != b.Region || r.VPC.CIDRs[0] != b.VPC || r.VPC.IPv6 != b.IPv6 {
		return fmt.Errorf("is %s %s %s, not %s %s %s", r.Region, r.VPC.CIDRs[0], r.VPC.IPv6, b.Region, b.VPC, b.IPv6)
	}
	for _, want := range b.More {
		if !slices.Contains(r.VPC.CIDRs, want) {
			return fmt.Errorf("has no range %s", want)
		}
	}
	for _, want := range b.Subnets {
		found := false
		for _, s := range r.Subnets {
			found = found || s.CIDR == want.CIDR && s.Zone == want.Zone && s.IPv6 == want.IPv6
		}
		if !found {
			return fmt.Errorf("has no subnet %s in zone %s", want.CIDR, want.Zone)
		}
	}
	return nil
}

// Now is the region's time.
func (c *Cloud) Now() time.Time { return c.options.Now() }

// Records returns what the region knows now. It is not to be changed.
func (c *Cloud) Records() *Records {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.settle()
	return c.records
}

// Delivery is what the network has to do for the records to be true.
func (c *Cloud) Delivery() Delivery { return c.Records().Delivery(c.options.Now()) }

// Changes returns a channel that has a value whenever the delivery may have changed since a value was
// taken from it, and one at first. Each call makes a channel of its own, for as long as the region lives.
func (c *Cloud) Changes() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	feed := make(chan struct{}, 1)
	feed <- struct{}{}
	c.feeds = append(c.feeds, feed)
	return feed
}

func (c *Cloud) notify() {
	for _, feed := range c.feeds {
		select {
		case feed <- struct{}{}:
		default:
		}
	}
}

// change makes new records of the present ones, or none.
func (c *Cloud) change(do func(*Records) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	next := c.records.clone()
	next.settle(c.options.Now())
	if err := do(next); err != nil {
		return err
	}
	if err := write(c.options.File, next); err != nil {
		return err
	}
	c.records = next
	c.notify()
	return nil
}

// tick is called when something that takes time comes to its end.
func (c *Cloud) tick() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.settle()
	c.notify()
}

// settle is called before anybody looks. What it changes is written down with the next change: who reads
// the file settles again.
func (c *Cloud) settle() {
	if now := c.options.Now(); c.records.due(now) {
		next := c.records.clone()
		next.settle(now)
		c.records = next
	}
}

// Launch makes the instance of a node, or returns the one that it has.
func (c *Cloud) Launch(want Launch) (i *Instance, err error) {
	err = c.change(func(r *Records) error {
		i, err = r.launch(want, c.options.Now())
		return err
	})
	return i, err
}

// Terminate ends an instance.
func (c *Cloud) Terminate(id string) error {
	return c.change(func(r *Records) error { return r.terminate(id, c.options.Now()) })
}

// Power stops instances, starts them or boots them anew: all of them or none.
func (c *Cloud) Power(p Power, ids ...string) error {
	return c.change(func(r *Records) error {
		for _, id := range ids {
			if err := r.power(id, p, c.options.Now()); err != nil {
				return err
			}
		}
		return nil
	})
}

// CreateInterface makes an interface.
func (c *Cloud) CreateInterface(want NewInterface) (n *Interface, err error) {
	err = c.change(func(r *Records) error {
		n, err = r.createInterface(want)
		return err
	})
	return n, err
}

// DeleteInterface removes an interface that is attached to nothing.
func (c *Cloud) DeleteInterface(id string) error {
	return c.change(func(r *Records) error { return r.deleteInterface(id) })
}

// Attach begins to attach an interface to an instance as a device.
func (c *Cloud) Attach(instance, id string, device, card int) (a *Attachment, err error) {
	err = c.change(func(r *Records) error {
		a, err = r.attach(instance, id, device, card, c.options.Now(), c.options.AttachTime)
		return err
	})
	if err == nil && c.options.AttachTime > 0 {
		c.options.After(c.options.AttachTime, c.tick)
	}
	return a, err
}

// Detach begins to detach an interface: its traffic ends at once.
func (c *Cloud) Detach(attachment string) error {
	err := c.change(func(r *Records) error {
		return r.detach(attachment, c.options.Now(), c.options.DetachTime)
	})
	if err == nil {
		c.options.After(c.options.DetachTime, c.tick)
	}
	return err
}

// ModifyInterface changes attributes of an interface.
func (c *Cloud) ModifyInterface(id string, change InterfaceChange) error {
	return c.change(func(r *Records) error { return r.modifyInterface(id, change) })
}

// Assign gives an interface more IPv4 addresses or prefixes; with reassign also those that other
// interfaces have as secondary ones.
func (c *Cloud) Assign(id string, ask Ask, reassign bool) (got Granted, err error) {
	err = c.change(func(r *Records) error {
		got, err = r.assign(id, ask, reassign)
		return err
	})
	return got, err
}

// Unassign takes IPv4 addresses or prefixes from an interface.
func (c *Cloud) Unassign(id string, what Granted) error {
	return c.change(func(r *Records) error { return r.unassign(id, what) })
}

// AssignIPv6 gives an interface more IPv6 addresses or prefixes.
func (c *Cloud) AssignIPv6(id string, ask Ask) (got Granted, err error) {
	err = c.change(func(r *Records) error {
		got, err = r.assignIPv6(id, ask)
		return err
	})
	return got, err
}

// UnassignIPv6 takes IPv6 addresses or prefixes from an interface.
func (c *Cloud) UnassignIPv6(id string, what Granted) error {
	return c.change(func(r *Records) error { return r.unassignIPv6(id, what) })
}

// CreateSubnet makes a subnet.
func (c *Cloud) CreateSubnet(want NewSubnet, tags Tags) (s *Subnet, err error) {
	err = c.change(func(r *Records) error {
		s, err = r.createSubnet(want.Zone, want.CIDR, want.IPv6, tags)
		return err
	})
	return s, err
}

// DeleteSubnet removes a subnet that nothing is in.
func (c *Cloud) DeleteSubnet(id string) error {
	return c.change(func(r *Records) error { return r.deleteSubnet(id) })
}

// Reserve keeps a range of a subnet for one use.
func (c *Cloud) Reserve(subnet string, want Reservation) (k Reservation, err error) {
	err = c.change(func(r *Records) error {
		k, err = r.reserve(subnet, want)
		return err
	})
	return k, err
}

// Unreserve ends a reservation; it returns what it was, and of which subnet.
func (c *Cloud) Unreserve(id string) (k Reservation, subnet string, err error) {
	err = c.change(func(r *Records) error {
		k, subnet, err = r.unreserve(id)
		return err
	})
	return k, subnet, err
}

// Associate adds a range to the VPC.
func (c *Cloud) Associate(cidr netip.Prefix) error {
	return c.change(func(r *Records) error { return r.associate(cidr) })
}

// CreateGroup makes a security group.
func (c *Cloud) CreateGroup(name, description string, tags Tags) (g *SecurityGroup, err error) {
	err = c.change(func(r *Records) error {
		g, err = r.createGroup(name, description, tags)
		return err
	})
	return g, err
}

// DeleteGroup removes a security group that no interface has.
func (c *Cloud) DeleteGroup(id string) error {
	return c.change(func(r *Records) error { return r.deleteGroup(id) })
}

// Authorize adds rules to a security group; it returns them with their identifiers.
func (c *Cloud) Authorize(group string, rules []Rule) (added []Rule, err error) {
	err = c.change(func(r *Records) error {
		added, err = r.authorize(group, rules)
		return err
	})
	return added, err
}

// Revoke takes rules from a security group.
func (c *Cloud) Revoke(group string, rules []Rule) error {
	return c.change(func(r *Records) error { return r.revoke(group, rules) })
}

// Tag adds tags to records.
func (c *Cloud) Tag(ids []string, tags Tags) error {
	return c.change(func(r *Records) error { return r.tag(ids, tags) })
}

// Untag takes tags from records: of a key, or of a key and a value; without any, all.
func (c *Cloud) Untag(ids []string, tags map[string]*string) error {
	return c.change(func(r *Records) error { return r.untag(ids, tags) })
}
