package bpf

import (
	"errors"
	"fmt"
	"io"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// When the programs come to a node whose Services others lead already, unconnected UDP sockets have
// endpoints that conntrack remembers. They are marked as elders (c/socket.c) and keep them. From the
// moment at which sendmsg is seen until all sockets are marked, whoever sends becomes an elder, too:
// so there is no gap between looking and leading.

// sendHooks see datagrams of unconnected sockets.
func sendHooks() []string { return []string{objectProgSendmsg4, objectProgSendmsg6} }

// expectElders has sockets marked from now on, if nothing of ours sees their datagrams yet.
func (m *machine) expectElders() error {
	if m.settler == nil {
		return nil
	}
	for _, program := range sendHooks() {
		if l := m.links[program]; l != nil {
			_, here, err := m.where(l)
			if err != nil {
				return fmt.Errorf("link %s: %w", program, err)
			}
			if here {
				continue
			}
		}
		return m.set(func(s *settings) { s.Settling = 1 })
	}
	return nil
}

// settle marks the sockets that are there, if that is to be done, and lets new ones be led.
func (m *machine) settle() error {
	settling, err := m.settling()
	if err != nil || !settling {
		return err
	}
	if err := m.everywhere(m.settler); err != nil {
		return fmt.Errorf("UDP sockets of before: %w", err)
	}
	return m.set(func(s *settings) { s.Settling = 0 })
}

// settling tells whether sockets are still to be marked. An agent can die amid.
func (m *machine) settling() (bool, error) {
	if m.settler == nil {
		return false, nil
	}
	var s settings
	if err := m.objects.Maps[objectMapSettings].Lookup(uint32(0), &s); err != nil {
		return false, fmt.Errorf("settings: %w", err)
	}
	return s.Settling != 0, nil
}

// iterator returns what runs a program over the sockets of a namespace; nil: the kernel cannot.
func iterator(p *ebpf.Program) *link.Iter {
	if p == nil {
		return nil
	}
	it, err := link.AttachIter(link.IterOptions{Program: p})
	if err != nil {
		return nil
	}
	return it
}

// everywhere runs an iterator once over the sockets of the node's namespace and of each pod's.
func (m *machine) everywhere(it *link.Iter) error {
	here := func() error {
		r, err := it.Open()
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, r)
		return errors.Join(err, r.Close())
	}
	return errors.Join(m.own.Do(here), m.inPods(here))
}
