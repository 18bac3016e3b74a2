package bpf

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/zonewise/zonewise/internal/kernel/bpf"
	"github.com/zonewise/zonewise/internal/kernel/netns"
)

// EndUDP ends sockets that are connected to endpoints which are no longer kept, in the node's namespace
// and in every pod's.
func (m *machine) EndUDP() error {
	if m.ender == nil {
		return nil
	}
	if err := m.everywhere(m.ender); err != nil {
		return fmt.Errorf("end UDP sockets: %w", err)
	}
	return nil
}

// inPods does something in the network namespace of each pod.
func (m *machine) inPods(f func() error) error {
	if m.options.Namespaces == "" {
		return nil
	}
	return netns.Each(m.options.Namespaces, f)
}

// nodeCookie is by which programs know the node's own namespace.
func (m *machine) nodeCookie() (cookie uint64, err error) {
	err = m.own.Do(func() (err error) {
		cookie, err = bpf.NamespaceCookie()
		return err
	})
	return cookie, err
}

// OptOut leaves the sockets in these pods' namespaces alone, and no others.
func (m *machine) OptOut(pods []netip.Addr) error {
	out := map[uint64]bool{}
	node, err := m.nodeCookie()
	if err != nil {
		return err
	}
	wanted := make(map[netip.Addr]bool, len(pods))
	for _, a := range pods {
		wanted[a.Unmap()] = true
	}
	if len(wanted) > 0 {
		if err := m.inPods(func() error {
			cookie, err := bpf.NamespaceCookie()
			if err != nil || cookie == node {
				return err
			}
			has, err := hasAddress(wanted)
			if has {
				out[cookie] = true
			}
			return err
		}); err != nil {
			return err
		}
	}
	return m.leaveAlone(out)
}

// hasAddress tells whether the thread's namespace has one of the addresses.
func hasAddress(wanted map[netip.Addr]bool) (bool, error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return false, fmt.Errorf("addresses: %w", err)
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && wanted[p.Addr()] {
			return true, nil
		}
	}
	return false, nil
}

// leaveAlone makes the namespaces those that are left alone.
func (m *machine) leaveAlone(cookies map[uint64]bool) error {
	t := m.Tables().optouts
	var gone, added []uint64
	if err := t.Each(func(keys []uint64, _ []uint32) {
		for _, k := range keys {
			if !cookies[k] {
				gone = append(gone, k)
			}
		}
	}); err != nil {
		return err
	}
	for k := range cookies {
		added = append(added, k)
	}
	if err := t.Put(added, make([]uint32, len(added))); err != nil {
		return err
	}
	if err := m.set(func(s *settings) { s.Optouts = uint32(len(cookies)) }); err != nil {
		return err
	}
	return t.Delete(gone)
}
