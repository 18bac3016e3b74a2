package link

import (
	"fmt"
	"slices"
	"sync"

	"github.com/zonewise/zonewise/internal/kernel/netns"
)

// Fake is a machine without a kernel: namespaces, and the devices in them. The zero Fake has none.
type Fake struct {
	// Fail is asked before each operation ("pair", "ensure", "unroute", "delete",
	// "read", "find", "uplink", "list", "addresses", "rules", "add rule", "delete rule", "loosen"); what it
	// returns is the operation's error, and nothing is changed. Nil: nothing fails.
	Fail func(op string) error

	mu   sync.Mutex
	nets map[string]map[string]*end // by path of the namespace, by name of the device
	// rules by path of the namespace, in the order in which they were added
	rules map[string][]Rule
}

type end struct {
	Device
	peerNet, peer string
	loose         bool
}

// FakeNet is as Net.
type FakeNet struct {
	fake *Fake
	path string
}

// Here is the machine's own namespace.
func (f *Fake) Here() *FakeNet { return f.at("") }

// At is the namespace.
func (f *Fake) At(ns *netns.NS) *FakeNet { return f.at(ns.Path()) }

func (f *Fake) at(path string) *FakeNet {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.nets == nil {
		f.nets = map[string]map[string]*end{}
	}
	if f.nets[path] == nil {
		f.nets[path] = map[string]*end{}
	}
	return &FakeNet{fake: f, path: path}
}

// Vanish ends a namespace: its devices go, and the other ends of their wires.
func (f *Fake) Vanish(path string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, e := range f.nets[path] {
		delete(f.nets[e.peerNet], e.peer)
	}
	delete(f.nets, path)
	delete(f.rules, path)
}

// Close is as Net.Close.
func (n *FakeNet) Close() {}

func (n *FakeNet) begin(op string) (done func(), err error) {
	if n.fake.Fail != nil {
		if err := n.fake.Fail(op); err != nil {
			return nil, fmt.Errorf("%s: %w", op, err)
		}
	}
	n.fake.mu.Lock()
	return n.fake.mu.Unlock, nil
}

// Put makes a device appear that nobody asked for.
func (n *FakeNet) Put(d Device) {
	n.fake.mu.Lock()
	defer n.fake.mu.Unlock()
	n.fake.nets[n.path][d.Name] = &end{Device: d}
}

// Pair is as Net.Pair.
func (n *FakeNet) Pair(here, there Device, other *netns.NS) error {
	n.fake.At(other)
	done, err := n.begin("pair")
	if err != nil {
		return err
	}
	defer done()
	near, far := n.fake.nets[n.path], n.fake.nets[other.Path()]
	if near[here.Name] != nil || far[there.Name] != nil {
		return fmt.Errorf("veth %s, %s in %s: %w", here.Name, there.Name, other.Path(), ErrExists)
	}
	near[here.Name] = &end{Device: bare(here), peerNet: other.Path(), peer: there.Name}
	far[there.Name] = &end{Device: bare(there), peerNet: n.path, peer: here.Name}
	return nil
}

func bare(d Device) Device { return Device{Name: d.Name, MAC: d.MAC, MTU: d.MTU} }

// Ensure is as Net.Ensure.
func (n *FakeNet) Ensure(d Device) error {
	done, err := n.begin("ensure")
	if err != nil {
		return err
	}
	defer done()
	have := n.fake.nets[n.path][d.Name]
	if have == nil {
		return fmt.Errorf("device %s: %w", d.Name, ErrNotFound)
	}
	if d.Alias != "" {
		have.Alias = d.Alias
	}
	if d.MTU != 0 {
		have.MTU = d.MTU
	}
	have.Up = have.Up || d.Up
	for _, a := range d.Addresses {
		subnet := Route{To: a.Masked()}
		if fresh := !slices.Contains(have.Addresses, a); fresh && !d.NoSubnetRoutes && !a.IsSingleIP() && a.Addr().Is4() {
			have.Routes = append(have.Routes, subnet)
		}
		if d.NoSubnetRoutes {
			have.Routes = slices.DeleteFunc(have.Routes, same(subnet))
		}
		have.Addresses = append(slices.DeleteFunc(have.Addresses, same(a)), a)
	}
	for _, e := range d.Neighbours {
		old := func(o Neighbour) bool { return o.Address == e.Address }
		have.Neighbours = append(slices.DeleteFunc(have.Neighbours, old), e)
	}
	for _, r := range d.Routes {
		old := func(o Route) bool { return o.To == r.To && o.Table == r.Table }
		for _, other := range n.fake.nets[n.path] { // one route to a prefix in a table
			other.Routes = slices.DeleteFunc(other.Routes, old)
		}
		have.Routes = append(have.Routes, r)
	}
	return nil
}

func same[T comparable](v T) func(T) bool { return func(o T) bool { return o == v } }

// Read is as Net.Read.
func (n *FakeNet) Read(name string) (Device, error) {
	done, err := n.begin("read")
	if err != nil {
		return Device{}, err
	}
	defer done()
	have := n.fake.nets[n.path][name]
	if have == nil {
		return Device{}, fmt.Errorf("device %s: %w", name, ErrNotFound)
	}
	return copied(have.Device), nil
}

// List is as Net.List.
func (n *FakeNet) List() ([]Device, error) {
	done, err := n.begin("list")
	if err != nil {
		return nil, err
	}
	defer done()
	var list []Device
	for _, e := range n.fake.nets[n.path] {
		list = append(list, copied(e.Device))
	}
	slices.SortFunc(list, func(a, b Device) int { return slices.Compare([]byte(a.Name), []byte(b.Name)) })
	return list, nil
}

// Find is as Net.Find.
func (n *FakeNet) Find(name string) (Device, error) {
	done, err := n.begin("find")
	if err != nil {
		return Device{}, err
	}
	defer done()
	e := n.fake.nets[n.path][name]
	if e == nil {
		return Device{}, fmt.Errorf("device %s: %w", name, ErrNotFound)
	}
	return alone(e.Device), nil
}

// Uplink is as Net.Uplink.
func (n *FakeNet) Uplink() (Device, error) {
	done, err := n.begin("uplink")
	if err != nil {
		return Device{}, err
	}
	defer done()
	for _, six := range []bool{false, true} {
		for _, e := range n.fake.nets[n.path] {
			if slices.ContainsFunc(e.Routes, func(r Route) bool { return r.To.Bits() == 0 && r.Table == 0 && r.To.Addr().Is6() == six }) {
				return alone(e.Device), nil
			}
		}
	}
	return Device{}, fmt.Errorf("default route: %w", ErrNotFound)
}

func alone(d Device) Device {
	d.Addresses, d.Neighbours, d.Routes = nil, nil, nil
	return d
}

func copied(d Device) Device {
	d.Addresses, d.Neighbours, d.Routes = slices.Clone(d.Addresses), slices.Clone(d.Neighbours), slices.Clone(d.Routes)
	return d
}

// Unroute is as Net.Unroute.
func (n *FakeNet) Unroute(device string, r Route) error {
	done, err := n.begin("unroute")
	if err != nil {
		return err
	}
	defer done()
	if have := n.fake.nets[n.path][device]; have != nil {
		have.Routes = slices.DeleteFunc(have.Routes, same(r))
	}
	return nil
}

// Delete is as Net.Delete.
func (n *FakeNet) Delete(name string) error {
	done, err := n.begin("delete")
	if err != nil {
		return err
	}
	defer done()
	if e := n.fake.nets[n.path][name]; e != nil {
		delete(n.fake.nets[e.peerNet], e.peer)
		delete(n.fake.nets[n.path], name)
	}
	return nil
}
