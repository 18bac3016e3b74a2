// Package bpf is the fast path of the service room: who connects to a Service from this node is led
// to an endpoint when the socket connects, so that packets need no translation. It does what it can
// do exactly as the packet path would, and leaves all else to that: what is not in its maps goes
// through the nftables rules, which know every Service.
package bpf

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/service"
)

// host is the machine: programs, links, namespaces.
type host interface {
	// Tables are the maps of our layout.
	Tables() tables
	// Own makes sure that no other agent writes to the tables.
	Own() error
	// Sum adds up the digests of all that the tables hold, which is expected to be so much.
	Sum(expected usage) (digest, usage, error)
	// Standing tells what leads calls to programs now.
	Standing() (standing, error)
	// Attach makes every hook run our programs, at once for each.
	Attach() error
	// Tidy removes the maps of other layouts.
	Tidy() error
	// EndUDP ends sockets that are connected to endpoints which are no longer kept.
	EndUDP() error
	// OptOut leaves the sockets of these pods alone.
	OptOut(pods []netip.Addr) error
	// KnowPods sees to it that programs know the addresses of this node's pods.
	KnowPods() error
	// Remove takes everything away.
	Remove() error
	Close() error
}

// standing is what stands at the hooks.
type standing int

const (
	ready     standing = iota // our programs run at every hook
	missing                   // some hooks have no program, or one of another build that uses our maps
	strangers                 // some hooks have programs of another layout
)

// Applier leads the sockets of one node. It is safe for concurrent use.
type Applier struct {
	host   host
	tables tables

	mu       sync.Mutex
	want     map[model.Name][]service.Frontend
	rivals   map[address][]model.Name // who wants a frontend, in order, where several do; the first has it
	owners   map[address]model.Name
	complete bool
	applied  bool

	have *image                 // what the tables hold, or nil when that is not known
	left map[address]model.Name // frontends that did not fit
	ends ending
	pods []netip.Addr

	asked  map[memoryKey]bool // who was found to have asked for what is not known
	former map[uint32]address // as the image's: it outlives that
	// forgotten tells that there is nothing to remember, and nothing remembered.
	forgotten bool
}

func newApplier(h host) *Applier {
	return &Applier{host: h, tables: h.Tables(), left: map[address]model.Name{}, former: map[uint32]address{},
		want: map[model.Name][]service.Frontend{}, rivals: map[address][]model.Name{}, owners: map[address]model.Name{}}
}

// Apply makes want the whole of what the node does: it reads the maps and writes the difference.
// Unless complete, frontends that want does not mention stay as they are, and programs of another
// layout stay in force: so a new agent adopts what its predecessor left before it has heard of
// every Service. After an error the next call starts from the maps again.
func (a *Applier) Apply(want map[model.Name][]service.Frontend, complete bool) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.want, a.rivals, a.owners = make(map[model.Name][]service.Frontend, len(want)), map[address][]model.Name{}, make(map[address]model.Name, len(want))
	for name, frontends := range want {
		a.replace(name, frontends)
	}
	a.complete, a.applied = complete, true
	_, err := a.converge()
	return err
}

// Update replaces the frontends of the Services that it names (none: the Service is gone).
// Before the first Apply, and after an error, it does what Apply does with what is known.
func (a *Applier) Update(changed map[model.Name][]service.Frontend) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	touched := map[address]bool{}
	for name, frontends := range changed {
		for _, list := range [][]service.Frontend{a.want[name], frontends} {
			for _, f := range list {
				touched[addressOf(f.Addr, f.Protocol)] = true
			}
		}
		a.replace(name, frontends)
	}
	a.applied = true
	if a.have == nil {
		_, err := a.converge()
		return err
	}
	var c change
	for at := range touched {
		delete(a.left, at)
		if f, wanted := a.wanted(at); wanted {
			a.reach(&c, at, f)
		} else if from := a.have.frontends[at]; from != nil {
			c.turn(at, from, nil)
		}
	}
	_, err := a.write(&c)
	return err
}

// Audit looks at every element and every hook, and repairs what is not as it should be. Before the
// first Apply or Update it does nothing.
func (a *Applier) Audit() (repaired bool, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.applied {
		return false, nil
	}
	if err := a.end(); err != nil {
		return false, err
	}
	if len(a.pods) > 0 {
		if err := a.host.OptOut(a.pods); err != nil {
			return false, fmt.Errorf("socket path: %w", err)
		}
	}
	if a.have != nil && len(a.left) == 0 {
		d, u, err := a.host.Sum(a.have.usage)
		if err != nil {
			return false, fmt.Errorf("socket path: %w", err)
		}
		if d == a.have.digest && u == a.have.usage {
			return a.stand()
		}
	}
	return a.converge()
}

// converge reads the tables, writes the difference to what is wanted, and sees to the hooks.
func (a *Applier) converge() (wrote bool, err error) {
	a.have = nil
	if err := a.host.Own(); err != nil {
		return false, fmt.Errorf("socket path: %w", err)
	}
	have, err := read(a.tables)
	if err != nil {
		return false, fmt.Errorf("socket path: %w", err)
	}
	swept, err := have.sweep(a.tables)
	if err != nil {
		return false, fmt.Errorf("socket path: %w", err)
	}
	a.have, have.former = have, a.former
	var c change
	for at, p := range have.frontends {
		if _, wanted := a.owners[at]; !wanted && (a.complete || p.broken) {
			c.turn(at, p, nil)
		}
	}
	clear(a.left)
	if len(have.frontends) == 0 {
		have.expect(len(a.owners))
		c.expect(len(a.owners))
	}
	for name, list := range a.want {
		for _, f := range list {
			at := addressOf(f.Addr, f.Protocol)
			if len(a.rivals) == 0 || a.owners[at] == name {
				a.reach(&c, at, f)
			}
		}
	}
	wrote, err = a.write(&c)
	if err != nil {
		return false, err
	}
	stood, err := a.stand()
	return swept || wrote || stood, err
}

// stand puts our programs to every hook, unless others stand there that know more than we do yet.
func (a *Applier) stand() (changed bool, err error) {
	now, err := a.host.Standing()
	if err != nil {
		return false, fmt.Errorf("socket path: %w", err)
	}
	if now == missing || now == strangers && a.complete {
		if err := a.host.Attach(); err != nil {
			return false, fmt.Errorf("socket path: %w", err)
		}
		changed, now = true, ready
	}
	if now == ready && a.complete {
		if err := a.host.Tidy(); err != nil {
			return changed, fmt.Errorf("socket path: %w", err)
		}
	}
	return changed, nil
}

// reach adds to c what a frontend needs to become as it is wanted.
func (a *Applier) reach(c *change, at address, f service.Frontend) {
	from := a.have.frontends[at]
	to := &programmed{kept: keeps(f)}
	if choice, ok := here(f); ok {
		to = from.reach(aim(choice.Backends, f.Protocol), f.Affinity > 0, to.kept, a.have.numbers)
	}
	c.turn(at, from, to)
}

// write carries a change out and enters it. After a failure nothing is known.
func (a *Applier) write(c *change) (wrote bool, err error) {
	if !a.have.usage.plus(c).within(a.tables.room()) {
		c = a.fit(c)
	}
	wrote = c.steps() > 0
	c.counters = puts[uint32, uint64]{a.have.numbers.fresh, make([]uint64, len(a.have.numbers.fresh))}
	a.have.numbers.fresh = nil
	if err := c.write(a.tables); err != nil {
		a.have = nil
		return false, fmt.Errorf("socket path: %w", err)
	}
	a.have.become(c)
	if len(c.noKeep) == 0 {
		return wrote, nil
	}
	a.ends.looks = 2
	return wrote, a.end()
}

// fit makes of a change one that fits: frontends are taken in order, and what does not fit is left
// to the packet path, and takes no counter from the others. While it is written, old and new elements are there together.
func (a *Applier) fit(c *change) *change {
	order := make([]int, len(c.becomes.keys))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(i, j int) int { return compareAddresses(c.becomes.keys[i], c.becomes.keys[j]) })
	was := func(at address) []seat {
		if p := a.have.frontends[at]; p != nil && !p.broken {
			return p.slots
		}
		return nil
	}
	for i, to := range c.becomes.values {
		if to != nil {
			a.have.numbers.uncount(to.slots, was(c.becomes.keys[i]))
		}
	}
	out := &change{}
	for _, i := range order {
		at, to := c.becomes.keys[i], c.becomes.values[i]
		from := a.have.frontends[at]
		before := *out
		if to != nil {
			a.have.numbers.count(to.slots)
		}
		out.turn(at, from, to)
		if to == nil || a.have.usage.plus(out).within(a.tables.room()) {
			continue
		}
		a.have.numbers.uncount(to.slots, was(at))
		*out = before
		out.turn(at, from, &programmed{kept: to.kept})
		if !a.have.usage.plus(out).within(a.tables.room()) {
			*out = before
			out.turn(at, from, nil)
		}
		if to.id != 0 {
			a.left[at] = a.owners[at]
		}
	}
	return out
}

// wanted returns what is wanted at an address.
func (a *Applier) wanted(at address) (service.Frontend, bool) {
	owner, ok := a.owners[at]
	if !ok {
		return service.Frontend{}, false
	}
	for _, f := range a.want[owner] {
		if addressOf(f.Addr, f.Protocol) == at {
			return f, true
		}
	}
	return service.Frontend{}, false
}

// replace changes what one Service wants, and who owns its frontends. Two Services can claim an
// address for a moment, while one that was deleted makes room for another.
func (a *Applier) replace(name model.Name, frontends []service.Frontend) {
	for _, f := range a.want[name] {
		a.disown(name, addressOf(f.Addr, f.Protocol))
	}
	delete(a.want, name)
	if len(frontends) == 0 {
		return
	}
	a.want[name] = frontends
	for _, f := range frontends {
		a.own(name, addressOf(f.Addr, f.Protocol))
	}
}

func (a *Applier) own(name model.Name, at address) {
	owner, taken := a.owners[at]
	if !taken {
		a.owners[at] = name
		return
	}
	if owner == name {
		return
	}
	all := a.rivals[at]
	if all == nil {
		all = []model.Name{owner}
	}
	if i, found := slices.BinarySearchFunc(all, name, model.Name.Compare); !found {
		all = slices.Insert(all, i, name)
	}
	a.rivals[at], a.owners[at] = all, all[0]
}

func (a *Applier) disown(name model.Name, at address) {
	all := slices.DeleteFunc(a.rivals[at], func(n model.Name) bool { return n == name })
	switch {
	case len(all) > 1:
		a.rivals[at], a.owners[at] = all, all[0]
	case len(all) == 1:
		delete(a.rivals, at)
		a.owners[at] = all[0]
	case a.owners[at] == name:
		delete(a.owners, at)
	}
}

// OptOut leaves the sockets of these pods alone from now on, and of no others: their connections
// take the packet path. Pods of the host network are not told from the node and are passed over.
func (a *Applier) OptOut(pods []netip.Addr) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.pods = slices.Clone(pods)
	if err := a.host.OptOut(pods); err != nil {
		return fmt.Errorf("socket path: %w", err)
	}
	return nil
}

// Counters returns how often the socket path led to each endpoint that it leads to now, since it
// does. Pairs for which there was no counter left are missing.
func (a *Applier) Counters() (map[service.Pair]service.Traffic, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := map[service.Pair]service.Traffic{}
	if a.have == nil {
		return out, nil
	}
	counts := make([]uint64, a.tables.connections.Max())
	if err := a.tables.connections.Each(func(keys []uint32, values []uint64) {
		for i, k := range keys {
			counts[k] = values[i]
		}
	}); err != nil {
		return nil, fmt.Errorf("socket path: %w", err)
	}
	for at, p := range a.have.frontends {
		for _, s := range p.slots {
			if s.counter != 0 {
				out[service.Pair{Frontend: at.key(), Backend: s.endpoint.addrPort()}] = service.Traffic{Connections: counts[s.counter]}
			}
		}
	}
	return out, nil
}

// Faults lists the Services of which something is left to the packet path because the maps are full.
func (a *Applier) Faults() []service.Fault {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []service.Fault
	for at, name := range a.left {
		out = append(out, service.Fault{Kind: "Service", Object: name, Problem: fmt.Sprintf(
			"the socket path is full: connections to %v/%v take the packet path", at.addrPort(), at.Protocol)})
	}
	slices.SortFunc(out, service.Fault.Compare)
	return out
}

// Remove takes programs and maps away. Connections that were led stay with their endpoints, and new
// ones take the packet path.
func (a *Applier) Remove() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.have, a.applied, a.complete = nil, false, false
	a.ends.stop()
	err := a.host.Own() // what another agent runs is not ours to remove
	if err == nil {
		err = a.host.Remove()
	}
	if err != nil {
		return fmt.Errorf("socket path: %w", err)
	}
	return nil
}

// Close lets go of the kernel and leaves everything in force.
func (a *Applier) Close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ends.stop()
	return a.host.Close()
}
